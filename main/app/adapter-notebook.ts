import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterChange, AdapterDetail } from '../../preload/contract/adapters.ts'
import type { AdapterCache } from './adapter-cache.ts'
import { cardOf } from './adapter-cards.ts'
import type { AdapterEdits, StoredEdit } from './adapter-edits.ts'
import { exportNotes } from './adapter-export.ts'
import { missingAdapter } from './adapter-places.ts'
import type { AdapterReader, Against } from './adapter-reader.ts'
import type { AdapterShelf } from './adapter-shelf.ts'
import type { AdapterThumbs } from './adapter-thumbs.ts'
import { UndoShelf } from './adapter-undo.ts'
import type { Log } from './log.ts'

export type NotebookParts = {
  shelf: AdapterShelf
  cache: AdapterCache
  edits: AdapterEdits
  thumbs: AdapterThumbs
  reader: AdapterReader
  against: (model: string) => Promise<Against>
  emit: (event: Extract<AppEvent, { type: 'adapters:comparing' }>) => void
  log: Log
  /** Pictures that were made with an adapter, by its hash. */
  picturesWith?: (hash: string) => Promise<AdapterDetail['pictures']> | AdapterDetail['pictures']
}

/** What people and time have to say of the adapters on the shelf: their edits, pictures, hashes and use. */
export class AdapterNotebook {
  readonly #parts: NotebookParts
  readonly #undone = new UndoShelf<[string, StoredEdit][]>()
  #comparing: AbortController | undefined

  constructor(parts: NotebookParts) {
    this.#parts = parts
  }

  /** More than a list shows. The hash, and with it the pictures, may take a while to come: a later record has it. */
  async detail(id: string, model: string): Promise<AdapterDetail> {
    const found = this.#parts.shelf.found(id)
    const missing = this.#parts.shelf.missingFile(id)
    const known = missing === undefined ? undefined : this.#parts.cache.get(missing)
    const info = found
      ? (await this.#parts.shelf.read(found, await this.#parts.against(model))).info
      : known && Object.values(known.infos).at(-1)
    const file = found?.file ?? missing
    if (!info || file === undefined) throw missingAdapter(id)
    const hash = found ? this.#parts.cache.knownHash(found.file, found.stamp) : known?.hash
    if (found && hash === undefined) void this.#learnHash(id).catch(() => {})
    const pictures = hash === undefined ? undefined : await this.#parts.picturesWith?.(hash)
    const none = { count: 0, newest: [] }
    return { id, file, card: cardOf(info), pictures: pictures ?? none, ...(hash === undefined ? {} : { hash }) }
  }

  async #learnHash(id: string, signal?: AbortSignal): Promise<string | undefined> {
    const found = this.#parts.shelf.found(id)
    if (!found) return undefined
    const hash = await this.#parts.cache.hash(found.file, found.stamp, () =>
      this.#parts.reader.hash(found.file, signal),
    )
    const print = this.#parts.shelf.printOf(id)
    if (print !== undefined) await this.#parts.shelf.refresh(new Set([print]))
    await this.#parts.cache.save()
    return hash
  }

  async edit(ids: readonly string[], change: Partial<AdapterChange>): Promise<{ undoId: string }> {
    const prints = this.#printsOf(ids)
    const before = await this.#parts.edits.change(prints, change)
    await this.#parts.shelf.refresh(new Set(prints))
    return { undoId: this.#undone.keep(before) }
  }

  async undoEdit(undoId: string): Promise<{ undoId?: string }> {
    const edits = this.#undone.take(undoId)
    if (!edits) return {}
    const before = await this.#parts.edits.restore(edits)
    await this.#parts.shelf.refresh(new Set(edits.map(([print]) => print)))
    return { undoId: this.#undone.keep(before) }
  }

  async setThumb(id: string, from: { image?: string; file?: string }): Promise<void> {
    const [print] = this.#printsOf([id])
    if (print === undefined) throw missingAdapter(id)
    const file = from.file === undefined ? undefined : await this.#parts.thumbs.keep(from.file, print)
    const thumb = file !== undefined ? { file } : from.image !== undefined ? { image: from.image } : undefined
    await this.#parts.edits.setThumb(print, thumb)
    await this.#parts.shelf.refresh(new Set([print]))
  }

  /** A picture was made with these. */
  async noteUse(ids: readonly string[], at: number): Promise<void> {
    const prints = this.#printsOf(ids)
    if (prints.length === 0) return
    await this.#parts.edits.noteUse(prints, at)
    await this.#parts.shelf.refresh(new Set(prints))
  }

  /** A picture was made to show what this one does. */
  async noteSample(id: string, image: string): Promise<void> {
    const [print] = this.#printsOf([id])
    if (print === undefined) return
    const hasThumb = this.#parts.thumbs.urlOf(this.#parts.edits.of(print), this.#parts.shelf.found(id)) !== undefined
    await this.#parts.edits.noteSample(print, image, hasThumb)
    await this.#parts.shelf.refresh(new Set([print]))
  }

  #printsOf(ids: readonly string[]): string[] {
    return [...new Set(ids.map((id) => this.#parts.shelf.printOf(id)).filter((print) => print !== undefined))]
  }

  /** Reads the whole content of files that look the same, one after the other. */
  async findTwins(): Promise<void> {
    this.#comparing?.abort()
    const controller = (this.#comparing = new AbortController())
    const { emit, log } = this.#parts
    const model = this.#parts.shelf.models.at(-1)
    const todo = this.#parts.shelf.records(model ?? '').filter(({ twins, hash }) => twins !== undefined && !hash)
    let done = 0
    try {
      for (const { id } of todo) {
        controller.signal.throwIfAborted()
        emit({ type: 'adapters:comparing', done, total: todo.length })
        await this.#learnHash(id, controller.signal).catch((error: unknown) => {
          if (!controller.signal.aborted) log.warn(`${id} could not be compared`, error)
        })
        done++
      }
      await this.#parts.shelf.refreshTwins()
    } catch (error) {
      if (!controller.signal.aborted) throw error
    } finally {
      emit({ type: 'adapters:comparing', done })
    }
  }

  cancelTwins(): void {
    this.#comparing?.abort()
  }

  async export(ids: readonly string[], folder: string): Promise<{ written: number; skipped: string[] }> {
    const wanted = new Set(ids)
    const model = this.#parts.shelf.models.at(-1) ?? ''
    return exportNotes(
      this.#parts.shelf.records(model).filter(({ id }) => wanted.has(id)),
      folder,
    )
  }
}
