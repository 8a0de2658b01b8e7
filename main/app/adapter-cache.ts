import { mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import * as z from 'zod'
import type { AdapterInfo } from '../../models/adapters/types.ts'
import { replaceFile } from '../../models/replace-file.ts'
import type { AdapterReading } from './adapter-reader.ts'
import { breaths } from './breath.ts'

/** What was read from one file, for as long as its stamp stays the same. */
export type CachedFile = {
  stamp: string
  print?: string
  hash?: string
  /** By model: what the file is to it. */
  infos: Record<string, AdapterInfo>
}

const Head = z.object({ version: z.literal(2), app: z.string() })
/** Infos are our own writing; one that does not look like them only costs another reading. */
const Line = z.object({
  file: z.string(),
  stamp: z.string(),
  print: z.string().optional(),
  hash: z.string().optional(),
  infos: z.record(
    z.string(),
    z.custom<AdapterInfo>((value) => typeof value === 'object' && value !== null),
  ),
})

/** Models whose verdicts are kept for each file. */
const maxModels = 4

/**
 * What headers said, by path, size and date, so that they are read once and not at every start. A later version of the
 * application may read more out of the same file: it begins anew. One line a file, because thousands of them in one
 * piece of JSON would hold everything else up.
 */
export class AdapterCache {
  readonly #path: string
  readonly #app: string
  readonly #entries: Map<string, CachedFile>
  #isChanged = false
  #saving: Promise<void> = Promise.resolve()

  private constructor(path: string, app: string, entries: Map<string, CachedFile>) {
    this.#path = path
    this.#app = app
    this.#entries = entries
  }

  static async open(path: string, app: string): Promise<AdapterCache> {
    const [head, ...lines] = (await readFile(path, 'utf8').catch(() => '')).split('\n')
    const entries = new Map<string, CachedFile>()
    if (Head.safeParse(parsed(head)).data?.app !== app) return new AdapterCache(path, app, entries)
    const breathe = breaths()
    for (const line of lines) {
      const { file, ...entry } = Line.safeParse(parsed(line)).data ?? {}
      if (file !== undefined) entries.set(file, entry as CachedFile)
      await breathe()
    }
    return new AdapterCache(path, app, entries)
  }

  /** Whatever is known of a path, also when nothing lies there any more. */
  get(file: string): Readonly<CachedFile> | undefined {
    return this.#entries.get(file)
  }

  files(): string[] {
    return [...this.#entries.keys()]
  }

  reading(file: string, stamp: string, model: string): AdapterReading | undefined {
    const entry = this.#entries.get(file)
    const info = entry?.stamp === stamp ? entry.infos[model] : undefined
    return info && { info, ...(entry?.print === undefined ? {} : { print: entry.print }) }
  }

  set(file: string, stamp: string, model: string, { info, print }: AdapterReading): void {
    const entry = this.#entry(file, stamp)
    if (print === undefined) delete entry.print
    else entry.print = print
    delete entry.infos[model]
    const kept = Object.keys(entry.infos)
    if (kept.length >= maxModels) delete entry.infos[kept[0]]
    entry.infos[model] = info
    this.#isChanged = true
  }

  knownHash(file: string, stamp: string): string | undefined {
    const known = this.#entries.get(file)
    return known && ownStamp(known.stamp) === ownStamp(stamp) ? known.hash : undefined
  }

  /** The hash of a file's content as it is now; made and kept when it is not known. */
  async hash(file: string, stamp: string, make: () => Promise<string>): Promise<string> {
    const known = this.knownHash(file, stamp)
    if (known !== undefined) return known
    const made = await make()
    this.#entry(file, stamp).hash = made
    this.#isChanged = true
    return made
  }

  forget(file: string): void {
    if (this.#entries.delete(file)) this.#isChanged = true
  }

  save(): Promise<void> {
    this.#saving = this.#saving.catch(() => {}).then(() => this.#write())
    return this.#saving
  }

  async #write(): Promise<void> {
    if (!this.#isChanged) return
    this.#isChanged = false
    await mkdir(dirname(this.#path), { recursive: true })
    await replaceFile(this.#path, async (target) => {
      const breathe = breaths()
      let lines = [JSON.stringify({ version: 2, app: this.#app })]
      for (const [file, entry] of [...this.#entries]) {
        lines.push(JSON.stringify({ file, ...entry }))
        if (lines.length >= 100) {
          await target.writeFile(`${lines.join('\n')}\n`)
          lines = []
        }
        await breathe()
      }
      await target.writeFile(`${lines.join('\n')}\n`)
    })
  }

  #entry(file: string, stamp: string): CachedFile {
    const known = this.#entries.get(file)
    if (known?.stamp === stamp) return known
    // A note beside the file changes the stamp, but not what the file contains.
    const isSameFile = known && ownStamp(known.stamp) === ownStamp(stamp)
    const made: CachedFile = { stamp, infos: {}, ...(isSameFile && known.hash ? { hash: known.hash } : {}) }
    this.#entries.set(file, made)
    return made
  }
}

/** That of the file alone. */
const ownStamp = (stamp: string) => stamp.split(' ', 1)[0]

function parsed(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
