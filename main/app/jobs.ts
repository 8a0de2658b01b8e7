import { randomUUID } from 'node:crypto'
import * as z from 'zod'
import { reportError, VignetteError } from '../../models/errors.ts'
import { GenerateRequest } from '../../preload/contract/generate.ts'
import { type Job } from '../../preload/contract/jobs.ts'
import { limits } from '../../preload/limits.ts'
import type { EngineClient, JobEvent } from '../engine/client.ts'
import type { EngineJob } from '../engine/protocol.ts'
import { JsonFile, readJson } from './files.ts'
import type { Library } from './library.ts'
import type { Log } from './log.ts'
import { Pace, type JobClock } from './pace.ts'

type FilledRequest = EngineJob['request']

/** What lies in queue.json: jobs that are not over, in order. */
const StoredQueue = z.object({
  version: z.literal(1),
  jobs: z.array(
    z.object({
      id: z.string(),
      request: GenerateRequest,
      images: z.array(z.string()),
      /** How often the application ended while this job ran. */
      interruptions: z.int(),
    }),
  ),
})
type StoredQueue = z.infer<typeof StoredQueue>

/** A job with what the screen need not know. */
type Entry = { job: Job; interruptions: number; clock?: JobClock }

export type JobsOptions = {
  file: string
  engine: Pick<EngineClient, 'run' | 'cancel'>
  library: Pick<Library, 'add'>
  /** The folder of an installed model; throws `model-missing`. */
  folderOf: (model: string) => Promise<string>
  /** The file of an adapter in the library, by the id that requests of the window hold; throws when it is gone. */
  adapterFileOf: (id: string) => Promise<string>
  onChange: (job: Job) => void
  onImage: (image: Awaited<ReturnType<Library['add']>>) => void
  onCrash: (message: string) => void
  log: Log
  now?: () => number
}

/** Jobs that are over and still listed, so that a window opened again shows what happened. */
const keptFinished = 50
/** A job that took the whole application down this often is not tried again. */
const maxInterruptions = 2

/**
 * The queue: one job at a time, in order. What waits or runs is written to disk before it is shown, so that it is there
 * again after the application, or the computer, went down; pictures of a job that are finished are not made twice.
 */
export class Jobs {
  readonly #options: JobsOptions
  readonly #now: () => number
  readonly #pace = new Pace()
  readonly #journal: JsonFile<StoredQueue>
  #entries: Entry[] = []
  #isClosing = false
  #isWorking = false

  private constructor(options: JobsOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#journal = new JsonFile(options.file, () => this.#stored())
  }

  /** Reads the queue as it was left and goes on with it. */
  static async open(options: JobsOptions): Promise<Jobs> {
    const jobs = new Jobs(options)
    const stored = await readJson(options.file, StoredQueue)
    for (const { id, request, images, interruptions } of stored?.jobs ?? []) {
      if (images.length >= request.count) continue // it went down after the last picture and before the end of the job
      const job = { ...newJob(id, request as FilledRequest), images, index: images.length }
      if (interruptions >= maxInterruptions) {
        job.status = 'failed'
        job.error = {
          code: 'engine-crashed',
          message: `Vignette ended ${interruptions} times while making this picture.`,
          hint: 'Try a smaller size, or fewer other programs at the same time.',
        }
      }
      jobs.#entries.push({ job, interruptions })
    }
    if (stored) await jobs.#save()
    void jobs.#work()
    return jobs
  }

  list(): Job[] {
    return this.#entries.map(({ job }) => job)
  }

  /** Takes a complete request into the queue. Its seed is settled here: a job is the same picture whenever it runs. */
  async add(request: FilledRequest, notices: readonly string[] = []): Promise<string> {
    const entry: Entry = { job: newJob(randomUUID(), request), interruptions: 0 }
    if (notices.length > 0) entry.job.notices = [...notices]
    this.#entries.push(entry)
    this.#forgetOld()
    try {
      await this.#journal.save()
    } catch (error) {
      this.#entries = this.#entries.filter((one) => one !== entry)
      throw error
    }
    this.#options.onChange(entry.job)
    void this.#work()
    return entry.job.id
  }

  /** A waiting job ends at once, a running one at the end of its step. Nothing happens to one that is over. */
  async cancel(id: string): Promise<void> {
    const entry = this.#entries.find(({ job }) => job.id === id)
    if (entry === undefined) throw new VignetteError('bad-request', 'This job is not in the queue any more.')
    if (entry.job.status === 'waiting') await this.#end(entry, 'cancelled')
    else if (entry.job.status === 'running') {
      entry.job.isStopping = true
      this.#options.onChange(entry.job)
      this.#options.engine.cancel(id)
      await this.#save()
    }
  }

  /** Starts nothing more. The running job stays in the queue file and is made at the next start. */
  async close(): Promise<void> {
    this.#isClosing = true
    const running = this.#entries.find(({ job }) => job.status === 'running')
    // Leaving in good order is not the picture's fault.
    if (running) running.interruptions--
    await this.#save()
  }

  async #work(): Promise<void> {
    if (this.#isWorking) return
    this.#isWorking = true
    for (let entry; !this.#isClosing && (entry = this.#entries.find(({ job }) => job.status === 'waiting'));) {
      await this.#run(entry)
    }
    this.#isWorking = false
  }

