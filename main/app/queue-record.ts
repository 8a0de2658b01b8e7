import type { Job, JobEvent, QueueState } from '../../preload/contract/jobs.ts'
import type { Log } from './log.ts'
import { QueueJournal, type Line, type StoredQueue } from './queue-journal.ts'
import { isOver, QueueList, stored, storedState, type Entry } from './queue-list.ts'

/** Jobs that are over and still listed, so that a window opened again shows what happened. */
const keptOver = 300

/** The queue as it is known in three places: in memory, on disk, and on the screen; changes reach them in this order. */
export class QueueRecord {
  readonly list = new QueueList()
  #queue: QueueState = { isPaused: false, isPausingAfterCurrent: false }
  readonly #journal: QueueJournal
  readonly #emit: (event: JobEvent) => void
  readonly #log: Log

  constructor(options: { file: string; emit: (event: JobEvent) => void; log: Log }) {
    this.#emit = options.emit
    this.#log = options.log
    this.#journal = new QueueJournal({
      file: options.file,
      snapshot: () => ({ jobs: [...this.list.all()].map(stored), queue: this.#storedQueue() }),
    })
  }

  get queue(): QueueState {
    return this.#queue
  }

  /** What was found at the start. */
  async begin(entries: readonly Entry[], queue: QueueState): Promise<void> {
    this.list.add(entries)
    this.#queue = queue
    await this.#journal.rewrite().catch((error: unknown) => this.#warn(error))
  }

  /** New jobs, and those that made room for them. When they cannot be written down they were never there. */
  async insert(entries: readonly Entry[], changed: readonly Entry[] = []): Promise<void> {
    this.list.add(entries)
    const lines: Line[] = [{ put: entries.map(stored) }]
    if (changed.length > 0) lines.unshift({ set: changed.map(storedState) })
    try {
      await this.#journal.write(lines)
    } catch (error) {
      this.list.remove(entries)
      throw error
    }
    this.tell([...changed, ...entries])
  }

  async show(entries: readonly Entry[]): Promise<void> {
    if (entries.length === 0) return
    await this.save(entries)
    this.tell(entries)
  }

  /** As `show`, of jobs whose requests are others now. */
  async replace(entries: readonly Entry[]): Promise<void> {
    if (entries.length === 0) return
    await this.#write([{ put: entries.map(stored) }])
    this.tell(entries)
  }

  save(entries: readonly Entry[]): Promise<void> {
    return this.#write([{ set: entries.map(storedState) }])
  }

  async remove(entries: readonly Entry[]): Promise<void> {
    if (entries.length === 0) return
    this.list.remove(entries)
    const ids = entries.map(({ job }) => job.id)
    await this.#write([{ gone: ids }])
    this.#emit({ type: 'jobs:gone', ids })
  }

  /** How far a job is: shown at once, since a step that is lost with a crash is made again. */
  progress(entry: Entry): void {
    const { id, step, steps } = entry.job
    this.#journal.note(id, step, steps)
    this.tell([entry])
  }

  tell(entries: readonly Entry[]): void {
    this.#emit({ type: 'jobs:changed', jobs: entries.map(({ job }) => job) })
  }

  async setQueue(part: Partial<QueueState>): Promise<void> {
    const next: QueueState = { ...this.#queue, ...part }
    for (const key of Object.keys(next) as (keyof QueueState)[]) if (next[key] === undefined) delete next[key]
    this.#queue = next
    await this.#write([{ queue: this.#storedQueue() }])
    this.#emit({ type: 'queue:changed', queue: next })
  }

  /** Says of each batch of these jobs whether it is over with them. */
  tellBatches(entries: readonly Entry[]): void {
    for (const batchId of new Set(entries.map(({ job }) => job.batchId))) {
      const counts = { done: 0, failed: 0, cancelled: 0 }
      let isOpen = false
      for (const { job } of this.list.all()) {
        if (job.batchId !== batchId) continue
        if (isOver(job)) counts[job.status as keyof typeof counts]++
        else isOpen = true
      }
      if (!isOpen) this.#emit({ type: 'batch:finished', batchId, ...counts })
    }
  }

  /** Takes the oldest of many jobs that are over out of the list, and returns them. */
  async forgetOld(): Promise<Entry[]> {
    const isOpen = new Set<string>()
    const over: Entry[] = []
    for (const entry of this.list.all()) {
      if (isOver(entry.job)) over.push(entry)
      else isOpen.add(entry.job.batchId)
    }
    if (over.length <= keptOver) return []
    // Batches that go on are counted by their jobs.
    const old = over.filter(({ job }) => !isOpen.has(job.batchId))
    old.sort((a, b) => endOf(a.job) - endOf(b.job))
    const forgotten = old.slice(0, over.length - keptOver)
    await this.remove(forgotten)
    return forgotten
  }

  /** The last word: the queue was left in good order. */
  async close(changed: readonly Entry[]): Promise<void> {
    await this.#write([...(changed.length > 0 ? [{ set: changed.map(storedState) }] : []), { closed: true }])
  }

  #storedQueue(): StoredQueue {
    const queue = { ...this.#queue }
    delete queue.problem
    return queue
  }

  /**
   * A job that was taken in goes on when the journal cannot be written, on a full disk say: at worst it is made again after
   * a crash. That its picture cannot be saved either it will say itself.
   */
  async #write(lines: readonly Line[]): Promise<void> {
    await this.#journal.write(lines).catch((error: unknown) => this.#warn(error))
  }

  #warn(error: unknown): void {
    this.#log.warn('the queue could not be written to disk', error)
  }
}

function endOf({ endedAt = 0 }: Job): number {
  return endedAt
}
