import Database from 'libsql'
import { mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Library } from '../../../main/app/library.ts'
import { directPictures } from './direct-pictures.ts'
import { recipeChunks, type Recipe } from '../../../main/export/metadata.ts'
import { encodePng } from '../../../main/export/png.ts'
import type { AppEvent } from '../../../preload/contract.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import type { ImageQuery } from '../../../preload/contract/images.ts'

let home: string
let warnings: string[]
let library: Library
let clock: Date
let events: AppEvent[]

const open = () =>
  Library.open({
    folder: join(home, 'pictures'),
    indexFile: join(home, 'library.db'),
    pictures: directPictures,
    emit: (event) => void events.push(event),
    log: { info: () => {}, warn: (message) => void warnings.push(message), error: () => {} },
    now: () => clock,
  })

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'vignette-library-'))
  warnings = []
  events = []
  clock = new Date(2026, 0, 2, 12)
  library = await open()
})
afterEach(async () => {
  await library.close()
  await rm(home, { recursive: true, force: true })
})

function png(prompt: string, seed: number): Uint8Array {
  const request = GenerateRequest.parse({
    prompt,
    seed,
    width: 64,
    height: 64,
    steps: 4,
    sampler: 'euler',
    schedule: 'normal',
    guidanceScale: 3,
  }) as Recipe['request']
  const recipe: Recipe = {
    version: 1,
    app: 'Vignette test',
    engine: { runtime: '1', provider: 'cpu' },
    model: { id: 'tiny', name: 'Tiny', family: 'sd15', sha256: 'ab' },
    request,
    pixelSha256: 'cd',
  }
  return encodePng({ data: new Uint8Array(4 * 4 * 3).fill(seed), width: 4, height: 4 }, recipeChunks(recipe))
}
const add = (prompt: string, seed: number) => library.add(png(prompt, seed), { prompt, seed, width: 4, height: 4 })

describe('saving', () => {
  it('numbers the pictures of a day, also when several come at once, and leaves no other file', async () => {
    const records = await Promise.all([add('a', 7), add('b', 8), add('c', 9)])
    expect(records.map(({ file }) => file.slice(join(home, 'pictures').length))).toEqual([
      '/2026/01/02/00001-7.png',
      '/2026/01/02/00002-8.png',
      '/2026/01/02/00003-9.png',
    ])
    expect(records[0]).toMatchObject({
      id: '2026-01-02-00001-7',
      url: 'vignette-image://2026-01-02-00001-7',
      prompt: 'a',
      seed: 7,
    })
    expect(await readdir(join(home, 'pictures/2026/01/02'))).toHaveLength(3)
    expect(Buffer.from(png('b', 8)).equals(await readFile(records[1].file))).toBe(true)
    clock = new Date(2026, 0, 3, 1)
    expect((await add('d', 1)).id).toBe('2026-01-03-00001-1')
    expect(library.list().map(({ prompt }) => prompt)).toEqual(['d', 'c', 'b', 'a'])
  })

  it('never writes over a picture, whatever lies in the folder', async () => {
    await mkdir(join(home, 'pictures/2026/01/02'), { recursive: true })
    await writeFile(join(home, 'pictures/2026/01/02/00041-3.png'), 'by hand')
    expect((await add('a', 3)).id).toBe('2026-01-02-00042-3')
  })
})

