import { randomInt, randomUUID } from 'node:crypto'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { ImageRecord } from '../../preload/contract/images.ts'
import type { Job, JobEvent, JobSource, QueueState } from '../../preload/contract/jobs.ts'
import type { Settings } from '../../preload/contract/settings.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { limits } from '../../preload/limits.ts'
import type { EngineClient } from '../engine/client.ts'
import type { Log } from './log.ts'
import type { Pace } from './pace.ts'
import { judge, lackOfSpace, whySlow, type Streak } from './queue-failures.ts'
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
import { runEntry, type Outcome, type RunOptions } from './queue-run.ts'
import { timeAfter } from './queue-times.ts'

export type JobsOptions = Pick<RunOptions, 'folderOf' | 'adapterFileOf' | 'library'> & {
  /** The journal. */
  file: string
  /** Where what is done of a job is kept. */
  checkpointFolder: string
  engine: Pick<EngineClient, 'run' | 'cancel'>
  pace: Pace
  settings: () => Settings
  emit: (event: JobEvent) => void
  onImage: (image: ImageRecord) => void
  /** The engine ended in the middle of a job. */
  onCrash: (message: string) => void
  /** All that could be made is made. */
  onIdle?: () => void
  /** Where the pictures go. */
  freeBytes: () => Promise<number | undefined>
  log: Log
  now?: () => number
}

/** A complete request for one picture, and what the person should know of it. */
export type NewJob = { request: FilledRequest; notices?: readonly string[] }
export type AddOptions = { place?: Place; source?: JobSource; label?: string }

const keptClears = 20
/** How long leaving waits for the end of the running step. */
const closeMs = 2500

/**
 * The queue: one picture at a time, in order. Every change is on disk before it is shown, so that it is there again after
 * the application, or the computer, went down.
 */
export class Jobs {
  readonly #options: JobsOptions
  readonly #now: () => number
  readonly #record: QueueRecord
  /** What was cleared, for as long as it can be brought back. */
  readonly #cleared = new Map<string, Entry[]>()
  #streak: Streak | undefined
  #isClosing = false
  #working: Promise<void> | undefined
  #hasMade = false
  #stopTimer: NodeJS.Timeout | undefined

  private constructor(options: JobsOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#record = new QueueRecord(options)
  }

