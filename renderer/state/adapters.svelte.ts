import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'

export type SlotStatus = { kind: 'ready' | 'loading' | 'partly' | 'unfit' | 'missing'; text: string }

/** The library of adapters, as judged for the model chosen. */
export class AdaptersState {
  /** Verdicts and events of another model are not for this list. */
  model = $state('')
  all = $state.raw<AdapterRecord[]>([])
  links = $state.raw<string[]>([])
  /** Headers are being read: how many of how many. */
  scan = $state.raw<{ done: number; total: number } | undefined>()
  isPickerOpen = $state(false)

  readonly #byId = $derived<Record<string, AdapterRecord | undefined>>(
    Object.fromEntries(this.all.map((record) => [record.id, record])),
  )

  replace(
    model: string,
    { adapters, isScanning, links }: { adapters: AdapterRecord[]; isScanning: boolean; links: string[] },
  ): void {
    this.model = model
    this.all = sorted(adapters)
    this.links = links
    this.scan = isScanning ? { done: 0, total: 0 } : undefined
  }

  apply({ model, changed, gone, scan }: Extract<AppEvent, { type: 'adapters:changed' }>): void {
    if (model !== this.model) return
    this.scan = scan
    if (changed.length === 0 && gone.length === 0) return
    const replaced = Object.fromEntries([...gone, ...changed.map(({ id }) => id)].map((id) => [id, true]))
    this.all = sorted([...this.all.filter(({ id }) => !replaced[id]), ...changed])
  }

  find(id: string): AdapterRecord | undefined {
    return this.#byId[id]
  }

  /** Those that have every word somewhere in their name, triggers or tags; `hidden` were left out for not fitting. */
  search(text: string, fittingOnly: boolean): { shown: AdapterRecord[]; hidden: number } {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean)
    const found = this.all.filter((record) => {
      const heap = [
        record.name,
        record.fileName,
        ...record.triggers,
        ...record.tags,
        record.familyName ?? '',
        ...record.kinds,
      ]
      const hay = heap.join('\n').toLowerCase()
      return words.every((word) => hay.includes(word))
    })
    const shown = fittingOnly ? found.filter(canUse) : found
    return { shown, hidden: found.length - shown.length }
  }

  /** How it stands with a slot. */
  statusOf({ id }: StudioSlot, isLoading: boolean): SlotStatus {
    const record = this.find(id)
    if (!record) {
      return this.scan ? { kind: 'loading', text: 'looking for it' } : { kind: 'missing', text: 'file is missing' }
    }
    if (!canUse(record)) return { kind: 'unfit', text: 'not for this model' }
    if (isLoading) return { kind: 'loading', text: 'loading' }
    if (record.verdict.fit === 'partly') {
      return { kind: 'partly', text: `partly applied ${Math.floor((100 * record.matched) / record.total)} %` }
    }
    return { kind: 'ready', text: 'ready' }
  }
}

export function canUse({ verdict }: Pick<AdapterRecord, 'verdict'>): boolean {
  return verdict.fit === 'fits' || verdict.fit === 'partly'
}

function sorted(records: AdapterRecord[]): AdapterRecord[] {
  return [...records].sort((a, b) => a.name.localeCompare(b.name) || (a.id < b.id ? -1 : 1))
}
