import type { SpeedPreset } from './types.ts'

// Adapters for few steps that people have: which settings belong to them (methods.md, section 10.1). They say so in their
// names only, so the name is what they are known by; a preset is a suggestion that the person's own settings override.

/** LCM's own grid: of 50 steps of the training schedule the ones at ⌊50 · i / n⌋ from the end. 4: 999, 759, 499, 259. */
export function lcmTimesteps(steps: number, original = 50, trained = 1000): number[] {
  const stride = Math.floor(trained / original)
  const grid = Array.from({ length: original }, (_, i) => (i + 1) * stride - 1).reverse()
  return Array.from({ length: steps }, (_, i) => grid[Math.floor((i * original) / steps)])
}

const trailing = (steps: number) => Array.from({ length: steps }, (_, i) => Math.round(1000 - (i * 1000) / steps) - 1)

/** What a file of this name is for, by its name and its title. */
export function presetFor(names: readonly (string | undefined)[]): SpeedPreset | undefined {
  const text = names.flatMap((name) => name?.toLowerCase() ?? []).join(' ')
  const has = (pattern: RegExp) => pattern.test(text)
  const steps = Number(/(\d{1,2})[\s_-]*steps?/.exec(text)?.[1] ?? NaN)
  if (has(/\btcd\b|tcd[_-]/)) {
    return {
      name: 'TCD',
      sampler: 'tcd',
      schedule: 'trailing',
      steps: 4,
      stepRange: [2, 8],
      guidanceScale: 1,
      eta: 0.3,
    }
  }
  if (has(/hyper[\s_-]?(sd|sdxl)|hyper[\s_-]?sd15/)) {
    if (has(/cfg/))
      return {
        name: `Hyper-SD with guidance, ${steps || 8} steps`,
        sampler: 'ddim',
        schedule: 'trailing',
        steps: steps || 8,
        guidanceScale: 5,
      }
    if (steps === 1)
      return {
        name: 'Hyper-SD, 1 step',
        sampler: 'tcd',
        steps: 1,
        stepRange: [1, 8],
        guidanceScale: 1,
        timesteps: [800],
        eta: 1,
      }
    return {
      name: `Hyper-SD, ${steps || 4} steps`,
      sampler: 'ddim',
      schedule: 'trailing',
      steps: steps || 4,
      guidanceScale: 1,
    }
  }
  if (has(/dmd2/)) return { name: 'DMD2', sampler: 'lcm', steps: 4, guidanceScale: 1, timesteps: [999, 749, 499, 249] }
  if (has(/lightning/) && has(/sdxl|xl|lora|step/)) {
    const count = [2, 4, 8].includes(steps) ? steps : 4
    return {
      name: `Lightning, ${count} steps`,
      sampler: 'euler',
      schedule: 'trailing',
      steps: count,
      guidanceScale: 1,
      timesteps: trailing(count),
    }
  }
  if (has(/\blcm\b|lcm[_-]|[_-]lcm/)) {
    return { name: 'LCM', sampler: 'lcm', steps: 4, stepRange: [2, 8], guidanceScale: 1, timesteps: lcmTimesteps(4) }
  }
  if (has(/turbo/) && has(/sdxl|xl|sd_?turbo/)) {
    return { name: 'Turbo', sampler: 'euler', schedule: 'trailing', steps: 4, stepRange: [1, 8], guidanceScale: 1 }
  }
  return undefined
}
