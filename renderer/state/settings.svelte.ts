import type { AppEvent } from '../../preload/contract.ts'
import type { Settings } from '../../preload/contract/settings.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { invoke } from '../api.ts'

type Key = keyof typeof settingDefaults
type Value<K extends keyof Settings> = NonNullable<Settings[K]>

/** What the person has chosen, with the defaults where they have not. */
export class SettingsState {
  #chosen = $state.raw<Settings>({})
  readonly #onProblem: (error: unknown) => void

  constructor(onProblem: (error: unknown) => void) {
    this.#onProblem = onProblem
  }

  replace(settings: Settings): void {
    this.#chosen = settings
  }

  apply(event: AppEvent): void {
    if (event.type === 'settings:changed') this.replace(event.settings)
  }

  get<K extends Key>(key: K): Value<K> {
    return (this.#chosen[key] ?? settingDefaults[key]) as Value<K>
  }

  /** Of those that have no default. */
  chosen<K extends keyof Settings>(key: K): Settings[K] {
    return this.#chosen[key]
  }

  isChanged(key: Key): boolean {
    const chosen = this.#chosen[key]
    return chosen !== undefined && JSON.stringify(chosen) !== JSON.stringify(settingDefaults[key])
  }

  /** Shown at once, and kept. */
  set(part: Settings): void {
    this.#chosen = { ...this.#chosen, ...part }
    invoke('settings:save', part).catch(this.#onProblem)
  }

  reset(keys: readonly Key[]): void {
    const chosen = { ...this.#chosen }
    for (const key of keys) delete chosen[key]
    this.#chosen = chosen
    invoke('settings:reset', { keys: [...keys] }).catch(this.#onProblem)
  }
}
