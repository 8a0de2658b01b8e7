import type { AdapterRecord, AdapterRoleName } from '../../preload/contract/adapters.ts'

// Finding adapters among thousands: what the library screen and the Studio's picker share.

/** What is asked for. Absent means any. */
export type AdapterFilters = {
  text: string
  /** Only what can be used with the current model. */
  isFitting: boolean
  family?: string
  kind?: string
  role?: AdapterRoleName
  collection?: string
  tag?: string
  /** One of the ready-made views. */
  view?: AdapterView
}

export const adapterViews = ['in-use', 'favourites', 'unused', 'missing', 'duplicates'] as const
export type AdapterView = (typeof adapterViews)[number]

export const adapterSorts = ['name', 'newest', 'last-used', 'most-used', 'rating', 'size'] as const
export type AdapterSort = (typeof adapterSorts)[number]

export type AdapterFinding = {
  shown: AdapterRecord[]
  /** Found, and left out only because they do not fit the model. */
  hidden: number
}

/** Words of records are put together once: typing looks through thousands of them with every letter. */
const heaps = new WeakMap<AdapterRecord, string>()

function heapOf(record: AdapterRecord): string {
  const known = heaps.get(record)
  if (known !== undefined) return known
  const {
    name,
    fileName,
    triggers,
    tags,
    collections,
    folder,
    notes = '',
    familyName = '',
    kinds,
    author = '',
  } = record
  const heap = [name, fileName, folder, notes, familyName, author, ...triggers, ...tags, ...collections, ...kinds]
    .join('\n')
    .toLowerCase()
  heaps.set(record, heap)
  return heap
}

/** Every word stands somewhere in the record; one of hexadecimal digits may be the beginning of its hash. */
export function matchesText(record: AdapterRecord, words: readonly string[]): boolean {
  const heap = heapOf(record)
  return words.every(
    (word) => heap.includes(word) || (record.hash !== undefined && hashDigits.test(word) && isHash(record.hash, word)),
  )
}

const hashDigits = /^(hash:|0x)?[0-9a-f]{4,64}$/
const isHash = (hash: string, word: string) => hash.startsWith(word.replace(/^(hash:|0x)/, ''))

export const wordsOf = (text: string): string[] => text.toLowerCase().split(/\s+/).filter(Boolean)

/** It is there, and something of it fits the model. */
export function canUse({ verdict, isMissing }: Pick<AdapterRecord, 'verdict'> & { isMissing?: boolean }): boolean {
  return !isMissing && (verdict.fit === 'fits' || verdict.fit === 'partly')
}

/** `isUsed`: it has a slot in the Studio. What has one is never left out for not fitting. */
export function findAdapters(
  records: readonly AdapterRecord[],
  filters: AdapterFilters,
  isUsed: (id: string) => boolean,
): AdapterFinding {
  const words = wordsOf(filters.text)
  const { view } = filters
  const found = records.filter((record) => passes(record, filters, isUsed) && matchesText(record, words))
  // Who looks for what is missing or twice there wants all of it.
  if (!filters.isFitting || view === 'missing' || view === 'duplicates') return { shown: found, hidden: 0 }
  const shown = found.filter((record) => canUse(record) || record.isMissing || isUsed(record.id))
  return { shown, hidden: found.length - shown.length }
}

function passes(record: AdapterRecord, filters: AdapterFilters, isUsed: (id: string) => boolean): boolean {
  const { family, kind, role, collection, tag, view } = filters
  if (family !== undefined && (record.familyName ?? '') !== family) return false
  if (kind !== undefined && !record.kinds.includes(kind)) return false
  if (role !== undefined && record.role !== role) return false
  if (collection !== undefined && !record.collections.includes(collection)) return false
  if (tag !== undefined && !record.tags.includes(tag)) return false
  switch (view) {
    case undefined:
      return true
    case 'in-use':
      return isUsed(record.id)
    case 'favourites':
      return record.isFavourite
    case 'unused':
      return record.timesUsed === 0 && !isUsed(record.id)
    case 'missing':
      return record.isMissing === true
    case 'duplicates':
      return record.twins !== undefined
  }
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' })

export function byName(a: AdapterRecord, b: AdapterRecord): number {
  return collator.compare(a.name, b.name) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
}

/** In order, those with a slot first of all. `records` are in the order of their names already. */
export function sortAdapters(
  records: readonly AdapterRecord[],
  sort: AdapterSort,
  isUsed: (id: string) => boolean,
  areTwins = false,
): AdapterRecord[] {
  const worth: Record<AdapterSort, (record: AdapterRecord) => number> = {
    name: () => 0,
    newest: ({ modifiedAt }) => modifiedAt,
    'last-used': ({ lastUsedAt = 0 }) => lastUsedAt,
    'most-used': ({ timesUsed }) => timesUsed,
    rating: ({ rating = 0 }) => rating,
    size: ({ bytes }) => bytes,
  }
  // Sorting keeps the order of equals, which is that of the names.
  const sorted = sort === 'name' ? [...records] : [...records].sort((a, b) => worth[sort](b) - worth[sort](a))
  if (areTwins) return sorted.sort((a, b) => (a.twins! < b.twins! ? -1 : a.twins! > b.twins! ? 1 : 0))
  return [...sorted.filter(({ id }) => isUsed(id)), ...sorted.filter(({ id }) => !isUsed(id))]
}

/** The choices that a library offers, each with how often it occurs. */
export function choicesOf(
  records: readonly AdapterRecord[],
  wordsOfRecord: (record: AdapterRecord) => readonly string[],
): { value: string; count: number }[] {
  const counts = new Map<string, number>()
  for (const record of records) for (const word of wordsOfRecord(record)) counts.set(word, (counts.get(word) ?? 0) + 1)
  return [...counts].map(([value, count]) => ({ value, count })).sort((a, b) => collator.compare(a.value, b.value))
}

export function idSet(ids: readonly string[]): ReadonlySet<string> {
  return new Set(ids)
}

export function byId(records: readonly AdapterRecord[]): ReadonlyMap<string, AdapterRecord> {
  return new Map(records.map((record) => [record.id, record]))
}
