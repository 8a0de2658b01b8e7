import type { AppEvent } from '../../preload/contract.ts'
import type { Job } from '../../preload/contract/jobs.ts'
import { progressOf } from './jobs.svelte.ts'

const quarter = 0.25

/** What a screen reader hears: progress at each quarter, the end, and failures at once. */
export class Announcer {
  polite = $state('')
  assertive = $state('')
  /** By job: how many quarters were announced. */
  #quarters: Record<string, number> = {}

  apply(event: AppEvent): void {
    if (event.type === 'jobs:changed') event.jobs.forEach((job) => this.#jobChanged(job))
  }

  #jobChanged(job: Job): void {
    if (job.status === 'running') {
      const reached = Math.floor(progressOf(job) / quarter)
      if (reached > (this.#quarters[job.id] ?? 0)) this.polite = `${reached * 25} % done`
      this.#quarters[job.id] = reached
      return
    }
    if (!(job.id in this.#quarters)) return // it never ran while this window listened
    delete this.#quarters[job.id]
    if (job.status === 'done') this.polite = 'The picture is finished.'
    else if (job.status === 'cancelled') this.polite = 'Stopped.'
    else if (job.error) this.assertive = `${job.error.message} ${job.error.hint ?? ''}`
  }
}
