import type { AppEvent } from '../../preload/contract.ts'
import type { About, StoragePart } from '../../preload/contract/app.ts'
import type { NetworkEntry, UpdateReport } from '../../preload/contract/network.ts'
import { invoke } from '../api.ts'

/** The application around the window: what it is, what it takes up, what it sent, and how it ends. */
export class DeskState {
  about = $state.raw<About | undefined>()
  /** Undefined until it was measured. */
  storage = $state.raw<{ parts: StoragePart[]; isMeasuring: boolean; freeBytes?: number } | undefined>()
  /** Newest first. */
  ledger = $state.raw<NetworkEntry[]>([])
  update = $state.raw<UpdateReport | undefined>()
  isCheckingUpdates = $state(false)
  /** The person wants to leave while a picture is made. `at`: when the system will not wait any longer. */
  quitting = $state.raw<{ isDecided: boolean; at?: number } | undefined>()
  /** The computer sleeps then. */
  sleepsAt = $state<number | undefined>()
  readonly #onProblem: (error: unknown) => void

  constructor(onProblem: (error: unknown) => void) {
    this.#onProblem = onProblem
  }

  apply(event: AppEvent): void {
    if (event.type === 'storage:changed') this.storage = event
    else if (event.type === 'network:changed') this.ledger = event.entries
    else if (event.type === 'app:sleeping') this.sleepsAt = event.at
    else if (event.type === 'app:quitting')
      this.quitting = {
        isDecided: this.quitting?.isDecided ?? false,
        ...(event.at === undefined ? {} : { at: event.at }),
      }
  }

  /** What the pages show; asked for when the screen is opened. */
  async open(): Promise<void> {
    await this.try(async () => {
      this.about ??= await invoke('app:about', undefined)
      this.ledger = await invoke('network:ledger', undefined)
    })
  }

  async checkUpdates(): Promise<void> {
    this.isCheckingUpdates = true
    await this.try(async () => (this.update = await invoke('network:checkUpdates', undefined)))
    this.isCheckingUpdates = false
  }

  quit(when: 'after-current' | 'now' | 'stay'): void {
    this.quitting = when === 'after-current' ? { isDecided: true } : undefined
    void this.try(() => invoke('app:quit', { when }))
  }

  stayAwake(): void {
    this.sleepsAt = undefined
    void this.try(() => invoke('app:quit', { when: 'stay' }))
  }

  /** Does it; what goes wrong is told to the person. */
  async try(action: () => Promise<unknown>): Promise<void> {
    try {
      await action()
    } catch (error) {
      this.#onProblem(error)
    }
  }
}
