import type {
  AdapterChange,
  AdapterDetail,
  AdapterRecord,
  BinnedAdapter,
  RootReport,
} from '../../preload/contract/adapters.ts'
import { invoke } from '../api.ts'
import { t, tn } from '../strings.ts'
import {
  canUse,
  choicesOf,
  findAdapters,
  idSet,
  sortAdapters,
  type AdapterFilters,
  type AdapterSort,
  type AdapterView,
} from './adapter-search.ts'
import type { AdaptersState } from './adapters.svelte.ts'
import type { JobsState } from './jobs.svelte.ts'
import { sampleRequests } from './sample-requests.ts'
import type { ShellState } from './shell.svelte.ts'
import type { SlotsState } from './slots.svelte.ts'
import type { ToastsState } from './toasts.svelte.ts'
import type { UndoState } from './undo.svelte.ts'

export type LibraryDeps = {
  adapters: AdaptersState
  slots: SlotsState
  jobs: JobsState
  shell: ShellState
  undo: UndoState
  toasts: ToastsState
  /** Shows what went wrong. */
  onProblem: (error: unknown) => void
}

export type LibraryPanel = 'import' | 'folders' | 'bin'

const undoMs = 10_000

/** The Adapters screen: what is asked for, what is selected, and what is done to it. */
export class AdapterLibraryState {
  readonly #deps: LibraryDeps
  filters = $state.raw<AdapterFilters>({ text: '', isFitting: true })
  selected = $state.raw<ReadonlySet<string>>(idSet([]))
  /** Shown in the panel beside. */
  activeId = $state<string | undefined>()
  /** The one in the grid that the keys are at. */
  currentId = $state<string | undefined>()
  detail = $state.raw<AdapterDetail | undefined>()
  panel = $state<LibraryPanel | undefined>()
  bin = $state.raw<{ items: BinnedAdapter[]; bytes: number } | undefined>()
  /** A folder that is about to be linked, once it has been looked through. */
  look = $state.raw<{ folder: string; report?: RootReport } | undefined>()
  #anchor: string | undefined

