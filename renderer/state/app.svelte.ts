import { tick } from 'svelte'
import { reportError, type ErrorReport } from '../../models/errors.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import { invoke, onEvent } from '../api.ts'
import { t } from '../strings.ts'
import { AdapterLibraryState } from './adapter-library.svelte.ts'
import { AdaptersState } from './adapters.svelte.ts'
import { Announcer } from './announcer.svelte.ts'
import { CommandsState } from './commands.svelte.ts'
import { DeskState } from './desk.svelte.ts'
import { DropsState, nameOf } from './drops.svelte.ts'
import { FormState } from './form.svelte.ts'
import { GalleryState } from './gallery.svelte.ts'
import { JobsState } from './jobs.svelte.ts'
import { LibraryState } from './library.svelte.ts'
import { ModelsState } from './models.svelte.ts'
import { OffersState, type Intent } from './offers.svelte.ts'
import { QueueActions } from './queue.svelte.ts'
import { SetsState } from './sets.svelte.ts'
import { SettingsState } from './settings.svelte.ts'
import { ShellState } from './shell.svelte.ts'
import { StudioState } from './studio.svelte.ts'
import { ToastsState } from './toasts.svelte.ts'
import { UndoState, type UndoStep } from './undo.svelte.ts'

const undoMs = 10_000

/**
 * The window's picture of the application. Everything in it comes from `app:state` and the events after it, so a
 * reload at any moment, also in the middle of a job, loses nothing.
 */
