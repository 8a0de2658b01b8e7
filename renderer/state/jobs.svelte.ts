import type { AppEvent } from '../../preload/contract.ts'
import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import type { Job, JobSource, QueueState } from '../../preload/contract/jobs.ts'
import { invoke } from '../api.ts'

const idle: QueueState = { isPaused: false, isPausingAfterCurrent: false }

/**
 * The queue as main tells it. What waits, what runs and what is over are lists of their own, replaced whole only when
 * something came, went or moved: a step of the running job costs nothing however many wait.
 */
export class JobsState {
  running = $state.raw<Job | undefined>()
  /** In the order in which they will be made. */
  waiting = $state.raw<Job[]>([])
  /** Done, failed and cancelled, in the order in which they ended. */
  over = $state.raw<Job[]>([])
  queue = $state.raw<QueueState>(idle)
  /** Failed jobs that the person has put away. */
  #dismissed = $state.raw<string[]>([])
  /** When the application was started: failures before that are history. */
  #since = 0
  readonly #byId = new Map<string, Job>() // eslint-disable-line svelte/prefer-svelte-reactivity -- the lists are what is watched

  /** All there are: what is over, what runs, what waits. */
  readonly all = $derived([...this.over, ...(this.running ? [this.running] : []), ...this.waiting])
  /** The newest job when it failed: its error stands where its picture would. */
  readonly failed = $derived.by(() => {
    const last = this.over.at(-1)
    const isNew = last?.status === 'failed' && (last.endedAt ?? Infinity) >= this.#since
    return isNew && !this.#dismissed.includes(last.id) ? last : undefined
  })

  replace(jobs: Job[], queue: QueueState, startedAt = 0): void {
    this.#since = startedAt
    this.#byId.clear()
    for (const job of jobs) this.#byId.set(job.id, job)
    this.#sort()
    this.queue = queue
  }

  apply(event: AppEvent): void {
    if (event.type === 'jobs:changed') this.#change(event.jobs)
    else if (event.type === 'jobs:gone') {
      for (const id of event.ids) this.#byId.delete(id)
      this.#sort()
    } else if (event.type === 'queue:changed') this.queue = event.queue
  }

  find(id: string): Job | undefined {
    return this.#byId.get(id)
  }

  /** How much of its batch is made, 0 to 1: pictures that are over, and of the running one what is done. */
  batchShare(job: Job): number {
    const { batchId, batchSize } = job
    const waiting = this.waiting.reduce((count, one) => count + (one.batchId === batchId ? 1 : 0), 0)
    const isRunning = this.running?.batchId === batchId
    const over = Math.max(0, batchSize - waiting - (isRunning ? 1 : 0))
    return (over + (isRunning ? progressOf(this.running!) : 0)) / batchSize
  }

  async add(
    requests: GenerateRequestInput[],
    options: { place?: 'back' | 'front'; source?: JobSource; label?: string } = {},
  ): Promise<{ batchId: string; jobIds: string[] }> {
    return invoke('jobs:add', { requests, ...options })
  }

  async cancel(ids: string[]): Promise<void> {
    this.markStopping(ids)
    await invoke('jobs:cancel', { ids })
  }

  /** Shows at once where jobs go; main's next word about them says the same. */
  moveNow(ids: readonly string[], to: 'top' | 'bottom' | { before: string }): void {
    const moved = this.waiting.filter(({ id }) => ids.includes(id))
    const rest = this.waiting.filter(({ id }) => !ids.includes(id))
    const before = typeof to === 'object' ? rest.findIndex(({ id }) => id === to.before) : -1
    const at = to === 'top' ? 0 : before < 0 ? rest.length : before
    this.waiting = [...rest.slice(0, at), ...moved, ...rest.slice(at)]
  }

  /** Shows at once that a cancel was heard; main's next word about the job replaces this. */
  markStopping(ids: readonly string[]): void {
    if (this.running && ids.includes(this.running.id)) this.running = { ...this.running, isStopping: true }
  }

  dismiss(id: string): void {
    this.#dismissed = [...this.#dismissed, id]
  }

  #change(changed: readonly Job[]): void {
    const [first] = changed
    const isStep = changed.length === 1 && first.status === 'running' && this.running?.id === first.id
    for (const job of changed) this.#byId.set(job.id, job)
    if (isStep) this.running = first
    else this.#sort()
  }

  #sort(): void {
    const waiting: Job[] = []
    const over: Job[] = []
    let running: Job | undefined
    for (const job of this.#byId.values()) {
      if (job.status === 'running') running = job
      else if (job.status === 'waiting') waiting.push(job)
      else over.push(job)
    }
    this.running = running
    this.waiting = waiting.sort((a, b) => a.rank - b.rank)
    this.over = over.sort((a, b) => (a.endedAt ?? 0) - (b.endedAt ?? 0))
  }
}

/** One share of the whole job, 0 to 1: steps are most of the time, decoding the rest. */
export function progressOf(job: Job): number {
  if (job.status === 'done') return 1
  if (job.status !== 'running') return 0
  const stepShare = 0.9
  const inside: Record<Job['phase'], number> = {
    waiting: 0,
    loading: 0,
    encoding: 0.02,
    denoising: 0.02 + (stepShare - 0.02) * (job.steps > 0 ? job.step / job.steps : 0),
    decoding: stepShare,
    saving: 0.98,
    done: 1,
  }
  return inside[job.phase]
}
