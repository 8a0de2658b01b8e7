import { reportError, type ErrorReport } from '../../models/errors.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { RecalledRecipe } from '../../preload/contract/images.ts'
import type { Job } from '../../preload/contract/jobs.ts'
import { invoke } from '../api.ts'
import { t, tn } from '../strings.ts'
import type { JobsState } from './jobs.svelte.ts'
import type { ToastsState } from './toasts.svelte.ts'
import type { UndoScope, UndoState } from './undo.svelte.ts'

type Move = 'top' | 'bottom' | { before: string }
type Parts = {
  jobs: JobsState
  toasts: ToastsState
  undo: UndoState
  /** Among which steps those of the queue are: its dock is on every screen, and undo takes the screen's newest. */
  undoScope: () => UndoScope
  /** Takes what a job was asked for into the form, and shows that. */
  edit: (recipe: RecalledRecipe) => void
  nameOfAdapter: (id: string) => string | undefined
}

/** A job that is not older was asked for by the person at the screen. */
const justNowMs = 2000

/** What a person can do with the queue. What goes wrong is said in a toast; nothing here is lost with it. */
export class QueueActions {
  readonly #parts: Parts
  #isPauseSaid = false

  constructor(parts: Parts) {
    this.#parts = parts
  }

  apply(event: AppEvent): void {
    if (event.type === 'queue:changed' && !event.queue.isPaused) this.#isPauseSaid = false
    else if (event.type === 'jobs:changed') this.#sayPaused(event.jobs)
    else if (event.type === 'engine:crashed')
      this.#parts.toasts.show({
        text: t('The engine stopped and starts again; what it was making goes on.'),
        tone: 'warn',
      })
  }

  /** Whoever asks for a picture while nothing is made should know why nothing happens; once is enough. */
  #sayPaused(changed: readonly Job[]): void {
    const isAsked = changed.some(({ status, createdAt }) => status === 'waiting' && Date.now() - createdAt < justNowMs)
    if (!isAsked || !this.#parts.jobs.queue.isPaused || this.#isPauseSaid) return
    this.#isPauseSaid = true
    const action = { label: t('Resume'), run: () => void this.resume() }
    this.#parts.toasts.show({ text: t('The queue is paused: new pictures wait.'), action })
  }

  async cancel(ids: string[]): Promise<void> {
    await this.#try(() => this.#parts.jobs.cancel(ids))
  }

  async move(ids: string[], to: Move): Promise<void> {
    this.#parts.jobs.moveNow(ids, to)
    await this.#try(() => invoke('jobs:move', { ids, to }))
  }

  async hold(ids: string[], isHeld: boolean): Promise<void> {
    await this.#try(() => invoke('jobs:hold', { ids, isHeld }))
  }

  async retry(ids: string[], size?: { width: number; height: number }): Promise<void> {
    await this.#try(() => invoke('jobs:retry', { ids, ...(size ? { size } : {}) }))
  }

  async retryFailed(): Promise<void> {
    await this.retry(this.#parts.jobs.over.flatMap(({ id, status }) => (status === 'failed' ? [id] : [])))
  }

  async duplicate(ids: string[]): Promise<void> {
    await this.#try(() => invoke('jobs:duplicate', { ids }))
  }

  async forget(ids: string[]): Promise<void> {
    await this.#try(() => invoke('jobs:forget', { ids }))
  }

  async pause(when: 'now' | 'after-current'): Promise<void> {
    await this.#try(() => invoke('queue:pause', { when }))
  }

  async resume(): Promise<void> {
    await this.#try(() => invoke('queue:resume', undefined))
  }

  async toggle(): Promise<void> {
    const { isPaused, isPausingAfterCurrent } = this.#parts.jobs.queue
    await (isPaused || isPausingAfterCurrent ? this.resume() : this.pause('now'))
  }

  async stopAt(at: number | null): Promise<void> {
    await this.#try(() => invoke('queue:stopAt', { at }))
  }

  async clearWaiting(): Promise<void> {
    await this.#clear(() => invoke('jobs:clearWaiting', undefined))
  }

  async discard(): Promise<void> {
    await this.#clear(() => invoke('queue:discard', undefined))
  }

  /** The form as it was for this job, to be changed before it is asked for again. */
  editAsNew({ request }: Job): void {
    const { adapters, model, initImage, ...rest } = request
    for (const key of ['count', 'preview', 'maskImage'] as const) delete (rest as Partial<typeof request>)[key]
    this.#parts.edit({
      request: { ...rest, model },
      model: { id: model, name: model },
      adapters: adapters.map(({ file, ...use }) => ({
        ...use,
        id: file,
        name: this.#parts.nameOfAdapter(file) ?? file,
      })),
      ...(initImage === undefined ? {} : { source: { name: initImage, file: initImage } }),
    })
  }

  async copyRecipe(jobs: readonly Job[]): Promise<void> {
    await this.#try(async () => {
      const requests = jobs.map(({ request }) => request)
      await navigator.clipboard.writeText(JSON.stringify(requests.length === 1 ? requests[0] : requests, null, 1))
      this.#parts.toasts.show({ text: tn(jobs.length, 'The recipe is copied.', '{n} recipes are copied.') })
    })
  }

  /** What helps somebody else to understand it. */
  async copyDetails({ code, message, hint }: ErrorReport, about: unknown = {}): Promise<void> {
    await this.#try(async () => {
      const { running, waiting, queue } = this.#parts.jobs
      const rest = { queue, running: running?.id, waiting: waiting.length, ...(about as object) }
      await navigator.clipboard.writeText(`${code}: ${message}\n${hint ?? ''}\n${JSON.stringify(rest, null, 1)}`)
      this.#parts.toasts.show({ text: t('The details are copied.') })
    })
  }

  async #clear(clear: () => Promise<{ undoId: string; count: number }>): Promise<void> {
    await this.#try(async () => {
      let { undoId, count } = await clear()
      if (count === 0) return
      const text = tn(count, 'One job was cleared.', '{n} jobs were cleared.')
      let isUndone = false
      const undo = async () => {
        if (isUndone) return
        isUndone = true
        await this.#try(() => invoke('jobs:undoClear', { undoId }))
      }
      const redo = async () => {
        await this.#try(async () => ({ undoId, count } = await invoke('jobs:clearWaiting', undefined)))
        isUndone = false
      }
      this.#parts.undo.push({ label: t('Clear waiting'), scope: this.#parts.undoScope(), undo, redo })
      this.#parts.toasts.show({ text, action: { label: t('Undo'), run: () => void undo() } })
    })
  }

  async #try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action()
    } catch (error) {
      const { message, hint } = reportError(error)
      this.#parts.toasts.show({ text: hint === undefined ? message : `${message} ${hint}`, tone: 'bad' })
    }
  }
}
