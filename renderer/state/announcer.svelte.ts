import type { AppEvent } from '../../preload/contract.ts'
import type { Job } from '../../preload/contract/jobs.ts'
import { t, tn } from '../strings.ts'
import { progressOf } from './jobs.svelte.ts'

type Options = {
  /** How much of its batch is made, 0 to 1, when the job is as it is. */
  shareOf?: (job: Job) => number
  /** At which steps progress is said, in percent. */
  every?: () => number
}

/** What a screen reader hears: progress of what is being made, one word when a batch is over, and failures at once. */
export class Announcer {
  polite = $state('')
  assertive = $state('')
  readonly #shareOf: (job: Job) => number
  readonly #every: () => number
  /** By batch: the last share that was said, in percent. */
  readonly #said = new Map<string, number>() // eslint-disable-line svelte/prefer-svelte-reactivity -- nothing shows it

  constructor({ shareOf = progressOf, every = () => 25 }: Options = {}) {
    this.#shareOf = shareOf
    this.#every = every
  }

  say(text: string): void {
    this.polite = this.polite === text ? `${text}\u00a0` : text // the same words again are heard only when they differ
  }

  apply(event: AppEvent): void {
    if (event.type === 'jobs:changed') event.jobs.forEach((job) => this.#jobChanged(job))
    else if (event.type === 'batch:finished') this.#batchFinished(event)
  }

  #jobChanged(job: Job): void {
    const { batchId, status, error } = job
    if (status === 'running' || (status === 'done' && this.#said.has(batchId))) {
      const every = this.#every()
      const reached = Math.floor((100 * this.#shareOf(job)) / every + 1e-6) * every
      if (reached > (this.#said.get(batchId) ?? 0)) this.polite = t('{percent} % done', { percent: reached })
      this.#said.set(batchId, Math.max(reached, this.#said.get(batchId) ?? 0))
    } else if (status === 'failed' && error && this.#said.has(batchId)) {
      this.assertive = `${error.message} ${error.hint ?? ''}`
    }
  }

  #batchFinished({
    batchId,
    done,
    failed,
    cancelled,
  }: {
    batchId: string
    done: number
    failed: number
    cancelled: number
  }) {
    if (!this.#said.delete(batchId)) return // none of it was made while this window listened
    if (failed > 0 && done + failed + cancelled === 1) return // was said as it happened
    if (failed > 0)
      this.polite = t('{done} of {total} pictures are finished, {failed} failed.', {
        ...{ done, failed, total: done + failed + cancelled },
      })
    else if (done === 0) this.polite = t('Stopped.')
    else this.polite = tn(done, 'The picture is finished.', '{n} pictures are finished.')
  }
}
