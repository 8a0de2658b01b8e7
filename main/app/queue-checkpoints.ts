import { existsSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'

/** What is done of unfinished pictures: a file each, which the engine writes and the queue takes away. */
export class QueueCheckpoints {
  readonly #folder: string
  readonly #isKept: () => boolean

  constructor(folder: string, isKept: () => boolean) {
    this.#folder = folder
    this.#isKept = isKept
  }

  /** The jobs of which there is something. */
  async list(): Promise<Set<string>> {
    await mkdir(this.#folder, { recursive: true }).catch(() => {})
    return new Set(await readdir(this.#folder).catch(() => []))
  }

  has(id: string): boolean {
    return this.#isKept() && existsSync(join(this.#folder, id))
  }

  /** Where that of a job goes; nowhere when the person wants none. */
  fileOf(id: string): string | undefined {
    return this.#isKept() ? join(this.#folder, id) : undefined
  }

  drop(ids: Iterable<string>): void {
    for (const id of ids) void rm(join(this.#folder, id), { force: true }).catch(() => {})
  }
}
