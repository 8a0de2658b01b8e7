export type UndoScope = 'studio' | 'library' | 'queue'
export type UndoStep = { label: string; scope: UndoScope; undo: () => unknown; redo?: () => unknown }

const limits: Record<UndoScope, number> = { studio: 100, library: 50, queue: 50 }

/** What can be taken back, per area; the newest first. */
export class UndoState {
  #done = $state.raw<UndoStep[]>([])
  #undone = $state.raw<UndoStep[]>([])

  push(step: UndoStep): void {
    const same = this.#done.filter(({ scope }) => scope === step.scope)
    const oldest = same.length >= limits[step.scope] ? same[0] : undefined
    this.#done = [...this.#done.filter((one) => one !== oldest), step]
    this.#undone = this.#undone.filter(({ scope }) => scope !== step.scope)
  }

  /** The newest of the area, else the newest of all. */
  next(scope?: UndoScope): UndoStep | undefined {
    return this.#done.filter((step) => step.scope === scope).at(-1) ?? this.#done.at(-1)
  }

  async undo(scope?: UndoScope): Promise<UndoStep | undefined> {
    const step = this.next(scope)
    if (!step) return undefined
    this.#done = this.#done.filter((one) => one !== step)
    await step.undo()
    if (step.redo) this.#undone = [...this.#undone, step]
    return step
  }

  async redo(scope?: UndoScope): Promise<UndoStep | undefined> {
    const step = this.#undone.filter((one) => one.scope === scope).at(-1) ?? this.#undone.at(-1)
    if (!step) return undefined
    this.#undone = this.#undone.filter((one) => one !== step)
    await step.redo?.()
    this.#done = [...this.#done, step]
    return step
  }
}