  readonly found = $derived.by(() =>
    findAdapters(this.#deps.adapters.all, this.filters, (id) => this.#deps.slots.has(id)),
  )
  readonly shown = $derived.by(() =>
    sortAdapters(this.found.shown, this.sort, (id) => this.#deps.slots.has(id), this.filters.view === 'duplicates'),
  )
  readonly active = $derived.by(() =>
    this.activeId === undefined ? undefined : this.#deps.adapters.find(this.activeId),
  )
  /** What an action is about: the selection, else the one that the keys are at. */
  readonly chosen = $derived.by(() => {
    const { adapters } = this.#deps
    const current = this.currentId ?? this.activeId
    const ids = this.selected.size > 0 ? [...this.selected] : current === undefined ? [] : [current]
    return ids.map((id) => adapters.find(id)).filter((record) => record !== undefined)
  })
  readonly families = $derived.by(() =>
    choicesOf(this.#deps.adapters.all, ({ familyName }) => (familyName ? [familyName] : [])),
  )
  readonly kinds = $derived.by(() => choicesOf(this.#deps.adapters.all, ({ kinds }) => kinds))
  readonly roles = $derived.by(() => choicesOf(this.#deps.adapters.all, ({ role }) => [role]))
  readonly collections = $derived.by(() => choicesOf(this.#deps.adapters.all, ({ collections }) => collections))
  readonly tags = $derived.by(() => choicesOf(this.#deps.adapters.all, ({ tags }) => tags))
  readonly missing = $derived.by(() => this.#deps.adapters.all.filter(({ isMissing }) => isMissing).length)
  readonly duplicates = $derived.by(() => this.#deps.adapters.all.filter(({ twins }) => twins !== undefined).length)
  readonly hasFilters = $derived.by(() => {
    const { text, family, kind, role, collection, tag, view } = this.filters
    return text !== '' || [family, kind, role, collection, tag, view].some((value) => value !== undefined)
  })

  constructor(deps: LibraryDeps) {
    this.#deps = deps
  }

  get sort(): AdapterSort {
    return this.#deps.shell.place<AdapterSort>('adapters.sort', 'name').value
  }
  set sort(value: AdapterSort) {
    this.#deps.shell.place<AdapterSort>('adapters.sort', 'name').value = value
  }

  get isList(): boolean {
    return this.#deps.shell.place('adapters.isList', false).value
  }
  set isList(value: boolean) {
    this.#deps.shell.place('adapters.isList', false).value = value
  }

  filter(part: Partial<AdapterFilters>): void {
    this.filters = { ...this.filters, ...part }
    this.selected = idSet([])
  }

  clearFilters(): void {
    this.filters = { text: '', isFitting: this.filters.isFitting }
  }

  /** A click or a move: alone, with Shift from the last one on, with Mod one more or one less. */
  pick(record: AdapterRecord, how: { isRange: boolean; isToggle: boolean }): void {
    this.activeId = record.id
    if (how.isRange && this.#anchor !== undefined) {
      const ids = this.shown.map(({ id }) => id)
      const [from, to] = [ids.indexOf(this.#anchor), ids.indexOf(record.id)].sort((a, b) => a - b)
      if (from >= 0) this.selected = idSet(ids.slice(from, to + 1))
      return
    }
    this.#anchor = record.id
    if (how.isToggle) this.toggle(record.id)
    else this.selected = idSet([])
  }

  toggle(id: string): void {
    const others = [...this.selected].filter((one) => one !== id)
    this.selected = idSet(others.length < this.selected.size ? others : [...others, id])
    this.#anchor = id
  }

  selectAll(): void {
    this.selected = idSet(this.shown.map(({ id }) => id))
  }

  /** The panel's further facts; asked again when the content becomes known. */
  async loadDetail(id: string): Promise<void> {
    if (this.detail?.id !== id) this.detail = undefined
    const detail = await invoke('adapters:detail', { id, model: this.#deps.adapters.model }).catch(() => undefined)
    if (this.activeId === id) this.detail = detail
  }

  edit(records: readonly AdapterRecord[], change: Partial<AdapterChange>, label: string): Promise<void> {
    return this.#try(async () => {
      if (records.length === 0) return
      let { undoId } = await invoke('adapters:edit', { ids: records.map(({ id }) => id), change })
      const turn = async () => {
        undoId = (await invoke('adapters:undoEdit', { undoId })).undoId ?? undoId
      }
      this.#deps.undo.push({ label, scope: 'library', undo: turn, redo: turn })
    })
  }

  /** Into the bin, or the link forgotten; what lies in a linked folder stays, and is said. */
  remove(records: readonly AdapterRecord[]): Promise<void> {
    return this.#try(async () => {
      const { adapters, undo, toasts } = this.#deps
      const mine = records.filter(({ place, isMissing }) => place === 'own' && !isMissing)
      const missing = records.filter(({ isMissing }) => isMissing)
      if (missing.length > 0) await invoke('adapters:forget', { ids: missing.map(({ id }) => id) })
      const stays = records.length - mine.length - missing.length
      if (stays > 0) {
        toasts.show({
          tone: 'warn',
          text: tn(
            stays,
            '1 stays: it came with Vignette or lies in a linked folder, where nothing is changed.',
            '{n} stay: they came with Vignette or lie in linked folders, where nothing is changed.',
          ),
        })
      }
      if (mine.length === 0) return
      let ids = mine.map(({ id }) => id)
      let undoIds = await this.#toBin(ids)
      const back = async () => {
        const returned = await Promise.all(
          undoIds.map((undoId) => invoke('adapters:undo', { undoId, model: adapters.model })),
        )
        ids = returned.flatMap(({ adapter }) => (adapter ? [adapter.id] : []))
      }
      const again = async () => {
        undoIds = await this.#toBin(ids)
      }
      const label = tn(mine.length, 'Move 1 adapter to the bin', 'Move {n} adapters to the bin')
      undo.push({ label, scope: 'library', undo: back, redo: again })
      toasts.show({
        text:
          mine.length === 1
            ? t('{name} is in the bin.', { name: mine[0].name })
            : tn(mine.length, '1 adapter is in the bin.', '{n} adapters are in the bin.'),
        action: { label: t('Undo'), run: () => void undo.undo('library') },
        ms: undoMs,
      })
      this.selected = idSet([])
    })
  }

  async #toBin(ids: readonly string[]): Promise<string[]> {
    const undoIds: string[] = []
    for (const id of ids) undoIds.push((await invoke('adapters:remove', { id })).undoId)
    return undoIds
  }

  /** Of each group of the same content one stays: the one with most said of it, then the oldest place of its own. */
  removeTwins(): Promise<void> {
    const groups: Record<string, AdapterRecord[]> = {}
    for (const record of this.#deps.adapters.all) if (record.twins) (groups[record.twins] ??= []).push(record)
    const extra = Object.values(groups).flatMap((group) => {
      const movable = group.filter(({ place }) => place === 'own')
      // One that is not ours to move is the one that stays.
      return movable.length < group.length ? movable : movable.slice(1)
    })
    return this.remove(extra)
  }

  setThumb(id: string, from: { image?: string; file?: string }): Promise<void> {
    return this.#try(() => invoke('adapters:setThumb', { id, ...from }))
  }

  chooseThumb(id: string): Promise<void> {
    return this.#try(async () => {
      const [file] = await invoke('adapters:choose', { what: 'files' })
      if (file !== undefined) await invoke('adapters:setThumb', { id, file })
    })
  }

  /** Three small pictures of plain things, to see what it does. */
  makeSamples(record: AdapterRecord): Promise<void> {
    return this.#try(async () => {
      const { adapters, jobs, toasts } = this.#deps
      if (!canUse(record)) return
      const label = t('Samples of {name}', { name: record.name })
      await jobs.add(sampleRequests(record, adapters.model), { source: 'sample', label })
      toasts.show({ text: t('Three samples of {name} are in the queue.', { name: record.name }) })
    })
  }

  locate(record: AdapterRecord): Promise<void> {
    return this.#try(async () => {
      const { adapters, slots, toasts } = this.#deps
      const [file] = await invoke('adapters:choose', { what: 'files' })
      if (file === undefined) return
      const { adapter } = await invoke('adapters:locate', { id: record.id, file, model: adapters.model })
      slots.relink(record.id, adapter)
      this.activeId = adapter.id
      toasts.show({ tone: 'good', text: t('{name} is back.', { name: adapter.name }) })
    })
  }

  exportNotes(records: readonly AdapterRecord[]): Promise<void> {
    return this.#try(async () => {
      const [folder] = await invoke('adapters:choose', { what: 'folder' })
      if (folder === undefined) return
      const { written, skipped } = await invoke('adapters:export', { ids: records.map(({ id }) => id), folder })
      const rest =
        skipped.length === 0
          ? ''
          : ` ${tn(skipped.length, '1 was there already and stays as it is.', '{n} were there already and stay as they are.')}`
      this.#deps.toasts.show({ text: tn(written, '1 sidecar written.', '{n} sidecars written.') + rest })
    })
  }

  /** Asks for a folder, and shows what it holds before anything is linked. */
  chooseFolder(): Promise<void> {
    return this.#try(async () => {
      const [folder] = await invoke('adapters:choose', { what: 'folder' })
      if (folder !== undefined) await this.lookAt(folder)
    })
  }

  async lookAt(folder: string): Promise<void> {
    this.panel = 'folders'
    this.look = { folder }
    await this.#try(async () => {
      try {
        const report = await invoke('adapters:lookAt', { folder })
        if (this.look?.folder === folder) this.look = { folder, report }
      } catch (error) {
        if (this.look?.folder !== folder) return // it was ended
        this.look = undefined
        throw error
      }
    })
  }

  cancelLook(): void {
    this.look = undefined
    void this.#try(() => invoke('adapters:cancelLook', undefined))
  }

  link(folder: string): Promise<void> {
    return this.#try(async () => {
      await invoke('adapters:link', { folder })
      this.look = undefined
      await this.refresh()
      this.#deps.toasts.show({ tone: 'good', text: t('Linked. Its files stay where they are and are only read.') })
    })
  }

  unlink(folder: string): Promise<void> {
    return this.#try(async () => {
      await invoke('adapters:unlink', { folder })
      await this.refresh()
    })
  }

  /** Looks at the folders again. */
  refresh(): Promise<void> {
    return this.#try(async () => {
      const { adapters } = this.#deps
      const { model } = adapters
      const list = await invoke('adapters:list', { model })
      if (adapters.model === model) adapters.replace(model, list)
    })
  }

  cancelScan(): Promise<void> {
    return this.#try(() => invoke('adapters:cancelScan', undefined))
  }

  compare(): Promise<void> {
    return this.#try(() => invoke('adapters:findTwins', undefined))
  }

  cancelCompare(): Promise<void> {
    return this.#try(() => invoke('adapters:cancelTwins', undefined))
  }

  openBin(): Promise<void> {
    this.panel = 'bin'
    return this.#try(async () => {
      this.bin = await invoke('adapters:bin', undefined)
    })
  }

  restore(undoId: string): Promise<void> {
    return this.#try(async () => {
      await invoke('adapters:undo', { undoId, model: this.#deps.adapters.model })
      this.bin = await invoke('adapters:bin', undefined)
    })
  }

  emptyBin(): Promise<void> {
    return this.#try(async () => {
      await invoke('adapters:emptyBin', undefined)
      this.bin = await invoke('adapters:bin', undefined)
    })
  }

  show(view: AdapterView | undefined): void {
    this.filter({ view })
  }

  async #try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.#deps.onProblem(error)
    }
  }
}
