import { reportError, type ErrorReport } from '../../models/errors.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type {
  Capabilities,
  FoundModel,
  ModelCandidate,
  ModelRecord,
  ModelTask,
  OwnDefaults,
} from '../../preload/contract/models.ts'
import { invoke } from '../api.ts'
import { t } from '../strings.ts'
import type { JobsState } from './jobs.svelte.ts'
import type { ShellState } from './shell.svelte.ts'
import type { ToastsState } from './toasts.svelte.ts'
import type { UndoState } from './undo.svelte.ts'

/** A file or folder that may become a model, and how far that has come. */
export type ModelOffer = {
  source: string
  fileName: string
  stage: 'reading' | 'asking' | 'importing' | 'failed'
  candidate?: ModelCandidate
  error?: ErrorReport
}

export type ModelsDeps = {
  jobs: JobsState
  shell: ShellState
  toasts: ToastsState
  undo: UndoState
  say: (text: string) => void
  /** The Studio's form takes this model. */
  choose: (model: string) => void
  onProblem: (error: unknown) => void
}

/** Steps of a picture that only has to show that a model works: as the choice Draft. */
const testSteps = 4

/** The models on this computer, what is on its way to become one, and what is done about them. */
export class ModelsState {
  all = $state.raw<ModelRecord[]>([])
  tasks = $state.raw<ModelTask[]>([])
  /** Model files in linked folders of other programs. */
  found = $state.raw<FoundModel[]>([])
  offers = $state.raw<ModelOffer[]>([])
  selectedId = $state<string | undefined>()
  capabilities = $state.raw<Capabilities | undefined>()
  /** Of the last test picture of each model. */
  tests = $state.raw<Readonly<Record<string, string>>>({})
  readonly #deps: ModelsDeps

  readonly selected = $derived(this.all.find(({ id }) => id === this.selectedId) ?? this.all.at(0))
  /** Those to choose from: hidden ones are only on this screen. */
  readonly visible = $derived(this.all.filter(({ isHidden }) => !isHidden))

  constructor(deps: ModelsDeps) {
    this.#deps = deps
  }

  apply(event: AppEvent): void {
    if (event.type === 'models:changed') this.all = event.models
    else if (event.type === 'models:found') this.found = event.found
    else if (event.type === 'models:taskGone') this.tasks = this.tasks.filter(({ id }) => id !== event.id)
    else if (event.type === 'models:task') this.#task(event.task)
  }