export class AppModel {
  readonly settings = new SettingsState((error) => (this.problem = reportError(error)))
  readonly desk = new DeskState((error) => (this.problem = reportError(error)))
  readonly shell = new ShellState(this.settings)
  readonly commands = new CommandsState(this.settings)
  readonly toasts = new ToastsState()
  readonly undo = new UndoState((error) => this.report(error))
  readonly drops = new DropsState((text) => this.toasts.show({ text }))
  readonly jobs = new JobsState()
  readonly library = new LibraryState()
  readonly adapters = new AdaptersState()
  readonly form = new FormState(this.adapters, () => this.settings.get('speed'))
  readonly gallery = new GalleryState({
    toasts: this.toasts,
    undo: this.undo,
    recall: (recipe, part) => {
      this.studio.recall(recipe, part)
      this.shell.go('studio')
    },
    onProblem: (error) => this.report(error),
  })
  readonly announcer = new Announcer({
    shareOf: (job) => this.jobs.batchShare(job),
    every: () => this.settings.get('announceEvery'),
  })
  readonly offers = new OffersState(this.adapters, this.form.slots, (text) => (this.announcer.polite = text), this.undo)
  readonly sets = new SetsState({
    slots: this.form.slots,
    toasts: this.toasts,
    undo: this.undo,
    model: () => this.form.modelRecord?.id ?? this.form.model,
    attempt: (action) => this.#try(action),
  })
  readonly adapterLibrary = new AdapterLibraryState({
    ...{ adapters: this.adapters, slots: this.form.slots, jobs: this.jobs },
    ...{ shell: this.shell, undo: this.undo, toasts: this.toasts },
    onProblem: (error) => (this.problem = reportError(error)),
  })
  readonly studio: StudioState = new StudioState(this)
  readonly queue = new QueueActions({
    jobs: this.jobs,
    toasts: this.toasts,
    undo: this.undo,
    undoScope: () => (this.shell.screen === 'studio' ? 'studio' : 'library'),
    edit: (recipe) => {
      this.studio.recall(recipe, 'all')
      this.library.follow()
      this.shell.go('studio')
    },
    nameOfAdapter: (id) => this.adapters.find(id)?.name,
  })
  readonly models = new ModelsState({
    ...{ jobs: this.jobs, shell: this.shell, toasts: this.toasts, undo: this.undo },
    say: (text) => (this.announcer.polite = text),
    choose: (model) => (this.form.model = model),
    onProblem: (error) => (this.problem = reportError(error)),
  })
  version = $state('')
  device = $state.raw<DeviceReport | undefined>()
  samplePrompts = $state.raw<string[]>([])
  isLoaded = $state(false)
  #shown!: () => void
  readonly #isShown = new Promise<void>((resolve) => (this.#shown = resolve))
  isSettingUp = $state(false)
  isWelcomeDismissed = $state(true)
  /** What went wrong outside any job, e.g. a request that was refused. */
  problem = $state.raw<ErrorReport | undefined>()
  /** The adapter that was moved to the bin last, and what brings it back. */
  removedAdapter = $state.raw<{ name: string; undoId: string } | undefined>()

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
      this.settings.replace(state.settings)
      this.shell.restore()
      this.jobs.replace(state.jobs, state.queue, state.startedAt)
      this.library.replace(state.images, state.startedAt)
      this.form.models = this.models.all = state.models
      if (state.settings.form) this.form.restore(state.settings.form)
      else this.form.prompt = state.samplePrompts[0] ?? ''
    })
    for (const event of early ?? []) this.apply(event)
    early = undefined
    const stopStudio = this.studio.start()
    this.isLoaded = true
    void tick().then(this.#shown)
    return () => {
      stopStudio()
      stop()
    }
  }

  apply(event: AppEvent): void {
    for (const area of [
      this.jobs,
      this.queue,
      this.announcer,
      this.settings,
      this.desk,
      this.models,
      this.gallery,
      this.library,
      this.sets,
      this.adapters,
    ])
      area.apply(event)
    switch (event.type) {
      case 'jobs:changed':
        for (const job of event.jobs) this.form.slots.heard(job)
        break
      case 'models:changed':
        this.form.models = event.models
        this.isSettingUp = false
        break
      case 'adapters:copying':
        this.offers.copying(event.file, event.doneBytes, event.totalBytes)
        break
      case 'engine:device':
        this.device = event.device
        break
      case 'app:command':
        this.commands.run(event.id)
        break
      case 'app:files':
        void this.#openFiles(event.files)
        break
    }
  }

  /** Files of a start come before there is a window to take them. */
  async #openFiles(files: readonly string[]): Promise<void> {
    await this.#isShown
    this.drops.take(files.map((file) => ({ file, name: nameOf(file) })))
  }

  async generate(place: 'back' | 'front' = 'back'): Promise<void> {
    if (!this.form.canGenerate) return
    this.problem = undefined
    this.studio.takeTags()
    this.library.follow()
    if (this.jobs.failed) this.jobs.dismiss(this.jobs.failed.id)
    const { prompt } = this.form
    await this.#try(async () => {
      const added = this.jobs.add([this.form.request()], { place })
      this.studio.used(prompt) // at once: a second press asks for the next seed
      await added
    })
  }

  /** Drafts of one seed side by side, before everything that waits. */
  async audition(requests: GenerateRequestInput[], label: string): Promise<void> {
    this.library.follow()
    await this.#try(() => this.jobs.add(requests, { source: 'audition', place: 'front', label }))
  }

  async cancel(jobId: string): Promise<void> {
    await this.#try(() => this.jobs.cancel([jobId]))
  }

  async retry(jobId: string, size?: { width: number; height: number }): Promise<void> {
    this.library.follow()
    await this.#try(() => invoke('jobs:retry', { ids: [jobId], ...(size ? { size } : {}) }))
  }

  async reveal(id: string): Promise<void> {
    await this.#try(() => invoke('images:reveal', { id }))
  }

  /** The library as it is to a model; what changes after that comes as events. */
  async listAdapters(model: string): Promise<void> {
    await this.#try(async () => {
      this.adapters.begin(model) // events may come before the reply
      const list = await invoke('adapters:list', { model })
      if (this.adapters.model === model) this.adapters.replace(model, list)
    })
  }

  /** The system's own panel instead of a drop. */
  async chooseAdapters(intent: Intent = 'use'): Promise<void> {
    await this.#try(async () => {
      const files = await invoke('adapters:choose', { what: 'files' })
      const named = files.map((file) => ({ file, name: file.split(/[\\/]/).at(-1) ?? file }))
      if (named.length > 0) await this.offers.bring(named, intent, false)
    })
  }

  /** The menu's way to bring files in: the same as dropping them. */
  async chooseFiles(): Promise<void> {
    await this.#try(async () => {
      const files = await invoke('adapters:choose', { what: 'files' })
      this.drops.offer(files.map((file) => ({ file, name: nameOf(file) })))
    })
  }

  async removeAdapter(id: string): Promise<void> {
    await this.#try(async () => {
      const name = this.adapters.find(id)?.name ?? id
      const { undoId } = await invoke('adapters:remove', { id })
      this.removedAdapter = { name, undoId }
      this.announcer.polite = `${name} is in the bin.`
    })
  }

  async undoRemoveAdapter(): Promise<void> {
    const { removedAdapter } = this
    if (!removedAdapter) return
    this.removedAdapter = undefined
    await this.#try(() => invoke('adapters:undo', { undoId: removedAdapter.undoId, model: this.adapters.model }))
  }

  dismissWelcome(): void {
    this.isWelcomeDismissed = true
    void this.#try(() => invoke('settings:save', { isWelcomeDismissed: true }))
  }

  /** Says that something was done and how to take it back: for ten seconds here, later with the keys for undoing. */
  offerUndo(step: UndoStep, text: string): void {
    const undo = { label: t('Undo'), run: () => void this.undo.take(step) }
    this.undo.push(step)
    this.toasts.show({ text, action: undo, ms: undoMs })
  }

  /** Something failed that has no place of its own on the screen. */
  report(error: unknown): void {
    const { message, hint } = reportError(error)
    this.toasts.show({ text: hint ? `${message} ${hint}` : message, tone: 'bad' })
  }

  async #try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.problem = reportError(error)
    }
  }
}
