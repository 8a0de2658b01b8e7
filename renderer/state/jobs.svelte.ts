import type { Job } from '../../preload/contract/jobs.ts'

/** The queue as main tells it. Lists are replaced whole, so that one changed job repaints one card. */
export class JobsState {
  all = $state.raw<Job[]>([])
  /** Failed jobs that the person has put away. */
  #dismissed = $state.raw<string[]>([])

  readonly running = $derived(this.all.find((job) => job.status === 'running'))
  readonly waiting = $derived(this.all.filter((job) => job.status === 'waiting'))
  /** The newest job when it failed: its error stands where its picture would. */
  readonly failed = $derived.by(() => {
    const last = this.all.filter((job) => job.status !== 'waiting' && job.status !== 'running').at(-1)
    return last?.status === 'failed' && !this.#dismissed.includes(last.id) ? last : undefined
  })

  replace(jobs: Job[]): void {
    this.all = jobs
  }

  apply(changed: Job): void {
    const known = this.all.some((job) => job.id === changed.id)
    this.all = known ? this.all.map((job) => (job.id === changed.id ? changed : job)) : [...this.all, changed]
  }

  /** Shows at once that a cancel was heard; main's next word about the job replaces this. */
  markStopping(id: string): void {
    this.all = this.all.map((job) => (job.id === id ? { ...job, isStopping: true } : job))
  }

  dismiss(id: string): void {
    this.#dismissed = [...this.#dismissed, id]
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
  return (job.index + inside[job.phase]) / job.request.count
}