describe('the index', () => {
  it('is made again from the files when it is gone', async () => {
    await add('a barn', 7)
    await add('a boat', 8)
    const before = library.list()
    await library.close()
    await rm(join(home, 'library.db'))
    library = await open()
    expect(library.list()).toEqual([])
    await library.reconcile()
    const times = ({ createdAt: _, ...rest }: (typeof before)[number]) => rest
    expect(
      library
        .list()
        .map(times)
        .sort((a, b) => b.id.localeCompare(a.id)),
    ).toEqual(before.map(times))
  })

  it('is made again when it is damaged, and the damaged one is kept', async () => {
    await add('a barn', 7)
    await library.close()
    await rm(join(home, 'library.db-wal'), { force: true })
    await writeFile(join(home, 'library.db'), Buffer.alloc(8192, 0x61))
    library = await open()
    expect((await library.reconcile()).map(({ prompt }) => prompt)).toEqual(['a barn'])
    expect(await readdir(home)).toContain('library.db.damaged')
    expect(warnings).toHaveLength(1)
  })

  it('drops what was deleted, takes in what was added, and leaves out what is no picture', async () => {
    const gone = await add('gone', 1)
    await rm(gone.file)
    const day = join(home, 'pictures/2025/12/31')
    await mkdir(day, { recursive: true })
    await writeFile(join(day, '00001-5.png'), png('copied here', 5))
    await writeFile(join(day, '00002-6.png'), png('cut off', 6).subarray(0, 60))
    await writeFile(join(day, 'notes.png'), 'not ours')
    const added = await library.reconcile()
    expect(added.map(({ prompt, width, problem }) => [prompt, width, problem !== undefined])).toEqual([
      ['', 0, true], // cut off: listed with what is wrong, so that it can be mended or removed
      ['copied here', 4, false],
    ])
    expect(library.list().map(({ id }) => id)).toEqual(['2025-12-31-00002-6', '2025-12-31-00001-5'])
    expect(library.list()[0].problem).toContain('cut off')
    expect(warnings).toHaveLength(1)
  })

  it('finds files by id only, never by a path', async () => {
    const { id, file } = await add('a', 1)
    expect(library.fileOf(id)).toBe(file)
    for (const bad of ['', '..', '../settings.json', 'unknown', '%2e%2e', file])
      expect(library.fileOf(bad)).toBeUndefined()
  })
})

const prompts = (search: string, more: Partial<ImageQuery> = {}) =>
  library.query({ search, isBin: false, order: 'newest', ...more }, 0, 100).images.map(({ prompt }) => prompt)

describe('searching', () => {
  it('finds by words of the prompt, names, tags and what the person wrote, however they are accented', async () => {
    const barn = await add('a red barn at dusk', 7)
    await add('un café près du port', 8)
    await add('灯台と青い鯨', 9)
    library.marks.tag([barn.id], ['Cover page'], [])
    library.marks.describe(barn.id, { alt: 'sunset over a farm' })
    expect(prompts('bar')).toEqual(['a red barn at dusk'])
    expect(prompts('cafe')).toEqual(['un café près du port'])
    expect(prompts('青い')).toEqual(['灯台と青い鯨'])
    expect(prompts('cover')).toEqual(['a red barn at dusk'])
    expect(prompts('sunset tiny')).toEqual(['a red barn at dusk']) // tiny: the model
    expect(prompts('tag:"cover page" seed:7')).toEqual(['a red barn at dusk'])
    expect(prompts('-red seed:7')).toEqual([])
    expect(prompts('size:64')).toEqual([])
    expect(prompts('size:4x4 model:tiny -cafe -鯨')).toEqual(['a red barn at dusk'])
    library.marks.tag([barn.id], [], ['cover page'])
    expect(prompts('cover')).toEqual([])
  })

  it('counts by day, and pages in one order', async () => {
    for (let i = 0; i < 3; i++) await add(`one ${i}`, i)
    clock = new Date(2026, 0, 3, 9)
    for (let i = 0; i < 2; i++) await add(`two ${i}`, i)
    const query = { search: '', isBin: false, order: 'newest' as const }
    expect(library.days(query)).toEqual([
      { day: '2026-01-03', count: 2 },
      { day: '2026-01-02', count: 3 },
    ])
    const all = library.ids(query, 0, 100)
    expect(library.query(query, 1, 2)).toMatchObject({ total: 5, images: [{ id: all[1] }, { id: all[2] }] })
    expect(library.ids({ ...query, order: 'oldest' }, 0, 100)).toEqual([...all].reverse())
  })
})

