import { randomUUID } from 'node:crypto'

/** Changes that can be taken back while the application runs, the newest few of them. */
const kept = 50

/** What was there before each change, by an id that takes it back. */
export class UndoShelf<T> {
  readonly #all = new Map<string, T>()

  keep(before: T): string {
    const id = randomUUID()
    this.#all.set(id, before)
    if (this.#all.size > kept) this.#all.delete([...this.#all.keys()][0])
    return id
  }

  /** Once. */
  take(id: string): T | undefined {
    const before = this.#all.get(id)
    this.#all.delete(id)
    return before
  }
}
