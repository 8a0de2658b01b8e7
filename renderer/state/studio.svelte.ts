import { reportError } from '../../models/errors.ts'
import type { RecalledRecipe } from '../../preload/contract/images.ts'
import { limits } from '../../preload/limits.ts'
import { invoke } from '../api.ts'
import { t, tn } from '../strings.ts'
import { takeAdapterTags } from './adapter-tags.ts'
import type { AppModel } from './app.svelte.ts'
import { EstimateState } from './estimate.svelte.ts'
import { StudioHistory } from './history.svelte.ts'
import { PromptHistory } from './prompt-history.svelte.ts'
import { ReadingState } from './reading.svelte.ts'
import type { RecallGap, RecallPart } from './recall.ts'
import { isReserved, weightText } from './weights.ts'

const saveDelayMs = 300

/** What goes on around the form of the Studio, whichever screen is shown: it is kept, counted, and can be taken back. */
export class StudioState {
  readonly reading = new ReadingState((prompt, negativePrompt) => invoke('prompt:read', { prompt, negativePrompt }))
  readonly estimate = new EstimateState((request) =>
    invoke('jobs:estimate', { request: { model: 'starter', ...request } }),
  )
  readonly prompts = new PromptHistory()
  /** The prompt is focused once, when the window opens. */
  isFocused = false
  /** Where the lists of `__name__` lie; known once one was named that is not there. */
  listsFolder = $state('')
  /** The picture to start from, small; or why it cannot be used. */
  sourceView = $state.raw<{ file: string; url?: string; size?: string; problem?: string } | undefined>()
  /** What the last recalled recipe named that is not here. */
  gaps = $state.raw<readonly RecallGap[]>([])
  readonly #app: AppModel
  #saving: ReturnType<typeof setTimeout> | undefined

  constructor(app: AppModel) {
    this.#app = app
  }

  /** After the state of the application has come. Returns what ends it. */
  start(): () => void {
    const app = this.#app
    const { form, jobs, settings } = app
    this.prompts.all = settings.chosen('promptHistory') ?? []
    const history = new StudioHistory(form, app.undo)
    const stopDrop = app.drops.register({
      id: 'source',
      label: t('Use as source'),
      note: t('The next picture starts from it.'),
      kinds: ['image'],
      take: ([first]) => this.useSource(first.file),
    })
    const keep = () => this.#keep()
    window.addEventListener('pagehide', keep)
    const stopEffects = $effect.root(() => {
      let isFirst = true
      $effect(() => {
        void form.snapshot()
        history.changed()
        if (!isFirst) this.#keepSoon()
        isFirst = false
      })
      $effect(() => this.reading.changed(form.prompt, form.negativePrompt))
      $effect(() => {
        // Each finished picture makes the next estimate better.
        this.estimate.changed(form.request(), jobs.running?.id)
      })
      $effect(() => {
        const { prompt, negativePrompt } = this.reading
        if (prompt?.missingLists.length || negativePrompt?.missingLists.length) void this.#askLists()
      })
      $effect(() => void this.#lookAtSource(form.source?.file))
      $effect(() => void this.#askCapabilities(form.modelRecord?.id))
      // Verdicts are main's, and depend on the model.
      $effect(() => void app.listAdapters(form.modelRecord?.id ?? form.model))
      $effect(() => form.fitSlots())
    })
    return () => {
      window.removeEventListener('pagehide', keep)
      stopDrop()
      stopEffects()
    }
  }

  /** The next picture starts from this file; `id` when it is one of the library. */
  useSource(file: string, id?: string): void {
    this.#app.form.source = { file, ...(id === undefined ? {} : { id }) }
    this.#app.shell.go('studio')
  }

  /** The same from the system's own panel. */
  async chooseSource(): Promise<void> {
    const [file] = await invoke('images:choose', undefined)
    if (file !== undefined) this.useSource(file)
  }

  /** Takes what a picture says of how it was made into the form, and says what of it is not here. */
  recall(recipe: RecalledRecipe, part: RecallPart): RecallGap[] {
    const gaps = this.#app.form.recall(recipe, part)
    this.gaps = gaps
    return gaps
  }

  /** Adapters named in the prompt get slots. Those that are not in the library stay in the text, where they do nothing. */
  takeTags(): void {
    const { form, adapters, toasts } = this.#app
    const before = { prompt: form.prompt, slots: form.slots.all }
    let free = limits.userAdapters - form.slots.own.length
    const { prompt, taken, unknown, crowded } = takeAdapterTags(
      form.prompt,
      adapters.all,
      ({ id, role }) => form.slots.has(id) || isReserved(role) || free-- > 0,
    )
    const named: string[] = []
    for (const { record, weight, textWeight, start, end } of taken) {
      form.slots.add(record)
      form.slots.change(record.id, { weight, start, end, isOn: true, ...(textWeight === weight ? {} : { textWeight }) })
      named.push(`${record.name} ${weightText(weight)}`)
    }
    if (named.length > 0) {
      form.prompt = prompt
      const label = tn(named.length, '{names} got a slot.', '{names} got slots.', { names: named.join(', ') })
      const back = () => {
        form.prompt = before.prompt
        form.slots.all = before.slots
      }
      toasts.show({ text: label, tone: 'good', action: { label: t('Undo'), run: back } })
    }
    if (crowded.length > 0) {
      toasts.show({
        text: t('All slots are taken: {names} stays in the prompt, where it does nothing.', {
          names: crowded.join(', '),
        }),
        tone: 'warn',
      })
    }
    if (unknown.length > 0) {
      toasts.show({
        text: t('There is no adapter {names} for this model in the library. What names it stays in the prompt.', {
          names: unknown.map((name) => `"${name}"`).join(', '),
        }),
        tone: 'warn',
      })
    }
  }

  /** A request went out with this prompt. */
  used(prompt: string): void {
    this.prompts.used(prompt)
    this.#app.settings.set({ promptHistory: [...this.prompts.all] })
    this.#app.form.advance()
  }

  /** Soon after the first change that is not kept yet, however fast others follow. */
  #keepSoon(): void {
    if (this.#saving !== undefined) return
    this.#saving = setTimeout(() => this.#keep(), saveDelayMs)
  }

  #keep(): void {
    if (this.#saving === undefined) return
    clearTimeout(this.#saving)
    this.#saving = undefined
    this.#app.settings.set({ form: this.#app.form.snapshot() })
  }

  async #lookAtSource(file: string | undefined): Promise<void> {
    this.sourceView = file === undefined ? undefined : { file }
    if (file === undefined) return
    const view = await invoke('images:preview', { file }).then(
      ({ url, width, height }) => ({ file, url, size: `${width} × ${height}` }),
      (error: unknown) => ({ file, problem: reportError(error).message }),
    )
    if (this.#app.form.source?.file === file) this.sourceView = view
  }

  async #askLists(): Promise<void> {
    if (this.listsFolder === '') this.listsFolder = (await invoke('prompt:lists', undefined)).folder
  }

  async #askCapabilities(model: string | undefined): Promise<void> {
    if (model === undefined) return
    // A model that is just being taken away has none; the form then stays as free as it is.
    const capabilities = await invoke('models:capabilities', { model }).catch(() => undefined)
    if (this.#app.form.modelRecord?.id === model) this.#app.form.capabilities = capabilities
  }
}