describe('what people add', () => {
  it('outlives the index, and a damaged database of its own through its copy', async () => {
    const { id } = await add('a barn', 7)
    const album = library.marks.createAlbum('Sketches')
    library.marks.put(album.id, [id])
    library.marks.star([id], true)
    library.marks.tag([id], ['cover'], [])
    library.marks.describe(id, { alt: 'a barn', note: 'for the third page' })
    const before = { ...library.marks.of(id), albums: library.marks.albums() }
    await library.close()

    await rm(join(home, 'library.db'))
    library = await open()
    await library.reconcile()
    expect({ ...library.marks.of(id), albums: library.marks.albums() }).toEqual(before)
    expect(prompts('is:starred cover')).toEqual(['a barn'])
    await library.close()

    await writeFile(join(home, 'library-own.db'), Buffer.alloc(8192, 0x61))
    for (const rest of ['-wal', '-shm']) await rm(join(home, `library-own.db${rest}`), { force: true })
    library = await open()
    expect({ ...library.marks.of(id), albums: library.marks.albums() }).toEqual(before)
    expect(library.get(id).image).toMatchObject({ isStarred: true, alt: 'a barn' })
    expect(warnings.join()).toContain('last copy')
  })

  it('is taken over when an older index is replaced', async () => {
    const { id } = await add('a barn', 7)
    library.marks.star([id], true)
    await library.close()
    const old = new Database(join(home, 'library.db'))
    old.exec(`PRAGMA user_version = 0; CREATE TABLE images (id TEXT PRIMARY KEY)`)
    old.close()
    library = await open()
    expect(library.list()).toEqual([])
    await library.reconcile()
    expect(library.list()).toMatchObject([{ id, isStarred: true }])
  })
})

describe('the bin', () => {
  it('takes pictures out of every list, and gives them back as they were', async () => {
    const kept = await add('kept', 1)
    const gone = await add('gone', 2)
    const album = library.marks.createAlbum('Sketches')
    library.marks.put(album.id, [kept.id, gone.id])
    library.marks.tag([gone.id], ['cover'], [])
    const bytes = await readFile(gone.file)
    await library.bin([gone.id])
    expect(prompts('')).toEqual(['kept'])
    expect(prompts('', { isBin: true })).toEqual(['gone'])
    expect(library.marks.albums()).toMatchObject([{ pictures: 1 }])
    expect(library.binSize()).toEqual({ count: 1, bytes: bytes.length })
    expect(await readFile(library.fileOf(gone.id)!)).toEqual(bytes)
    expect(events.at(-2)).toEqual({ type: 'images:gone', ids: [gone.id] })
    await library.close()
    library = await open()
    await library.reconcile()
    expect(prompts('')).toEqual(['kept'])

    await library.restore([gone.id])
    expect(await readFile(gone.file)).toEqual(bytes)
    expect(library.marks.of(gone.id)).toMatchObject({ tags: ['cover'], albums: [album.id] })
    expect(prompts('', { album: album.id })).toEqual(['gone', 'kept'])
  })

  it('is the only place pictures are deleted from: all of it on demand, old ones by themselves', async () => {
    const [old, young] = [await add('old', 1), await add('young', 2)]
    await library.bin([old.id])
    clock = new Date(2026, 0, 30)
    await library.bin([young.id])
    clock = new Date(2026, 1, 5) // 34 and 6 days
    expect(await library.emptyBin(30)).toEqual({ count: 1 })
    expect(prompts('', { isBin: true })).toEqual(['young'])
    expect(await library.emptyBin()).toEqual({ count: 1 })
    expect(library.binSize()).toEqual({ count: 0, bytes: 0 })
    expect((await readdir(join(home, 'bin'), { recursive: true })).filter((name) => name.endsWith('.png'))).toEqual([])
  })

  it('never lets a number be used again, so an address stays that of one picture', async () => {
    const { id } = await add('a', 7)
    await library.bin([id])
    await library.emptyBin()
    expect((await add('b', 7)).id).not.toBe(id)
  })

  it('does not restore over a file that lies in its place', async () => {
    const { id, file } = await add('a', 7)
    await library.bin([id])
    await writeFile(file, 'something else')
    await expect(library.restore([id])).rejects.toThrow('Another file lies where this picture belongs')
    expect(await readFile(file, 'utf8')).toBe('something else')
    expect(prompts('', { isBin: true })).toEqual(['a'])
  })

  it('is set right after the application went down between moving a file and saying so', async () => {
    const { id, file } = await add('a', 7)
    await mkdir(join(home, 'bin/pictures/2026/01/02'), { recursive: true })
    await rename(file, join(home, 'bin/pictures/2026/01/02/00001-7.png'))
    await library.reconcile()
    expect(prompts('', { isBin: true })).toEqual(['a'])
    await library.restore([id])
    expect(await readdir(join(home, 'pictures/2026/01/02'))).toEqual(['00001-7.png'])
  })
})

