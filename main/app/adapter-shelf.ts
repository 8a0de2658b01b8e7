import type { AdapterInfo } from '../../models/adapters/types.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { AdapterCache } from './adapter-cache.ts'
import { recordOf } from './adapter-cards.ts'
import type { AdapterEdits } from './adapter-edits.ts'
import { filesIn, idOfFile, placeOfFile, type AdapterPlace, type FoundFile } from './adapter-places.ts'
import type { AdapterReader, AdapterReading, Against } from './adapter-reader.ts'
import type { AdapterThumbs } from './adapter-thumbs.ts'
import { twinsOf, type TwinCandidate } from './adapter-twins.ts'
import { breaths } from './breath.ts'

export type ShelfParts = {
  cache: AdapterCache
  edits: AdapterEdits
  thumbs: AdapterThumbs
  reader: AdapterReader
  places: () => Promise<AdapterPlace[]>
  emit: (event: Extract<AppEvent, { type: 'adapters:changed' }>) => void
}

/** Files read at once, and how often the window hears of them. */
const readers = 4
const tellEveryMs = 400
/** Records that one event carries. */
const mostAtOnce = 300

/** What is shown of the library to one model. */
type Shown = { key: string; records: Map<string, AdapterRecord> }

/** What lies in the places of the library, and what is shown of it for each model that was asked about. */
export class AdapterShelf {
  readonly #parts: ShelfParts
  /** What lay in the places at the last look, by id. */
  #found = new Map<string, FoundFile>()
  /** Files that were here once and are gone, by id. */
  #missing = new Map<string, string>()
  readonly #shown = new Map<string, Shown>()
  #twins = new Map<string, string>()

  constructor(parts: ShelfParts) {
    this.#parts = parts
  }

