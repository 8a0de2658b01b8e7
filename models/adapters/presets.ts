import type { AdapterInfo, SpeedPreset } from './types.ts'

// Adapters for few steps that people have: which settings belong to them (methods.md, section 10.1). They say so in their
// names only, so the name is what they are known by; a preset is a suggestion that the person's own settings override.

/** LCM's own grid: of 50 steps of the training schedule the ones at ⌊50 · i / n⌋ from the end. 4: 999, 759, 499, 259. */
export function lcmTimesteps(steps: number, original = 50, trained = 1000): number[] {
  const stride = Math.floor(trained / original)
  const grid = Array.from({ length: original }, (_, i) => (i + 1) * stride - 1).reverse()
  return Array.from({ length: steps }, (_, i) => grid[Math.floor((i * original) / steps)])
}

/** The ends of equal parts of the training schedule. 4: 999, 749, 499, 249. */
const trailing = (steps: number) => Array.from({ length: steps }, (_, i) => Math.round(1000 - (i * 1000) / steps) - 1)

/** Consistency models: any of a few numbers of steps on one grid. */
const consistency = (preset: Pick<SpeedPreset, 'name' | 'sampler' | 'eta'>): SpeedPreset => ({
  ...preset,
  steps: 4,
  stepRange: [2, 8],
  guidanceScale: 1,
  timesteps: lcmTimesteps(4),
})

/** A file for one number of steps and no other. */
const exactly = (name: string, steps: number, sampler: string, guidanceScale = 1): SpeedPreset => ({
  name: `${name}, ${steps} ${steps === 1 ? 'step' : 'steps'}`,
  ...{ sampler, schedule: 'trailing', steps, guidanceScale, timesteps: trailing(steps) },
})

/** What a file of these names (of the file, its title, its training) is for; undefined for all but adapters for few steps. */
export function presetFor(names: readonly (string | undefined)[]): SpeedPreset | undefined {
  const text = names.flatMap((name) => name?.toLowerCase().slice(0, 300) ?? []).join(' ')
  const has = (pattern: RegExp) => pattern.test(text)
  const given = Number(/(?:^|[^\d.])(\d{1,2})[\s_-]*steps?(?![a-z])/.exec(text)?.[1] ?? NaN)
  const steps = given >= 1 && given <= 50 ? given : undefined

  if (has(/(^|[^a-z])tcd([^a-z]|$)/)) return consistency({ name: 'TCD', sampler: 'tcd', eta: 0.3 })
  if (has(/hyper[\s_-]?sd/)) {
    if (has(/(^|[^a-z])cfg([^a-z]|$)/)) return exactly('Hyper-SD with guidance', steps ?? 8, 'ddim', 5)
    if (steps !== 1) return exactly('Hyper-SD', steps ?? 4, 'ddim')
    // Its one step is not from pure noise; with more steps it is a consistency model with fresh noise in between.
    const one = { sampler: 'tcd', steps: 1, stepRange: [1, 8], guidanceScale: 1, timesteps: [800], eta: 1 } as const
    return { name: 'Hyper-SD, 1 step', ...one }
  }
  if (has(/dmd[\s_-]?2/)) {
    // Not the grid of LCM, whose sampler it borrows.
    return { name: 'DMD2', sampler: 'lcm', steps: 4, guidanceScale: 1, timesteps: [999, 749, 499, 249] }
  }
  // There are many pictures of lightning, too.
  if (has(/(sdxl|xl)[\s_-]*lightning/) || (has(/lightning/) && steps !== undefined)) {
    return exactly('Lightning', steps !== undefined && [2, 4, 8].includes(steps) ? steps : 4, 'euler')
  }
  if (has(/(^|[^a-z])lcm([^a-z]|$)/)) return consistency({ name: 'LCM', sampler: 'lcm' })
  if (has(/sd[\s_-]?(xl)?[\s_-]?turbo|xl[\s_-]turbo/)) {
    const turbo = { sampler: 'euler', schedule: 'trailing', steps: 4, stepRange: [1, 8], guidanceScale: 1 } as const
    return { name: 'Turbo', ...turbo }
  }
  return undefined
}

/** What the structure gives away of a file whose name says nothing: rank 64, alpha 8 and all 788 layers are Lightning's. */
export function speedNotice(
  { preset, family, rank }: AdapterInfo,
  unetLayers: number,
  strengths: readonly number[],
): string | undefined {
  const isLightning = family === 'sdxl' && unetLayers === 788 && rank?.min === 64 && rank.max === 64
  if (preset || !isLightning || strengths.length === 0 || strengths.some((value) => Math.abs(value - 8) > 0.01))
    return undefined
  return 'It is built like SDXL-Lightning. If it is, draw in 2, 4 or 8 steps, as its name says, with Euler, the schedule "trailing" and guidance 1.'
}
