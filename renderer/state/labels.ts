import type { Job } from '../../preload/contract/jobs.ts'
import { t } from '../strings.ts'
import type { RampName, SamplerName, ScheduleName, ScreenName } from '../../preload/limits.ts'

/** Names as other programs write them, so that a recipe found elsewhere can be followed here. */
export const samplerLabels: Record<SamplerName, string> = {
  euler: 'Euler',
  euler_a: 'Euler ancestral',
  ddim: 'DDIM',
  dpmpp_2m: 'DPM++ 2M',
  dpmpp_2m_sde: 'DPM++ 2M SDE',
  dpmpp_3m_sde: 'DPM++ 3M SDE',
  heun: 'Heun',
  unipc: 'UniPC',
  lcm: 'LCM',
  tcd: 'TCD',
}

export const scheduleLabels: Record<ScheduleName, string> = {
  normal: 'Normal',
  karras: 'Karras',
  exponential: 'Exponential',
  sgm_uniform: 'SGM uniform',
  trailing: 'Trailing',
  simple: 'Simple',
  ddim_uniform: 'DDIM uniform',
}

/** What the screens are called, in the order of the rail and in the language now. */
export const screenTitles: Readonly<Record<ScreenName, string>> = {
  get studio() {
    return t('Studio')
  },
  get story() {
    return t('Story')
  },
  get characters() {
    return t('Characters')
  },
  get adapters() {
    return t('Adapters')
  },
  get models() {
    return t('Models')
  },
  get gallery() {
    return t('Gallery')
  },
  get settings() {
    return t('Settings')
  },
}

export const paceLabels = {
  draft: t('Draft'),
  fast: t('Fast'),
  balanced: t('Balanced'),
  quality: t('Quality'),
  custom: t('Custom'),
}

export const speedLabels = { exact: t('Nothing'), faster: t('Some'), fastest: t('Much') }

export const fitLabels = { fits: t('fits'), tight: t('tight'), 'too-big': t('too big') }

/** What a job is doing. Steps are counted from 1, as people do: while the first runs it is step 1. */
export function phaseOf({ phase, step, steps }: Pick<Job, 'phase' | 'step' | 'steps'>): string {
  const names: Partial<Record<Job['phase'], string>> = {
    loading: t('Loading model'),
    encoding: t('Encoding prompt'),
    denoising: t('Step {n}/{steps}', { n: Math.min(step + 1, steps), steps }),
    decoding: t('Decoding'),
    saving: t('Saving'),
  }
  return names[phase] ?? t('Starting')
}

/** How a weight goes over its steps. */
export const rampLabels: Record<RampName | 'custom', string> = {
  flat: t('Flat'),
  'ease-in': t('Ease in'),
  'ease-out': t('Ease out'),
  custom: t('Custom'),
}