  async #run(entry: Entry): Promise<void> {
    const { job } = entry
    try {
      job.status = 'running'
      job.phase = 'loading'
      entry.interruptions++
      entry.clock = this.#startClock(job)
      await this.#show(entry)
      const modelFolder = await this.#options.folderOf(job.request.model)
      // Cancelled before the engine heard of it.
      if (job.isStopping) return await this.#end(entry, 'cancelled')
      const request = await this.#withFiles(remaining(job))
      for await (const event of this.#options.engine.run({ id: job.id, modelFolder, request })) {
        if (this.#isClosing) return
        await this.#apply(entry, event)
      }
    } catch (error) {
      if (this.#isClosing) return
      const report = reportError(error)
      if (report.code === 'internal') this.#options.log.error(`job ${job.id}`, error)
      await this.#end(entry, 'failed', report)
    }
  }

  /** The request as the engine takes it: adapters by their files. */
  async #withFiles(request: FilledRequest): Promise<FilledRequest> {
    const adapters = await Promise.all(
      request.adapters.map(async (use) => ({ ...use, file: await this.#options.adapterFileOf(use.file) })),
    )
    return { ...request, adapters }
  }

  async #apply(entry: Entry, event: JobEvent): Promise<void> {
    const { job, clock } = entry
    const now = this.#now()
    switch (event.type) {
      case 'phase':
        job.phase = event.phase
        if (event.phase === 'denoising') clock!.firstStepAt = now
        break
      case 'step':
        job.step = event.step
        job.steps = event.steps
        clock!.stepTimes.push(now)
        if (event.previewPng) job.preview = `data:image/png;base64,${Buffer.from(event.previewPng).toString('base64')}`
        break
      case 'image': {
        const { prompt } = job.request
        const image = await this.#options.library.add(event.png, {
          prompt,
          seed: event.seed,
          width: event.width,
          height: event.height,
        })
        job.images = [...job.images, image.id]
        job.index = Math.min(job.images.length, job.request.count - 1)
        job.step = 0
        delete job.preview
        this.#pace.finished(clock!, this.#now())
        entry.clock = this.#startClock(job)
        await this.#save() // before it is shown: otherwise a crash now would make this picture twice
        this.#options.onImage(image)
        break
      }
      case 'applied':
        job.appliedMs = event.ms
        break
      case 'notice':
        if (!job.notices?.includes(event.message)) job.notices = [...(job.notices ?? []), event.message]
        break
      case 'finished':
        return this.#end(entry, 'done')
      case 'cancelled':
        return this.#end(entry, 'cancelled')
      case 'failed':
        if (event.error.code === 'engine-crashed') {
          this.#options.log.warn(`job ${job.id}: ${event.error.message}`)
          this.#options.onCrash(event.error.message)
        }
        return this.#end(entry, 'failed', event.error)
      default:
        event satisfies never
    }
    this.#tellTime(entry)
    this.#options.onChange(job)
  }

  #tellTime({ job, clock }: Entry): void {
    const eta = this.#pace.remaining(clock!, job.steps, job.request.count - 1 - job.index, this.#now())
    if (eta === undefined) delete job.etaMs
    else job.etaMs = Math.round(eta)
  }

  async #end(entry: Entry, status: 'done' | 'failed' | 'cancelled', error?: Job['error']): Promise<void> {
    const { job } = entry
    job.status = status
    if (status === 'done') job.phase = 'done'
    if (error) job.error = error
    delete job.isStopping
    delete job.etaMs
    await this.#show(entry)
  }

  /** First to disk, then to the screen. */
  async #show(entry: Entry): Promise<void> {
    await this.#save()
    this.#options.onChange(entry.job)
  }

  /**
   * A job that was taken in goes on when the queue file cannot be written, on a full disk say: at worst it is made
   * again after a crash. That its picture cannot be saved either it will say itself.
   */
  async #save(): Promise<void> {
    await this.#journal
      .save()
      .catch((error: unknown) => this.#options.log.warn('the queue could not be written to disk', error))
  }

  #startClock({ request }: Job): JobClock {
    const { model, width, height, guidanceScale } = request
    // Without guidance each step is one pass instead of two.
    const key = `${model} ${width}x${height} ${guidanceScale === 1 ? 1 : 2}`
    return { key, pictureStartedAt: this.#now(), stepTimes: [] }
  }

  #stored(): StoredQueue {
    // One that is being stopped was given up by the person, whatever happens before it has stopped.
    const open = this.#entries.filter(({ job }) => !isOver(job) && !job.isStopping)
    return {
      version: 1,
      jobs: open.map(({ job: { id, request, images }, interruptions }) => ({ id, request, images, interruptions })),
    }
  }

  #forgetOld(): void {
    const over = this.#entries.filter(({ job }) => isOver(job))
    const forgotten = new Set(over.slice(0, Math.max(0, over.length - keptFinished)))
    this.#entries = this.#entries.filter((entry) => !forgotten.has(entry))
  }
}

function isOver(job: Job): boolean {
  return job.status !== 'waiting' && job.status !== 'running'
}

function newJob(id: string, request: FilledRequest): Job {
  return { id, status: 'waiting', request, phase: 'waiting', step: 0, steps: request.steps, index: 0, images: [] }
}

/** The part of a job that is still to be made: pictures of one job have consecutive seeds. */
function remaining({ request, images }: Job): FilledRequest {
  const filled = request as FilledRequest
  return { ...filled, seed: (filled.seed + images.length) % (limits.maxSeed + 1), count: filled.count - images.length }
}