describe('pictures of other programs', () => {
  const a1111 =
    'a boat\nNegative prompt: rain\nSteps: 5, Sampler: Euler, CFG scale: 4, Seed: 6, Size: 64x64, Model: paper'

  it('are copied in with what their files say; the same file is not copied twice', async () => {
    const file = join(home, 'Müller & Söhne (3).PNG')
    const image = { data: new Uint8Array(8 * 8 * 3).fill(90), width: 8, height: 8 }
    await writeFile(file, encodePng(image, [{ keyword: 'parameters', text: a1111 }]))
    const first = await library.import(file)
    expect(first).toMatchObject({
      isNew: true,
      image: { id: 'imported-2026-01-02-00001-muller-sohne-3', prompt: 'a boat', seed: 6, width: 8 },
    })
    expect(first.image.importedFrom).toContain('AUTOMATIC1111')
    expect(await library.import(file)).toMatchObject({ isNew: false, image: { id: first.image.id } })
    expect(await readFile(first.image.file)).toEqual(await readFile(file))
    expect(prompts('is:imported model:paper')).toEqual(['a boat'])
    await library.close()
    await rm(join(home, 'library.db'))
    library = await open()
    await library.reconcile()
    expect(library.list()).toMatchObject([{ id: first.image.id, prompt: 'a boat', seed: 6 }])
  })

  it('are refused when they are no pictures, and nothing is left of them', async () => {
    const file = join(home, 'note.png')
    await writeFile(file, 'hello')
    await expect(library.import(file)).rejects.toMatchObject({ code: 'file-unreadable' })
    expect(library.list()).toEqual([])
  })
})

describe('small versions', () => {
  it('are made when they are wanted, kept beside the library, and made again when they are gone', async () => {
    const { id } = await add('a', 7)
    const thumb = await library.thumbOf(id)
    expect(thumb).toBe(join(home, 'cache/thumbs', `${id}.webp`))
    await rm(thumb!)
    expect(await Promise.all([library.thumbOf(id), library.thumbOf(id)])).toEqual([thumb, thumb])
    expect((await readFile(thumb!)).subarray(8, 12).toString()).toBe('WEBP')
  })

  it('tell when a file is damaged, and when it is whole again', async () => {
    const { id, file } = await add('a', 7)
    const whole = await readFile(file)
    await writeFile(file, whole.subarray(0, whole.length - 20))
    expect(await library.thumbOf(id)).toBeUndefined()
    expect(library.get(id).image.problem).toContain('cannot be read')
    expect(prompts('is:damaged')).toEqual(['a'])
    await expect(library.rebuildThumb(id)).rejects.toMatchObject({ code: 'file-unreadable' })
    await writeFile(file, whole)
    await library.rebuildThumb(id)
    expect(library.get(id).image.problem).toBeUndefined()
    expect(await library.thumbOf(id)).toContain('.webp')
  })
})