  get #list(): QueueList {
    return this.#record.list
  }

  get #queue(): QueueState {
    return this.#record.queue
  }

  /** Reads the queue as it was left and goes on with it, unless the application went down: then the person decides. */
  static async open(options: JobsOptions): Promise<Jobs> {
    const jobs = new Jobs(options)
    const isKept = await checkpointsIn(options.checkpointFolder)
    const found = await QueueJournal.read(options.file)
    if (found.damaged > 0) options.log.warn(`${found.damaged} lines of the queue could not be read`)
    const afterCrash = options.settings().afterCrash ?? settingDefaults.afterCrash
    const { entries, queue } = recoverQueue(found, { isKept, afterCrash, now: jobs.#now() })
    await jobs.#record.begin(entries, queue)
    for (const id of isKept) if (!jobs.#list.get(id)) jobs.#dropCheckpoint(id)
    jobs.#armStop()
    jobs.#work()
    return jobs
  }

  list(): Job[] {
    return [...this.#list.all()].map(({ job }) => job)
  }

  state(): QueueState {
    return this.#queue
  }

  /** Takes complete requests into the queue, as one batch: on disk together or not at all. */
  async add(
    newJobs: readonly NewJob[],
    { place = 'back', source = 'studio', label }: AddOptions = {},
  ): Promise<{ batchId: string; jobIds: string[] }> {
    const left = limits.maxWaitingJobs - this.#list.waiting().length
    if (newJobs.length > left)
      throw new VignetteError('bad-request', `${newJobs.length} more pictures are too many for the queue.`, {
        hint: `It takes ${limits.maxWaitingJobs.toLocaleString('en-GB')}; there is room for ${Math.max(0, left)}.`,
      })
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
    this.#work()
    return { batchId, jobIds: entries.map(({ job }) => job.id) }
  }

  /** Waiting jobs end at once, the running one at the end of its step. Nothing happens to those that are over. */
  async cancel(ids: readonly string[]): Promise<void> {
    const waiting = this.#of(ids).filter(({ job }) => job.status === 'waiting')
    const running = this.#of(ids).find(({ job }) => job.status === 'running')
    for (const entry of waiting) this.#finish(entry, 'cancelled')
    await this.#record.show(waiting)
    if (running) await this.#stop(running, 'cancel')
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
        this.#dropCheckpoint(job.id)
      }
      Object.assign(entry, { interruptions: 0, crashes: 0, stop: undefined })
      job.phase = 'waiting'
      if (job.resumesAt === undefined) job.step = 0
      for (const key of ['error', 'smaller', 'endedAt', 'startedAt', 'appliedMs'] as const) delete job[key]
      if (job.resumesAt === undefined) delete job.preview
      this.#list.setStatus(entry, 'waiting')
    }
    await this.#record.replace([...changed, ...entries])
    this.#work()
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
    this.#work()
  }

  /** Takes jobs that are over out of the list. */
  async forget(ids: readonly string[]): Promise<void> {
    await this.#forget(this.#of(ids).filter(({ job }) => isOver(job)))
  }

  async clearWaiting(): Promise<{ undoId: string; count: number }> {
    const entries = [...this.#list.waiting()]
    const undoId = randomUUID()
    this.#cleared.set(undoId, entries)
    if (this.#cleared.size > keptClears) {
      const [oldest] = this.#cleared.keys()
      for (const { job } of this.#cleared.get(oldest)!) this.#dropCheckpoint(job.id)
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
    this.#work()
  }

  async pause(when: 'now' | 'after-current'): Promise<void> {
    const running = this.#list.running()
    if (when === 'after-current' && running) return this.#record.setQueue({ isPausingAfterCurrent: true, pausedBy: 'person' })
    await this.pauseBecause('person')
  }

  /** `now`, by whoever: the running job keeps what it has done. */
  async pauseBecause(reason: NonNullable<QueueState['pausedBy']>, problem?: ErrorReport): Promise<void> {
    const running = this.#list.running()
    await this.#record.setQueue({ isPaused: true, pausedBy: reason, isPausingAfterCurrent: false, problem })
    if (running && !running.stop) await this.#stop(running, 'pause')
  }

  /** Goes on. With a reason, only when it was that which paused the queue. */
  async resume(reason?: QueueState['pausedBy']): Promise<void> {
    if (reason !== undefined && this.#queue.pausedBy !== reason) return
    this.#streak = undefined
    await this.#record.setQueue({
      ...{ isPaused: false, pausedBy: undefined, isPausingAfterCurrent: false },
      ...{ interrupted: undefined, problem: undefined },
    })
    this.#work()
  }

  async discard(): Promise<{ undoId: string; count: number }> {
    const cleared = await this.clearWaiting()
    await this.resume()
    return cleared
  }

  async stopAt(at: number | null): Promise<void> {
    await this.#record.setQueue({ stopAt: at ?? undefined })
    this.#armStop()
  }

  /** Resolves when the running job, if any, is over and nothing more is started. */
  async finishCurrent(): Promise<void> {
    if (this.#list.running()) await this.#record.setQueue({ isPausingAfterCurrent: true })
    await this.#working
    // Only for leaving: the next start goes on by itself.
    await this.#record.setQueue({ isPaused: false, pausedBy: undefined })
  }

  /** Starts nothing more. The running job stops at the end of its step and goes on from there at the next start. */
  async close(): Promise<void> {
    this.#isClosing = true
    clearTimeout(this.#stopTimer)
    const running = this.#list.running()
    if (running) await this.#stop(running, 'close')
    let timer: NodeJS.Timeout | undefined
    await Promise.race([this.#working, new Promise((resolve) => (timer = setTimeout(resolve, closeMs)))])
    clearTimeout(timer)
    const late = this.#list.running()
    if (late) this.#putBack(late)
    await this.#record.close(late ? [late] : [])
  }

  #work(): void {
    this.#working ??= this.#workOff().finally(() => {
      this.#working = undefined
      if (this.#next()) this.#work() // came in the very last moment
    })
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
    Object.assign(job, { phase: 'loading', step: job.resumesAt ?? 0, startedAt: this.#now() })
    entry.interruptions++
    await this.#record.show([entry])
    const rest = timeAfter(entry, this.#list, this.#options.pace, this.#now)
    const outcome = await runEntry(entry, {
      ...this.#options,
      now: this.#now,
      whySlow,
      checkpointOf: (id) => this.#checkpointOf(id),
      onProgress: () => {
        rest.tell()
        this.#record.progress(entry)
      },
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
    const pausing: Partial<QueueState> = {}
    entry.interruptions = 0
    if (outcome.type === 'done') {
      this.#finish(entry, 'done')
      this.#streak = undefined
      this.#hasMade = true
      this.#dropCheckpoint(job.id)
      if (this.#queue.problem) pausing.problem = undefined
    } else if (outcome.type === 'cancelled') {
      if (entry.stop === 'pause' || entry.stop === 'close') this.#putBack(entry)
      else this.#finish(entry, 'cancelled')
    } else Object.assign(pausing, this.#fail(entry, outcome))
    if (this.#queue.isPausingAfterCurrent)
      Object.assign(pausing, { isPaused: true, isPausingAfterCurrent: false, pausedBy: pausing.pausedBy ?? this.#queue.pausedBy })
    await this.#record.show([entry])
    if (Object.keys(pausing).length > 0) await this.#record.setQueue(pausing)
    if (isOver(job)) {
      this.#record.tellBatches([entry])
      for (const old of await this.#record.forgetOld()) this.#dropCheckpoint(old.job.id)
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
      this.#finish(entry, 'failed')
    } else {
      this.#putBack(entry)
      job.rank = this.#list.ranksFor(1, 'front', false).ranks[0]
      this.#list.setStatus(entry, 'waiting')
    }
    if (verdict.pauses) return { isPaused: true, pausedBy: verdict.pauses, problem: error }
    return verdict.job === 'again' ? { problem: error } : {}
  }

  #finish(entry: Entry, status: 'done' | 'failed' | 'cancelled'): void {
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

  #putBack(entry: Entry): void {
    this.#keepsAt(entry)
    this.#tidy(entry)
    entry.job.phase = 'waiting'
    this.#list.setStatus(entry, 'waiting')
  }

  /** Where it can go on. Only whole pictures have a checkpoint, see EngineJob. */
  #keepsAt({ job }: Entry): void {
    if (job.step > 0 && job.request.speed === 'exact' && this.#checkpointOf(job.id)) job.resumesAt = job.step
  }

  #tidy(entry: Entry): void {
    const { job } = entry
    for (const key of ['isStopping', 'etaMs', 'batchEtaMs', 'queueEtaMs', 'slowReason'] as const) delete job[key]
    delete entry.stop
    delete entry.clock
  }

  async #stop(entry: Entry, why: NonNullable<Entry['stop']>): Promise<void> {
    entry.stop = why
    entry.job.isStopping = true
    await this.#record.show([entry])
    this.#options.engine.cancel(entry.job.id)
  }

  #neededBytes({ job }: Entry): number {
    const ofBatch = this.#list.waiting().filter((one) => one.job.batchId === job.batchId).length
    return ofBatch * this.#options.pace.estimate(job.request as FilledRequest).bytes
  }

  #armStop(): void {
    clearTimeout(this.#stopTimer)
    const { stopAt } = this.#queue
    if (stopAt === undefined) return
    const wait = Math.min(Math.max(0, stopAt - this.#now()), 2 ** 31 - 1)
    this.#stopTimer = setTimeout(() => {
      if (this.#now() < stopAt) return this.#armStop()
      const isRunning = this.#list.running() !== undefined
      void this.#record.setQueue({
        stopAt: undefined,
        pausedBy: 'schedule',
        ...(isRunning ? { isPausingAfterCurrent: true } : { isPaused: true }),
      })
    }, wait)
  }

  #of(ids: readonly string[]): Entry[] {
    return ids.map((id) => this.#list.get(id)).filter((entry) => entry !== undefined)
  }

  #isAhead(source: JobSource): boolean {
    return isStudioJob({ source }) && (this.#options.settings().isStudioFirst ?? settingDefaults.isStudioFirst)
  }

  async #forget(entries: readonly Entry[]): Promise<void> {
    await this.#record.remove(entries)
    for (const { job } of entries) this.#dropCheckpoint(job.id)
  }

  #checkpointOf(id: string): string | undefined {
    const isKept = this.#options.settings().keepsCheckpoints ?? settingDefaults.keepsCheckpoints
    return isKept ? join(this.#options.checkpointFolder, id) : undefined
  }

  #dropCheckpoint(id: string): void {
    void rm(join(this.#options.checkpointFolder, id), { force: true }).catch(() => {})
  }
}

/** The jobs of which something is kept. */
async function checkpointsIn(folder: string): Promise<Set<string>> {
  await mkdir(folder, { recursive: true }).catch(() => {})
  return new Set(await readdir(folder).catch(() => []))
}
