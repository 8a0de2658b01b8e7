import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterSet } from '../../preload/contract/sets.ts'
import { invoke } from '../api.ts'
import { t, tn } from '../strings.ts'
import type { SlotsState } from './slots.svelte.ts'
import type { ToastsState } from './toasts.svelte.ts'
import type { UndoState } from './undo.svelte.ts'

type Parts = {
  slots: SlotsState
  toasts: ToastsState
  undo: UndoState
  model: () => string
  /** Runs an action and shows what goes wrong with it. */
  attempt: (action: () => Promise<unknown>) => Promise<void>
}

/** Named strips of adapters. */
export class SetsState {
  all = $state.raw<AdapterSet[]>([])
  isOpen = $state(false)
  #isLoaded = false
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  apply(event: AppEvent): void {
    if (event.type === 'sets:changed') this.all = event.sets
  }

  /** Asks for them when they are first wanted. */
  async load(): Promise<void> {
    if (this.#isLoaded) return
    this.#isLoaded = true
    await this.#parts.attempt(async () => (this.all = await invoke('sets:list', undefined)))
  }

  /** The one of that name: saving under it replaces it. */
  named(name: string): AdapterSet | undefined {
    const wanted = name.trim().toLowerCase()
    return this.all.find((set) => set.name.toLowerCase() === wanted)
  }

  /** The person's own slots, as they are set; what speed and guidance set is no part of it. */
  async save(name: string): Promise<void> {
    const { slots, toasts, undo, attempt } = this.#parts
    const before = this.named(name)
    await attempt(async () => {
      const slotsNow = slots.own
      const set = await invoke('sets:save', {
        name: name.trim(),
        slots: slotsNow,
        ...(before ? { id: before.id } : {}),
      })
      undo.push({
        label: t('Save the set “{name}”', { name: set.name }),
        scope: 'library',
        undo: () => (before ? invoke('sets:restore', { set: before }) : invoke('sets:remove', { id: set.id })),
        redo: () => invoke('sets:restore', { set }),
      })
      toasts.show({
        text: before ? t('“{name}” is replaced.', { name: set.name }) : t('“{name}” is saved.', { name: set.name }),
        tone: 'good',
      })
    })
  }

  /** Puts a set into the strip, in place of what is there or beside it. */
  async use(id: string, how: 'apply' | 'merge'): Promise<void> {
    const { slots, toasts, model, attempt } = this.#parts
    await attempt(async () => {
      const found = await invoke('sets:slots', { id, model: model() })
      const left = how === 'apply' ? (slots.applySet(found.slots), []) : slots.mergeSet(found.slots)
      const words: string[] = []
      if (found.missing.length > 0)
        words.push(
          tn(found.missing.length, '1 adapter is missing: {names}.', '{n} adapters are missing: {names}.', {
            names: found.missing
              .map(({ name, sha256 }) => `${name}${sha256 ? ` (${sha256.slice(0, 10)})` : ''}`)
              .join(', '),
          }),
        )
      if (left.length > 0)
        words.push(t('No slot was left for {names}.', { names: left.map(({ name }) => name).join(', ') }))
      if (words.length > 0) toasts.show({ text: words.join(' '), tone: 'warn' })
    })
  }

  async remove(id: string): Promise<void> {
    const { toasts, undo, attempt } = this.#parts
    await attempt(async () => {
      const set = await invoke('sets:remove', { id })
      const back = () => invoke('sets:restore', { set })
      const label = t('Remove the set “{name}”', { name: set.name })
      undo.push({ label, scope: 'library', undo: back, redo: () => invoke('sets:remove', { id }) })
      toasts.show({
        text: t('“{name}” is removed.', { name: set.name }),
        action: { label: t('Undo'), run: () => void attempt(back) },
        ms: 10_000,
      })
    })
  }

  async rename(id: string, name: string): Promise<void> {
    await this.#parts.attempt(() => invoke('sets:rename', { id, name: name.trim() }))
  }

  async export(id: string): Promise<void> {
    const { toasts, attempt } = this.#parts
    await attempt(async () => {
      const { file } = await invoke('sets:export', { id })
      if (file !== undefined) toasts.show({ text: t('Written to {file}.', { file }), tone: 'good' })
    })
  }

  /** Set files that were dropped or chosen; each is kept, and the last shown. */
  async open(files: readonly { file: string; name: string }[]): Promise<void> {
    const { toasts, attempt } = this.#parts
    for (const { file } of files)
      await attempt(async () => {
        const set = await invoke('sets:import', { file })
        toasts.show({
          text: t('“{name}” is in your sets.', { name: set.name }),
          tone: 'good',
          action: { label: t('Use it now'), run: () => void this.use(set.id, 'apply') },
        })
      })
  }

  /** The adapters of a picture, kept as a set. */
  async fromImage(imageId: string, name: string): Promise<void> {
    const { toasts, model, attempt } = this.#parts
    await attempt(async () => {
      const set = await invoke('sets:fromImage', { imageId, name, model: model() })
      toasts.show({
        text: t('“{name}” is in your sets.', { name: set.name }),
        tone: 'good',
        action: { label: t('Use it now'), run: () => void this.use(set.id, 'apply') },
      })
    })
  }
}
