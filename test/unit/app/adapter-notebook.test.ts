import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { AdapterLibrary, adapterPaths, type AdapterLibraryOptions } from '../../../main/app/adapters.ts'
import { adapterReader } from '../../../main/app/adapter-reader.ts'
import { standardShape } from '../../../models/adapters/shape.ts'
import { writeSafetensors } from '../../../models/checkpoint/safetensors.ts'

type Event = Parameters<AdapterLibraryOptions['emit']>[0]

let home: string
let events: Event[]
let hashes: string[]
let library: AdapterLibrary

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'vignette-notebook-'))
  events = []
  hashes = []
  library = await open()
})
afterEach(async () => {
  await library.close()
  await rm(home, { recursive: true, force: true })
})

const pictures = { count: 3, newest: [{ id: 'p', url: 'vignette-image://p', prompt: 'a fox' }] }

function open(part: Partial<AdapterLibraryOptions> = {}): Promise<AdapterLibrary> {
  return AdapterLibrary.open({
    ...adapterPaths(home),
    version: '1',
    starterFolder: join(home, 'starter'),
    shapeOf: async (model) => (model === 'sd15' ? { key: model, shape: standardShape(model) } : undefined),
    emit: (event) => void events.push(event),
    log: { info: () => {}, warn: () => {}, error: (what, error) => expect.fail(`${what}: ${String(error)}`) },
    reader: { ...adapterReader, hash: (file, signal) => (hashes.push(file), adapterReader.hash(file, signal)) },
    picturesWith: () => pictures,
    ...part,
  })
}

/** A LoRA of one layer, filled with one number. */
async function writeLora(name: string, value: number, notes: Record<string, string> = {}): Promise<string> {
  const file = join(home, name)
  await mkdir(join(file, '..'), { recursive: true })
  const layer = 'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k'
  const planned = [
    { name: `${layer}.lora_down.weight`, dtype: 'F32' as const, shape: [2, 768] },
    { name: `${layer}.lora_up.weight`, dtype: 'F32' as const, shape: [1280, 2] },
  ]
  const bytes = (count: number) => new Uint8Array(new Float32Array(count).fill(value).buffer)
  await writeSafetensors(file, planned, ({ shape }) => [bytes(shape[0] * shape[1])], notes)
  return file
}

const listed = async () => {
  await library.scan('sd15') // the one that the last list began, which may have passed a change already
  await library.scan('sd15')
  return library.list('sd15').adapters.sort((a, b) => a.name.localeCompare(b.name))
}
const only = async () => (await listed())[0]
const png = Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), Buffer.alloc(40)])

