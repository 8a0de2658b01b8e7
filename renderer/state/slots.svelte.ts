import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { AdapterUse } from '../../preload/contract/generate.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import { limits } from '../../preload/limits.ts'
import { isReserved, preferredWeight } from './weights.ts'

/** The strip of adapters in the Studio. The list is replaced whole with every change. */
export class SlotsState {
  all = $state.raw<StudioSlot[]>([])
  /** Waits for a slot: all are taken, and the person is asked which to give up. */
  waiting = $state.raw<AdapterRecord | undefined>()
  /** The strip before the last removal. */
  #before = $state.raw<StudioSlot[] | undefined>()

  readonly own = $derived(this.all.filter(({ role }) => !isReserved(role)))
  readonly reserved = $derived(this.all.filter(({ role }) => isReserved(role)))
  readonly isFull = $derived(this.own.length >= limits.userAdapters)
  readonly canUndo = $derived(this.#before !== undefined)
  /** The one that is missed least: preselected when another needs its place. */
  readonly weakest = $derived(
    this.own.reduce<StudioSlot | undefined>(
      (least, slot) => (least && Math.abs(least.weight) <= Math.abs(slot.weight) ? least : slot),
      undefined,
    ),
  )

  has(id: string): boolean {
    return this.all.some((slot) => slot.id === id)
  }

  /** Takes the next free slot. False when it has none yet: it then waits for the person to choose one. */
  add(record: AdapterRecord): boolean {
    if (this.has(record.id)) return true
    if (!isReserved(record.role) && this.isFull) {
      this.waiting = record
      return false
    }
    // Two of one reserved role contradict each other: the newer one stands.
    const others = isReserved(record.role) ? this.all.filter(({ role }) => role !== record.role) : this.all
    this.all = [...others, slotOf(record)]
    this.#before = undefined
    return true
  }

  /** Gives the place of one to the one that waits. */
  replace(id: string): void {
    const { waiting } = this
    if (!waiting) return
    this.all = this.all.map((slot) => (slot.id === id ? slotOf(waiting) : slot))
    this.waiting = undefined
  }

  change(id: string, part: Partial<Pick<StudioSlot, 'isOn' | 'weight' | 'start' | 'end' | 'ramp'>>): void {
    this.all = this.all.map((slot) => (slot.id === id ? { ...slot, ...part } : slot))
  }

  remove(id: string): void {
    if (!this.has(id)) return
    this.#before = this.all
    this.all = this.all.filter((slot) => slot.id !== id)
  }

  undoRemove(): void {
    if (this.#before) this.all = this.#before
    this.#before = undefined
  }

  restore(slots: readonly StudioSlot[]): void {
    this.all = [...slots]
  }

  /** What a request says of them: those that are on. */
  uses(): AdapterUse[] {
    return this.all
      .filter(({ isOn }) => isOn)
      .map(({ id, weight, start, end, ramp }) => ({ file: id, weight, start, end, ramp }))
  }
}

function slotOf(record: AdapterRecord): StudioSlot {
  const { id, name, role } = record
  return { id, name, role, isOn: true, weight: preferredWeight(record), start: 0, end: 1, ramp: 'flat' }
}
