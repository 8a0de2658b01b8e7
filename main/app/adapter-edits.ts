import * as z from 'zod'
import { AdapterEdit, type AdapterChange } from '../../preload/contract/adapters.ts'
import { breaths } from './breath.ts'
import { JsonFile, readJson } from './files.ts'

/** What the person and the time have made of one content. */
const StoredEdit = AdapterEdit.extend({
  timesUsed: z.int().optional(),
  lastUsedAt: z.number().optional(),
  /** A picture of the gallery, or one in our own folder of them. */
  thumb: z.object({ image: z.string().optional(), file: z.string().optional() }).optional(),
  samples: z.array(z.string()).optional(),
})
export type StoredEdit = z.infer<typeof StoredEdit>

const Stored = z.object({ version: z.literal(1), edits: z.record(z.string(), StoredEdit) })

/** Samples of an adapter that are kept in mind. */
const keptSamples = 3

/**
 * The person's own words about adapters, in one JSON file, by the content of the file they are about: one that is moved,
 * renamed or brought back keeps them, and nothing is ever written beside it.
 */
export class AdapterEdits {
  readonly #edits: Map<string, StoredEdit>
  readonly #file: JsonFile<z.infer<typeof Stored>>

  private constructor(path: string, edits: Map<string, StoredEdit>) {
    this.#edits = edits
    this.#file = new JsonFile(path, () => ({ version: 1, edits: Object.fromEntries(this.#edits) }))
  }

  static async open(path: string): Promise<AdapterEdits> {
    return new AdapterEdits(path, new Map(Object.entries((await readJson(path, Stored))?.edits ?? {})))
  }

  of(print: string | undefined): Readonly<StoredEdit> {
    return (print === undefined ? undefined : this.#edits.get(print)) ?? {}
  }

  /** Resolves with what was there before, once the change is on the disk. */
  async change(prints: readonly string[], change: Partial<AdapterChange>): Promise<[string, StoredEdit][]> {
    const before = prints.map((print): [string, StoredEdit] => [print, this.of(print)])
    const breathe = breaths()
    for (const [print, edit] of before) {
      this.#set(print, changed(edit, change))
      await breathe()
    }
    await this.#file.save()
    return before
  }

  async restore(edits: readonly (readonly [string, StoredEdit])[]): Promise<[string, StoredEdit][]> {
    const before = edits.map(([print]): [string, StoredEdit] => [print, this.of(print)])
    for (const [print, edit] of edits) {
      // What happened since is not taken back with it.
      const { timesUsed, lastUsedAt, samples } = this.of(print)
      this.#set(print, present({ ...edit, timesUsed, lastUsedAt, samples }))
    }
    await this.#file.save()
    return before
  }

  async setThumb(print: string, thumb: StoredEdit['thumb']): Promise<void> {
    this.#set(print, present({ ...this.of(print), thumb }))
    await this.#file.save()
  }

  async noteUse(prints: readonly string[], at: number): Promise<void> {
    for (const print of prints) {
      const edit = this.of(print)
      this.#set(print, { ...edit, timesUsed: (edit.timesUsed ?? 0) + 1, lastUsedAt: at })
    }
    await this.#file.save()
  }

  /** The first sample becomes the picture of an adapter that has none. */
  async noteSample(print: string, image: string, hasThumb: boolean): Promise<void> {
    const edit = this.of(print)
    const samples = [...(edit.samples ?? []), image].slice(-keptSamples)
    this.#set(print, { ...edit, samples, ...(hasThumb ? {} : { thumb: { image } }) })
    await this.#file.save()
  }

  #set(print: string, edit: StoredEdit): void {
    if (Object.keys(edit).length === 0) this.#edits.delete(print)
    else this.#edits.set(print, edit)
  }
}

function changed(edit: StoredEdit, change: Partial<AdapterChange>): StoredEdit {
  const { addTags, removeTags, addCollections, removeCollections, ...fields } = change
  const next: Record<string, unknown> = { ...edit }
  for (const [key, value] of Object.entries(fields)) {
    if (value === null || value === undefined || value === false || value === '') delete next[key]
    else next[key] = value
  }
  next.tags = words((next.tags as string[] | undefined) ?? [], addTags, removeTags)
  next.collections = words((next.collections as string[] | undefined) ?? [], addCollections, removeCollections)
  return present(next as StoredEdit)
}

/** Each once, whatever its capitals. */
function words(own: readonly string[], added: readonly string[] = [], removed: readonly string[] = []): string[] {
  const key = (word: string) => word.toLowerCase()
  const out = new Set(removed.map(key))
  const all = new Map<string, string>()
  for (const word of [...own, ...added].map((one) => one.trim()).filter(Boolean)) {
    if (!out.has(key(word)) && !all.has(key(word))) all.set(key(word), word)
  }
  return [...all.values()]
}

/** Without what says nothing. */
function present(edit: StoredEdit): StoredEdit {
  return Object.fromEntries(
    Object.entries(edit).filter(
      ([key, value]) => value !== undefined && !(key !== 'triggers' && Array.isArray(value) && value.length === 0),
    ),
  ) as StoredEdit
}
