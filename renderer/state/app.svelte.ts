import { reportError, type ErrorReport } from '../../models/errors.ts'
import type { AppEvent, DeviceReport } from '../../preload/contract.ts'
import { invoke, onEvent } from '../api.ts'
import { Announcer } from './announcer.svelte.ts'
import { FormState } from './form.svelte.ts'
import { JobsState } from './jobs.svelte.ts'
import { LibraryState } from './library.svelte.ts'

const saveDelayMs = 400

/**
 * The window's picture of the application. Everything in it comes from `app:state` and the events after it, so a
 * reload at any moment, also in the middle of a job, loses nothing.
 */
export class AppModel {
  readonly jobs = new JobsState()
  readonly library = new LibraryState()
  readonly form = new FormState()
  readonly announcer = new Announcer()
  version = $state('')
  device = $state.raw<DeviceReport | undefined>()
  samplePrompts = $state.raw<string[]>([])
  isLoaded = $state(false)
  isSettingUp = $state(false)
  isWelcomeDismissed = $state(true)
  /** What went wrong outside any job, e.g. a request that was refused. */
  problem = $state.raw<ErrorReport | undefined>()
  #saving: ReturnType<typeof setTimeout> | undefined

  /** Asks for the state, then lives on events. Those that come in between are applied after it. */
  async start(): Promise<() => void> {
    let early: AppEvent[] | undefined = []
    const stop = onEvent((event) => (early ? early.push(event) : this.apply(event)))
    await this.#try(async () => {
      const state = await invoke('app:state', undefined)
      this.version = state.version
      this.device = state.device
      this.samplePrompts = state.samplePrompts
      this.isSettingUp = state.isSettingUp
      this.isWelcomeDismissed = state.settings.isWelcomeDismissed ?? false
      this.jobs.replace(state.jobs)
      this.library.replace(state.images)
      this.form.models = state.models
      if (state.settings.form) this.form.restore(state.settings.form)
      else this.form.prompt = state.samplePrompts[0] ?? ''
    })
    for (const event of early ?? []) this.apply(event)
    early = undefined
    this.isLoaded = true
    return stop
  }

  apply(event: AppEvent): void {
    switch (event.type) {
      case 'job:changed':
        this.announcer.jobChanged(event.job)
        this.jobs.apply(event.job)
        break
      case 'image:added':
        this.library.add(event.image)
        break
      case 'models:changed':
        this.form.models = event.models
        this.isSettingUp = false
        break
      case 'engine:device':
        this.device = event.device
        break
      case 'engine:crashed':
        break // the failed job says it, where it belongs
      default:
        event satisfies never
    }
  }

  async generate(): Promise<void> {
    if (!this.form.canGenerate) return
    this.problem = undefined
    this.library.follow()
    if (this.jobs.failed) this.jobs.dismiss(this.jobs.failed.id)
    await this.#try(() => invoke('jobs:add', this.form.request()))
  }

  async cancel(jobId: string): Promise<void> {
    this.jobs.markStopping(jobId)
    await this.#try(() => invoke('jobs:cancel', { jobId }))
  }

  async retry(jobId: string): Promise<void> {
    const job = this.jobs.all.find(({ id }) => id === jobId)
    if (!job) return
    this.jobs.dismiss(jobId)
    this.library.follow()
    await this.#try(() => invoke('jobs:add', job.request))
  }

  async reveal(id: string): Promise<void> {
    await this.#try(() => invoke('images:reveal', { id }))
  }

  dismissWelcome(): void {
    this.isWelcomeDismissed = true
    void this.#try(() => invoke('settings:save', { isWelcomeDismissed: true }))
  }

  /** Remembers the form half a second after the last change. */
  formChanged(): void {
    clearTimeout(this.#saving)
    const form = this.form.snapshot()
    this.#saving = setTimeout(() => void this.#try(() => invoke('settings:save', { form })), saveDelayMs)
  }

  async #try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.problem = reportError(error)
    }
  }
}
