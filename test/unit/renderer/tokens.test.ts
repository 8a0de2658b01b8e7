import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

// Contrast by WCAG 2.2: text 4.5:1, borders of controls and the focus ring 3:1, in all themes; in high contrast
// 7:1 and 4.5:1.
const css = readFileSync(new URL('../../../renderer/styles/tokens.css', import.meta.url), 'utf8')
const themes = [':root {', "[data-theme='dark'] {", "[data-theme='contrast'] {"].map((head) => {
  const at = css.indexOf(head)
  const block = css.slice(at, css.indexOf('\n}\n', at))
  return Object.fromEntries([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6})/g)].map(([, name, value]) => [name, value]))
})

function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y)
  return (high + 0.05) / (low + 0.05)
}

const grounds = ['ground', 'canvas', 'panel', 'raised', 'sunken']
const text = [
  ...grounds.flatMap((ground) => [
    ['ink', ground],
    ['ink-soft', ground],
  ]),
  ['accent-ink', 'accent'],
  ['accent-ink', 'accent-strong'],
  ['ink', 'accent-soft'],
  ['ink', 'danger-soft'],
  ['danger', 'panel'],
  ...['good', 'warn', 'danger'].flatMap((colour) => ['panel', 'raised'].map((ground) => [colour, ground])),
]
const parts = [
  ...['panel', 'raised', 'sunken'].map((ground) => ['line-strong', ground]),
  ...grounds.map((ground) => ['focus', ground]),
  ['accent', 'panel'],
  ['accent', 'canvas'],
]

const colours = Object.keys(themes[0])

// The theme "system" is one of the three: see appearance.test.ts.
describe.each([
  ['light', themes[0], 4.5, 3],
  ['dark', themes[1], 4.5, 3],
  ['high contrast', themes[2], 7, 4.5],
] as const)('the %s theme', (_, theme, least, leastOfParts) => {
  it('has a colour for everything', () => expect(Object.keys(theme).sort()).toEqual([...colours].sort()))
  it.each(text)('%s on %s can be read', (front, back) =>
    expect(contrast(theme[front], theme[back])).toBeGreaterThanOrEqual(least),
  )
  it.each(parts)('%s on %s can be seen', (front, back) =>
    expect(contrast(theme[front], theme[back])).toBeGreaterThanOrEqual(leastOfParts),
  )
})

it('leaves every colour to the system where the person has set colours of their own', () => {
  const forced = css.slice(css.indexOf('@media (forced-colors: active)'))
  for (const name of colours) expect(forced).toMatch(new RegExp(`--${name}: \\w+;`))
})
