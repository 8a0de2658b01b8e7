import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Library } from '../../../main/app/library.ts'
import { directPictures } from './direct-pictures.ts'
import { recipeChunks, type Recipe } from '../../../main/export/metadata.ts'
import { encodePng } from '../../../main/export/png.ts'
import type { AppEvent } from '../../../preload/contract.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'

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
      ['copied here', 4, false],
      ['', 0, true], // cut off: listed with what is wrong, so that it can be mended or removed
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
