export type UndoScope = 'studio' | 'library' | 'queue'
export type UndoStep = { label: string; scope: UndoScope; undo: () => unknown; redo?: () => unknown }

const limits: Record<UndoScope, number> = { studio: 100, library: 50, queue: 50 }

/** What can be taken back, per area; the newest first. */
export class UndoState {
  #done = $state.raw<UndoStep[]>([])
  #undone = $state.raw<UndoStep[]>([])
  readonly #onProblem: (error: unknown) => void
  readonly #now: () => number
  #pushedAt = -Infinity
  #typedAt = -Infinity

  constructor(onProblem: (error: unknown) => void = () => {}, now = () => performance.now()) {
    this.#onProblem = onProblem
    this.#now = now
  }

  push(step: UndoStep): void {
    this.#keep(step)
    this.#undone = this.#undone.filter(({ scope }) => scope !== step.scope)
    this.#pushedAt = this.#now()
  }

  /** Somebody typed into a field: until the next step, its own undo is what they mean while they are in it. */
  typed(): void {
    this.#typedAt = this.#now()
  }

  get isNewerThanTyping(): boolean {
    return this.#pushedAt > this.#typedAt
  }

  /** The newest of the area, else the newest of all. */
  next(scope?: UndoScope): UndoStep | undefined {
    return this.#done.filter((step) => step.scope === scope).at(-1) ?? this.#done.at(-1)
  }

  nextRedo(scope?: UndoScope): UndoStep | undefined {
    return this.#undone.filter((step) => step.scope === scope).at(-1) ?? this.#undone.at(-1)
  }

  async undo(scope?: UndoScope): Promise<UndoStep | undefined> {
    const step = this.next(scope)
    return step && (await this.take(step)) ? step : undefined
  }

  /** Takes this one back, whatever came after it. False when that was done before, or failed. */
  async take(step: UndoStep): Promise<boolean> {
    if (!this.#done.includes(step)) return false
    this.#done = this.#done.filter((one) => one !== step)
    try {
      await step.undo()
    } catch (error) {
      this.#onProblem(error)
      return false
    }
    if (step.redo) this.#undone = [...this.#undone, step]
    return true
  }

  async redo(scope?: UndoScope): Promise<UndoStep | undefined> {
    const step = this.nextRedo(scope)
    if (!step) return undefined
    this.#undone = this.#undone.filter((one) => one !== step)
    try {
      await step.redo?.()
    } catch (error) {
      this.#onProblem(error)
      return undefined
    }
    this.#keep(step)
    return step
  }

  #keep(step: UndoStep): void {
    const same = this.#done.filter(({ scope }) => scope === step.scope)
    const oldest = same.length >= limits[step.scope] ? same[0] : undefined
    this.#done = [...this.#done.filter((one) => one !== oldest), step]
  }
}
