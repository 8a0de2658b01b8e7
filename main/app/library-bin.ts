import type Database from 'libsql'
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import { dropRow } from './library-rows.ts'

const dayMs = 86_400_000

/**
 * The bin: deleted pictures lie in a folder of their own, under the same names, until they are restored or the bin is
 * emptied. What the person added to them stays where it is, so that restoring brings everything back.
 */
export class LibraryBin {
  readonly #index: Database.Database
  readonly #folder: string
  readonly #bin: string
  readonly #now: () => Date

  constructor(index: Database.Database, folder: string, bin: string, now: () => Date) {
    this.#index = index
    this.#folder = folder
    this.#bin = bin
    this.#now = now
  }

  /** Resolves with the ids that were moved; one that is there already, or gone, is passed over. */
  async put(ids: readonly string[]): Promise<string[]> {
    const moved: string[] = []
    for (const { id, file, n } of this.#rows(ids, 0)) {
      await move(join(this.#folder, file), join(this.#bin, file))
      this.#index.prepare('INSERT OR REPLACE INTO own.bin (id, binned_at) VALUES (?, ?)').run(id, this.#now().getTime())
      this.#index.prepare('UPDATE pictures SET is_binned = 1 WHERE n = ?').run(n)
      moved.push(id)
    }
    return moved
  }

  async restore(ids: readonly string[]): Promise<string[]> {
    const moved: string[] = []
    for (const { id, file, n } of this.#rows(ids, 1)) {
      await move(join(this.#bin, file), join(this.#folder, file))
      this.#index.prepare('UPDATE pictures SET is_binned = 0 WHERE n = ?').run(n)
      this.#index.prepare('DELETE FROM own.bin WHERE id = ?').run(id)
      moved.push(id)
    }
    return moved
  }

  size(): { count: number; bytes: number } {
    const { count, bytes } = this.#index
      .prepare('SELECT count(*) AS count, coalesce(sum(bytes), 0) AS bytes FROM pictures WHERE is_binned = 1')
      .get() as { count: number; bytes: number }
    return { count, bytes }
  }

  /** Deletes for good what has been in the bin for so many days; 0 days: all of it. */
  async empty(days = 0): Promise<string[]> {
    const rows = this.#index
      .prepare(
        `SELECT p.id, p.file, p.n FROM pictures p LEFT JOIN own.bin b ON b.id = p.id
         WHERE p.is_binned = 1 AND (? = 0 OR b.binned_at <= ?)`,
      )
      .all(days, this.#now().getTime() - days * dayMs) as { id: string; file: string; n: number }[]
    const gone: string[] = []
    for (const { id, file, n } of rows) {
      await rm(join(this.#bin, file), { force: true })
      for (const table of ['marks', 'tags', 'album_pictures', 'bin'])
        this.#index.prepare(`DELETE FROM own.${table} WHERE id = ?`).run(id)
      dropRow(this.#index, n)
      gone.push(id)
    }
    return gone
  }

  /** A picture that lies in the bin without a date, after the index was made again: its time begins now. */
  date(id: string): void {
    this.#index.prepare('INSERT OR IGNORE INTO own.bin (id, binned_at) VALUES (?, ?)').run(id, this.#now().getTime())
  }

  #rows(ids: readonly string[], isBinned: 0 | 1): { id: string; file: string; n: number }[] {
    const find = this.#index.prepare('SELECT id, file, n FROM pictures WHERE id = ? AND is_binned = ?')
    return ids.flatMap((id) => (find.get(id, isBinned) as { id: string; file: string; n: number } | undefined) ?? [])
  }
}

/** Never over a file that is there. A file that is gone has nothing left to move. */
async function move(from: string, to: string): Promise<void> {
  const isTaken = await stat(to).then(
    () => true,
    () => false,
  )
  if (isTaken) {
    throw new VignetteError('file-unreadable', `Another file lies where this picture belongs (${to}).`, {
      hint: 'Move that file elsewhere, then try again.',
    })
  }
  await mkdir(dirname(to), { recursive: true })
  await rename(from, to).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw fromSystemError(error) ?? error
  })
}
