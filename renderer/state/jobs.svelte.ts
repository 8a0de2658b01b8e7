import type { AppEvent } from '../../preload/contract.ts'
import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import type { Job, JobSource, QueueState } from '../../preload/contract/jobs.ts'
import { invoke } from '../api.ts'

const idle: QueueState = { isPaused: false, isPausingAfterCurrent: false, whenDone: 'nothing' }

/** The queue as main tells it. Lists are replaced whole, so that one changed job repaints one card. */
export class JobsState {
  all = $state.raw<Job[]>([])
  queue = $state.raw<QueueState>(idle)
  /** Failed jobs that the person has put away. */
  #dismissed = $state.raw<string[]>([])

  readonly running = $derived(this.all.find((job) => job.status === 'running'))
  readonly waiting = $derived(this.all.filter((job) => job.status === 'waiting'))
  /** The newest job when it failed: its error stands where its picture would. */
  readonly failed = $derived.by(() => {
    const last = this.all.filter((job) => job.status !== 'waiting' && job.status !== 'running').at(-1)
    return last?.status === 'failed' && !this.#dismissed.includes(last.id) ? last : undefined
  })

  replace(jobs: Job[], queue: QueueState): void {
    this.all = jobs
    this.queue = queue
  }

  apply(event: AppEvent): void {
    if (event.type === 'jobs:changed') this.#change(event.jobs)
    else if (event.type === 'jobs:gone') this.all = this.all.filter(({ id }) => !event.ids.includes(id))
    else if (event.type === 'queue:changed') {
      this.queue = event.queue
      if (event.order) this.#reorder(event.order)
    }
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

  /** Shows at once that a cancel was heard; main's next word about the job replaces this. */
  markStopping(ids: readonly string[]): void {
    this.all = this.all.map((job) =>
      ids.includes(job.id) && job.status === 'running' ? { ...job, isStopping: true } : job,
    )
  }

  dismiss(id: string): void {
    this.#dismissed = [...this.#dismissed, id]
  }

  #change(changed: readonly Job[]): void {
    const byId: Record<string, Job | undefined> = Object.fromEntries(changed.map((job) => [job.id, job]))
    const known: Record<string, true> = Object.fromEntries(this.all.map(({ id }) => [id, true]))
    this.all = [...this.all.map((job) => byId[job.id] ?? job), ...changed.filter(({ id }) => !known[id])]
  }

  #reorder(order: readonly string[]): void {
    const places: Record<string, number | undefined> = Object.fromEntries(order.map((id, i) => [id, i]))
    const waiting = this.all.filter(({ id }) => places[id] !== undefined)
    waiting.sort((a, b) => places[a.id]! - places[b.id]!)
    let next = 0
    this.all = this.all.map((job) => (places[job.id] === undefined ? job : waiting[next++]))
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
