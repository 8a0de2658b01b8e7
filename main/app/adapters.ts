import { realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import * as z from 'zod'
import type { AdapterInfo } from '../../models/adapters/types.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { reportError, VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterCandidate, AdapterCard, AdapterRecord, BinnedAdapter } from '../../preload/contract/adapters.ts'
import { emptyBin, listBin, moveToBin, takeFromBin } from './adapter-bin.ts'
import { AdapterCache } from './adapter-cache.ts'
import { cardOf, expectAdapter, refusedCard } from './adapter-cards.ts'
import { copyAdapter, type CopyOptions } from './adapter-copy.ts'
import { AdapterEdits } from './adapter-edits.ts'
import { AdapterNotebook, type NotebookParts } from './adapter-notebook.ts'
import {
  fileOfId,
  isAdapterName,
  linkedPlace,
  look,
  missingAdapter,
  ownPlace,
  starterPlace,
  type AdapterPlace,
} from './adapter-places.ts'
import { adapterReader, type AdapterReader, type Against } from './adapter-reader.ts'
import { AdapterShelf } from './adapter-shelf.ts'
import { AdapterThumbs, type Shrink } from './adapter-thumbs.ts'
import { JsonFile, readJson } from './files.ts'
import { adapterFoldersOf, LinkedRoots } from './linked-roots.ts'
import type { Log } from './log.ts'

export type { Against }

export type AdapterLibraryOptions = {
  /** The person's own adapters. */
  folder: string
  /** Where removed ones go. */
  bin: string
  /** JSON: which folders and files are linked, and which roots of other programs. */
  linksFile: string
  rootsFile: string
  /** JSON: what the person says of adapters. */
  editsFile: string
  /** Can be made again: what headers said. */
  cacheFile: string
  thumbsFolder: string
  version: string
  /** Adapters that come with Vignette. */
  starterFolder: string
  /** What the networks of a model look like; undefined while there is no such model. */
  shapeOf: (model: string) => Promise<Against | undefined>
  emit: (event: Extract<AppEvent, { type: 'adapters:changed' | 'adapters:copying' | 'adapters:comparing' }>) => void
  log: Log
  reader?: AdapterReader
  freeBytes?: CopyOptions['freeBytes']
  /** Makes a small picture of a large one. */
  shrink?: Shrink
  picturesWith?: NotebookParts['picturesWith']
}

const StoredLinks = z.object({ version: z.literal(1), links: z.array(z.string()) })

/** Records that a reply brings at once; the others come as events, so that nothing waits for thousands. */
const firstRecords = 300

/**
 * The adapters on this computer: those of the person's own folder, those that came with Vignette, and those in folders
 * that are linked and never changed. The files are the truth; what their headers say is read once and remembered, and
 * what the person says of them is kept by their content.
 */
export class AdapterLibrary {
  readonly #options: AdapterLibraryOptions
  readonly #reader: AdapterReader
  readonly #cache: AdapterCache
  readonly #edits: AdapterEdits
  readonly #linksFile: JsonFile<z.infer<typeof StoredLinks>>
  readonly #shelf: AdapterShelf
  readonly notebook: AdapterNotebook
  readonly roots: LinkedRoots
  readonly thumbs: AdapterThumbs
  #links: string[]
  readonly #scans = new Map<string, Promise<void>>()
  #stopScans = new AbortController()
  readonly #copies = new Map<string, AbortController>()
  /** Removed links, until the application ends. */
  readonly #droppedLinks = new Map<string, string>()
  /** Files are added one after the other, so that two of the same content are never both new. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(
    options: AdapterLibraryOptions,
    parts: { cache: AdapterCache; edits: AdapterEdits; roots: LinkedRoots; links: string[] },
  ) {
    this.#options = options
    this.#reader = options.reader ?? adapterReader
    this.#cache = parts.cache
    this.#edits = parts.edits
    this.#links = parts.links
    this.roots = parts.roots
    this.thumbs = new AdapterThumbs(options.thumbsFolder, options.shrink)
    this.#linksFile = new JsonFile(options.linksFile, () => ({ version: 1, links: this.#links }))
    this.#shelf = new AdapterShelf({
      ...{ cache: this.#cache, edits: this.#edits, thumbs: this.thumbs, reader: this.#reader, emit: options.emit },
      places: () => this.#places(),
    })
    const { emit, log, picturesWith } = options
    this.notebook = new AdapterNotebook({
      ...{ shelf: this.#shelf, cache: this.#cache, edits: this.#edits, thumbs: this.thumbs, reader: this.#reader },
      ...{ emit, log, ...(picturesWith ? { picturesWith } : {}) },
      against: (model) => this.#against(model),
    })
  }

  static async open(options: AdapterLibraryOptions): Promise<AdapterLibrary> {
    const cache = await AdapterCache.open(options.cacheFile, options.version)
    const edits = await AdapterEdits.open(options.editsFile)
    const roots = await LinkedRoots.open(options.rootsFile)
    const links = (await readJson(options.linksFile, StoredLinks))?.links ?? []
    return new AdapterLibrary(options, { cache, edits, roots, links })
  }

  get links(): string[] {
    return this.#links
  }

  /** What is known now; a look at the folders begins, and what it finds is told as it goes. */
  list(model: string): { adapters: AdapterRecord[]; isScanning: boolean; links: string[]; roots: string[] } {
    const isScanning = !this.#scans.has(model)
    const adapters = this.#shelf.records(model)
    void this.scan(model)
    return { adapters, isScanning, links: this.#links, roots: this.roots.list() }
  }

  /** The same for the window, which gets the first few at once and the others as events: thousands would hold it up. */
  show(model: string): ReturnType<AdapterLibrary['list']> {
    const all = this.list(model)
    setImmediate(() => {
      for (let i = firstRecords; i < all.adapters.length; i += firstRecords) {
        const changed = all.adapters.slice(i, i + firstRecords)
        this.#options.emit({ type: 'adapters:changed', model, changed, gone: [] })
      }
    })
    return { ...all, adapters: all.adapters.slice(0, firstRecords) }
  }

  /** Looks at every place and reads the headers that are new. One look at a time for each model. */
  scan(model: string): Promise<void> {
    const running = this.#scans.get(model)
    if (running) return running
    const { signal } = this.#stopScans
    const scan = this.#against(model)
      .then((against) => this.#shelf.scan(model, against, signal))
      .catch((error: unknown) => {
        if (!signal.aborted) this.#options.log.error('the adapters could not be listed', error)
        this.#options.emit({ type: 'adapters:changed', model, changed: [], gone: [], scan: null })
      })
      .finally(() => this.#scans.delete(model))
    this.#scans.set(model, scan)
    return scan
  }

  /** What was read is kept; the next `list` goes on from there. */
  cancelScan(): void {
    this.#stopScans.abort()
    this.#stopScans = new AbortController()
  }

  /** Cards for files that are not in the library yet; a bad one gets its refusal and does not hold up the rest. */
  inspect(files: readonly string[], model: string): Promise<AdapterCandidate[]> {
    return Promise.all(files.map((file) => this.#inspect(file, model)))
  }

  async #inspect(file: string, model: string): Promise<AdapterCandidate> {
    try {
      const { size } = await stat(file)
      const { info, print } = await this.#reader.inspect(file, await this.#against(model))
      const card = cardOf(info)
      if (card.verdict.fit === 'refused') {
        const error = await refusalOf(file, card)
        return { file, card: { ...card, bytes: size, verdict: verdictOf(error) }, error }
      }
      const twin = print === undefined ? undefined : await this.#twinOf(file, print, model)
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
    await this.scan(model) // all that is there has been seen
    const { card, error, known } = await this.#inspect(file, model)
    expectAdapter(card, error)
    const twin = known && this.#shelf.records(model).find(({ id }) => id === known.id)
    if (twin) return { adapter: twin, isNew: false }
    if (isLink) {
      await this.link(file)
      return { adapter: await this.#show(linkedPlace(file), resolve(file), model), isNew: true }
    }
    return { adapter: await this.#copy(file, model, { signal }), isNew: true }
  }

  async #copy(
    file: string,
    model: string,
    options: CopyOptions,
    folder = this.#options.folder,
  ): Promise<AdapterRecord> {
    const { emit, freeBytes } = this.#options
    try {
      const copy = await copyAdapter(file, folder, {
        ...options,
        onProgress: (doneBytes, totalBytes) => emit({ type: 'adapters:copying', file, doneBytes, totalBytes }),
        ...(freeBytes ? { freeBytes } : {}),
      })
      return await this.#show(ownPlace(this.#options.folder), copy, model)
    } catch (cause) {
      if (!options.signal?.aborted) throw cause
      throw new VignetteError('bad-request', `"${basename(file)}" was not added: you stopped it.`, { cause })
    }
  }

  cancel(file: string): void {
    this.#copies.get(file)?.abort()
  }

  /** Moves a file of the person's into the bin, or forgets a link. What came with Vignette, or lies in a linked folder, stays. */
  async remove(id: string): Promise<{ undoId: string }> {
    const { file, place } = await this.#placeOf(id)
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
    await this.#shelf.hide([id])
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

  async bin(): Promise<{ items: BinnedAdapter[]; bytes: number }> {
    const items = await listBin(this.#options.bin)
    return { items, bytes: items.reduce((sum, { bytes }) => sum + bytes, 0) }
  }

  emptyBin(): Promise<void> {
    return emptyBin(this.#options.bin)
  }

  async link(path: string): Promise<void> {
    const full = resolve(path)
    await stat(full)
    if (this.#links.includes(full)) return
    this.#links = [...this.#links, full]
    await this.#linksFile.save()
    this.#rescan()
  }

  /** A folder of another program, with everything it holds. */
  async linkRoot(path: string): Promise<void> {
    await this.roots.add(path)
    this.#rescan()
  }

  async unlink(path: string): Promise<void> {
    this.#links = this.#links.filter((link) => link !== resolve(path))
    await this.#linksFile.save()
    await this.roots.remove(path)
    this.#rescan()
  }

  /** The file of an id in a request; throws when it is gone. */
  async fileOf(id: string): Promise<string> {
    const { file } = await this.#placeOf(id)
    const isThere = await stat(file).then(
      (found) => found.isFile(),
      () => false,
    )
    if (!isThere) throw missingAdapter(id)
    return file
  }

  /** Hash of an adapter's tensors, whatever the file around them says; throws when it is gone. */
  async hashOf(id: string): Promise<string> {
    const { file, place } = await this.#placeOf(id)
    const found = await look(place, file)
    if (!found) throw missingAdapter(id)
    return this.#cache.hash(found.file, found.stamp, () => this.#reader.hash(found.file))
  }

  /** All that is known of adapters of the library, against a model. */
  infosOf(ids: readonly string[], model: string): Promise<AdapterInfo[]> {
    return Promise.all(
      ids.map(async (id) => {
        const { file, place } = await this.#placeOf(id)
        const found = await look(place, file)
        if (!found) throw missingAdapter(id)
        const { info, print } = await this.#shelf.read(found, await this.#against(model))
        const { preferredWeight } = this.#edits.of(print)
        return preferredWeight === undefined ? info : { ...info, preferredWeight }
      }),
    )
  }

  /** Puts another file of the same content in the place of a missing one. */
  async locate(id: string, file: string, model: string): Promise<AdapterRecord> {
    const missing = this.#shelf.missingFile(id)
    const known = missing === undefined ? undefined : this.#cache.get(missing)
    if (missing === undefined || !known) throw missingAdapter(id)
    const { info, print } = await this.#reader.inspect(file, await this.#against(model))
    expectAdapter(cardOf(info), undefined)
    const isSame = print === known.print && (!known.hash || known.hash === (await this.#reader.hash(file)))
    if (!isSame) {
      throw new VignetteError('bad-request', `"${basename(file)}" has another content than "${basename(missing)}".`, {
        hint: 'Choose the same adapter, whatever it is called now, or add this one as a new adapter.',
      })
    }
    const { place } = await this.#placeOf(id)
    if (place.kind === 'own') {
      await this.#shelf.hide([id])
      return this.#copy(file, model, { name: basename(missing) }, dirname(missing))
    }
    // Nothing is put into a folder of another program: the file is linked where it lies.
    await this.link(file)
    await this.#shelf.hide([id])
    return this.#show(linkedPlace(file), resolve(file), model)
  }

  /** Missing ones are not listed any more; what the person says of them stays for when they come back. */
  async forget(ids: readonly string[]): Promise<void> {
    await this.#shelf.hide(ids.filter((id) => this.#shelf.missingFile(id) !== undefined))
    await this.#cache.save()
  }

  async close(): Promise<void> {
    for (const controller of this.#copies.values()) controller.abort()
    this.cancelScan()
    this.notebook.cancelTwins()
    await Promise.all([this.#last.catch(() => {}), ...this.#scans.values()])
    await this.#cache.save().catch(() => {})
    this.#reader.close?.()
  }

  async #places(): Promise<AdapterPlace[]> {
    const { folder, starterFolder } = this.#options
    const linked = [...this.#links, ...(await adapterFoldersOf(this.roots.list()))]
    return [ownPlace(folder), starterPlace(starterFolder), ...linked.map(linkedPlace)]
  }

  async #placeOf(id: string): Promise<{ file: string; place: AdapterPlace }> {
    const found = fileOfId(await this.#places(), id)
    if (!found || !isAdapterName(found.file)) throw missingAdapter(id)
    return found
  }

  async #against(model: string): Promise<Against> {
    return (await this.#options.shapeOf(model)) ?? { key: '' }
  }

  /** Takes a file into the lists and tells the window. */
  async #show(place: AdapterPlace, file: string, model: string): Promise<AdapterRecord> {
    const found = await look(place, file)
    const record = found && (await this.#shelf.show(found, model, await this.#against(model)))
    if (!record) throw missingAdapter(basename(file))
    for (const other of this.#shelf.models) if (other !== model) void this.scan(other)
    return record
  }

  /** What the library is known to have of the same content: the quick print first, and then all of it. */
  async #twinOf(file: string, print: string, model: string): Promise<AdapterRecord | undefined> {
    const path = await realpath(file)
    const shown = this.#shelf.records(model)
    const itself = shown.find(({ id }) => this.#shelf.found(id)?.file === path)
    if (itself) return itself
    let ownHash: string | undefined
    for (const record of shown) {
      const found = this.#shelf.found(record.id)
      if (!found || this.#shelf.printOf(record.id) !== print) continue
      const hash = await this.#cache
        .hash(found.file, found.stamp, () => this.#reader.hash(found.file))
        .catch(() => undefined)
      if (hash !== undefined && hash === (ownHash ??= await this.#reader.hash(path))) return record
    }
    return undefined
  }

  #rescan(): void {
    for (const model of this.#shelf.models) {
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

/** The folders and files of a home that the library uses. */
export function adapterPaths(
  home: string,
): Pick<
  AdapterLibraryOptions,
  'folder' | 'bin' | 'linksFile' | 'rootsFile' | 'editsFile' | 'cacheFile' | 'thumbsFolder'
> {
  return {
    folder: join(home, 'adapters'),
    bin: join(home, 'bin', 'adapters'),
    linksFile: join(home, 'adapters.json'),
    rootsFile: join(home, 'linked-roots.json'),
    editsFile: join(home, 'adapter-notes.json'),
    cacheFile: join(home, 'adapters-read.jsonl'),
    thumbsFolder: join(home, 'adapter-previews'),
  }
}
