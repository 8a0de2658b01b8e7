import { realpath, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import * as z from 'zod'
import type { AdapterInfo, ModelShape } from '../../models/adapters/types.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { reportError, VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterCandidate, AdapterCard, AdapterRecord } from '../../preload/contract/adapters.ts'
import { moveToBin, takeFromBin } from './adapter-bin.ts'
import { AdapterCache } from './adapter-cache.ts'
import { cardOf, expectAdapter, recordOf, refusedCard } from './adapter-cards.ts'
import { copyAdapter, type CopyOptions } from './adapter-copy.ts'
import {
  fileOfId,
  filesIn,
  isAdapterName,
  linkedPlace,
  look,
  missingAdapter,
  ownPlace,
  starterPlace,
  type AdapterPlace,
  type FoundFile,
} from './adapter-places.ts'
import { adapterReader, type AdapterReader } from './adapter-reader.ts'
import { JsonFile, readJson } from './files.ts'
import type { Log } from './log.ts'

export type AdapterLibraryOptions = {
  /** The person's own adapters. */
  folder: string
  /** Where removed ones go. */
  bin: string
  /** JSON: which folders and files are linked. */
  linksFile: string
  /** JSON that can be made again: what headers said. */
  cacheFile: string
  version: string
  /** Adapters that come with Vignette. */
  starterFolder: string
  /** What the networks of a model look like; undefined while there is no such model. */
  shapeOf: (model: string) => Promise<Against | undefined>
  emit: (event: Extract<AppEvent, { type: 'adapters:changed' | 'adapters:copying' }>) => void
  log: Log
  reader?: AdapterReader
  freeBytes?: CopyOptions['freeBytes']
}

/** A model to judge by; `key` changes when it does. */
export type Against = { key: string; shape?: ModelShape }

const StoredLinks = z.object({ version: z.literal(1), links: z.array(z.string()) })

/** Files read at once, and how often the window hears of them. */
const readers = 4
/** Notes in a header make files of the same content differ in size, by not more than this. */
const maxNoteBytes = 16 << 20
const tellEveryMs = 400

/**
 * The adapters on this computer: those of the person's own folder, those that came with Vignette, and those in folders
 * that are linked and never changed. The files are the truth; what their headers say is read once and remembered.
 */
export class AdapterLibrary {
  readonly #options: AdapterLibraryOptions
  readonly #reader: AdapterReader
  readonly #cache: AdapterCache
  readonly #linksFile: JsonFile<z.infer<typeof StoredLinks>>
  #links: string[]
  /** What lay in the places at the last look, by id. */
  #found = new Map<string, FoundFile>()
  /** By model: what is shown of that. */
  readonly #shown = new Map<string, Map<string, AdapterRecord>>()
  readonly #scans = new Map<string, Promise<void>>()
  readonly #copies = new Map<string, AbortController>()
  /** Removed links, until the application ends. */
  readonly #droppedLinks = new Map<string, string>()
  /** Files are added one after the other, so that two of the same content are never both new. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(options: AdapterLibraryOptions, cache: AdapterCache, links: string[]) {
    this.#options = options
    this.#reader = options.reader ?? adapterReader
    this.#cache = cache
    this.#links = links
    this.#linksFile = new JsonFile(options.linksFile, () => ({ version: 1, links: this.#links }))
  }

  static async open(options: AdapterLibraryOptions): Promise<AdapterLibrary> {
    const cache = await AdapterCache.open(options.cacheFile, options.version)
    const stored = await readJson(options.linksFile, StoredLinks)
    return new AdapterLibrary(options, cache, stored?.links ?? [])
  }

  get links(): string[] {
    return this.#links
  }

  /** What is known now; a look at the folders begins, and what it finds is told as it goes. */
  list(model: string): { adapters: AdapterRecord[]; isScanning: boolean; links: string[] } {
    const isScanning = !this.#scans.has(model)
    void this.scan(model)
    return { adapters: [...(this.#shown.get(model)?.values() ?? [])], isScanning, links: this.#links }
  }

  /** Looks at every place and reads the headers that are new. One look at a time for each model. */
  scan(model: string): Promise<void> {
    const running = this.#scans.get(model)
    if (running) return running
    const scan = this.#scan(model)
      .catch((error: unknown) => this.#options.log.error('the adapters could not be listed', error))
      .finally(() => this.#scans.delete(model))
    this.#scans.set(model, scan)
    return scan
  }

  async #scan(model: string): Promise<void> {
    const shown = this.#shown.get(model) ?? new Map<string, AdapterRecord>()
    this.#shown.set(model, shown)
    const { emit } = this.#options
    const against = await this.#against(model)
    const found = (await Promise.all(this.#places().map(filesIn))).flat()
    this.#found = new Map(found.map((file) => [file.id, file]))
    const gone = [...shown.keys()].filter((id) => !this.#found.has(id))
    for (const id of gone) shown.delete(id)

    let changed: AdapterRecord[] = []
    let done = 0
    let toldAt = performance.now()
    const tell = (isOver = false) => {
      const scan = isOver ? {} : { scan: { done, total: found.length } }
      emit({ type: 'adapters:changed', model, changed, gone: gone.splice(0), ...scan })
      changed = []
      toldAt = performance.now()
    }
    const queue = [...found]
    const work = async () => {
      for (let file; (file = queue.shift());) {
        const record = await this.#recordOf(file, against)
        done++
        const before = shown.get(file.id)
        if (record && JSON.stringify(before) !== JSON.stringify(record)) {
          shown.set(file.id, record)
          changed.push(record)
        } else if (!record && shown.delete(file.id)) gone.push(file.id)
        if (performance.now() - toldAt > tellEveryMs) tell()
      }
    }
    await Promise.all(Array.from({ length: readers }, work))
    tell(true)
    this.#cache.keepOnly(new Set(found.map(({ file }) => file)))
    await this.#cache.save()
  }

  /** Cards for files that are not in the library yet; a bad one gets its refusal and does not hold up the rest. */
  inspect(files: readonly string[], model: string): Promise<AdapterCandidate[]> {
    return Promise.all(files.map((file) => this.#inspect(file, model)))
  }

  async #inspect(file: string, model: string): Promise<AdapterCandidate> {
    try {
      const { size } = await stat(file)
      const { shape } = await this.#against(model)
      const card = cardOf(await this.#reader.inspect(file, shape))
      if (card.verdict.fit === 'refused') {
        const error = await refusalOf(file, card)
        return { file, card: { ...card, bytes: size, verdict: verdictOf(error) }, error }
      }
      const twin = await this.#twinOf(file, card, model)
      return { file, card, ...(twin ? { known: { id: twin.id, name: twin.name } } : {}) }
    } catch (error) {
      const report = reportError(error)
      if (report.code === 'internal') this.#options.log.error(`inspecting ${basename(file)}`, error)
      return { file, card: refusedCard(file, 0, report), error: report }
    }
  }

  /** Adds a file by copying it, or as a link; resolves with what has the same content when that is there already. */
  add(file: string, model: string, isLink: boolean): Promise<{ adapter: AdapterRecord; isNew: boolean }> {
    const controller = new AbortController()
    this.#copies.set(file, controller)
    const added = this.#last
      .catch(() => {})
      .then(() => this.#add(file, model, isLink, controller.signal))
      .finally(() => this.#copies.delete(file))
    this.#last = added
    return added
  }

  async #add(
    file: string,
    model: string,
    isLink: boolean,
    signal: AbortSignal,
  ): Promise<{ adapter: AdapterRecord; isNew: boolean }> {
    const { card, error } = await this.#inspect(file, model)
    expectAdapter(card, error)
    await this.scan(model) // all that is there has been seen
    const twin = await this.#twinOf(file, card, model)
    if (twin) return { adapter: twin, isNew: false }
    if (isLink) {
      await this.link(file)
      return { adapter: await this.#show(linkedPlace(file), resolve(file), model), isNew: true }
    }
    const { folder, emit, freeBytes } = this.#options
    try {
      const copy = await copyAdapter(file, folder, {
        signal,
        onProgress: (doneBytes, totalBytes) => emit({ type: 'adapters:copying', file, doneBytes, totalBytes }),
        ...(freeBytes ? { freeBytes } : {}),
      })
      return { adapter: await this.#show(ownPlace(folder), copy, model), isNew: true }
    } catch (cause) {
      if (!signal.aborted) throw cause
      throw new VignetteError('bad-request', `"${basename(file)}" was not added: you stopped it.`, { cause })
    }
  }

  cancel(file: string): void {
    this.#copies.get(file)?.abort()
  }

  /** Moves a file of the person's into the bin, or forgets a link. What came with Vignette, or lies in a linked folder, stays. */
  async remove(id: string): Promise<{ undoId: string }> {
    const { file, place } = this.#placeOf(id)
    const { folder, bin } = this.#options
    let undoId: string
    if (place.kind === 'own') undoId = await moveToBin(file, folder, bin)
    else if (place.path === file) {
      undoId = `link ${id}`
      this.#droppedLinks.set(undoId, file)
      await this.unlink(file)
    } else {
      throw place.kind === 'starter'
        ? new VignetteError('bad-request', 'This adapter comes with Vignette and stays.')
        : new VignetteError('bad-request', `This adapter lies in a linked folder, where Vignette changes nothing.`, {
            hint: `Take it out of ${place.path} yourself, or end the link to that folder.`,
          })
    }
    for (const [model, shown] of this.#shown) {
      if (shown.delete(id)) this.#options.emit({ type: 'adapters:changed', model, changed: [], gone: [id] })
    }
    return { undoId }
  }

  /** Brings back what `remove` took away; undefined when the bin was emptied since. */
  async undo(undoId: string, model: string): Promise<AdapterRecord | undefined> {
    const link = this.#droppedLinks.get(undoId)
    if (link !== undefined) {
      this.#droppedLinks.delete(undoId)
      await this.link(link)
      return this.#show(linkedPlace(link), link, model)
    }
    const { folder, bin } = this.#options
    const file = await takeFromBin(undoId, folder, bin)
    return file === undefined ? undefined : this.#show(ownPlace(folder), file, model)
  }

  async link(path: string): Promise<void> {
    const full = resolve(path)
    await stat(full)
    if (this.#links.includes(full)) return
    this.#links = [...this.#links, full]
    await this.#linksFile.save()
    this.#rescan()
  }

  async unlink(path: string): Promise<void> {
    this.#links = this.#links.filter((link) => link !== resolve(path))
    await this.#linksFile.save()
    this.#rescan()
  }

  /** The file of an id in a request; throws when it is gone. */
  async fileOf(id: string): Promise<string> {
    const { file } = this.#placeOf(id)
    const isThere = await stat(file).then(
      (found) => found.isFile(),
      () => false,
    )
    if (!isThere) throw missingAdapter(id)
    return file
  }

  /** Hash of an adapter's tensors, whatever the file around them says; throws when it is gone. */
  async hashOf(id: string): Promise<string> {
    const { file, place } = this.#placeOf(id)
    const found = await look(place, file)
    if (!found) throw missingAdapter(id)
    return this.#cache.hash(found.file, found.stamp, () => this.#reader.hash(found.file))
  }

  /** All that is known of adapters of the library, against a model. */
  infosOf(ids: readonly string[], model: string): Promise<AdapterInfo[]> {
    return Promise.all(
      ids.map(async (id) => {
        const { file, place } = this.#placeOf(id)
        const found = await look(place, file)
        if (!found) throw missingAdapter(id)
        return this.#read(found, await this.#against(model))
      }),
    )
  }

  async close(): Promise<void> {
    for (const controller of this.#copies.values()) controller.abort()
    await Promise.all([this.#last.catch(() => {}), ...this.#scans.values()])
  }

  #places(): AdapterPlace[] {
    const { folder, starterFolder } = this.#options
    return [ownPlace(folder), starterPlace(starterFolder), ...this.#links.map(linkedPlace)]
  }

  #placeOf(id: string): { file: string; place: AdapterPlace } {
    const found = fileOfId(this.#places(), id)
    if (!found || !isAdapterName(found.file)) throw missingAdapter(id)
    return found
  }

  async #against(model: string): Promise<Against> {
    return (await this.#options.shapeOf(model)) ?? { key: '' }
  }

  async #read(found: FoundFile, { key, shape }: Against): Promise<AdapterInfo> {
    const known = this.#cache.info(found.file, found.stamp, key)
    if (known) return known
    const info = await this.#reader.inspect(found.file, shape)
    this.#cache.setInfo(found.file, found.stamp, key, info)
    return info
  }

  /** Undefined for what is no adapter: linked folders hold whole models and half downloads, too. */
  async #recordOf(found: FoundFile, against: Against): Promise<AdapterRecord | undefined> {
    const info = await this.#read(found, against)
    return info.verdict.fit === 'refused' ? undefined : recordOf(found, info)
  }

  /** Takes a file into the lists and tells the window. */
  async #show(place: AdapterPlace, file: string, model: string): Promise<AdapterRecord> {
    const found = await look(place, file)
    const record = found && (await this.#recordOf(found, await this.#against(model)))
    if (!record) throw missingAdapter(basename(file))
    this.#found.set(record.id, found)
    const shown = this.#shown.get(model) ?? new Map<string, AdapterRecord>()
    this.#shown.set(model, shown.set(record.id, record))
    this.#options.emit({ type: 'adapters:changed', model, changed: [record], gone: [] })
    for (const other of this.#shown.keys()) if (other !== model) void this.scan(other)
    return record
  }

  /** What the library is known to have of the same content. Few bytes decide whether all need to be compared. */
  async #twinOf(file: string, card: AdapterCard, model: string): Promise<AdapterRecord | undefined> {
    const path = await realpath(file)
    const shown = [...(this.#shown.get(model)?.values() ?? [])]
    const itself = shown.find(({ id }) => this.#found.get(id)?.file === path)
    if (itself) return itself
    const resembles = await this.#reader.resemblance(path)
    let ownHash: string | undefined
    for (const record of shown) {
      const found = this.#found.get(record.id)
      if (!found) continue
      const isLike = record.total === card.total && Math.abs(record.bytes - card.bytes) <= maxNoteBytes
      if (!isLike || !(await resembles(found.file).catch(() => false))) continue
      const hash = await this.#cache.hash(found.file, found.stamp, () => this.#reader.hash(found.file))
      if (hash === (ownHash ??= await this.#reader.hash(path))) return record
    }
    return undefined
  }

  #rescan(): void {
    for (const model of this.#shown.keys()) {
      // One that is under way may have passed the place already.
      const running = this.#scans.get(model)
      void (running ? running.then(() => this.scan(model)) : this.scan(model))
    }
  }
}

/** Why a file is refused, by its code. What was never meant to be an adapter is not called damaged. */
async function refusalOf(file: string, { verdict: { message, hint } }: AdapterCard): Promise<ErrorReport> {
  const code = await readSafetensors(file).then(
    () => 'file-unreadable' as const,
    (error: unknown) => reportError(error).code,
  )
  if (code === 'file-unreadable' && !isAdapterName(file)) {
    return { code, message: `"${basename(file)}" is not an adapter.`, hint: 'Adapters are .safetensors files.' }
  }
  return { code, message, ...(hint === undefined ? {} : { hint }) }
}

function verdictOf({ message, hint }: ErrorReport): AdapterCard['verdict'] {
  return { fit: 'refused', message, ...(hint === undefined ? {} : { hint }) }
}

/** The folders of a home that the library uses. */
export function adapterPaths(home: string): Pick<AdapterLibraryOptions, 'folder' | 'bin' | 'linksFile' | 'cacheFile'> {
  return {
    folder: join(home, 'adapters'),
    bin: join(home, 'bin', 'adapters'),
    linksFile: join(home, 'adapters.json'),
    cacheFile: join(home, 'adapters-read.json'),
  }
}
