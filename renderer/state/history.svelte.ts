import type { StudioForm } from '../../preload/contract/settings.ts'
import { t } from '../strings.ts'
import type { UndoState } from './undo.svelte.ts'

/** Changes closer together than this, of the same part, are one step: a word, a drag. */
const togetherMs = 700

type Target = { snapshot(): StudioForm; restore(form: StudioForm): void }

/** Turns changes of the Studio's form, its slots among it, into steps that can be taken back. */
export class StudioHistory {
  readonly #form: Target
  readonly #undo: UndoState
  readonly #now: () => number
  #last: StudioForm
  /** The step that is still growing. */
  #open: { key: string; at: number; before: StudioForm; after: StudioForm } | undefined

  constructor(form: Target, undo: UndoState, now = () => performance.now()) {
    this.#form = form
    this.#undo = undo
    this.#now = now
    this.#last = form.snapshot()
  }

  /** Call after every change of the form. What `restore` of a step brings back is no step of its own. */
  changed(): void {
    const next = this.#form.snapshot()
    const parts = changedParts(this.#last, next)
    if (parts.length === 0) return
    const before = this.#last
    this.#last = next
    const key = parts.join()
    const now = this.#now()
    const open = this.#open
    // A slot that comes, goes or moves is a step of its own, however quickly the next one follows.
    if (open && open.key === key && key !== 'slots' && now - open.at < togetherMs) {
      open.at = now
      open.after = next
      return
    }
    const step = (this.#open = { key, at: now, before, after: next })
    this.#undo.push({
      label: labelOf(parts),
      scope: 'studio',
      undo: () => this.#restore(step.before),
      redo: () => this.#restore(step.after),
    })
  }

  #restore(form: StudioForm): void {
    this.#open = undefined
    this.#form.restore(form)
    this.#last = this.#form.snapshot()
  }
}

/** Names of the fields that differ; of slots also which one and what of it. */
export function changedParts(before: StudioForm, after: StudioForm): string[] {
  const keys = Object.keys({ ...before, ...after }) as (keyof StudioForm)[]
  return keys.flatMap((key) => {
    if (JSON.stringify(before[key]) === JSON.stringify(after[key])) return []
    if (key !== 'slots') return [key]
    // What a choice of speed puts in and takes out goes with that choice.
    const [a, b] = [before, after].map(({ slots = [] }) => slots.filter(({ isAutomatic }) => !isAutomatic))
    if (a.map(({ id }) => id).join() !== b.map(({ id }) => id).join()) return ['slots']
    return b.flatMap((slot, i) => {
      const fields = Object.keys({ ...a[i], ...slot }) as (keyof typeof slot)[]
      return fields
        .filter((field) => JSON.stringify(a[i][field]) !== JSON.stringify(slot[field]))
        .map((field) => `slot ${slot.id} ${field}`)
    })
  })
}

function labelOf(parts: readonly string[]): string {
  if (parts.some((part) => part === 'slots')) return t('Change of the adapters')
  if (parts.every((part) => part.startsWith('slot '))) {
    if (parts.every((part) => /(start|end|ramp)$/.test(part))) return t('Change of a lane')
    return parts.every((part) => part.endsWith('isOn')) ? t('Switching an adapter') : t('Change of a weight')
  }
  return parts.every((part) => part === 'prompt') ? t('Writing the prompt') : t('Change of the settings')
}
