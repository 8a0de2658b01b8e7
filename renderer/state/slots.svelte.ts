import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { AdapterUse } from '../../preload/contract/generate.ts'
import type { Job } from '../../preload/contract/jobs.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import { limits } from '../../preload/limits.ts'
import { isReserved, preferredWeight } from './weights.ts'

/** What a slot can be changed in. `textWeight: undefined` makes the text encoders follow the weight again. */
export type SlotPart = Partial<Pick<StudioSlot, 'isOn' | 'weight' | 'textWeight' | 'start' | 'end' | 'ramp'>>

/** The strip of adapters in the Studio. The list is replaced whole with every change. */
export class SlotsState {
  all = $state.raw<StudioSlot[]>([])
  /** Waits for a slot: all are taken, and the person is asked which to give up. */
  waiting = $state.raw<AdapterRecord | undefined>()
  /** How long putting it in place took at its last change, by adapter. */
  applied = $state.raw<Readonly<Record<string, number>>>({})
  /** The strip before the last removal. */
  #before = $state.raw<StudioSlot[] | undefined>()
  /** The adapters of the job that ran last, as they were used. */
  #lastJob: { id: string; uses: Readonly<Record<string, string>> } | undefined

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

  find(id: string): StudioSlot | undefined {
    return this.all.find((slot) => slot.id === id)
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

  change(id: string, part: SlotPart): void {
    this.all = this.all.map((slot) => (slot.id === id ? changed(slot, part) : slot))
  }

  /** Before or behind its neighbour among the person's own. */
  move(id: string, by: -1 | 1): void {
    const at = this.own.findIndex((slot) => slot.id === id)
    const other = this.own[at + by]
    if (at < 0 || !other) return
    const slot = this.own[at]
    this.all = this.all.map((one) => (one === slot ? other : one === other ? slot : one))
  }

  /** A missing adapter was found again, maybe under another id: the slot keeps how it is set. */
  relink(id: string, record: AdapterRecord): void {
    this.all = this.all.map((slot) => (slot.id === id ? { ...slot, id: record.id, name: record.name } : slot))
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

  /** Those that a choice of speed or guidance puts in, in place of the ones it had put in before. */
  setAutomatic(slots: readonly StudioSlot[]): void {
    const own = this.all.filter(({ isAutomatic }) => !isAutomatic)
    const wanted = slots.filter(({ id }) => !own.some((slot) => slot.id === id))
    const all = [...own, ...wanted]
    if (JSON.stringify(all) !== JSON.stringify(this.all)) this.all = all
  }

  restore(slots: readonly StudioSlot[]): void {
    this.all = [...slots]
  }

  /** The strip as a set has it; what speed and guidance set stays. */
  applySet(slots: readonly StudioSlot[]): void {
    this.all = [...slots.filter(({ role }) => !isReserved(role)), ...this.reserved]
    this.#before = undefined
  }

  /** Takes a set's adapters in beside those that are there; one that is there already is set as in the set. Gives those without a slot. */
  mergeSet(slots: readonly StudioSlot[]): StudioSlot[] {
    const own = slots.filter(({ role }) => !isReserved(role))
    const kept = this.own.map((slot) => own.find(({ id }) => id === slot.id) ?? slot)
    const fresh = own.filter(({ id }) => !this.has(id))
    const room = limits.userAdapters - kept.length
    this.all = [...kept, ...fresh.slice(0, room), ...this.reserved]
    this.#before = undefined
    return fresh.slice(room)
  }

  /** Notes what the adapters of a job cost that came or changed since the job before. */
  heard(job: Job): void {
    if (job.appliedMs === undefined || job.id === this.#lastJob?.id) return
    const { adapters } = job.request
    const uses = Object.fromEntries(adapters.map((use) => [use.file, JSON.stringify(use)]))
    const before = this.#lastJob?.uses ?? {}
    const fresh = Object.keys(uses).filter((file) => uses[file] !== before[file])
    this.#lastJob = { id: job.id, uses }
    if (fresh.length === 0) return
    const ms = job.appliedMs
    this.applied = { ...this.applied, ...Object.fromEntries(fresh.map((file) => [file, ms])) }
  }

  /** What a request says of them: those that are on. */
  uses(): AdapterUse[] {
    return this.all
      .filter(({ isOn }) => isOn)
      .map(({ id, weight, textWeight, start, end, ramp }) => ({
        ...{ file: id, weight, start, end, ramp },
        ...(textWeight === undefined ? {} : { textWeight }),
      }))
  }
}

function changed(slot: StudioSlot, part: SlotPart): StudioSlot {
  const next = { ...slot, ...part }
  if (next.textWeight === undefined) delete next.textWeight
  return next
}

function slotOf(record: AdapterRecord): StudioSlot {
  const { id, name, role } = record
  return { id, name, role, isOn: true, weight: preferredWeight(record), start: 0, end: 1, ramp: 'flat' }
}
