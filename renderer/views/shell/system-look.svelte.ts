import { MediaQuery } from 'svelte/reactivity'
import type { SystemLook } from './appearance.ts'

/** What the system says about itself now; follows its changes. */
export class SystemLookState implements SystemLook {
  readonly #dark = new MediaQuery('(prefers-color-scheme: dark)')
  readonly #contrast = new MediaQuery('(prefers-contrast: more)')
  readonly #motion = new MediaQuery('(prefers-reduced-motion: reduce)')
  readonly languages = navigator.languages

  get isDark(): boolean {
    return this.#dark.current
  }

  get wantsContrast(): boolean {
    return this.#contrast.current
  }

  get wantsLessMotion(): boolean {
    return this.#motion.current
  }
}
