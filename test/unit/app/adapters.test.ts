import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
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
let reads: string[]
let library: AdapterLibrary

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'vignette-adapters-'))
  events = []
  reads = []
  library = await open()
})
afterEach(async () => {
  await library.close()
  await rm(home, { recursive: true, force: true })
})

function open(part: Partial<AdapterLibraryOptions> = {}): Promise<AdapterLibrary> {
  return AdapterLibrary.open({
    ...adapterPaths(home),
    version: '1',
    starterFolder: join(home, 'starter'),
    shapeOf: async (model) =>
      model === 'sdxl' || model === 'sd15' ? { key: model, shape: standardShape(model) } : undefined,
    emit: (event) => void events.push(event),
    log: { info: () => {}, warn: () => {}, error: (what, error) => expect.fail(`${what}: ${String(error)}`) },
    reader: { ...adapterReader, inspect: (file, against) => (reads.push(file), adapterReader.inspect(file, against)) },
    ...part,
  })
}

/** A LoRA of one layer that every SD 1.x has, filled with one number. */
async function writeLora(
  file: string,
  value: number,
  notes: Record<string, string> = {},
  width = 768,
): Promise<string> {
  await mkdir(join(file, '..'), { recursive: true })
  const layer = 'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k'
  const planned = [
    { name: `${layer}.lora_down.weight`, dtype: 'F32' as const, shape: [2, width] },
    { name: `${layer}.lora_up.weight`, dtype: 'F32' as const, shape: [1280, 2] },
  ]
  const bytes = (count: number) => new Uint8Array(new Float32Array(count).fill(value).buffer)
  await writeSafetensors(file, planned, ({ shape }) => [bytes(shape[0] * shape[1])], notes)
  return file
}

const listed = async (model = 'sd15') => {
  await library.scan(model) // the one that the last list began, which may have passed a change already
  await library.scan(model)
  return library.list(model).adapters.sort((a, b) => (a.id < b.id ? -1 : 1))
}
const tree = async (folder: string) => (await readdir(folder, { recursive: true }).catch(() => [])).sort()

describe('adding', () => {
  it('tells what a file is before anything is copied, then copies it with what lies beside it', async () => {
    const file = await writeLora(join(home, 'downloads', 'ink.safetensors'), 1)
    await writeFile(join(home, 'downloads', 'ink.json'), '{"activation text": "inkstyle", "preferred weight": 0.6}')
    const [candidate] = await library.inspect([file], 'sd15')
    expect(candidate).toMatchObject({
      card: {
        name: 'ink',
        kinds: ['LoRA'],
        matched: 2,
        total: 2,
        triggers: ['inkstyle'],
        preferredWeight: 0.6,
        verdict: { fit: 'fits' },
      },
    })
    expect(candidate.known).toBeUndefined()
    expect(await tree(join(home, 'adapters'))).toEqual([])
    const { adapter, isNew } = await library.add(file, 'sd15', false)
    expect(isNew).toBe(true)
    expect(adapter).toMatchObject({ id: 'own/ink.safetensors', place: 'own', preferredWeight: 0.6 })
    expect(await tree(join(home, 'adapters'))).toEqual(['ink.json', 'ink.safetensors'])
    expect(await readFile(await library.fileOf(adapter.id))).toEqual(await readFile(file))
    expect(await listed()).toEqual([adapter])
    expect(events.filter(({ type }) => type === 'adapters:copying').at(-1)).toMatchObject({
      doneBytes: (await stat(file)).size,
    })
  })

  it('knows the same tensors under another name and with other notes', async () => {
    const first = await writeLora(join(home, 'a.safetensors'), 1)
    const again = await writeLora(join(home, 'b.safetensors'), 1, { ss_output_name: 'other' })
    const other = await writeLora(join(home, 'c.safetensors'), 2)
    const { adapter } = await library.add(first, 'sd15', false)
    expect((await library.inspect([again], 'sd15'))[0].known).toEqual({ id: adapter.id, name: 'a' })
    expect((await library.inspect([other], 'sd15'))[0].known).toBeUndefined()
    expect(await library.add(again, 'sd15', false)).toMatchObject({ adapter: { id: adapter.id }, isNew: false })
    expect((await library.add(other, 'sd15', false)).isNew).toBe(true)
    expect(await tree(join(home, 'adapters'))).toEqual(['a.safetensors', 'c.safetensors'])
  })

  it('gives the second file of a name another one, also when both come at once', async () => {
    const one = await writeLora(join(home, 'x', 'ink.safetensors'), 1)
    const two = await writeLora(join(home, 'y', 'ink.safetensors'), 2)
    const copyOfOne = await writeLora(join(home, 'z', 'ink.safetensors'), 1)
    const added = await Promise.all([one, two, copyOfOne].map((file) => library.add(file, 'sd15', false)))
    expect(added.map(({ adapter, isNew }) => [adapter.id, isNew])).toEqual([
      ['own/ink.safetensors', true],
      ['own/ink-2.safetensors', true],
      ['own/ink.safetensors', false],
    ])
  })

  it('leaves nothing behind when it is stopped, or the disk has no room', async () => {
    const file = await writeLora(join(home, 'ink.safetensors'), 1)
    const adding = library.add(file, 'sd15', false)
    library.cancel(file)
    await expect(adding).rejects.toThrow('you stopped it')
    library = await open({ freeBytes: async () => 1000 })
    await expect(library.add(file, 'sd15', false)).rejects.toMatchObject({ code: 'disk-full' })
    expect(await tree(join(home, 'adapters'))).toEqual([])
  })

  it('judges several files, of which the bad ones have their reasons', async () => {
    const good = await writeLora(join(home, 'good.safetensors'), 1)
    const cut = join(home, 'cut.safetensors')
    await writeFile(cut, (await readFile(good)).subarray(0, 6000))
    const pickle = join(home, 'old.pt')
    await writeFile(pickle, Buffer.from([0x80, 2, 0x7d, 0x71, 0, 0x2e]))
    const text = join(home, 'notes.txt')
    await writeFile(text, 'buy milk')
    const candidates = await library.inspect([cut, pickle, text, join(home, 'nowhere'), good], 'sd15')
    expect(candidates.map(({ card, error }) => [card.verdict.fit, error?.code])).toEqual([
      ['refused', 'file-unreadable'],
      ['refused', 'checkpoint-unsafe'],
      ['refused', 'file-unreadable'],
      ['refused', 'file-unreadable'],
      ['fits', undefined],
    ])
    await expect(library.add(pickle, 'sd15', false)).rejects.toMatchObject({ code: 'checkpoint-unsafe' })
    expect(await tree(join(home, 'adapters'))).toEqual([])
  })

  it('keeps one of another family for other models', async () => {
    const file = await writeLora(join(home, 'xl.safetensors'), 1, {}, 2048)
    expect((await library.inspect([file], 'sd15'))[0].card.verdict).toMatchObject({ fit: 'wrong-family' })
    const { adapter } = await library.add(file, 'sd15', false)
    expect(adapter.verdict.fit).toBe('wrong-family')
    expect((await listed('sdxl'))[0]).toMatchObject({ id: adapter.id, familyName: adapter.familyName })
  })
})