describe('edits', () => {
  beforeEach(() => writeLora('adapters/ink.safetensors', 1, { 'modelspec.tags': 'brush' }))

  it('stand before what the file says, are undone and redone, and lie in no folder of adapters', async () => {
    const { id } = await only()
    const before = await only()
    const change = {
      ...{ name: 'Wet ink', rating: 4, notes: 'for **skies**', addTags: ['sky', 'Sky'], isFavourite: true },
      ...{ preferredWeight: 0.65, weightRange: [0.4, 0.9] as [number, number], triggers: ['wetink'], isMature: true },
      ...{
        sourceLink: 'https://example.org/ink',
        licence: 'CC BY 4.0',
        familyName: 'Mine',
        addCollections: ['Book 1'],
      },
    }
    const { undoId } = await library.notebook.edit([id], change)
    const fields = Object.entries(change).filter(([key]) => !key.startsWith('add'))
    const after = await only()
    expect(after).toMatchObject({
      ...Object.fromEntries(fields),
      tags: ['sky', 'brush'],
      ownTags: ['sky'],
      collections: ['Book 1'],
    })
    expect(events.at(-1)).toMatchObject({ type: 'adapters:changed' })
    expect((await library.infosOf([id], 'sd15'))[0].preferredWeight).toBe(0.65)
    expect(await readdir(join(home, 'adapters'))).toEqual(['ink.safetensors'])

    const redo = await library.notebook.undoEdit(undoId)
    expect(await only()).toEqual(before)
    await library.notebook.undoEdit(redo.undoId!)
    expect(await only()).toEqual(after)
    expect(await library.notebook.undoEdit('nothing')).toEqual({})

    await library.notebook.edit([id], { name: null, isFavourite: false, removeTags: ['SKY'] })
    expect(await only()).toMatchObject({ name: 'ink', isFavourite: false, tags: ['brush'] })
  })

  it('go with the content wherever the file goes, and are there after a restart', async () => {
    const { id } = await only()
    await library.notebook.edit([id], { rating: 5 })
    await library.close()
    await mkdir(join(home, 'adapters', 'deep'))
    await rename(join(home, 'adapters/ink.safetensors'), join(home, 'adapters/deep/other.safetensors'))
    library = await open()
    expect(await listed()).toMatchObject([{ id: 'own/deep/other.safetensors', folder: 'deep', rating: 5 }])
  })

  it('are written as other programs read them only on request, over nothing that is there', async () => {
    const { id } = await only()
    await library.notebook.edit([id], { triggers: ['wetink'], preferredWeight: 0.65, notes: 'good' })
    const folder = join(home, 'out')
    await mkdir(folder)
    expect(await library.notebook.export([id], folder)).toEqual({ written: 1, skipped: [] })
    const notes = JSON.parse(await readFile(join(folder, 'ink.json'), 'utf8')) as Record<string, unknown>
    expect(notes).toMatchObject({ 'activation text': 'wetink', 'preferred weight': 0.65, notes: 'good' })
    expect(await library.notebook.export([id], folder)).toEqual({ written: 0, skipped: ['ink.json'] })
  })

  it('count what it was used for', async () => {
    const { id } = await only()
    await library.notebook.noteUse([id, 'own/unknown.safetensors'], 1000)
    await library.notebook.noteUse([id], 2000)
    expect(await only()).toMatchObject({ timesUsed: 2, lastUsedAt: 2000 })
  })

  it('know the pictures made with it once its content is known', async () => {
    const { id } = await only()
    expect((await library.notebook.detail(id, 'sd15')).pictures.count).toBe(0)
    await expect.poll(async () => (await only()).hash).toMatch(/^[0-9a-f]{64}$/)
    const { pictures: made, card } = await library.notebook.detail(id, 'sd15')
    expect([made, card.name]).toEqual([pictures, 'ink'])
  })
})

describe('pictures of adapters', () => {
  it('come from beside the file, from a file, from the gallery, or from samples', async () => {
    await writeLora('adapters/ink.safetensors', 1)
    await writeFile(join(home, 'adapters', 'ink.preview.png'), png)
    const { id, thumbUrl } = await only()
    const shown = (url: string | undefined) => library.thumbs.fileOf(url!.replace('vignette-image://', ''))
    expect(shown(thumbUrl)).toBe(join(home, 'adapters', 'ink.preview.png'))

    await writeFile(join(home, 'mine.png'), png)
    await library.notebook.setThumb(id, { file: join(home, 'mine.png') })
    const own = shown((await only()).thumbUrl)!
    expect(own.startsWith(join(home, 'adapter-previews'))).toBe(true)
    expect(await readFile(own)).toEqual(png)

    await library.notebook.setThumb(id, { image: '2026-1' })
    expect(await only()).toMatchObject({ thumbUrl: 'vignette-image://2026-1/thumb', edited: ['thumb'] })
    await library.notebook.setThumb(id, {})
    expect((await only()).thumbUrl).toBe(thumbUrl)

    await library.notebook.noteSample(id, 'a')
    expect(await only()).toMatchObject({ thumbUrl, samples: [{ id: 'a', url: 'vignette-image://a/thumb' }] })
    await rm(join(home, 'adapters', 'ink.preview.png'))
    await listed()
    for (const image of ['b', 'c', 'd']) await library.notebook.noteSample(id, image)
    expect(await only()).toMatchObject({
      thumbUrl: 'vignette-image://b/thumb',
      samples: [{ id: 'b' }, { id: 'c' }, { id: 'd' }],
    })
  })

  it('are pictures, and of a size that a grid can hold', async () => {
    await writeLora('adapters/ink.safetensors', 1)
    const { id } = await only()
    await writeFile(join(home, 'secret.png'), 'a text')
    await writeFile(join(home, 'large.png'), Buffer.concat([png, Buffer.alloc(3 << 20)]))
    await expect(library.notebook.setThumb(id, { file: join(home, 'secret.png') })).rejects.toThrow('not a picture')
    await expect(library.notebook.setThumb(id, { file: join(home, 'large.png') })).rejects.toThrow('too large')
    expect(library.thumbs.fileOf('adapter-000000000000000000000000')).toBeUndefined()
    library = await open({ shrink: async (_, target) => writeFile(target, 'small') })
    await listed()
    await library.notebook.setThumb(id, { file: join(home, 'large.png') })
    const url = (await only()).thumbUrl!.replace('vignette-image://', '')
    expect(await readFile(library.thumbs.fileOf(url)!, 'utf8')).toBe('small')
  })
})

