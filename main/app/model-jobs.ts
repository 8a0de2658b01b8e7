import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import * as z from 'zod'
import { reportError, VignetteError } from '../../models/errors.ts'
import type { ModelTask } from '../../preload/contract/models.ts'
import type { ModelWork } from '../engine/protocol.ts'
import { JsonFile, readJson } from './files.ts'
import type { Log } from './log.ts'
import { startModelWork, type ModelWorker, type RunningWork } from './model-work.ts'

/** What lies in imports.json: work that is not over, in order. */
const StoredWork = z.object({
  version: z.literal(1),
  tasks: z.array(
    z.object({
      id: z.string(),
      name: z.string(),
      model: z.string(),
      work: z.discriminatedUnion('type', [
        z.object({
          type: z.literal('import'),
          source: z.string(),
          folder: z.string(),
          name: z.string(),
          isFourBit: z.boolean(),
        }),
        z.object({ type: z.literal('four-bit'), model: z.string(), folder: z.string(), name: z.string() }),
        z.object({ type: z.literal('verify'), folder: z.string() }),
      ]),
    }),
  ),
})
type StoredWork = z.infer<typeof StoredWork>
type Stored = StoredWork['tasks'][number]

type Entry = { stored: Stored; task: ModelTask; onDone?: (value: unknown) => Promise<void>; running?: RunningWork }

export type ModelJobsOptions = {
  file: string
  spawn: () => ModelWorker
  emit: (task: ModelTask) => void
  /** A model may have come or changed. */
  onChange: (stored: Stored, value: unknown) => Promise<void>
  log: Log
}

/**
 * Work on models in the background, one piece at a time: imports, 4-bit forms, checks. What has not ended is on disk, and
 * goes on at the next start of the application, from where it was.
 */
export class ModelJobs {
  readonly #options: ModelJobsOptions
  readonly #journal: JsonFile<StoredWork>
  #entries: Entry[] = []
  #isClosing = false
  #isWorking = false

  private constructor(options: ModelJobsOptions) {
    this.#options = options
    this.#journal = new JsonFile(options.file, () => ({
      version: 1,
      tasks: this.#entries
        .filter(({ task }) => (task.status === 'waiting' || task.status === 'running') && !task.isStopping)
        .map(({ stored }) => stored),
    }))
  }

  static async open(options: ModelJobsOptions): Promise<ModelJobs> {
    const jobs = new ModelJobs(options)
    const stored = await readJson(options.file, StoredWork)
    jobs.#entries = (stored?.tasks ?? []).map((one) => ({ stored: one, task: { ...newTask(one), isResumed: true } }))
    void jobs.#work()
    return jobs
  }

  list(): ModelTask[] {
    return this.#entries.map(({ task }) => task)
  }

  /** Names of model folders that are spoken for. */
  taken(): string[] {
    return this.#entries.filter(({ task }) => !isOver(task)).map(({ task }) => task.model)
  }

  async add(work: Exclude<ModelWork, { type: 'inspect' }>, name: string, model: string): Promise<string> {
    const twin = this.#entries.find(({ stored, task }) => !isOver(task) && isSame(stored.work, work))
    if (twin) return twin.task.id
    const stored: Stored = { id: randomUUID(), name, model, work }
    const entry: Entry = { stored, task: newTask(stored) }
    this.#entries.push(entry)
    try {
      await this.#journal.save()
    } catch (error) {
      this.#entries = this.#entries.filter((one) => one !== entry)
      throw error
    }
    this.#options.emit(entry.task)
    void this.#work()
    return stored.id
  }

  async cancel(id: string): Promise<void> {
    const entry = this.#find(id)
    if (entry.task.status === 'waiting') {
      await discard(entry.stored.work) // what an earlier run of it left
      await this.#end(entry, { status: 'cancelled' })
    } else if (entry.task.status === 'running') {
      this.#show(entry, { isStopping: true })
      entry.running?.cancel()
      await this.#save()
    }
  }

  forget(id: string): boolean {
    const before = this.#entries.length
    this.#entries = this.#entries.filter(({ task }) => task.id !== id || !isOver(task))
    return this.#entries.length < before
  }

  /** What runs goes on at the next start. */
  close(): void {
    this.#isClosing = true
    for (const { running } of this.#entries) running?.abandon()
  }

  async #work(): Promise<void> {
    if (this.#isWorking) return
    this.#isWorking = true
    for (let entry; !this.#isClosing && (entry = this.#entries.find(({ task }) => task.status === 'waiting'));) {
      await this.#run(entry)
    }
    this.#isWorking = false
  }

  async #run(entry: Entry): Promise<void> {
    const { stored } = entry
    this.#show(entry, { status: 'running' })
    entry.running = startModelWork(this.#options.spawn, stored.work, (progress) => this.#show(entry, progress))
    try {
      const result = await entry.running.result
      if (result) await this.#options.onChange(stored, result.value)
      await this.#end(entry, result ? { status: 'done', fraction: 1 } : { status: 'cancelled' })
    } catch (error) {
      const report = reportError(error)
      this.#options.log.warn(`${stored.work.type} of ${stored.name}: ${report.message}`)
      await this.#end(entry, { status: 'failed', error: report })
    } finally {
      entry.running = undefined
    }
  }

  async #end(entry: Entry, part: Partial<ModelTask>): Promise<void> {
    this.#show(entry, { isStopping: undefined, ...part })
    await this.#save()
  }

  #show(entry: Entry, part: Partial<ModelTask>): void {
    entry.task = { ...entry.task, ...part }
    this.#options.emit(entry.task)
  }

  async #save(): Promise<void> {
    await this.#journal
      .save()
      .catch((error: unknown) => this.#options.log.warn('the list of imports could not be written', error))
  }

  #find(id: string): Entry {
    const entry = this.#entries.find(({ task }) => task.id === id)
    if (!entry) throw new VignetteError('bad-request', 'This import is not on the list any more.')
    return entry
  }
}

function newTask({ id, name, model, work }: Stored): ModelTask {
  return { id, kind: work.type, name, model, status: 'waiting', fraction: 0 }
}

function isOver({ status }: ModelTask): boolean {
  return status !== 'waiting' && status !== 'running'
}

/** Asked for twice: once is enough. Two imports of one file differ in where they go, not in what they are. */
function isSame(one: Stored['work'], other: Exclude<ModelWork, { type: 'inspect' }>): boolean {
  const of = ({ ...work }: Stored['work']) =>
    JSON.stringify({ ...work, ...(work.type === 'verify' ? {} : { folder: '' }) })
  return of(one) === of(other)
}

async function discard(work: Stored['work']): Promise<void> {
  if (work.type === 'verify') return
  const beside = (ending: string) => join(dirname(work.folder), `.${basename(work.folder)}.${ending}`)
  for (const ending of ['partial', 'half']) await rm(beside(ending), { recursive: true, force: true })
  await rm(join(dirname(work.folder), `..${basename(work.folder)}.half.partial`), { recursive: true, force: true })
}
