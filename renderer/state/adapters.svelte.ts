import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import { byId, byName, canUse, idSet, matchesText, wordsOf } from './adapter-search.ts'

export { canUse }

export type SlotStatus = { kind: 'ready' | 'loading' | 'partly' | 'unfit' | 'missing'; text: string }

/** The library of adapters, as judged for the model chosen. */
export class AdaptersState {
  /** Verdicts and events of another model are not for this list. */
  model = $state('')
  /** In the order of their names. */
  all = $state.raw<AdapterRecord[]>([])
  links = $state.raw<string[]>([])
  roots = $state.raw<string[]>([])
  /** Headers are being read: how many of how many. */
  scan = $state.raw<{ done: number; total: number } | undefined>()
  /** Contents are being compared. */
  comparing = $state.raw<{ done: number; total: number } | undefined>()
  isPickerOpen = $state(false)

  readonly #byId = $derived(byId(this.all))

  /** The list for a model is asked for; events may come before the reply. */
  begin(model: string): void {
    if (this.model === model) return
    this.model = model
    this.all = []
  }

  /** The first part of the list; the rest comes as events, before or after it. */
  replace(
    model: string,
    list: { adapters: AdapterRecord[]; isScanning: boolean; links: string[]; roots: string[] },
  ): void {
    this.begin(model)
    this.links = list.links
    this.roots = list.roots
    if (list.isScanning && !this.scan) this.scan = { done: 0, total: 0 }
    this.#merge(list.adapters, [])
  }

  apply(event: AppEvent): void {
    if (event.type === 'adapters:comparing') {
      const { done, total } = event
      this.comparing = total === undefined ? undefined : { done, total }
    }
    if (event.type !== 'adapters:changed' || event.model !== this.model) return
    if (event.scan !== undefined) this.scan = event.scan ?? undefined
    this.#merge(event.changed, event.gone)
  }

  #merge(changed: readonly AdapterRecord[], gone: readonly string[]): void {
    if (changed.length === 0 && gone.length === 0) return
    const replaced = idSet([...gone, ...changed.map(({ id }) => id)])
    // What stays is in order: sorting few into many is quick.
    // One event may tell of the same adapter twice: the later word holds.
    const fresh = [...byId(changed).values()]
    this.all = [...this.all.filter(({ id }) => !replaced.has(id)), ...fresh.sort(byName)].sort(byName)
  }

  find(id: string): AdapterRecord | undefined {
    return this.#byId.get(id)
  }

  /** For a picker: what is missing cannot be picked; `hidden` were left out for not fitting. */
  search(text: string, fittingOnly: boolean): { shown: AdapterRecord[]; hidden: number } {
    const words = wordsOf(text)
    const found = this.all.filter((record) => !record.isMissing && matchesText(record, words))
    const shown = fittingOnly ? found.filter(canUse) : found
    return { shown, hidden: found.length - shown.length }
  }

  /** How it stands with a slot. */
  statusOf({ id }: StudioSlot, isLoading: boolean): SlotStatus {
    const record = this.find(id)
    if (!record || record.isMissing) {
      return this.scan && !record
        ? { kind: 'loading', text: 'looking for it' }
        : { kind: 'missing', text: 'file is missing' }
    }
    if (!canUse(record)) return { kind: 'unfit', text: 'not for this model' }
    if (isLoading) return { kind: 'loading', text: 'loading' }
    if (record.verdict.fit === 'partly') {
      return { kind: 'partly', text: `partly applied ${Math.floor((100 * record.matched) / record.total)} %` }
    }
    return { kind: 'ready', text: 'ready' }
  }
}
