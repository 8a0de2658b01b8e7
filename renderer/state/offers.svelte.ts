import { reportError, type ErrorReport } from '../../models/errors.ts'
import type { AdapterCandidate, AdapterRecord } from '../../preload/contract/adapters.ts'
import { invoke } from '../api.ts'
import { t } from '../strings.ts'
import { canUse, type AdaptersState } from './adapters.svelte.ts'
import type { SlotsState } from './slots.svelte.ts'
import type { UndoState } from './undo.svelte.ts'

/** A file that was dropped, pasted or chosen, and how far it has come. */
export type Offer = {
  file: string
  name: string
  /** Listed where it lies instead of copied. */
  isLink: boolean
  stage: 'reading' | 'asking' | 'adding' | 'added' | 'undone' | 'failed'
  candidate?: AdapterCandidate
  /** Share of the copying. */
  share?: number
  adapter?: AdapterRecord
  isNew?: boolean
  error?: ErrorReport
}

/** What a file was brought for: to be kept, or to be used at once. */
export type Intent = 'keep' | 'use'

/**
 * Files on their way into the library, one after the other: first the header and a verdict, then the person's word, then
 * the copy. One bad file changes nothing for the others.
 */
export class OffersState {
  all = $state.raw<Offer[]>([])
  intent = $state<Intent>('keep')
  readonly #adapters: AdaptersState
  readonly #slots: SlotsState
  readonly #say: (text: string) => void
  readonly #undo: UndoState | undefined

  readonly isOpen = $derived(this.all.length > 0)
  /** Those that a click on "Add all" takes. */
  readonly addable = $derived(this.all.filter(isAddable))
  readonly usable = $derived(
    this.addable.filter(({ candidate }) => candidate && canUse({ verdict: candidate.card.verdict })),
  )
  readonly isBusy = $derived(this.all.some(({ stage }) => stage === 'reading' || stage === 'adding'))
  readonly summary = $derived(summaryOf(this.all))

  constructor(adapters: AdaptersState, slots: SlotsState, say: (text: string) => void, undo?: UndoState) {
    this.#adapters = adapters
    this.#slots = slots
    this.#say = say
    this.#undo = undo
  }

  async bring(files: readonly { file: string; name: string }[], intent: Intent, isLink: boolean): Promise<void> {
    const known = this.all.map(({ file }) => file)
    const fresh = files.filter(({ file }) => file === '' || !known.includes(file))
    this.intent = intent
    this.all = [...this.all, ...fresh.map(({ file, name }): Offer => ({ file, name, isLink, stage: 'reading' }))]
    for (const { file, name } of fresh) {
      if (file === '') {
        const error = {
          code: 'file-unreadable' as const,
          message: `"${name}" does not lie on this computer.`,
          hint: 'Save it first, then bring it in.',
        }
        this.#change(file, { stage: 'failed', error })
        continue
      }
      await this.#try(file, async () => {
        const [candidate] = await invoke('adapters:inspect', { files: [file], model: this.#adapters.model })
        if (candidate.error) this.#change(file, { stage: 'failed', candidate, error: candidate.error })
        else this.#change(file, { stage: 'asking', candidate })
      })
    }
    this.#say(this.summary)
  }

