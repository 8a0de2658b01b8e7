import type { Job } from '../../preload/contract/jobs.ts'
import type { EngineJob } from '../engine/protocol.ts'
import type { JobClock } from './pace.ts'
import type { StoredJob, StoredState } from './queue-journal.ts'

export type FilledRequest = EngineJob['request']

/** A job with what the screen need not know. */
export type Entry = {
  job: Job
  interruptions: number
  crashes: number
  clock?: JobClock
  /** Why the running job was asked to stop. */
  stop?: 'cancel' | 'pause' | 'close'
  /** A picture that is made but could not be saved yet. */
  unsaved?: () => Promise<void>
}

export type Place = 'back' | 'front'
export type Move = 'up' | 'down' | 'top' | 'bottom' | { before: string }

/** The jobs of the queue and their order, which is that of their ranks: to move one changes no other. */
export class QueueList {
  readonly #entries = new Map<string, Entry>()
  /** Cached, since it is asked for at every step and sorted only after a change. */
  #waiting: Entry[] | undefined

  get(id: string): Entry | undefined {
    return this.#entries.get(id)
  }

  all(): IterableIterator<Entry> {
    return this.#entries.values()
  }

  get size(): number {
    return this.#entries.size
  }

  /** What waits, in order. */
  waiting(): readonly Entry[] {
    return (this.#waiting ??= [...this.#entries.values()]
      .filter(({ job }) => job.status === 'waiting')
      .sort((a, b) => a.job.rank - b.job.rank))
  }

  running(): Entry | undefined {
    for (const entry of this.#entries.values()) if (entry.job.status === 'running') return entry
    return undefined
  }

  add(entries: readonly Entry[]): void {
    for (const entry of entries) this.#entries.set(entry.job.id, entry)
    this.#waiting = undefined
  }

  remove(entries: readonly Entry[]): void {
    for (const { job } of entries) this.#entries.delete(job.id)
    this.#waiting = undefined
  }

  setStatus(entry: Entry, status: Job['status']): void {
    entry.job.status = status
    this.#waiting = undefined
  }

  /**
   * Ranks for `count` jobs that come: at the end, or before all others. `isAhead`: what a person waits for in the Studio
   * goes before the jobs that nobody waits for, and after its like. `changed` had to make room for them.
   */
  ranksFor(count: number, place: Place, isAhead: boolean): { ranks: number[]; changed: Entry[] } {
    const waiting = this.waiting()
    const at = isAhead ? lastIndex(waiting, ({ job }) => isStudioJob(job)) + 1 : waiting.length
    return this.#ranksAt(waiting, place === 'front' ? 0 : at, count)
  }

  /** Gives the jobs of `ids` that wait a new place; returns all whose rank is another one now. */
  move(ids: readonly string[], to: Move): Entry[] {
    const wanted = new Set(ids)
    const waiting = this.waiting()
    const moved = waiting.filter(({ job }) => wanted.has(job.id))
    const rest = waiting.filter(({ job }) => !wanted.has(job.id))
    if (moved.length === 0) return []
    const { ranks, changed } = this.#ranksAt(rest, placeOf(waiting, wanted, to), moved.length)
    moved.forEach((entry, i) => (entry.job.rank = ranks[i]))
    this.#waiting = undefined
    return [...changed, ...moved]
  }

  /** Ranks for `count` jobs before `list[at]`. Where no numbers are left in between, the list gets new ones. */
  #ranksAt(list: readonly Entry[], at: number, count: number): { ranks: number[]; changed: Entry[] } {
    const low = list[at - 1]?.job.rank
    const high = list[at]?.job.rank
    const ranks = between(low, high, count)
    if (new Set([low, ...ranks, high]).size === count + 2 || low === undefined || high === undefined)
      return { ranks, changed: [] }
    list.forEach(({ job }, i) => (job.rank = i))
    return { ranks: between(at - 1, at, count), changed: [...list] }
  }
}

/** Those that a person waits for in the Studio, unlike batches that run for hours. */
export function isStudioJob({ source }: Pick<Job, 'source'>): boolean {
  return source === 'studio' || source === 'audition' || source === 'test'
}

export function isOver({ status }: Pick<Job, 'status'>): boolean {
  return status !== 'waiting' && status !== 'running'
}

/** What of a job is not written down: it is known anew at the next step, or, of the request, written once. */
const passing = ['request', 'preview', 'etaMs', 'batchEtaMs', 'queueEtaMs', 'slowReason', 'isStopping'] as const

export function storedState({ job, interruptions, crashes, stop }: Entry): StoredState {
  const state: Partial<Job> = { ...job }
  for (const key of passing) delete state[key]
  return {
    ...(state as Omit<Job, (typeof passing)[number]>),
    ...{ interruptions, crashes },
    ...(stop === 'cancel' ? { isGivenUp: true } : {}),
  }
}

export function stored(entry: Entry): StoredJob {
  return { ...storedState(entry), request: entry.job.request }
}

/** How many of those that stay are before the moved ones. */
function placeOf(waiting: readonly Entry[], moved: ReadonlySet<string>, to: Move): number {
  const isMoved = ({ job }: Entry) => moved.has(job.id)
  const stayBefore = (index: number) => waiting.slice(0, index).filter((entry) => !isMoved(entry)).length
  if (to === 'top') return 0
  if (to === 'bottom') return stayBefore(waiting.length)
  if (to === 'up') return Math.max(0, stayBefore(waiting.findIndex(isMoved)) - 1)
  if (to === 'down') return Math.min(stayBefore(lastIndex(waiting, isMoved)) + 1, stayBefore(waiting.length))
  const at = waiting.findIndex(({ job }) => job.id === to.before)
  return stayBefore(at < 0 ? waiting.length : at)
}

function lastIndex(list: readonly Entry[], is: (entry: Entry) => boolean): number {
  for (let i = list.length - 1; i >= 0; i--) if (is(list[i])) return i
  return -1
}

/** `count` growing numbers after `low` and before `high`. */
function between(low: number | undefined, high: number | undefined, count: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    if (low !== undefined && high !== undefined) return low + ((high - low) * (i + 1)) / (count + 1)
    if (high !== undefined) return high - count + i
    return (low ?? 0) + 1 + i
  })
}
