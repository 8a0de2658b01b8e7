import { copyFile, mkdir, open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import type * as z from 'zod'
import { replaceFile } from '../../models/replace-file.ts'

/**
 * Writes a file so that at every moment, also after a power cut, either the old or the new content is there: replaced
 * whole, and the folder flushed as well.
 */
export async function writeAtomic(path: string, data: Uint8Array | string): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await replaceFile(path, data)
  await syncFolder(dirname(path))
}

/** A rename is on the disk only when its folder is. Windows cannot flush folders and does not need to. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Reads a JSON file of ours, or its last good copy when it is damaged; undefined when there is neither. */
export async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  for (const candidate of [path, backupOf(path)]) {
    try {
      const parsed = schema.safeParse(JSON.parse(await readFile(candidate, 'utf8')))
      if (parsed.success) return parsed.data
    } catch {
      // Absent or cut off: the copy is next.
    }
  }
  return undefined
}

/**
 * A JSON file that is rewritten whole. `save` resolves when what `read` gave at or after the call is on the disk;
 * calls that come while a write is under way share the next one, so a thousand changes do not cost a thousand writes.
 */
export class JsonFile<T> {
  readonly #path: string
  readonly #read: () => T
  #next: Promise<void> | undefined
  #last: Promise<void> = Promise.resolve()

  constructor(path: string, read: () => T) {
    this.#path = path
    this.#read = read
  }

  save(): Promise<void> {
    return (this.#next ??= this.#last = this.#last.catch(() => {}).then(() => this.#write()))
  }

  async #write(): Promise<void> {
    this.#next = undefined
    await copyFile(this.#path, backupOf(this.#path)).catch(() => {}) // there is none the first time
    await writeAtomic(this.#path, JSON.stringify(this.#read(), null, 1))
  }
}

function backupOf(path: string): string {
  return `${path}.bak`
}
