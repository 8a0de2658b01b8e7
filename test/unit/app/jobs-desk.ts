import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { Jobs, type JobsOptions } from '../../../main/app/jobs.ts'
import { Pace } from '../../../main/app/pace.ts'
import { QueueJournal } from '../../../main/app/queue-journal.ts'
import type { FilledRequest } from '../../../main/app/queue-list.ts'
import { VignetteError } from '../../../models/errors.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import type { ImageRecord } from '../../../preload/contract/images.ts'
import type { Job, JobEvent } from '../../../preload/contract/jobs.ts'
import type { Settings } from '../../../preload/contract/settings.ts'
import { FakeEngine } from './fake-engine.ts'

export const filled = (prompt: string, part: object = {}) =>
  GenerateRequest.parse({
    prompt,
    width: 64,
    height: 64,
    steps: 4,
    seed: 1,
    sampler: 'euler',
    schedule: 'normal',
    guidanceScale: 3,
    ...part,
  }) as FilledRequest

export const until = (condition: () => unknown) => expect.poll(condition, { timeout: 5000, interval: 5 }).toBeTruthy()

/** A queue with an engine whose events the test sends by hand, and everything it tells. */
export class JobsDesk {
  engine = new FakeEngine()
  readonly events: JobEvent[] = []
  readonly images: ImageRecord[] = []
  readonly crashes: string[] = []
  settings: Settings = {}
  time = 1000
  freeBytes: number | undefined = 1e12
  idle = 0
  /** Before a picture is saved. */
  save: () => Promise<void> = async () => {}
  readonly #opened: Jobs[] = []
  readonly folder: string

  private constructor(folder: string) {
    this.folder = folder
  }

  static async make(): Promise<JobsDesk> {
    return new JobsDesk(await mkdtemp(join(tmpdir(), 'vignette-jobs-')))
  }

  get file(): string {
    return join(this.folder, 'queue.jsonl')
  }

  async open(part: Partial<JobsOptions> = {}): Promise<Jobs> {
    const jobs = await Jobs.open({
      file: this.file,
      checkpointFolder: join(this.folder, 'checkpoints'),
      engine: this.engine,
      library: {
        add: async (_, { prompt, seed, width, height }) => {
          await this.save()
          return { id: `${prompt}-${seed}`, url: '', thumb: '', file: '', prompt, seed, width, height, createdAt: 0 }
        },
      },
      pace: new Pace(),
      folderOf: async () => '/models/tiny',
      adapterFileOf: async (id) => {
        if (id.startsWith('gone/')) throw new VignetteError('file-unreadable', 'gone')
        return `/home/${id}`
      },
      settings: () => this.settings,
      emit: (event) => void this.events.push(structuredClone(event)),
      onImage: (image) => void this.images.push(image),
      onCrash: (message) => void this.crashes.push(message),
      onIdle: () => void this.idle++,
      freeBytes: async () => this.freeBytes,
      log: { info: () => {}, warn: () => {}, error: () => {} },
      now: () => this.time,
      ...part,
    })
    this.#opened.push(jobs)
    return jobs
  }

  /** As after a crash: another queue over the same folder, with an engine of its own. The first is left as it is. */
  async crash(part: Partial<JobsOptions> = {}): Promise<Jobs> {
    this.engine = new FakeEngine()
    this.events.length = 0
    return this.open(part)
  }

  async remove(): Promise<void> {
    await Promise.all(this.#opened.map((jobs) => jobs.close()))
    await rm(this.folder, { recursive: true, force: true })
  }

  /** All that was told of jobs, one after the other. */
  get shown(): Job[] {
    return this.events.flatMap((event) => (event.type === 'jobs:changed' ? event.jobs : []))
  }

  onDisk() {
    return QueueJournal.read(this.file)
  }

  text(): Promise<string> {
    return readFile(this.file, 'utf8')
  }

  async running(): Promise<string> {
    const before = this.engine.started.length
    await until(() => this.engine.started.length > 0 && this.engine.started.length >= before)
    return this.engine.current.id
  }

  /** The running job is made to its end. */
  async finish(): Promise<void> {
    const { id } = this.engine.current
    this.engine.sendImage()
    this.engine.send({ type: 'finished', jobId: id })
    await until(() => this.shown.some((job) => job.id === id && job.status === 'done'))
  }

  async fail(code: 'engine-crashed' | 'out-of-memory' | 'file-unreadable'): Promise<void> {
    const jobId = this.engine.current.id
    const count = this.engine.started.length
    const events = this.events.length
    this.engine.send({ type: 'failed', jobId, error: { code, message: `It was ${code}.` } })
    await until(() => this.events.length > events && this.settled(jobId, count))
  }

  settled(jobId: string, startedBefore: number): boolean {
    const last = this.shown.filter(({ id }) => id === jobId).at(-1)
    return last?.status !== 'running' || this.engine.started.length > startedBefore
  }
}

export const promptsOf = (jobs: Jobs, status: Job['status'] = 'waiting') =>
  jobs
    .list()
    .filter((job) => job.status === status)
    .sort((a, b) => a.rank - b.rank)
    .map(({ request }) => request.prompt)

/** One batch per prompt. */
export async function addEach(jobs: Jobs, prompts: readonly string[], part: object = {}): Promise<string[]> {
  const ids: string[] = []
  for (const prompt of prompts) ids.push(...(await jobs.add([{ request: filled(prompt, part) }])).jobIds)
  return ids
}
