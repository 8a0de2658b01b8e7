import { fork, type ChildProcess } from 'node:child_process'
import { VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import type { EngineCommand, EngineEvent, EngineJob, Transport } from './protocol.ts'

// For whoever uses the engine without loading it: nothing here imports ONNX Runtime.
export { fillDefaults, checkRequest } from './request.ts'
export { fillFromAdapters } from './presets.ts'
export { PromptReader } from './prompt-reader.ts'
export { spareMemoryBytes, totalMemoryBytes } from './memory.ts'

/** The events of one job; the last is `finished`, `cancelled` or `failed`. */
export type JobEvent = Extract<EngineEvent, { jobId: string }>

/** A process of ours beside this one. */
export interface Child<Out, In> extends Transport<Out, In> {
  /** Of its process, where it has one of its own. */
  readonly pid?: number
  /** Called once when it is gone, with what is known about why. */
  onExit(listener: (reason: string) => void): void
  kill(): void
}

/** An engine somewhere else: a child process, a utility process, or a direct connection. */
export type EngineChild = Child<EngineCommand, EngineEvent>

export type EngineSettings = {
  device?: Extract<EngineCommand, { type: 'start' }>['device']
  mode?: Extract<EngineCommand, { type: 'start' }>['mode']
  memoryBudgetBytes?: number
  threads?: number
  /** How long a cancelled job may take to reach the end of its step before the engine is killed instead. */
  cancelGraceMs?: number
  /** How long a model stays in memory after its last job; for ever when left out. */
  keepModelMs?: number
}

/** The model that lies in memory, or is on its way there. */
export type EngineModel = { folder: string; state: 'loading' | 'ready' }

/** What an engine is told when it starts. */
const startKeys = ['device', 'mode', 'memoryBudgetBytes', 'threads'] as const

type Running = { id: string; inbox: Inbox; index: number; isCancelled: boolean; timer?: NodeJS.Timeout }

/**
 * Runs jobs on an engine that may die at any moment: the running job then fails with `engine-crashed`, and the next one
 * starts a new engine. Nothing is started before it is needed.
 */
export class EngineClient {
  readonly #spawn: () => EngineChild
  /** What it was made with, and what holds now. */
  readonly #given: EngineSettings
  #settings: EngineSettings
  /** They changed in a way that only a new engine can follow. */
  #isOutdated = false
  #unloading: NodeJS.Timeout | undefined
  #model: EngineModel | undefined
  #onModel: (model: EngineModel | undefined) => void = () => {}
  #child: EngineChild | undefined
  #running: Running | undefined
  /** What the engine runs on, and whether a graphics card failed in real work after it had passed its test. */
  #provider: DeviceReport['provider'] | undefined
  #isCardSuspect = false
  #device:
    | { report: Promise<DeviceReport>; resolve: (report: DeviceReport) => void; reject: (error: Error) => void }
    | undefined

  constructor(spawn: () => EngineChild, settings: EngineSettings = {}) {
    this.#spawn = spawn
    this.#given = this.#settings = settings
  }

  /** What it runs on. Starts the engine when it is not there. */
  async device(): Promise<DeviceReport> {
    if (this.#isOutdated && !this.#running) await this.#retire()
    this.#start()
    return this.#device!.report
  }

  /** Of the engine's process, while there is one. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Called whenever another model, or none, is in memory. */
  onModel(listener: (model: EngineModel | undefined) => void): void {
    this.#onModel = listener
  }

  /**
   * Changes what is named; undefined is back to what the client was made with. For device, mode, memory and threads the engine ends and the next job starts a new one; a running
   * job ends as it began.
   */
  async configure(settings: EngineSettings): Promise<void> {
    const old = this.#settings
    this.#settings = { ...old, ...settings }
    for (const key of Object.keys(settings) as (keyof EngineSettings)[]) {
      if (settings[key] === undefined) Object.assign(this.#settings, { [key]: this.#given[key] })
    }
    if (this.#settings.device !== old.device) this.#isCardSuspect = false
    if (this.#child && startKeys.some((key) => this.#settings[key] !== old[key])) this.#isOutdated = true
    if (this.#running) return
    if (this.#isOutdated) await this.#retire()
    else this.#unloadLater()
  }

  /** Gives the memory of the model back; the next job loads it again. Does nothing while a job runs. */
  unload(): void {
    if (this.#running) return
    clearTimeout(this.#unloading)
    this.#child?.post({ type: 'unload' })
    this.#setModel(undefined)
  }

  /** Runs one job at a time. Stopping the iteration early cancels the job and waits until it has stopped. */
  async *run(job: EngineJob): AsyncGenerator<JobEvent, void, void> {
    if (this.#running) throw new Error(`job ${job.id} came while ${this.#running.id} was running`)
    const running: Running = (this.#running = { id: job.id, inbox: new Inbox(), index: 0, isCancelled: false })
    let isOver = false
    clearTimeout(this.#unloading)
    try {
      if (this.#isOutdated) await this.#retire()
      if (running.isCancelled) running.inbox.put({ type: 'cancelled', jobId: job.id })
      else this.#start().post({ type: 'run', job })
      this.#setModel({ folder: job.modelFolder, state: this.#model?.folder === job.modelFolder ? 'ready' : 'loading' })
      while (!isOver) {
        const event = await running.inbox.next()
        if (event.type === 'phase') {
          this.#setModel({ folder: job.modelFolder, state: event.phase === 'loading' ? 'loading' : 'ready' })
        }
        // Before the last event is handed out: the consumer may answer it with the next job.
        if ((isOver = isLast(event))) this.#ended(event)
        yield event
      }
    } finally {
      if (!isOver) {
        this.cancel(job.id)
        for (let event; !event || !isLast(event);) event = await running.inbox.next()
        if (this.#running === running) this.#ended()
      }
      clearTimeout(running.timer)
      if (this.#running === running) this.#running = undefined
    }
  }

  /** Asks the running job to stop; its last event says when it has. Does nothing for another id. */
  cancel(jobId: string): void {
    const running = this.#running
    if (running?.id !== jobId || running.isCancelled) return
    running.isCancelled = true
    this.#child?.post({ type: 'cancel', jobId })
    const { cancelGraceMs = 2000 } = this.#settings
    if (cancelGraceMs < Infinity) running.timer = setTimeout(() => this.#child?.kill(), cancelGraceMs)
  }

  /** Ends the engine at once, whatever it is doing. */
  kill(): void {
    this.#child?.kill()
  }

  /** Lets the engine give its memory back and end; kills it when it takes too long. */
  async stop(): Promise<void> {
    const child = this.#child
    if (!child) return
    const gone = new Promise<void>((resolve) => child.onExit(() => resolve()))
    child.post({ type: 'stop' })
    const timer = setTimeout(() => child.kill(), 2000)
    await gone
    clearTimeout(timer)
  }

  /** The settings changed: this engine ends, and nobody who waits for anything takes that for a crash. */
  async #retire(): Promise<void> {
    this.#isOutdated = false
    const child = this.#child
    if (!child) return
    const gone = this.stop()
    this.#child = undefined
    this.#device?.reject(new Error('the engine starts anew'))
    this.#setModel(undefined)
    await gone // its memory first
  }

  #ended(event?: JobEvent): void {
    this.#running = undefined
    // The engine has then emptied its memory by itself.
    const isEmpty =
      event?.type === 'failed' && (event.error.code === 'out-of-memory' || event.error.code === 'internal')
    if (isEmpty || this.#model?.state === 'loading') this.#setModel(undefined)
    this.#unloadLater()
  }

  #unloadLater(): void {
    clearTimeout(this.#unloading)
    const { keepModelMs = Infinity } = this.#settings
    // Timers end at 2³¹ ms.
    if (!this.#model || keepModelMs > 2e9) return
    this.#unloading = setTimeout(() => this.unload(), keepModelMs)
    this.#unloading.unref()
  }

  #setModel(model: EngineModel | undefined): void {
    const isSame = model?.folder === this.#model?.folder && model?.state === this.#model?.state
    this.#model = model
    if (!isSame) this.#onModel(model)
  }

  #start(): EngineChild {
    if (this.#child) return this.#child
    const child = this.#spawn()
    this.#child = child
    let resolve!: (report: DeviceReport) => void
    let reject!: (error: Error) => void
    const report = new Promise<DeviceReport>((yes, no) => ([resolve, reject] = [yes, no]))
    report.catch(() => {}) // told to those who ask; nobody has to
    this.#device = { report, resolve, reject }
    child.onMessage((event) => this.#receive(child, event))
    child.onExit((reason) => this.#gone(child, reason))
    const { device = 'auto', mode, memoryBudgetBytes, threads } = this.#settings
    child.post({
      type: 'start',
      device: device === 'auto' && this.#isCardSuspect ? 'cpu' : device,
      mode,
      memoryBudgetBytes,
      threads,
    })
    return child
  }

  #receive(child: EngineChild, event: EngineEvent): void {
    if (child !== this.#child) return
    if (event.type === 'ready') {
      const { provider } = event.device
      // The engine gave the card up by itself, or it died with it (see #gone): the next engine leaves it alone.
      if (provider === 'cpu' && this.#provider !== undefined && this.#provider !== 'cpu') this.#isCardSuspect = true
      this.#provider = provider
      this.#device?.resolve(event.device)
    } else if (event.type === 'unavailable') {
      const { code, message, hint } = event.error
      this.#device?.reject(new VignetteError(code, message, { hint }))
    } else if (event.jobId === this.#running?.id) {
      if ('index' in event) this.#running.index = event.index
      this.#running.inbox.put(event)
    }
  }

  #gone(child: EngineChild, reason: string): void {
    if (child !== this.#child) return
    // First of all: posting to a process that has ended can take this one down.
    this.#child = undefined
    this.#isOutdated = false
    this.#setModel(undefined)
    const error = crashReport(this.#running, reason)
    this.#device?.reject(new VignetteError(error.code, error.message, { hint: error.hint }))
    const running = this.#running
    if (!running) return
    if (!running.isCancelled && this.#provider !== undefined && this.#provider !== 'cpu') this.#isCardSuspect = true
    if (running.isCancelled) running.inbox.put({ type: 'cancelled', jobId: running.id })
    else running.inbox.put({ type: 'failed', jobId: running.id, error })
  }
}

export type ForkOptions = { execPath?: string; execArgv?: string[]; env?: NodeJS.ProcessEnv }

/** Starts the engine's entry file as a Node process. `execPath` is another Node than this one, where needed. */
export function forkEngine(entry: string, options: ForkOptions = {}): EngineChild {
  return forkChild(entry, options)
}

/** Starts an entry file of ours as a Node process. */
export function forkChild<Out, In>(entry: string, options: ForkOptions = {}): Child<Out, In> {
  // 'advanced' is structured clone: pixels travel as bytes, not as JSON.
  return nodeChild(
    fork(entry, [], { serialization: 'advanced', windowsHide: true, ...options } as Parameters<typeof fork>[2]),
  )
}

/** A Node child process that speaks in messages. */
export function nodeChild<Out, In>(child: ChildProcess): Child<Out, In> {
  return {
    pid: child.pid,
    post: (message) => {
      // An error here means that it is just ending; `exit` tells the rest.
      if (child.connected) child.send(message as object, () => {})
    },
    onMessage: (listener) => void child.on('message', (message) => listener(message as In)),
    onExit: (listener) => {
      child.once('exit', (code, signal) => listener(signal ?? `code ${code}`))
      child.once('error', (error) => listener(error.message))
    },
    kill: () => void child.kill('SIGKILL'),
  }
}

function crashReport(running: Running | undefined, reason: string): ErrorReport {
  const what = running ? ` while drawing picture ${running.index + 1}` : ''
  // On Linux a process is killed from outside mostly because memory ran out.
  const hint =
    reason === 'SIGKILL' ? 'The memory may have run out: choose a smaller size, or close other programs.' : undefined
  return {
    code: 'engine-crashed',
    message: `The engine stopped${what} (${reason}).`,
    hint: hint ?? 'It starts again by itself; the rest of the queue goes on.',
  }
}

function isLast(event: JobEvent): boolean {
  return event.type === 'finished' || event.type === 'cancelled' || event.type === 'failed'
}

/** Events that wait for their reader, in order. */
class Inbox {
  readonly #waiting: JobEvent[] = []
  #wake: ((event: JobEvent) => void) | undefined

  put(event: JobEvent): void {
    const wake = this.#wake
    this.#wake = undefined
    if (wake) wake(event)
    else this.#waiting.push(event)
  }

  async next(): Promise<JobEvent> {
    const event = this.#waiting.shift()
    return event ?? new Promise((resolve) => (this.#wake = resolve))
  }
}
