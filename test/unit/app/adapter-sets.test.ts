import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { AdapterSets } from '../../../main/app/adapter-sets.ts'
import { encodePng } from '../../../main/export/png.ts'
import { recipeChunks, type Recipe } from '../../../main/export/metadata.ts'
import type { AdapterRecord } from '../../../preload/contract/adapters.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import type { AdapterSet } from '../../../preload/contract/sets.ts'
import type { StudioSlot } from '../../../preload/contract/settings.ts'
import { adapterRecord as record } from './adapter-record.ts'

const slot = (id: string, part: Partial<StudioSlot> = {}): StudioSlot => ({
  ...{ id, name: id.slice(4), role: 'style', isOn: true, weight: 0.8, start: 0, end: 1, ramp: 'flat' },
  ...part,
})
const hash = (letter: string) => letter.repeat(64)

let folder: string
let told: AdapterSet[][]
/** The library: records, and the hash of each. */
let shelf: Map<AdapterRecord, string>
const adapters = {
  list: () => ({ adapters: [...shelf.keys()], isScanning: false, links: [], roots: [] }),
  hashOf: async (id: string) => {
    const found = [...shelf].find(([one]) => one.id === id)
    if (!found) throw new Error('gone')
    return found[1]
  },
}
const open = () => AdapterSets.open({ file: join(folder, 'sets.json'), adapters, onChange: (all) => told.push(all) })

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-sets-'))
  told = []
  shelf = new Map([
    [record('own/ink', { triggers: ['inkstyle'] }), hash('a')],
    [record('own/glow'), hash('b')],
  ])
})
afterEach(() => rm(folder, { recursive: true, force: true }))

describe('a set', () => {
  it('keeps weights, timing, words and what finds the files again, and is there after a restart', async () => {
    const sets = await open()
    const strip = [
      slot('own/ink', {
        weight: -0.4,
        start: 0.25,
        ramp: [
          [0, 0],
          [1, 1],
        ],
      }),
      slot('own/glow', { isOn: false, textWeight: 0.2 }),
    ]
    const saved = await sets.save('Wet ink', strip)
    expect(saved.slots[0]).toMatchObject({ fileName: 'ink.safetensors', sha256: hash('a'), triggers: ['inkstyle'] })
    expect(told).toEqual([[saved]])
    const again = await open()
    expect(again.list()).toEqual([saved])
    expect(await again.slots(saved.id, 'm')).toEqual({ slots: strip, missing: [] })
  })

  it('finds an adapter that was renamed by its content, and puts nothing in the place of one that is gone', async () => {
    const sets = await open()
    const { id } = await sets.save('Wet ink', [slot('own/ink'), slot('own/glow')])
    // Another file now has the name of the first, and the first has a new one.
    shelf = new Map([
      [record('own/ink', { name: 'Impostor' }), hash('c')],
      [record('own/brush', { fileName: 'brush.safetensors' }), hash('a')],
    ])
    const { slots, missing } = await sets.slots(id, 'm')
    expect(slots).toMatchObject([{ id: 'own/brush', name: 'brush' }])
    expect(missing).toEqual([{ name: 'glow', sha256: hash('b') }])
  })

  it('goes through one file to another computer, without ids and paths of this one', async () => {
    const sets = await open()
    const saved = await sets.save('Wet ink', [slot('own/ink', { end: 0.5 })])
    const file = join(folder, 'wet.vgset')
    await sets.write(saved.id, file)
    expect(await readFile(file, 'utf8')).not.toContain('own/')
    const read = await sets.read(file)
    expect(read.id).not.toBe(saved.id)
    expect(read).toMatchObject({ name: 'Wet ink', slots: [{ name: 'ink', end: 0.5, sha256: hash('a') }] })
    expect((await sets.slots(read.id, 'm')).slots).toEqual([slot('own/ink', { end: 0.5 })])
  })

  it('is renamed, replaced, removed and brought back', async () => {
    const sets = await open()
    const { id } = await sets.save('One', [slot('own/ink')])
    await sets.save('Two', [slot('own/glow')], id)
    await sets.rename(id, 'Three')
    expect(sets.list()).toMatchObject([{ id, name: 'Three', slots: [{ name: 'glow' }] }])
    const removed = await sets.remove(id)
    expect(sets.list()).toEqual([])
    await sets.restore(removed)
    expect((await open()).list()).toEqual([removed])
    await expect(sets.rename('x', 'y')).rejects.toThrow('not there any more')
  })

  it('refuses files that are none, and says so', async () => {
    const sets = await open()
    const file = join(folder, 'no.vgset')
    for (const content of [
      '{',
      '{}',
      JSON.stringify({ kind: 'vignette-adapter-set', version: 1, name: 'x', slots: [] }),
    ]) {
      await writeFile(file, content)
      await expect(sets.read(file)).rejects.toMatchObject({ code: 'file-unreadable' })
    }
    expect(sets.list()).toEqual([])
  })

  it('is read out of a picture', async () => {
    const request = { ...GenerateRequest.parse({ prompt: 'a fox' }), width: 64, height: 64, steps: 4, seed: 1 }
    const reference = { sha256: hash('b'), start: 0, end: 0.5, ramp: 'flat' as const, matched: 1, total: 1 }
    const recipe: Recipe = {
      version: 1,
      app: 'Vignette',
      engine: { runtime: '1', provider: 'cpu' },
      model: { id: 'm', name: 'M', family: 'sd15', sha256: hash('d') },
      request: { ...request, sampler: 'euler', schedule: 'normal', guidanceScale: 5 },
      adapters: [
        { ...reference, name: 'old-name.safetensors', weight: 0.7, textWeight: 0.7 },
        { ...reference, name: 'lost.safetensors', sha256: hash('e'), weight: 1, textWeight: 0.5 },
        { ...reference, name: 'agd.safetensors', weight: 1, textWeight: 1, isGuidance: true },
      ],
      pixelSha256: hash('f'),
    }
    const file = join(folder, 'p.png')
    await writeFile(file, encodePng({ width: 1, height: 1, data: new Uint8Array(3) }, recipeChunks(recipe)))
    const sets = await open()
    const set = await sets.readPicture(file, 'From a picture', 'm')
    expect(await sets.slots(set.id, 'm')).toEqual({
      slots: [slot('own/glow', { weight: 0.7, end: 0.5 })],
      missing: [{ name: 'lost', sha256: hash('e') }],
    })
  })
})
