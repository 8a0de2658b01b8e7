import type { StudioForm } from '../../preload/contract/settings.ts'
import { t } from '../strings.ts'
import type { UndoStep } from './undo.svelte.ts'

const mergeMs = 1200

type Entry = { before: StudioForm; after: StudioForm; keys: string; at: number; isOpen: boolean }

const names: Partial<Record<keyof StudioForm, string>> = {
  prompt: 'prompt',
  negativePrompt: 'negative prompt',
  width: 'shape',
  height: 'shape',
  seed: 'seed',
  seedMode: 'seed',
  pace: 'speed',
  steps: 'steps',
  guidanceScale: 'guidance',
  guidanceMode: 'guidance',
  slots: 'adapters',
  model: 'model',
  count: 'count',
  initImage: 'source picture',
}

/**
 * Makes steps that can be taken back of the changes of a form. Those of one kind that come in quick succession, as typing
 * and dragging make them, are one step. Adapters are left out: their strip takes back its own.
 */
export class FormHistory {
  readonly #push: (step: UndoStep) => void
  readonly #restore: (form: StudioForm) => void
  readonly #now: () => number
  #last: StudioForm | undefined
  #entry: Entry | undefined

  constructor(options: {
    push: (step: UndoStep) => void
    /** Sets the fields named, and leaves the others. */
    restore: (form: StudioForm) => void
    now?: () => number
  }) {
    this.#push = options.push
    this.#restore = options.restore
    this.#now = options.now ?? Date.now
  }

  /** The form as it is now. The first one is where undoing ends. */
  saw(form: StudioForm): void {
    const before = this.#last
    this.#last = form
    if (!before) return
    const changed = changedKeys(before, form).filter((key) => key !== 'slots')
    if (changed.length === 0) return
    const now = this.#now()
    const entry = this.#entry
    const keys = changed.join()
    if (entry?.isOpen && entry.keys === keys && now - entry.at < mergeMs) {
      entry.after = form
      entry.at = now
      return
    }
    const made: Entry = { before, after: form, keys, at: now, isOpen: true }
    this.#entry = made
    const named = names[changed[0]]
    this.#push({
      label: named ? t(`Change of {what}`, { what: t(named) }) : t('Change in the Studio'),
      scope: 'studio',
      undo: () => this.#set(made, made.before, made.after),
      redo: () => this.#set(made, made.after, made.before),
    })
  }

  #set(entry: Entry, to: StudioForm, from: StudioForm): void {
    entry.isOpen = false
    const keys = changedKeys(from, to).filter((key) => key !== 'slots')
    const form = Object.fromEntries(keys.map((key) => [key, to[key]])) as StudioForm
    this.#last = { ...this.#last, ...form }
    this.#restore(form)
  }
}

/** In the order of the form's fields. */
function changedKeys(a: StudioForm, b: StudioForm): (keyof StudioForm)[] {
  const keys = Object.keys({ ...a, ...b }) as (keyof StudioForm)[]
  return keys.filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key]))
}
