import type { NoiseSchedule } from '../../models/family.ts'
import type { ScheduleName } from '../../preload/limits.ts'

/**
 * Noise levels of a model. Everywhere outside `denoiser.ts` latents are x = clean + σ·noise ("variance exploding", Karras
 * et al. 2022); the network's own √ᾱ·clean + √(1−ᾱ)·noise is x / √(1 + σ²), with σ = √((1−ᾱ)/ᾱ).
 */
export type NoiseLevels = {
  /** σ of every training timestep, ascending. */
  sigmas: Float64Array
  /** σ of a timestep; between whole ones log σ is linear, as in k-diffusion. */
  sigmaAt(timestep: number): number
  /** The inverse of `sigmaAt`, clamped to the trained range. */
  timestepAt(sigma: number): number
}

/**
 * ᾱ of the last timestep under zero terminal SNR. A true 0 would make σ infinite; 2⁻²⁴ (diffusers' choice) makes it 4096,
 * where the signal is below what float32 noise resolves.
 */
const terminalAlpha = 2 ** -24

/** The σ table of a training schedule, with its last level made pure noise when `zeroTerminalSnr` says so. */
export function noiseLevels(schedule: NoiseSchedule): NoiseLevels {
  const alphas = cumulativeAlphas(schedule)
  const sigmas = alphas.map((alpha) => Math.sqrt((1 - alpha) / alpha))
  const last = sigmas.length - 1
  return {
    sigmas,
    sigmaAt(timestep) {
      const low = Math.min(Math.max(Math.floor(timestep), 0), last)
      const high = Math.min(low + 1, last)
      const part = Math.min(Math.max(timestep - low, 0), 1)
      if (part === 0) return sigmas[low]
      return Math.exp((1 - part) * Math.log(sigmas[low]) + part * Math.log(sigmas[high]))
    },
    timestepAt(sigma) {
      if (sigma <= sigmas[0]) return 0
      if (sigma >= sigmas[last]) return last
      let low = 0
      let high = last
      while (high - low > 1) {
        const middle = (low + high) >> 1
        if (sigmas[middle] <= sigma) low = middle
        else high = middle
      }
      return low + Math.log(sigma / sigmas[low]) / Math.log(sigmas[high] / sigmas[low])
    },
  }
}

/** ᾱ_t = Π (1 − β). */
function cumulativeAlphas(schedule: NoiseSchedule): Float64Array {
  const { betaStart, betaEnd, betaSchedule, trainTimesteps } = schedule
  const betas =
    betaSchedule === 'linear'
      ? linspace(betaStart, betaEnd, trainTimesteps)
      : linspace(Math.sqrt(betaStart), Math.sqrt(betaEnd), trainTimesteps).map((root) => root * root)
  const alphas = new Float64Array(trainTimesteps)
  let product = 1
  for (let t = 0; t < trainTimesteps; t++) alphas[t] = product *= 1 - betas[t]
  if (!schedule.zeroTerminalSnr) return alphas
  // Lin et al. 2023, algorithm 1: shift √ᾱ so that the last is 0, then stretch so that the first stays.
  const first = Math.sqrt(alphas[0])
  const last = Math.sqrt(alphas[trainTimesteps - 1])
  const rescaled = alphas.map((alpha) => (((Math.sqrt(alpha) - last) * first) / (first - last)) ** 2)
  rescaled[trainTimesteps - 1] = terminalAlpha
  return rescaled
}

/** `steps` noise levels, largest first, and a 0 at the end: `steps + 1` numbers. */
export function sigmaSchedule(name: ScheduleName, levels: NoiseLevels, steps: number): number[] {
  const count = levels.sigmas.length
  const smallest = levels.sigmas[0]
  const largest = levels.sigmas[count - 1]
  const at = (timestep: number) => levels.sigmaAt(timestep)
  switch (name) {
    // Timesteps evenly from last to first (k-diffusion's get_sigmas).
    case 'normal':
      return [...linspace(count - 1, 0, steps).map(at), 0]
    // The same with one interval more, of which the last end is dropped: the final step is as long as the others.
    case 'sgm_uniform':
      return [
        ...linspace(count - 1, 0, steps + 1)
          .slice(0, -1)
          .map(at),
        0,
      ]
    // "Trailing" of Lin et al. 2023, table 2: counts back from the end, so pure noise is always a level.
    case 'trailing':
      return [...range(steps, (i) => Math.max(roundEven(count - (i * count) / steps) - 1, 0)).map(at), 0]
    // ComfyUI's: evenly spaced entries of the σ table, counted from its end.
    case 'simple':
      return [...range(steps, (i) => count - 1 - Math.floor((i * count) / steps)).map(at), 0]
    // "Leading" of the same table with offset 1, as DDIM came with Stable Diffusion; never reaches pure noise.
    case 'ddim_uniform': {
      const stride = Math.floor(count / steps)
      return [...range(steps, (i) => Math.min((steps - 1 - i) * stride + 1, count - 1)).map(at), 0]
    }
    // Karras et al. 2022, equation 5, ρ = 7.
    case 'karras':
      return [...linspace(largest ** (1 / 7), smallest ** (1 / 7), steps).map((root) => root ** 7), 0]
    case 'exponential':
      return [...linspace(Math.log(largest), Math.log(smallest), steps).map(Math.exp), 0]
  }
}

/** The levels of these training timesteps, from noise to picture, and a 0 at the end; what would not fall is left out. */
export function sigmasAtTimesteps(timesteps: readonly number[], levels: NoiseLevels): number[] {
  const sigmas = timesteps.map((timestep) => levels.sigmaAt(timestep))
  return [...sigmas.filter((sigma, i) => sigma > 0 && sigmas.slice(0, i).every((before) => before > sigma)), 0]
}

/** Both ends included; one value alone is `from`. */
function linspace(from: number, to: number, count: number): number[] {
  return range(count, (i) => (count === 1 ? from : from + ((to - from) * i) / (count - 1)))
}

function range(count: number, value: (i: number) => number): number[] {
  return Array.from({ length: count }, (_, i) => value(i))
}

/** Halves go to the even neighbour, as numpy rounds. */
function roundEven(value: number): number {
  const rounded = Math.round(value)
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded
}
