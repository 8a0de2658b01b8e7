import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { engineSettings, firstEngineSettings } from '../../../main/app/engine-settings.ts'
import { openSettings, settingsAsText, settingsFromText } from '../../../main/app/settings.ts'

let folder: string
let file: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-settings-'))
  file = join(folder, 'settings.json')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const write = (value: unknown) => writeFile(file, JSON.stringify(value))

it('opens what the version before wrote', async () => {
  const slot = { id: 'own/ink', name: 'Ink', role: 'style', isOn: true, weight: 0.8, start: 0, end: 1, ramp: 'flat' }
  const form = { prompt: 'a fox', steps: 12, seedMode: 'fixed', seed: 7, slots: [slot] }
  const bounds = { x: 1, y: 2, width: 1200, height: 700, isMaximized: false }
  await write({ version: 1, settings: { isWelcomeDismissed: true, form }, bounds })
  const settings = await openSettings(file)
  expect(settings.get()).toEqual({ isWelcomeDismissed: true, form })
  expect(settings.bounds()).toEqual(bounds)
  expect(settings.dropped).toEqual([])
})

it('leaves out only the values that are damaged', async () => {
  const slot = { id: 'a', name: 'A', role: 'style', isOn: true, weight: 1, start: 0, end: 1, ramp: 'flat' }
  const form = { prompt: 'kept', steps: 'many', slots: [slot, { id: 'broken' }] }
  await write({
    version: 1,
    settings: { theme: 'pink', textScale: 120, memoryPercent: 5000, binDays: 'never', form, later: { a: 1 } },
    bounds: { x: 'left' },
  })
  const settings = await openSettings(file)
  expect(settings.get()).toEqual({ textScale: 120, binDays: 'never', form: { prompt: 'kept', slots: [slot] } })
  expect(settings.bounds()).toBeUndefined()
  expect([...settings.dropped].sort()).toEqual(['form.slots', 'form.steps', 'memoryPercent', 'theme'])
  // What a later version has written is still there for it.
  await settings.change({ theme: 'dark' })
  expect(JSON.parse(await readFile(file, 'utf8')).settings).toMatchObject({ theme: 'dark', later: { a: 1 } })
})

it('opens from the last good copy when the file was cut off', async () => {
  const before = await openSettings(file)
  await before.change({ theme: 'dark' })
  await before.change({ textScale: 130 })
  const text = await readFile(file, 'utf8')
  await writeFile(file, text.slice(0, text.length / 2))
  expect((await openSettings(file)).get()).toEqual({ theme: 'dark' })
})

it('tells of every change, and takes settings back to their defaults', async () => {
  const settings = await openSettings(file)
  const heard: [object, readonly string[]][] = []
  settings.onChange((all, keys) => heard.push([{ ...all }, keys]))
  await settings.change({ theme: 'dark', textScale: 150 })
  await settings.reset(['theme'])
  expect(heard).toEqual([
    [{ theme: 'dark', textScale: 150 }, ['theme', 'textScale']],
    [{ textScale: 150 }, ['theme']],
  ])
  expect((await openSettings(file)).get()).toEqual({ textScale: 150 })
})

it('exports choices and no prompts, and never turns the network on from a file', () => {
  const text = settingsAsText(
    {
      ...{ theme: 'dark', shortcuts: { generate: ['Mod+G'] }, isOnline: true, mayCheckUpdates: true },
      ...{ form: { prompt: 'a secret' }, promptHistory: ['another secret'], places: { a: 1 }, screen: 'gallery' },
    },
    '1.0.0',
  )
  expect(text).not.toContain('secret')
  expect(settingsFromText(text)).toEqual({
    settings: { theme: 'dark', shortcuts: { generate: ['Mod+G'] } },
    ignored: [],
  })
  const hostile = JSON.stringify({
    kind: 'vignette-settings',
    settings: { isOnline: true, form: { prompt: 'x' }, density: 'tiny', textScale: 90, other: 1 },
  })
  const read = settingsFromText(hostile)!
  expect(read.settings).toEqual({ textScale: 90 })
  expect([...read.ignored].sort()).toEqual(['density', 'form', 'isOnline', 'other'])
  for (const wrong of ['', '{', '[]', '{"kind":"other","settings":{}}']) expect(settingsFromText(wrong)).toBeUndefined()
})

it('tells the engine what concerns it, and nothing of what was never chosen', () => {
  expect(firstEngineSettings({})).toEqual({ keepModelMs: 600_000 })
  expect(firstEngineSettings({ device: 'cpu', threads: 3, keepModelMinutes: 0 })).toEqual({
    ...{ device: 'cpu', threads: 3, keepModelMs: 0 },
  })
  expect(engineSettings({ theme: 'dark' }, ['theme'])).toBeUndefined()
  expect(engineSettings({ threads: 'auto', fourBitMode: 'low-memory' }, ['threads', 'fourBitMode'])).toEqual({
    ...{ threads: undefined, mode: 'low-memory' },
  })
  const { memoryBudgetBytes } = engineSettings({ memoryPercent: 50 }, ['memoryPercent'])!
  expect(memoryBudgetBytes).toBeGreaterThan(2 ** 28)
})
