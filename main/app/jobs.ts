import { randomInt, randomUUID } from 'node:crypto'
import { VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { Job, JobEvent, JobSource, QueueState } from '../../preload/contract/jobs.ts'
import type { Settings } from '../../preload/contract/settings.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { limits } from '../../preload/limits.ts'
import { QueueCheckpoints } from './queue-checkpoints.ts'
import { QueueJournal } from './queue-journal.ts'
import {
  isOver,
  isStudioJob,
  type Entry,
  type FilledRequest,
  type Move,
  type Place,
  type QueueList,
} from './queue-list.ts'
import { QueueRecord } from './queue-record.ts'
import { recoverQueue } from './queue-recover.ts'
import { QueueWorker, type WorkerOptions } from './queue-worker.ts'

export type JobsOptions = WorkerOptions & {
  /** The journal. */
  file: string
  /** Where what is done of a job is kept. */
  checkpointFolder: string
  settings: () => Settings
  emit: (event: JobEvent) => void
  /** The picture of a job that was being saved when everything ended, if it was. */
  madeBy?: (job: Job) => string | undefined
  now?: () => number
}

/** A complete request for one picture, and what the person should know of it. */
export type NewJob = { request: FilledRequest; notices?: readonly string[] }
export type AddOptions = { place?: Place; source?: JobSource; label?: string }

const keptClears = 20

/**
 * The queue: one picture at a time, in order. Every change is on disk before it is shown, so that it is there again after
 * the application, or the computer, went down.
 */
export class Jobs {
  readonly #options: JobsOptions
  readonly #now: () => number
  readonly #record: QueueRecord
  readonly #checkpoints: QueueCheckpoints
  readonly #worker: QueueWorker
  /** What was cleared, for as long as it can be brought back. */
  readonly #cleared = new Map<string, Entry[]>()

  private constructor(options: JobsOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#record = new QueueRecord(options)
    const { checkpointFolder, settings } = options
    this.#checkpoints = new QueueCheckpoints(
      checkpointFolder,
      () => settings().keepsCheckpoints ?? settingDefaults.keepsCheckpoints,
    )
    this.#worker = new QueueWorker(this.#record, this.#checkpoints, options, this.#now)
  }

  get #list(): QueueList {
    return this.#record.list
  }

  /** Reads the queue as it was left and goes on with it, unless the application went down: then the person decides. */
  static async open(options: JobsOptions): Promise<Jobs> {
    const jobs = new Jobs(options)
    const isKept = await jobs.#checkpoints.list()
    const found = await QueueJournal.read(options.file)
    if (found.damaged > 0) options.log.warn(`${found.damaged} lines of the queue could not be read`)
    const afterCrash = options.settings().afterCrash ?? settingDefaults.afterCrash
    const { madeBy = () => undefined } = options
    const { entries, queue } = recoverQueue(found, { isKept, afterCrash, madeBy, now: jobs.#now() })
    await jobs.#record.begin(entries, queue)
    jobs.#checkpoints.drop([...isKept].filter((id) => !jobs.#list.get(id)))
    jobs.#worker.armStop()
    jobs.#worker.work()
    return jobs
  }

  list(): Job[] {
    return [...this.#list.all()].map(({ job }) => job)
  }

  state(): QueueState {
    return this.#record.queue
  }

  /** Throws when the queue does not take so many more. */
  checkRoom(count: number): void {
    const left = limits.maxWaitingJobs - this.#list.waiting().length
    if (count <= left) return
    throw new VignetteError('bad-request', `${count} more pictures are too many for the queue.`, {
      hint: `It takes ${limits.maxWaitingJobs.toLocaleString('en-GB')}; there is room for ${Math.max(0, left)}.`,
    })
  }

  /** Takes complete requests into the queue, as one batch: on disk together or not at all. */
  async add(
    newJobs: readonly NewJob[],
    { place = 'back', source = 'studio', label }: AddOptions = {},
  ): Promise<{ batchId: string; jobIds: string[] }> {
    this.checkRoom(newJobs.length)
    const batchId = randomUUID()
    const { ranks, changed } = this.#list.ranksFor(newJobs.length, place, this.#isAhead(source))
    const entries = newJobs.map(({ request, notices = [] }, i): Entry => {
      const job: Job = {
        ...{ id: randomUUID(), rank: ranks[i], batchId, place: i, batchSize: newJobs.length, source, request },
        ...{ status: 'waiting', phase: 'waiting', createdAt: this.#now(), step: 0, steps: request.steps },
      }
      if (label !== undefined) job.label = label
      if (notices.length > 0) job.notices = [...notices]
      return { job, interruptions: 0, crashes: 0 }
    })
    await this.#record.insert(entries, changed)
    this.#worker.work()
    return { batchId, jobIds: entries.map(({ job }) => job.id) }
  }

  /** Waiting jobs end at once, the running one at the end of its step. Nothing happens to those that are over. */
  async cancel(ids: readonly string[]): Promise<void> {
    const waiting = this.#of(ids).filter(({ job }) => job.status === 'waiting')
    const running = this.#of(ids).find(({ job }) => job.status === 'running')
    for (const entry of waiting) this.#worker.finish(entry, 'cancelled')
    await this.#record.show(waiting)
    if (running) await this.#worker.stop(running, 'cancel')
    this.#record.tellBatches(waiting)
  }

  async move(ids: readonly string[], to: Move): Promise<void> {
    await this.#record.show(this.#list.move(ids, to))
  }

  /** The same picture again; `size` makes it smaller. One that was stopped goes on where it was. */
  async retry(ids: readonly string[], size?: { width: number; height: number }): Promise<void> {
    const entries = this.#of(ids).filter(({ job }) => job.status === 'failed' || job.status === 'cancelled')
    const changed = new Set<Entry>()
    for (const entry of entries) {
      const { job } = entry
      const { ranks, changed: moved } = this.#list.ranksFor(1, 'back', this.#isAhead(job.source))
      for (const one of moved) changed.add(one)
      job.rank = ranks[0]
      if (size) {
        job.request = { ...job.request, ...size }
        delete job.resumesAt
        this.#checkpoints.drop([job.id])
      }
      Object.assign(entry, { interruptions: 0, crashes: 0, stop: undefined })
      job.phase = 'waiting'
      if (job.resumesAt === undefined) job.step = 0
      for (const key of ['error', 'smaller', 'endedAt', 'startedAt', 'appliedMs'] as const) delete job[key]
      if (job.resumesAt === undefined) delete job.preview
      this.#list.setStatus(entry, 'waiting')
    }
    await this.#record.replace([...changed, ...entries])
    this.#worker.work()
  }

  /** The same again with seeds of their own: what was one batch is one again. */
  async duplicate(ids: readonly string[]): Promise<void> {
    const batches = new Map<string, Entry[]>()
    for (const entry of this.#of(ids)) {
      const { batchId } = entry.job
      batches.set(batchId, [...(batches.get(batchId) ?? []), entry])
    }
    for (const entries of batches.values()) {
      const { source, label } = entries[0].job
      const again = entries.map(({ job }) => ({
        request: { ...(job.request as FilledRequest), seed: randomInt(limits.maxSeed + 1) },
      }))
      await this.add(again, { source, ...(label === undefined ? {} : { label }) })
    }
  }

  async hold(ids: readonly string[], isHeld: boolean): Promise<void> {
    const entries = this.#of(ids).filter(({ job }) => job.status === 'waiting')
    for (const { job } of entries) {
      if (isHeld) job.isHeld = true
      else delete job.isHeld
    }
    await this.#record.show(entries)
    this.#worker.work()
  }

  /** Takes jobs that are over out of the list. */
  async forget(ids: readonly string[]): Promise<void> {
    const entries = this.#of(ids).filter(({ job }) => isOver(job))
    await this.#record.remove(entries)
    this.#checkpoints.drop(entries.map(({ job }) => job.id))
  }

  async clearWaiting(): Promise<{ undoId: string; count: number }> {
    const entries = [...this.#list.waiting()]
    const undoId = randomUUID()
    this.#cleared.set(undoId, entries)
    if (this.#cleared.size > keptClears) {
      const [oldest] = this.#cleared.keys()
      this.#checkpoints.drop(this.#cleared.get(oldest)!.map(({ job }) => job.id))
      this.#cleared.delete(oldest)
    }
    await this.#record.remove(entries)
    return { undoId, count: entries.length }
  }

  /** Everything that was cleared is back in its old order. */
  async undoClear(undoId: string): Promise<void> {
    const entries = this.#cleared.get(undoId)
    if (!entries) throw new VignetteError('bad-request', 'What was cleared cannot be brought back any more.')
    this.#cleared.delete(undoId)
    await this.#record.insert(entries)
    this.#worker.work()
  }

  pause(when: 'now' | 'after-current'): Promise<void> {
    return this.#worker.pause(when)
  }

  /** At once, by whoever: the running job keeps what it has done. */
  pauseBecause(reason: NonNullable<QueueState['pausedBy']>, problem?: ErrorReport): Promise<void> {
    return this.#worker.pauseBecause(reason, problem)
  }

  /** Goes on. With a reason, only when it was that which paused the queue. */
  resume(reason?: QueueState['pausedBy']): Promise<void> {
    return this.#worker.resume(reason)
  }

  async discard(): Promise<{ undoId: string; count: number }> {
    const cleared = await this.clearWaiting()
    await this.resume()
    return cleared
  }

  async stopAt(at: number | null): Promise<void> {
    await this.#record.setQueue({ stopAt: at ?? undefined })
    this.#worker.armStop()
  }

  /** Resolves when the running job, if any, is over and nothing more is started. */
  finishCurrent(): Promise<void> {
    return this.#worker.finishCurrent()
  }

  /** Starts nothing more. The running job stops at the end of its step and goes on from there at the next start. */
  close(): Promise<void> {
    return this.#worker.close()
  }

  #of(ids: readonly string[]): Entry[] {
    return ids.map((id) => this.#list.get(id)).filter((entry) => entry !== undefined)
  }

  #isAhead(source: JobSource): boolean {
    return isStudioJob({ source }) && (this.#options.settings().isStudioFirst ?? settingDefaults.isStudioFirst)
  }
}