describe('duplicates', () => {
  it('are grouped by a quick look, and by all of their content when asked', async () => {
    await writeLora('adapters/a.safetensors', 1)
    await writeLora('adapters/b.safetensors', 1, { note: 'other header' })
    await writeLora('adapters/c.safetensors', 2)
    const groups = async () => (await listed()).map(({ name, twins }) => [name, twins])
    const [[, word]] = await groups()
    expect(word).toBeDefined()
    expect(await groups()).toEqual([
      ['a', word],
      ['b', word],
      ['c', undefined],
    ])
    expect(hashes).toEqual([])
    await library.notebook.findTwins()
    expect(hashes).toHaveLength(2)
    const [a, b, c] = await listed()
    expect([a.twins, b.twins, c.twins]).toEqual([a.hash, a.hash, undefined])
    expect(events.filter(({ type }) => type === 'adapters:comparing').map((event) => ({ ...event }))).toEqual([
      { type: 'adapters:comparing', done: 0, total: 2 },
      { type: 'adapters:comparing', done: 1, total: 2 },
      { type: 'adapters:comparing', done: 2 },
    ])
    await library.remove(b.id)
    expect((await listed()).map(({ twins }) => twins)).toEqual([undefined, undefined])
  })

  it('can be stopped', async () => {
    await writeLora('adapters/a.safetensors', 1)
    await writeLora('adapters/b.safetensors', 1)
    await listed()
    const finding = library.notebook.findTwins()
    library.notebook.cancelTwins()
    await finding
    expect(events.at(-1)).toMatchObject({ type: 'adapters:comparing' })
    expect((await listed()).filter(({ hash }) => hash)).toHaveLength(0)
  })
})

describe('the bin', () => {
  it('says what is in it and how large it is, and is emptied only on request', async () => {
    const file = await writeLora('adapters/deep/ink.safetensors', 1)
    const { size } = await stat(file)
    await writeFile(join(home, 'adapters', 'deep', 'ink.json'), '{}')
    const { undoId } = await library.remove((await only()).id)
    await utimes(join(home, 'bin', 'adapters', undoId), 50, 50)
    expect(await library.bin()).toEqual({
      items: [{ undoId, name: 'ink', bytes: size + 2, removedAt: 50_000 }],
      bytes: size + 2,
    })
    await library.emptyBin()
    expect(await library.bin()).toEqual({ items: [], bytes: 0 })
  })
})

it('stops reading when it is told to, and goes on from there', async () => {
  for (let i = 0; i < 30; i++) await writeLora(`adapters/${i}.safetensors`, i)
  const scanning = library.scan('sd15')
  library.cancelScan()
  await scanning
  expect(library.list('sd15').isScanning).toBe(true)
  expect(await listed()).toHaveLength(30)
})
