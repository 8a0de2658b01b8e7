import type { ErrorReport } from '../../models/errors.ts'
import type { ImageRecord } from '../../preload/contract/images.ts'
import type { QueueState } from '../../preload/contract/jobs.ts'
import type { EngineClient } from '../engine/client.ts'
import type { Log } from './log.ts'
import type { Pace } from './pace.ts'
import type { QueueCheckpoints } from './queue-checkpoints.ts'
import { judge, lackOfSpace, whySlow, type Streak } from './queue-failures.ts'
import { isOver, type Entry, type FilledRequest, type QueueList } from './queue-list.ts'
import type { QueueRecord } from './queue-record.ts'
import { runEntry, type Outcome, type RunOptions } from './queue-run.ts'
import { timeAfter } from './queue-times.ts'

export type WorkerOptions = Pick<RunOptions, 'folderOf' | 'adapterFileOf' | 'library'> & {
  engine: Pick<EngineClient, 'run' | 'cancel'>
  pace: Pace
  onImage: (image: ImageRecord) => void
  /** The engine ended in the middle of a job. */
  onCrash: (message: string) => void
  /** All that could be made is made. */
  onIdle?: () => void
  /** Where the pictures go. */
  freeBytes: () => Promise<number | undefined>
  log: Log
}

/** How long leaving waits for the end of the running step. */
const closeMs = 2500
const keptGivenUp = 20

/** Makes what waits, one picture after the other, and stops when it should: by the person, by the clock, after failures. */
export class QueueWorker {
  readonly #record: QueueRecord
  readonly #checkpoints: QueueCheckpoints
  readonly #options: WorkerOptions
  readonly #now: () => number
  #streak: Streak | undefined
  #isClosing = false
  #working: Promise<void> | undefined
  #hasMade = false
  #stopTimer: NodeJS.Timeout | undefined

  constructor(record: QueueRecord, checkpoints: QueueCheckpoints, options: WorkerOptions, now: () => number) {
    this.#record = record
    this.#checkpoints = checkpoints
    this.#options = options
    this.#now = now
  }