  /** Adds one; `use` also gives it a slot. */
  async add(file: string, intent: Intent): Promise<void> {
    const offer = this.all.find((one) => one.file === file)
    if (!offer || !isAddable(offer)) return
    this.#change(file, { stage: 'adding', share: 0, error: undefined })
    await this.#try(file, async () => {
      const { adapter, isNew } = await invoke('adapters:add', {
        file,
        model: this.#adapters.model,
        isLink: offer.isLink,
      })
      this.#change(file, { stage: 'added', adapter, isNew })
      this.#say(isNew ? `${adapter.name} is in the library.` : `You already have this as ${adapter.name}.`)
      const isUsed = intent === 'use' && canUse(adapter) && !this.#slots.has(adapter.id)
      if (isUsed) this.#slots.add(adapter)
      if (isNew || isUsed) this.#remember(file, adapter, isNew, isUsed)
    })
  }

  /** The general undo takes it back as well, also when the cards are closed. */
  #remember(file: string, adapter: AdapterRecord, isNew: boolean, isUsed: boolean): void {
    let undoId: string | undefined
    this.#undo?.push({
      label: t('Add {name}', { name: adapter.name }),
      scope: 'library',
      undo: async () => {
        if (this.all.find((one) => one.file === file)?.stage === 'undone') return // by its own button
        undoId = await this.#takeBack(adapter, isNew)
        this.#change(file, { stage: 'undone' })
      },
      redo: async () => {
        if (isNew && undoId !== undefined) {
          const back = await invoke('adapters:undo', { undoId, model: this.#adapters.model })
          adapter = back.adapter ?? adapter
        }
        if (isUsed) this.#slots.add(adapter)
        this.#change(file, { stage: 'added', adapter })
      },
    })
  }

  async #takeBack(adapter: AdapterRecord, isNew: boolean): Promise<string | undefined> {
    this.#slots.remove(adapter.id)
    if (this.#slots.waiting?.id === adapter.id) this.#slots.waiting = undefined
    return isNew ? (await invoke('adapters:remove', { id: adapter.id })).undoId : undefined
  }

  async addAll(intent: Intent): Promise<void> {
    for (const { file } of this.addable) await this.add(file, intent)
  }

  async cancel(file: string): Promise<void> {
    await invoke('adapters:cancel', { file })
  }

  /** Takes back what `add` did. */
  async undo(file: string): Promise<void> {
    const { adapter, isNew } = this.all.find((one) => one.file === file) ?? {}
    if (!adapter) return
    await this.#try(file, async () => {
      await this.#takeBack(adapter, isNew ?? false)
      this.#change(file, { stage: 'undone' })
      this.#say(`${adapter.name} was taken out again.`)
    })
  }

  copying(file: string, doneBytes: number, totalBytes: number): void {
    this.#change(file, { share: totalBytes > 0 ? doneBytes / totalBytes : 1 })
  }

  /** What is still being copied is stopped. */
  close(): void {
    for (const { file, stage } of this.all) if (stage === 'adding') void this.cancel(file)
    this.all = []
  }

  #change(file: string, part: Partial<Offer>): void {
    this.all = this.all.map((offer) => (offer.file === file ? { ...offer, ...part } : offer))
  }

  async #try(file: string, action: () => Promise<void>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.#change(file, { stage: 'failed', error: reportError(error) })
    }
  }
}

function isAddable({ stage, candidate }: Offer): boolean {
  return (stage === 'asking' || stage === 'undone' || stage === 'failed') && candidate !== undefined && !candidate.error
}

/** "3 files: 1 added, 1 already there, 1 refused." */
function summaryOf(offers: readonly Offer[]): string {
  const groups: [string, (offer: Offer) => boolean][] = [
    ['being read', ({ stage }) => stage === 'reading'],
    ['being added', ({ stage }) => stage === 'adding'],
    ['added', ({ stage, isNew }) => stage === 'added' && isNew === true],
    [
      'already there',
      ({ stage, isNew, candidate }) =>
        (stage === 'added' && isNew === false) || (stage === 'asking' && candidate?.known !== undefined),
    ],
    ['taken out again', ({ stage }) => stage === 'undone'],
    ['not added', ({ stage, candidate }) => stage === 'failed' && candidate !== undefined && !candidate.error],
    ['usable', ({ stage, candidate }) => stage !== 'failed' && candidate !== undefined && canUse(candidate.card)],
    [
      'for other models',
      ({ stage, candidate }) => stage !== 'failed' && candidate?.card.verdict.fit === 'wrong-family',
    ],
    ['not usable yet', ({ stage }) => stage !== 'failed'],
    ['refused', () => true],
  ]
  const words = offers.map((offer) => groups.find(([, is]) => is(offer))![0])
  const parts = groups.flatMap(([word]) => {
    const count = words.filter((each) => each === word).length
    return count > 0 ? [`${count} ${word}`] : []
  })
  return `${offers.length} ${offers.length === 1 ? 'file' : 'files'}: ${parts.join(', ')}.`
}
