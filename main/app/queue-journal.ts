import { copyFile, open, readFile, stat } from 'node:fs/promises'
import * as z from 'zod'
import { Job, QueueState } from '../../preload/contract/jobs.ts'
import { writeAtomic } from './files.ts'

/** What of a job lies on disk beside its request. */
const StoredState = Job.omit({
  request: true,
  preview: true,
  etaMs: true,
  batchEtaMs: true,
  queueEtaMs: true,
  slowReason: true,
  isStopping: true,
}).extend({
  /** How often the application ended while this job ran. */
  interruptions: z.int(),
  /** How often the engine ended while this job ran. */
  crashes: z.int(),
  /** The person cancelled it, but it was still running. */
  isGivenUp: z.boolean().optional(),
})
export type StoredState = z.infer<typeof StoredState>

const StoredJob = StoredState.extend({ request: Job.shape.request })
export type StoredJob = z.infer<typeof StoredJob>

const StoredQueue = QueueState.omit({ problem: true })
export type StoredQueue = z.infer<typeof StoredQueue>

/** A line of the journal. All say how things are and not what is different, so that one that is applied twice does no harm. */
const Line = z.union([
  z.object({ put: z.array(StoredJob) }),
  z.object({ set: z.array(StoredState) }),
  z.object({ step: z.object({ id: z.string(), step: z.int(), steps: z.int() }) }),
  z.object({ gone: z.array(z.string()) }),
  z.object({ queue: StoredQueue }),
  /** The last line after leaving in good order. */
  z.object({ closed: z.literal(true) }),
])
export type Line = z.infer<typeof Line>

const header = '{"vignette":"queue","version":2}\n'

export type Recovered = {
  jobs: StoredJob[]
  queue: StoredQueue | undefined
  /** Whether there was a queue at all, and whether it was left in good order. */
  isThere: boolean
  wasClosed: boolean
  /** Lines that could not be read. */
  damaged: number
}

export type JournalOptions = {
  file: string
  /** All there is now: what a rewritten journal holds. */
  snapshot: () => { jobs: Iterable<StoredJob>; queue: StoredQueue }
}

/** Jobs in one line: they come back together or not at all. More are spread over several. */
const jobsPerLine = 1000
const smallestRewriteBytes = 1_000_000
const growth = 4

/**
 * The queue on disk: lines that are appended, each flushed before `write` resolves, so that ten thousand waiting jobs
 * cost no more per change than one. Now and then, and at each start, the whole is written anew and the file before it kept
 * as a copy. A line that was cut off, by a kill or a power cut, is as if it had never been written.
 */
export class QueueJournal {
  readonly #options: JournalOptions
  /** Lines that are not on the disk yet. */
  #pending: string[] = []
  /** The newest step of each job, which need not be flushed. */
  readonly #steps = new Map<string, string>()
  #next: Promise<void> | undefined
  #last: Promise<void> = Promise.resolve()
  /** What of the file is good, and how much it was when it was last written whole. */
  #bytes = 0
  #wholeBytes = 0
  /** A write failed: what is on disk lacks something. */
  #isBehind = false

  constructor(options: JournalOptions) {
    this.#options = options
  }

  /** What lies on disk; from its copy when the file itself cannot be read. */
  static async read(file: string): Promise<Recovered> {
    for (const candidate of [file, backupOf(file)]) {
      const text = await readFile(candidate, 'utf8').catch(() => undefined)
      if (text?.startsWith(header)) return recover(text.slice(header.length))
    }
    return { jobs: [], queue: undefined, isThere: false, wasClosed: true, damaged: 0 }
  }

  /** Resolves when the lines are on the disk. Calls that come while a write is under way share the next. */
  write(lines: readonly Line[]): Promise<void> {
    for (const line of lines) {
      if ('put' in line) this.#put(line.put)
      else this.#pending.push(JSON.stringify(line))
    }
    return this.#flush()
  }

  /** How far a job is: goes along with the next write, or by itself, but nobody waits for it. */
  note(id: string, step: number, steps: number): void {
    this.#steps.set(id, JSON.stringify({ step: { id, step, steps } } satisfies Line))
    void this.#flush().catch(() => {}) // whoever writes next hears of it
  }

  /** Writes the whole anew. */
  rewrite(): Promise<void> {
    this.#isBehind = true
    return this.#flush()
  }