describe('the list', () => {
  it('has the starter adapters and linked folders, in which nothing ever changes', async () => {
    await writeLora(join(home, 'starter', 'warm.safetensors'), 1)
    const folder = join(home, 'loras')
    await writeLora(join(folder, 'deep', 'ink.safetensors'), 2)
    await writeFile(join(folder, 'deep', 'ink.civitai.info'), '{"trainedWords": ["inkstyle"]}')
    await writeFile(join(folder, 'readme.md'), 'x')
    const before = await facts(folder)
    await library.link(folder)
    const all = await listed()
    expect(all.map(({ place, name, triggers }) => [place, name, triggers])).toEqual([
      ['linked', 'ink', ['inkstyle']],
      ['starter', 'warm', []],
    ])
    await expect(library.remove(all[1].id)).rejects.toThrow('comes with Vignette')
    await expect(library.remove(all[0].id)).rejects.toThrow('linked folder')
    expect(await facts(folder)).toEqual(before)
    library = await open()
    expect(library.links).toEqual([folder])
    await library.unlink(folder)
    expect((await listed()).map(({ place }) => place)).toEqual(['starter'])
  })

  it('links a single file in place', async () => {
    const file = await writeLora(join(home, 'downloads', 'ink.safetensors'), 1)
    const { adapter } = await library.add(file, 'sd15', true)
    expect(adapter.place).toBe('linked')
    expect(await library.fileOf(adapter.id)).toBe(file)
    expect(await tree(join(home, 'adapters'))).toEqual([])
    const { undoId } = await library.remove(adapter.id)
    expect(await listed()).toEqual([])
    expect(await readFile(file)).toBeDefined()
    expect((await library.undo(undoId, 'sd15'))?.id).toBe(adapter.id)
  })

  it('reads a header once, and again only when the file or what lies beside it has changed', async () => {
    const file = await writeLora(join(home, 'adapters', 'ink.safetensors'), 1)
    await listed()
    await library.close()
    reads = []
    library = await open()
    expect(await listed()).toHaveLength(1)
    expect(reads).toEqual([])
    await writeFile(join(home, 'adapters', 'ink.json'), '{"activation text": "inkstyle"}')
    expect((await listed())[0].triggers).toEqual(['inkstyle'])
    expect(reads).toEqual([file])
    await library.close()
    library = await open({ version: '2' })
    await listed()
    expect(reads).toEqual([file, file])
  })

  it('says what is missing, keeps what was said of it, and takes it back when it is located', async () => {
    const file = await writeLora(join(home, 'adapters', 'people', 'ink.safetensors'), 1)
    const [{ id }] = await listed()
    await library.notebook.edit([id], { notes: 'too strong at 1' })
    const elsewhere = join(home, 'old-disk', 'renamed.safetensors')
    await cp(file, elsewhere)
    await rm(file)
    events = []
    expect(await listed()).toMatchObject([{ id, isMissing: true, notes: 'too strong at 1' }])
    expect(events).toContainEqual(expect.objectContaining({ gone: [], changed: [expect.objectContaining({ id })] }))
    await expect(library.fileOf(id)).rejects.toMatchObject({ code: 'file-unreadable' })
    const other = await writeLora(join(home, 'other.safetensors'), 2)
    await expect(library.locate(id, other, 'sd15')).rejects.toThrow('another content')
    expect(await library.locate(id, elsewhere, 'sd15')).toMatchObject({ id, notes: 'too strong at 1' })
    expect((await listed())[0].isMissing).toBeUndefined()
    await rm(file)
    await listed()
    await library.forget([id])
    expect(await listed()).toEqual([])
  })

  it('does not call missing what was only moved, and links what is found again for a linked folder', async () => {
    const file = await writeLora(join(home, 'adapters', 'ink.safetensors'), 1)
    const linked = await writeLora(join(home, 'loras', 'paper.safetensors'), 2)
    await library.link(join(home, 'loras'))
    const [paperId, inkId] = (await listed()).map(({ id }) => id)
    await library.notebook.edit([inkId, paperId], { rating: 4 })
    await mkdir(join(home, 'adapters', 'new'))
    await rename(file, join(home, 'adapters', 'new', 'wet.safetensors'))
    const away = join(home, 'away.safetensors')
    await rename(linked, away)
    expect((await listed()).map(({ id, rating, isMissing }) => [id, rating, isMissing])).toEqual([
      [paperId, 4, true],
      ['own/new/wet.safetensors', 4, undefined],
    ])
    const adapter = await library.locate(paperId, away, 'sd15')
    expect([adapter.place, adapter.rating, await library.fileOf(adapter.id)]).toEqual(['linked', 4, away])
    expect(await tree(join(home, 'loras'))).toEqual([])
    expect((await listed()).filter(({ isMissing }) => isMissing)).toEqual([])
  })

  it('does not follow an id out of its folder', async () => {
    await writeLora(join(home, 'secret.safetensors'), 1)
    for (const id of [
      'own/../secret.safetensors',
      'own//etc/passwd',
      'nowhere/x.safetensors',
      'secret.safetensors',
      '',
    ]) {
      await expect(library.fileOf(id), id).rejects.toMatchObject({ code: 'file-unreadable' })
    }
  })

  it('takes a file that is a link to another for that other', async () => {
    const file = await writeLora(join(home, 'adapters', 'ink.safetensors'), 1)
    await symlink(file, join(home, 'again.safetensors'))
    const [adapter] = await listed()
    expect(await library.add(join(home, 'again.safetensors'), 'sd15', false)).toEqual({ adapter, isNew: false })
  })
})