  /** What the screen shows beyond the list. */
  async load(): Promise<void> {
    await this.#try(async () => {
      const { models, tasks, found } = await invoke('models:list', undefined)
      this.all = models
      this.tasks = tasks
      this.found = found
    })
  }

  async loadCapabilities(model: string): Promise<void> {
    await this.#try(async () => {
      const capabilities = await invoke('models:capabilities', { model })
      if (this.selected?.id === model) this.capabilities = capabilities
    })
  }

  /** The system's own panel instead of a drop. */
  async pick(what: 'files' | 'folder'): Promise<void> {
    await this.#try(async () => {
      const sources = await invoke('models:choose', { what })
      if (sources.length > 0) await this.bring(sources)
    })
  }

  /** Says what they are, before anything is copied. */
  async bring(sources: readonly string[]): Promise<void> {
    this.#deps.shell.go('models')
    const known = this.offers.map(({ source }) => source)
    const fresh = sources.filter((source) => source !== '' && !known.includes(source))
    this.offers = [
      ...this.offers,
      ...fresh.map((source): ModelOffer => ({ source, fileName: nameOf(source), stage: 'reading' })),
    ]
    for (const source of fresh) {
      try {
        const [candidate] = await invoke('models:inspect', { sources: [source] })
        if (candidate.error) this.#offer(source, { stage: 'failed', candidate, error: candidate.error })
        else this.#offer(source, { stage: 'asking', candidate })
        this.#deps.say(candidate.error?.message ?? t('{name} can be imported.', { name: candidate.card?.name ?? '' }))
      } catch (error) {
        this.#offer(source, { stage: 'failed', error: reportError(error) })
      }
    }
  }

  async import(offer: ModelOffer, name: string, isFourBit: boolean): Promise<void> {
    const { candidate } = offer
    if (!candidate) return
    this.#offer(offer.source, { stage: 'importing', error: undefined })
    try {
      await invoke('models:import', { source: candidate.source, name, isFourBit })
      this.putAside(offer.source)
    } catch (error) {
      this.#offer(offer.source, { stage: 'failed', error: reportError(error) })
    }
  }

  putAside(source: string): void {
    this.offers = this.offers.filter((offer) => offer.source !== source)
  }

  closeOffers(): void {
    this.offers = []
  }

  async setDefault(model: ModelRecord): Promise<void> {
    await this.#try(async () => {
      await invoke('models:setDefault', { model: model.id })
      this.#deps.choose(model.id)
    })
  }

  async test(model: ModelRecord, prompt: string): Promise<void> {
    await this.#try(async () => {
      const request = { prompt, model: model.id, steps: testSteps, preview: 'off' as const }
      const label = t('Test of {name}', { name: model.name })
      const { jobIds } = await this.#deps.jobs.add([request], { place: 'front', source: 'test', label })
      this.tests = { ...this.tests, [model.id]: jobIds[0] }
    })
  }

  async unload(): Promise<void> {
    await this.#try(() => invoke('models:unload', undefined))
  }

  async verify(model: ModelRecord): Promise<void> {
    await this.#try(() => invoke('models:verify', { model: model.id }))
  }

  async makeFourBit(model: ModelRecord): Promise<void> {
    await this.#try(() => invoke('models:makeFourBit', { model: model.id }))
  }

  async cancelTask(task: ModelTask): Promise<void> {
    this.#task({ ...task, isStopping: true })
    await this.#try(() => invoke('models:cancelTask', { taskId: task.id }))
  }

  async forgetTask({ id }: ModelTask): Promise<void> {
    await this.#try(() => invoke('models:forgetTask', { taskId: id }))
  }

  async hide(model: ModelRecord, isHidden: boolean): Promise<void> {
    await this.#try(async () => {
      await invoke('models:hide', { model: model.id, isHidden })
      this.#deps.say(
        isHidden
          ? t('{name} is hidden in the Studio.', { name: model.name })
          : t('{name} can be chosen again.', { name: model.name }),
      )
    })
  }

  async remove({ id, name }: ModelRecord): Promise<void> {
    await this.#try(async () => {
      let { undoId } = await invoke('models:remove', { model: id })
      const undo = () => this.#try(() => invoke('models:undoRemove', { undoId }))
      const redo = () => this.#try(async () => void ({ undoId } = await invoke('models:remove', { model: id })))
      this.#deps.undo.push({ label: t('Remove {name}', { name }), scope: 'library', undo, redo })
      const text = t('{name} is in the bin.', { name })
      this.#deps.toasts.show({ text, ms: 10_000, action: { label: t('Undo'), run: () => void undo() } })
    })
  }

  async saveDefaults(model: ModelRecord, defaults: OwnDefaults): Promise<void> {
    // Shown at once: the next change may come before main's word about this one.
    this.all = this.all.map((one) => (one.id === model.id ? { ...one, ownDefaults: defaults } : one))
    await this.#try(() => invoke('models:saveDefaults', { model: model.id, defaults }))
  }

  async exportDefaults(model: ModelRecord): Promise<void> {
    await this.#try(async () => {
      const { file } = await invoke('models:exportDefaults', { model: model.id })
      if (file) this.#deps.toasts.show({ text: t('Written to {file}', { file }), tone: 'good' })
    })
  }

  #task(task: ModelTask): void {
    const before = this.tasks.find(({ id }) => id === task.id)
    this.tasks = before ? this.tasks.map((one) => (one.id === task.id ? task : one)) : [...this.tasks, task]
    if (before?.status === task.status || task.status !== 'done') return
    if (task.kind !== 'verify') this.selectedId = task.model
    const text =
      task.kind === 'verify'
        ? t('{name} was checked.', { name: task.name })
        : t('{name} is ready.', { name: task.name })
    this.#deps.toasts.show({ text, tone: 'good' })
    this.#deps.say(text)
  }

  #offer(source: string, part: Partial<ModelOffer>): void {
    this.offers = this.offers.map((offer) => (offer.source === source ? { ...offer, ...part } : offer))
  }

  async #try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.#deps.onProblem(error)
    }
  }
}

const nameOf = (path: string) => path.split(/[\\/]/).filter(Boolean).at(-1) ?? path