  #put(jobs: readonly StoredJob[]): void {
    for (let i = 0; i < jobs.length; i += jobsPerLine)
      this.#pending.push(JSON.stringify({ put: jobs.slice(i, i + jobsPerLine) } satisfies Line))
  }

  #flush(): Promise<void> {
    return (this.#next ??= this.#last = this.#last.catch(() => {}).then(() => this.#writeOut()))
  }

  async #writeOut(): Promise<void> {
    this.#next = undefined
    const isUrgent = this.#pending.length > 0
    const text = [...this.#pending, ...this.#steps.values()].map((line) => `${line}\n`).join('')
    const closing = this.#pending.find((line) => line.startsWith('{"closed"'))
    this.#pending = []
    this.#steps.clear()
    try {
      if (!this.#isBehind && (await this.#append(text, isUrgent))) {
        if (this.#bytes > Math.max(smallestRewriteBytes, growth * this.#wholeBytes)) await this.#writeWhole(closing)
        return
      }
      await this.#writeWhole(closing)
    } catch (error) {
      this.#isBehind = true
      throw error
    }
  }

  /** False when the file is not as it was left: gone, or with a torn end that cannot be cut off. */
  async #append(text: string, isUrgent: boolean): Promise<boolean> {
    // By its path each time: a handle would go on writing into a file that was deleted.
    const handle = await open(this.#options.file, 'r+').catch(() => undefined)
    if (!handle) return false
    try {
      const { size } = await handle.stat()
      if (size < this.#bytes) return false
      if (size > this.#bytes) await handle.truncate(this.#bytes)
      const data = Buffer.from(text)
      await handle.write(data, 0, data.length, this.#bytes)
      if (isUrgent) await handle.datasync()
      this.#bytes += data.length
      return true
    } finally {
      await handle.close()
    }
  }

  async #writeWhole(lastLine?: string): Promise<void> {
    const { jobs, queue } = this.#options.snapshot()
    const parts = [header, `${JSON.stringify({ queue } satisfies Line)}\n`]
    let some: StoredJob[] = []
    const finish = async () => {
      if (some.length > 0) parts.push(`${JSON.stringify({ put: some } satisfies Line)}\n`)
      some = []
      // Ten thousand jobs are megabytes: the window and the running job get their turn in between.
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    for (const job of jobs) if (some.push(job) === 250) await finish()
    await finish()
    if (lastLine !== undefined) parts.push(`${lastLine}\n`)
    const text = parts.join('')
    const { file } = this.#options
    await copyFile(file, backupOf(file)).catch(() => {}) // there is none the first time
    await writeAtomic(file, text)
    this.#bytes = this.#wholeBytes = (await stat(file)).size
    this.#isBehind = false
  }
}

async function recover(text: string): Promise<Recovered> {
  const jobs = new Map<string, StoredJob>()
  const lines = text.split('\n')
  lines.pop() // what follows the last line end was cut off, or is nothing
  let queue: StoredQueue | undefined
  let wasClosed = false
  let damaged = 0
  let pausedAt = performance.now()
  for (const raw of lines) {
    if (performance.now() - pausedAt > 8) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      pausedAt = performance.now()
    }
    const line = readLine(raw)
    if (line === undefined) {
      damaged++
      continue
    }
    wasClosed = 'closed' in line
    if ('put' in line) for (const job of line.put) jobs.set(job.id, job)
    else if ('set' in line) for (const state of line.set) change(jobs, state.id, state)
    else if ('step' in line) change(jobs, line.step.id, line.step)
    else if ('gone' in line) for (const id of line.gone) jobs.delete(id)
    else if ('queue' in line) queue = line.queue
  }
  return { jobs: [...jobs.values()], queue, isThere: true, wasClosed, damaged }
}

/** A whole state replaces the one before, so that what it lacks is gone; of a step only the count changes. */
function change(jobs: Map<string, StoredJob>, id: string, part: StoredState | { step: number; steps: number }): void {
  const job = jobs.get(id)
  if (!job) return // its own line was damaged
  jobs.set(id, 'rank' in part ? { ...part, request: job.request } : { ...job, ...part })
}

function readLine(raw: string): Line | undefined {
  try {
    return Line.parse(JSON.parse(raw))
  } catch {
    return undefined
  }
}

function backupOf(file: string): string {
  return `${file}.bak`
}
