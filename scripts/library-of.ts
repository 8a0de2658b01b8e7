import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Library } from '../main/app/library.ts'
import { openIndex } from '../main/app/library-index.ts'
import { putRow, rowOf } from '../main/app/library-rows.ts'
import type { RecalledRecipe } from '../preload/contract/images.ts'
import type { ImageQuery } from '../preload/contract/images.ts'

// An index of as many pictures as asked for, without their files: how long searching a large library takes.
//   npx tsx scripts/library-of.ts 100000

const log = { info: () => {}, warn: console.warn, error: console.error }
const words =
  'red barn dusk lighthouse keeper whale fox winter tea paper boat river owl mice market umbrella rain bear coat harbour kite'
const vocabulary = words.split(' ')
const adapters = ['ink', 'luna', 'pip', 'fast']

/** Fills the index of a home folder. The same count always gives the same pictures. */
export async function fillIndex(home: string, count: number): Promise<void> {
  const base = join(home, 'library')
  const index = await openIndex({ index: `${base}.db`, own: `${base}-own.db`, copy: `${base}-own.json` }, log)
  index.exec('PRAGMA synchronous = OFF')
  const start = new Date(2024, 0, 1).getTime()
  let state = 1
  const random = (below: number) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % below
  for (let i = 0; i < count; i++) {
    const date = new Date(start + i * 10 * 60_000)
    const pad = (value: number, length = 2) => String(value).padStart(length, '0')
    const day = `${date.getFullYear()}/${pad(date.getMonth() + 1)}/${pad(date.getDate())}`
    const prompt = Array.from({ length: 12 }, () => vocabulary[random(vocabulary.length)]).join(' ')
    const recipe: RecalledRecipe = {
      origin: 'Vignette',
      request: { prompt, seed: i, width: 512, height: i % 3 === 0 ? 768 : 512 },
      model: { name: i % 2 === 0 ? 'Starter' : 'Tiny' },
      adapters: i % 4 === 0 ? [{ name: adapters[random(4)], weight: 1, start: 0, end: 1, ramp: 'flat' }] : [],
    }
    const facts = { recipe, width: 512, height: i % 3 === 0 ? 768 : 512, bytes: 700_000, isBinned: false }
    putRow(index, rowOf(`${day}/${pad(i + 1, 5)}-${i}.png`, { ...facts, modifiedMs: date.getTime() }), recipe)
  }
  index.exec('INSERT INTO own.marks (id, starred_at) SELECT id, created_at FROM pictures WHERE n % 20 = 0')
  index.close()
}

export type SearchTime = { search: string; found: number; ms: number }

/** Each search as the window asks for it: the first part, the count, and the days. The longest of three. */
export async function timeSearches(home: string): Promise<SearchTime[]> {
  const library = await Library.open({
    folder: join(home, 'pictures'),
    indexFile: join(home, 'library.db'),
    pictures: { look: () => Promise.reject(new Error('no files')), thumb: () => Promise.resolve() },
    log,
  })
  const searches = [
    '',
    'lighthouse',
    'lig',
    'red barn',
    'seed:77',
    'is:starred',
    'adapter:ink',
    'model:tiny size:512x768',
  ]
  searches.push('before:2025 owl', '-rain fox', '"red barn"')
  const times = searches.map((search) => {
    const query: ImageQuery = { search, isBin: false, order: 'newest' }
    let most = 0
    let found = 0
    for (let i = 0; i < 3; i++) {
      library.forgetCounts()
      const before = performance.now()
      found = library.query(query, 0, 120).total
      library.days(query)
      most = Math.max(most, performance.now() - before)
    }
    return { search, found, ms: most }
  })
  const far: ImageQuery = { search: '', isBin: false, order: 'newest' }
  const before = performance.now()
  const { images } = library.query(far, Math.max(0, library.query(far, 0, 1).total - 200), 120)
  times.push({ search: '(the far end)', found: images.length, ms: performance.now() - before })
  await library.close()
  return times
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const count = Number(process.argv[2] ?? 100_000)
  const home = await mkdtemp(join(tmpdir(), 'vignette-index-'))
  const before = performance.now()
  await fillIndex(home, count)
  console.log(`${count} pictures indexed in ${Math.round(performance.now() - before)} ms`)
  for (const { search, found, ms } of await timeSearches(home)) {
    console.log(`${ms.toFixed(1).padStart(8)} ms  ${String(found).padStart(7)} found  ${search || '(everything)'}`)
  }
  await rm(home, { recursive: true })
}