  get #list(): QueueList {
    return this.#record.list
  }

  get #queue(): QueueState {
    return this.#record.queue
  }

  /** There may be something to do. */
  work(): void {
    this.#working ??= this.#workOff().finally(() => {
      this.#working = undefined
      if (this.#next()) this.work() // came in the very last moment
    })
  }

  async pause(when: 'now' | 'after-current'): Promise<void> {
    if (when === 'after-current' && this.#list.running())
      return this.#record.setQueue({ isPausingAfterCurrent: true, pausedBy: 'person' })
    await this.pauseBecause('person')
  }

  /** At once, by whoever: the running job keeps what it has done. */
  async pauseBecause(reason: NonNullable<QueueState['pausedBy']>, problem?: ErrorReport): Promise<void> {
    const running = this.#list.running()
    await this.#record.setQueue({ isPaused: true, pausedBy: reason, isPausingAfterCurrent: false, problem })
    if (running && !running.stop) await this.stop(running, 'pause')
  }

  /** Goes on. With a reason, only when it was that which paused the queue. */
  async resume(reason?: QueueState['pausedBy']): Promise<void> {
    if (reason !== undefined && this.#queue.pausedBy !== reason) return
    this.#streak = undefined
    await this.#record.setQueue({
      ...{ isPaused: false, pausedBy: undefined, isPausingAfterCurrent: false },
      ...{ interrupted: undefined, problem: undefined },
    })
    this.work()
  }

  /** When the queue pauses by itself: after the picture that is made then. */
  armStop(): void {
    clearTimeout(this.#stopTimer)
    const { stopAt } = this.#queue
    if (stopAt === undefined) return
    const wait = Math.min(Math.max(0, stopAt - this.#now()), 2 ** 31 - 1)
    this.#stopTimer = setTimeout(() => {
      if (this.#now() < stopAt) return this.armStop()
      const isRunning = this.#list.running() !== undefined
      void this.#record.setQueue({
        stopAt: undefined,
        pausedBy: 'schedule',
        ...(isRunning ? { isPausingAfterCurrent: true } : { isPaused: true }),
      })
    }, wait)
  }

  /** Asks the running job to stop; said before the engine hears of it. */
  async stop(entry: Entry, why: NonNullable<Entry['stop']>): Promise<void> {
    entry.stop = why
    entry.job.isStopping = true
    await this.#record.show([entry])
    this.#options.engine.cancel(entry.job.id)
  }

  /** Resolves when the running job, if any, is over and nothing more is started. */
  async finishCurrent(): Promise<void> {
    if (this.#queue.isPaused || !this.#list.running()) return this.#working
    await this.#record.setQueue({ isPausingAfterCurrent: true, pausedBy: 'person' })
    await this.#working
    // Only for leaving: the next start goes on by itself.
    if (this.#queue.pausedBy === 'person') await this.#record.setQueue({ isPaused: false, pausedBy: undefined })
  }

  /** Starts nothing more. The running job stops at the end of its step and goes on from there at the next start. */
  async close(): Promise<void> {
    this.#isClosing = true
    clearTimeout(this.#stopTimer)
    const running = this.#list.running()
    if (running && running.stop !== 'cancel') await this.stop(running, 'close')
    let timer: NodeJS.Timeout | undefined
    await Promise.race([this.#working, new Promise((resolve) => (timer = setTimeout(resolve, closeMs)))])
    clearTimeout(timer)
    const late = this.#list.running()
    if (late) this.#putBack(late)
    await this.#record.close(late ? [late] : [])
  }

  finish(entry: Entry, status: 'done' | 'failed' | 'cancelled'): void {
    const { job } = entry
    this.#list.setStatus(entry, status)
    this.#tidy(entry)
    job.endedAt = this.#now()
    delete job.isHeld
    delete entry.unsaved
    // One that was cancelled keeps what it looked like, and can go on.
    if (status === 'done') {
      job.phase = 'done'
      delete job.preview
    } else if (status === 'cancelled') this.#keepsAt(entry)
  }

  async #workOff(): Promise<void> {
    await Promise.resolve() // whoever adds a job is told of it before it runs
    for (let entry; (entry = this.#next());) await this.#run(entry)
    const isDone = this.#hasMade && !this.#isClosing && !this.#queue.isPaused && this.#list.waiting().length === 0
    if (isDone) this.#options.onIdle?.()
    this.#hasMade &&= !isDone
  }

  #next(): Entry | undefined {
    if (this.#isClosing || this.#queue.isPaused) return undefined
    return this.#list.waiting().find(({ job }) => !job.isHeld)
  }

  async #run(entry: Entry): Promise<void> {
    const { job } = entry
    const lack = lackOfSpace(await this.#options.freeBytes(), this.#neededBytes(entry))
    if (lack) return this.pauseBecause('disk-full', lack)
    if (this.#next() !== entry) return // something changed meanwhile
    delete entry.stop
    this.#list.setStatus(entry, 'running')
    Object.assign(job, { phase: 'waiting', step: job.resumesAt ?? 0, startedAt: this.#now() })
    entry.interruptions++
    await this.#record.show([entry])
    const rest = timeAfter(entry, this.#list, this.#options.pace, this.#now)
    const outcome = await runEntry(entry, {
      ...this.#options,
      now: this.#now,
      whySlow,
      checkpointOf: (id) => this.#checkpoints.fileOf(id),
      onProgress: () => {
        rest.tell()
        this.#record.progress(entry)
      },
      onSaving: () => this.#record.save([entry]),
      // Before it is shown: otherwise a crash now would make this picture twice.
      onSaved: async (image) => {
        await this.#record.save([entry])
        this.#options.onImage(image)
      },
    })
    await this.#settle(entry, outcome)
  }

  async #settle(entry: Entry, outcome: Outcome): Promise<void> {
    const { job } = entry
    if (job.status !== 'running') return // it was given up while leaving
    const queue: Partial<QueueState> = {}
    entry.interruptions = 0
    if (outcome.type === 'done') {
      this.finish(entry, 'done')
      this.#streak = undefined
      this.#hasMade = true
      this.#checkpoints.drop([job.id])
      if (this.#queue.problem) queue.problem = undefined
    } else if (outcome.type === 'cancelled') {
      if (entry.stop === 'pause' || entry.stop === 'close') this.#putBack(entry)
      else {
        this.finish(entry, 'cancelled')
        this.#dropOldCheckpoints(entry)
      }
    } else Object.assign(queue, this.#fail(entry, outcome))
    if (this.#queue.isPausingAfterCurrent) Object.assign(queue, { isPaused: true, isPausingAfterCurrent: false })
    await this.#record.show([entry])
    if (Object.keys(queue).length > 0) await this.#record.setQueue(queue)
    if (isOver(job)) {
      this.#record.tellBatches([entry])
      const forgotten = await this.#record.forgetOld()
      this.#checkpoints.drop(forgotten.map((one) => one.job.id))
    }
  }

  /** What becomes of a job that failed; returns what becomes of the queue. */
  #fail(entry: Entry, { error, cause }: Extract<Outcome, { type: 'failed' }>): Partial<QueueState> {
    const { job } = entry
    const { log } = this.#options
    if (error.code === 'internal') log.error(`job ${job.id}`, cause ?? error.message)
    else log.warn(`job ${job.id}: ${error.code}: ${error.message}`)
    if (error.code === 'engine-crashed') {
      entry.crashes++
      this.#options.onCrash(error.message)
    }
    const verdict = judge(entry, error, this.#streak)
    if (verdict.job === 'failed') {
      this.#streak = { code: error.code, batchId: job.batchId }
      job.error = error
      if (verdict.smaller) job.smaller = verdict.smaller
      this.finish(entry, 'failed')
    } else {
      this.#putBack(entry)
      job.rank = this.#list.ranksFor(1, 'front', false).ranks[0]
      this.#list.setStatus(entry, 'waiting')
    }
    if (verdict.pauses) return { isPaused: true, pausedBy: verdict.pauses, problem: error }
    return verdict.job === 'again' ? { problem: error } : {}
  }

  #putBack(entry: Entry): void {
    this.#keepsAt(entry)
    this.#tidy(entry)
    entry.job.phase = 'waiting'
    this.#list.setStatus(entry, 'waiting')
  }

  /** Where it can go on: at the end of the last step that it told of, or a little before. */
  #keepsAt({ job }: Entry): void {
    if (job.step > 0 && this.#checkpoints.has(job.id)) job.resumesAt = job.step
    else delete job.resumesAt
  }

  /** Of pictures that were given up only the last ones can go on: each takes megabytes. */
  #dropOldCheckpoints(last: Entry): void {
    const all = [...this.#list.all()].filter(({ job }) => job.status === 'cancelled' && job.resumesAt !== undefined)
    all.sort((a, b) => (b.job.endedAt ?? 0) - (a.job.endedAt ?? 0))
    const old = all.filter((entry) => entry !== last).slice(keptGivenUp - 1)
    for (const { job } of old) delete job.resumesAt
    this.#checkpoints.drop(old.map(({ job }) => job.id))
    if (old.length > 0) void this.#record.show(old)
  }

  #tidy(entry: Entry): void {
    const { job } = entry
    for (const key of ['isStopping', 'etaMs', 'batchEtaMs', 'queueEtaMs', 'slowReason'] as const) delete job[key]
    delete entry.stop
    delete entry.clock
  }

  #neededBytes({ job }: Entry): number {
    const ofBatch = this.#list.waiting().filter((one) => one.job.batchId === job.batchId).length
    return ofBatch * this.#options.pace.estimate(job.request as FilledRequest).bytes
  }
}
