import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

// Contrast by WCAG 2.2: text 4.5:1, borders of controls and the focus ring 3:1, in both themes.
const css = readFileSync(new URL('../../../renderer/styles/tokens.css', import.meta.url), 'utf8')
const [light, dark] = [css.indexOf(':root {'), css.indexOf('prefers-color-scheme: dark')].map((at) => {
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

describe.each([
  ['light', light],
  ['dark', dark],
])('the %s theme', (_, theme) => {
  it.each(text)('%s on %s can be read', (front, back) =>
    expect(contrast(theme[front], theme[back])).toBeGreaterThanOrEqual(4.5),
  )
  it.each(parts)('%s on %s can be seen', (front, back) =>
    expect(contrast(theme[front], theme[back])).toBeGreaterThanOrEqual(3),
  )
})
