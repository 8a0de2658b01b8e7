import { screenNames, type ScreenName } from '../../preload/limits.ts'
import type { SettingsState } from './settings.svelte.ts'

const saveDelayMs = 400

/** A value of the window's that is remembered from one start to the next. */
export type Place<T> = { value: T }

/** Which screen is shown, and how the window around it stands. */
export class ShellState {
  screen = $state<ScreenName>('studio')
  /** What a screen was asked to show when it was gone to, e.g. `{ image: id }`. */
  params = $state.raw<Readonly<Record<string, string>>>({})
  isPaletteOpen = $state(false)
  areShortcutsOpen = $state(false)
  areMessagesOpen = $state(false)
  /** What Escape closes, the top-most last. Dialogs are not among them: they close themselves. */
  #layers: (() => void)[] = []
  readonly #settings: SettingsState
  /** When it opened; what was not chosen must not change under the person's hands. */
  readonly #isWide = typeof innerWidth === 'number' && innerWidth >= 1500
  #places = $state.raw<Record<string, unknown>>({})
  #saving: ReturnType<typeof setTimeout> | undefined

  constructor(settings: SettingsState) {
    this.#settings = settings
  }

  restore(): void {
    this.#places = { ...this.#settings.chosen('places') }
    const start = this.#settings.get('startScreen')
    const last = this.#settings.chosen('screen')
    if (start !== 'last') this.screen = start
    else if (last && screenNames.includes(last)) this.screen = last
  }

  go(screen: ScreenName, params: Readonly<Record<string, string>> = {}): void {
    this.params = params
    if (this.screen === screen) return
    this.screen = screen
    this.#settings.set({ screen })
  }

  /** Something lies over the screen until it is closed, or Escape closes it. Returns what says that it is gone. */
  addLayer(close: () => void): () => void {
    this.#layers.push(close)
    return () => (this.#layers = this.#layers.filter((one) => one !== close))
  }

  /** False when nothing was open. */
  closeTopLayer(): boolean {
    const close = this.#layers.at(-1)
    close?.()
    return close !== undefined
  }

  /** A remembered value, by a name of its own. */
  place<T>(name: string, fallback: T): Place<T> {
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- accessors of the object below need both
    const shell = this
    return {
      get value(): T {
        return (shell.#places[name] as T | undefined) ?? fallback
      },
      set value(value: T) {
        shell.#places = { ...shell.#places, [name]: value }
        clearTimeout(shell.#saving)
        shell.#saving = setTimeout(() => shell.#settings.set({ places: shell.#places }), saveDelayMs)
      },
    }
  }

  get isDockOpen(): boolean {
    return this.place('dock', false).value
  }
  set isDockOpen(value: boolean) {
    this.place('dock', false).value = value
  }

  get isInspectorOpen(): boolean {
    // In a small window the picture of the Studio needs the room more, until the person asks.
    return this.place('inspector', this.#isWide || this.screen === 'gallery').value
  }
  set isInspectorOpen(value: boolean) {
    this.place('inspector', false).value = value
  }

  get isRailNarrow(): boolean {
    return this.place('rail', false).value
  }
  set isRailNarrow(value: boolean) {
    this.place('rail', false).value = value
  }
}
