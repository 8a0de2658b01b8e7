import * as z from 'zod'
import type { AdapterInfo } from '../../models/adapters/types.ts'
import { JsonFile, readJson } from './files.ts'

/** What was read from one file, for as long as its stamp stays the same. */
type Entry = {
  stamp: string
  hash?: string
  /** By model: what the file is to it. */
  infos: Record<string, AdapterInfo>
}

/** Infos are our own writing; one that does not look like them only costs another reading. */
const Stored = z.object({
  version: z.literal(1),
  app: z.string(),
  entries: z.record(
    z.string(),
    z.object({
      stamp: z.string(),
      hash: z.string().optional(),
      infos: z.record(
        z.string(),
        z.custom<AdapterInfo>((value) => typeof value === 'object' && value !== null),
      ),
    }),
  ),
})

/** Models whose verdicts are kept for each file. */
const maxModels = 4

/**
 * What headers said, by path, size and date, so that they are read once and not at every start. A later version of the
 * application may read more out of the same file: it begins anew.
 */
export class AdapterCache {
  readonly #file: JsonFile<z.infer<typeof Stored>>
  #entries: Map<string, Entry>
  #isChanged = false

  private constructor(path: string, app: string, entries: Map<string, Entry>) {
    this.#entries = entries
    this.#file = new JsonFile(path, () => ({ version: 1, app, entries: Object.fromEntries(this.#entries) }))
  }

  static async open(path: string, app: string): Promise<AdapterCache> {
    const stored = await readJson(path, Stored)
    return new AdapterCache(path, app, new Map(stored?.app === app ? Object.entries(stored.entries) : []))
  }

  info(file: string, stamp: string, model: string): AdapterInfo | undefined {
    const entry = this.#entries.get(file)
    return entry?.stamp === stamp ? entry.infos[model] : undefined
  }

  setInfo(file: string, stamp: string, model: string, info: AdapterInfo): void {
    const { infos } = this.#entry(file, stamp)
    delete infos[model]
    const kept = Object.keys(infos)
    if (kept.length >= maxModels) delete infos[kept[0]]
    infos[model] = info
    this.#isChanged = true
  }

  /** The hash of a file's content as it is now; made and kept when it is not known. */
  async hash(file: string, stamp: string, make: () => Promise<string>): Promise<string> {
    const known = this.#entries.get(file)
    if (known?.stamp === stamp && known.hash !== undefined) return known.hash
    const made = await make()
    this.#entry(file, stamp).hash = made
    this.#isChanged = true
    return made
  }

  /** Forgets all other files. */
  keepOnly(files: ReadonlySet<string>): void {
    for (const file of this.#entries.keys()) if (!files.has(file)) this.#isChanged = this.#entries.delete(file)
  }

  async save(): Promise<void> {
    if (!this.#isChanged) return
    this.#isChanged = false
    await this.#file.save()
  }

  #entry(file: string, stamp: string): Entry {
    const known = this.#entries.get(file)
    if (known?.stamp === stamp) return known
    const made: Entry = { stamp, infos: {} }
    this.#entries.set(file, made)
    return made
  }
}
