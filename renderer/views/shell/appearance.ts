import type { Settings } from '../../../preload/contract/settings.ts'
import { directionOf, languageFor } from '../../strings.ts'

type Chosen = Required<
  Pick<Settings, 'theme' | 'textScale' | 'density' | 'hasLargerTargets' | 'reducedMotion' | 'language'>
>

/** What the system says about itself. */
export type SystemLook = {
  isDark: boolean
  wantsContrast: boolean
  wantsLessMotion: boolean
  languages: readonly string[]
}

/** How the window looks: what stands on <html>. */
export type Appearance = {
  theme: 'light' | 'dark' | 'contrast'
  density: 'comfortable' | 'compact'
  targets: 'usual' | 'large'
  motion: 'full' | 'reduced'
  textScale: number
  language: string
  direction: 'ltr' | 'rtl'
}

export function appearanceOf(chosen: Chosen, system: SystemLook): Appearance {
  const language = languageFor(chosen.language, system.languages)
  const systemTheme = system.wantsContrast ? 'contrast' : system.isDark ? 'dark' : 'light'
  return {
    theme: chosen.theme === 'system' ? systemTheme : chosen.theme,
    density: chosen.density,
    targets: chosen.hasLargerTargets ? 'large' : 'usual',
    motion: chosen.reducedMotion === 'on' || system.wantsLessMotion ? 'reduced' : 'full',
    textScale: chosen.textScale,
    language,
    direction: directionOf(language),
  }
}

/** Puts it on <html>, where tokens.css and base.css read it. */
export function applyAppearance(root: HTMLElement, look: Appearance): void {
  root.dataset.theme = look.theme
  root.dataset.density = look.density
  root.dataset.targets = look.targets
  root.dataset.motion = look.motion
  root.style.fontSize = `${look.textScale}%`
  root.lang = look.language
  root.dir = look.direction
}