  get models(): string[] {
    return [...this.#shown.keys()]
  }

  records(model: string): AdapterRecord[] {
    return [...(this.#shown.get(model)?.records.values() ?? [])]
  }

  found(id: string): FoundFile | undefined {
    return this.#found.get(id)
  }

  missingFile(id: string): string | undefined {
    return this.#missing.get(id)
  }

  all(): FoundFile[] {
    return [...this.#found.values()]
  }

  printOf(id: string): string | undefined {
    const file = this.#found.get(id)?.file ?? this.#missing.get(id)
    return file === undefined ? undefined : this.#parts.cache.get(file)?.print
  }

  /** Looks at every place and reads the headers that are new; tells what came, changed and went as it goes. */
  async scan(model: string, against: Against, signal: AbortSignal): Promise<void> {
    const { cache, emit } = this.#parts
    const { records } = this.#open(model, against.key)
    const places = await this.#parts.places()
    const found = new Map<string, FoundFile>()
    const paths = new Set<string>()
    const breathe = breaths()
    for (const place of places) {
      for (const file of await filesIn(place, signal)) {
        // A link inside a link lists a file once.
        if (!paths.has(file.file)) found.set(file.id, file)
        paths.add(file.file)
      }
    }
    this.#found = found

    let changed: AdapterRecord[] = []
    let gone: string[] = []
    let done = 0
    let toldAt = performance.now()
    const tell = (isOver = false) => {
      emit({ type: 'adapters:changed', model, changed, gone, scan: isOver ? null : { done, total: found.size } })
      changed = []
      gone = []
      toldAt = performance.now()
    }
    const queue = [...found.values()]
    const work = async () => {
      for (let file; !signal.aborted && (file = queue.shift());) {
        const reading = await this.read(file, against)
        const record = reading.info.verdict.fit === 'refused' ? undefined : this.#record(file, reading)
        done++
        if (record && isNews(records.get(file.id), record)) {
          records.set(file.id, record)
          changed.push(record)
        } else if (!record && records.delete(file.id)) gone.push(file.id)
        if (performance.now() - toldAt > tellEveryMs || changed.length >= mostAtOnce) tell()
        await breathe()
      }
    }
    await Promise.all(Array.from({ length: readers }, work))
    if (!signal.aborted) {
      await this.#noteMissing(places, paths)
      for (const id of this.#missing.keys()) {
        const record = this.#missingRecord(id, places)
        if (record && isNews(records.get(id), record)) changed.push(record)
        if (record) records.set(id, record)
      }
      for (const id of [...records.keys()]) {
        if (found.has(id) || this.#missing.has(id)) continue
        records.delete(id)
        gone.push(id)
      }
      changed.push(...(await this.#compareTwins(model)))
    }
    while (changed.length > mostAtOnce) {
      const rest = changed.splice(mostAtOnce)
      tell()
      changed = rest
      await new Promise((resolve) => setImmediate(resolve))
    }
    tell(true)
    await cache.save()
  }

  async read(found: FoundFile, against: Against): Promise<AdapterReading> {
    const { cache, reader } = this.#parts
    const known = cache.reading(found.file, found.stamp, against.key)
    if (known) return known
    const reading = await reader.inspect(found.file, against)
    cache.set(found.file, found.stamp, against.key, reading)
    return reading
  }

  /** Takes a file into the lists and tells the window; undefined for what is no adapter. */
  async show(found: FoundFile, model: string, against: Against): Promise<AdapterRecord | undefined> {
    const reading = await this.read(found, against)
    if (reading.info.verdict.fit === 'refused') return undefined
    this.#found.set(found.id, found)
    this.#missing.delete(found.id)
    const record = this.#record(found, reading)
    this.#open(model, against.key).records.set(record.id, record)
    this.#parts.emit({
      type: 'adapters:changed',
      model,
      changed: [record, ...(await this.#compareTwins(model))],
      gone: [],
    })
    return this.#shown.get(model)?.records.get(record.id)
  }

  /** Takes it out of the lists, and out of what is remembered of files. */
  async hide(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const file = this.#found.get(id)?.file ?? this.#missing.get(id)
      if (file !== undefined) this.#parts.cache.forget(file)
      this.#found.delete(id)
      this.#missing.delete(id)
    }
    for (const [model, { records }] of this.#shown) {
      const gone = ids.filter((id) => records.delete(id))
      const changed = await this.#compareTwins(model)
      if (gone.length > 0) this.#parts.emit({ type: 'adapters:changed', model, changed, gone })
    }
  }

  /** After a change of what the person says of these contents, or of a hash that is known now. */
  async refresh(prints: ReadonlySet<string>): Promise<void> {
    const breathe = breaths()
    const places = await this.#parts.places()
    for (const [model, { key, records }] of this.#shown) {
      let changed: AdapterRecord[] = []
      const flush = () => {
        if (changed.length > 0) this.#parts.emit({ type: 'adapters:changed', model, changed, gone: [] })
        changed = []
      }
      for (const [id, before] of records) {
        const print = this.printOf(id)
        if (print === undefined || !prints.has(print)) continue
        const found = this.#found.get(id)
        const reading = found && this.#parts.cache.reading(found.file, found.stamp, key)
        const record = found ? reading && this.#record(found, reading) : this.#missingRecord(id, places)
        if (record && isNews(before, record)) {
          records.set(id, record)
          changed.push(record)
        }
        if (changed.length >= mostAtOnce) flush()
        await breathe()
      }
      flush()
    }
  }

  /** Duplicates anew, once hashes are known; tells every model's list. */
  async refreshTwins(): Promise<void> {
    for (const model of this.models) {
      const changed = await this.#compareTwins(model)
      for (let i = 0; i < changed.length; i += mostAtOnce) {
        this.#parts.emit({ type: 'adapters:changed', model, changed: changed.slice(i, i + mostAtOnce), gone: [] })
      }
    }
  }

  #open(model: string, key: string): Shown {
    const known = this.#shown.get(model)
    const shown = known?.key === key ? known : { key, records: known?.records ?? new Map<string, AdapterRecord>() }
    this.#shown.set(model, shown)
    return shown
  }

  #record(found: FoundFile, { info, print }: AdapterReading): AdapterRecord {
    const { cache, edits, thumbs } = this.#parts
    const edit = edits.of(print)
    const hash = cache.knownHash(found.file, found.stamp)
    const thumbUrl = thumbs.urlOf(edit, found)
    const twins = this.#twins.get(found.id)
    return recordOf({ found, info, edit, ...given({ hash, thumbUrl, twins }) })
  }

  #missingRecord(id: string, places: readonly AdapterPlace[]): AdapterRecord | undefined {
    const { cache, edits, thumbs } = this.#parts
    const file = this.#missing.get(id)
    const known = file === undefined ? undefined : cache.get(file)
    const info = known && Object.values(known.infos).at(-1)
    const place = file === undefined ? undefined : placeOfFile(places, file)
    if (file === undefined || !info || !place) return undefined
    const edit = edits.of(known.print)
    const thumbUrl = thumbs.urlOf(edit, undefined)
    const found = { id, file, place, modifiedAt: Number(/-(\d+)/.exec(known.stamp)?.[1] ?? 0) }
    return recordOf({ found, info, edit, isMissing: true, ...given({ hash: known.hash, thumbUrl }) })
  }

  /** What was read once and is not where it was. One that was only moved is not missing. */
  async #noteMissing(places: readonly AdapterPlace[], there: ReadonlySet<string>): Promise<void> {
    const { cache } = this.#parts
    const breathe = breaths()
    const prints = new Set<string>()
    for (const file of there) {
      const print = cache.get(file)?.print
      if (print !== undefined) prints.add(print)
      await breathe()
    }
    const missing = new Map<string, string>()
    for (const file of cache.files()) {
      await breathe()
      if (there.has(file)) continue
      const known = cache.get(file)!
      const place = placeOfFile(places, file)
      const isAdapter = known.print !== undefined && Object.values(known.infos).some(isKnown)
      if (!place || place.kind === 'starter' || !isAdapter || prints.has(known.print!)) cache.forget(file)
      else missing.set(idOfFile(place, file), file)
    }
    this.#missing = missing
  }

  /** Resolves with the records of a model that are duplicates now, or are none any more. */
  async #compareTwins(model: string): Promise<AdapterRecord[]> {
    const { cache } = this.#parts
    const breathe = breaths()
    const candidates: TwinCandidate[] = []
    for (const { id, file, stamp } of this.#found.values()) {
      const print = cache.get(file)?.print
      const hash = cache.knownHash(file, stamp)
      if (print !== undefined) candidates.push(hash === undefined ? { id, print } : { id, print, hash })
      await breathe()
    }
    this.#twins = await twinsOf(candidates)
    const changed: AdapterRecord[] = []
    const records = this.#shown.get(model)?.records ?? new Map<string, AdapterRecord>()
    for (const [id, before] of records) {
      await breathe()
      const twins = this.#twins.get(id)
      if (before.twins === twins) continue
      const record = { ...before, ...given({ twins }) }
      if (twins === undefined) delete record.twins
      records.set(id, record)
      changed.push(record)
    }
    return changed
  }
}

const isKnown = (info: AdapterInfo) => info.verdict.fit !== 'refused'

function isNews(before: AdapterRecord | undefined, record: AdapterRecord): boolean {
  return JSON.stringify(before) !== JSON.stringify(record)
}

function given<T extends object>(all: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as never
}
