import { expect, it } from 'vitest'
import { about, artOf } from '../../../main/app/about.ts'
import { diagnosticsText, withoutPaths } from '../../../main/app/diagnostics.ts'

const home = '/home/ada/.local/share/vignette'
const parts = {
  about: about({
    ...{ version: '1.0.0', home, runtime: [{ name: 'Electron', version: '45.0.0' }] },
    battery: { isThere: false },
  }),
  device: { provider: 'cpu' as const, name: 'Xeon', reason: 'It was chosen.' },
  settings: {
    ...{ theme: 'dark' as const, updateAddress: 'https://ada.example/feed' },
    ...{ form: { prompt: 'a lighthouse in fog' }, promptHistory: ['a lighthouse in fog at night'] },
  },
  counts: { pictures: 3 },
  log: `2026-11-25 warn cannot read ${home}/pictures/2026/11/25/00001-7.png: a lighthouse in fog at night\n`,
  secrets: ['a lighthouse in fog', 'a lighthouse in fog at night'],
}

it('says what helps, and holds neither prompts nor places of the person', () => {
  const text = diagnosticsText({ ...parts, hasPaths: false })
  expect(text).toContain('Electron: 45.0.0')
  expect(text).toContain('device: cpu, Xeon')
  expect(text).toContain('theme: "dark"')
  expect(text).toContain('pictures: 3')
  expect(text).toContain('warn cannot read <path>')
  for (const secret of ['lighthouse', 'at night', home, 'ada', '/2026/']) expect(text).not.toContain(secret)
})

it('holds places only when they are asked for, and prompts never', () => {
  const text = diagnosticsText({ ...parts, hasPaths: true })
  expect(text).toContain(`${home}/pictures`)
  expect(text).not.toContain('lighthouse')
})

it.each([
  ['open "/Users/ada/Pictures/my cat.png" failed', /ada|Pictures/],
  ['ENOENT: C:\\Users\\ada\\AppData\\file.txt', /ada|AppData/],
  ['\\\\server\\share\\private', /server|private/],
  ['at run (file:///opt/private/app.js:3:4)', /private/],
  ['(/mnt/disk/private.safetensors)', /disk|private/],
  ['ada uses ada-laptop', /ada/],
])('takes places and names out of %s', (line, secret) => {
  expect(withoutPaths(line, home, { folders: ['/home/ada'], names: ['ada-laptop', 'ada'] })).not.toMatch(secret)
})

it('leaves words that only look like places', () => {
  const line = '12/25 jobs at 3.5 s/step, https://example.org/a'
  expect(withoutPaths(line, home, { folders: ['/home/ada'], names: [] })).toBe(line)
})

it('names the author and licence of each set of art', () => {
  expect(parts.about.art.map(({ set }) => set)).toContain('Noto Emoji')
  for (const { author, licence, link } of parts.about.art) {
    expect(author.length).toBeGreaterThan(2)
    expect(licence).toMatch(/MIT|Apache|CC BY/)
    expect(link).toMatch(/^https:\/\//)
  }
  expect(artOf('| a | b |\n|---|---|')).toEqual([])
  expect(parts.about.notice).toContain('SIL Open Font License')
})