describe('removing', () => {
  it('moves the file to the bin with its notes, and undo brings both back', async () => {
    const file = await writeLora(join(home, 'adapters', 'people', 'mira.safetensors'), 1)
    await writeFile(join(home, 'adapters', 'people', 'mira.json'), '{"activation text": "mira"}')
    const [adapter] = await listed()
    const before = await readFile(file)
    const { undoId } = await library.remove(adapter.id)
    expect(await listed()).toEqual([])
    expect(await tree(join(home, 'adapters'))).toEqual(['people'])
    expect(await library.undo(undoId, 'sd15')).toEqual(adapter)
    expect(await readFile(file)).toEqual(before)
    expect(await tree(join(home, 'bin', 'adapters'))).toEqual([])
    expect(await library.undo(undoId, 'sd15')).toBeUndefined()
    expect(await library.undo('../../adapters', 'sd15')).toBeUndefined()
  })

  it('takes another name when its own is taken by the time it comes back', async () => {
    await writeLora(join(home, 'adapters', 'ink.safetensors'), 1)
    const [{ id }] = await listed()
    const { undoId } = await library.remove(id)
    await cp(await writeLora(join(home, 'other.safetensors'), 2), join(home, 'adapters', 'ink.safetensors'))
    expect((await library.undo(undoId, 'sd15'))?.id).toBe('own/ink-2.safetensors')
  })
})

async function facts(folder: string): Promise<unknown[]> {
  const names = await tree(folder)
  return Promise.all(
    names.map(async (name) => [name, (await stat(join(folder, name))).mtimeMs, (await stat(join(folder, name))).size]),
  )
}
