import type { SamplerName } from '../../preload/limits.ts'
import type { NoiseSource } from './rng.ts'
import type { NoiseLevels } from './sigmas.ts'

/** The model's estimate of the clean latents, given noisy `x` at noise level `sigma`. Same length as `x`, newly made. */
export type Denoiser = (x: Float32Array, sigma: number) => Promise<Float32Array>

/**
 * After step `index`: the latents at noise level `sigma`, and the estimate of the clean ones that led there. The next step
 * starts from `x`, so what the consumer writes into it counts.
 */
export type Step = { index: number; sigma: number; x: Float32Array; denoised: Float32Array }

export type SamplerOptions = {
  /** Fresh noise for the samplers that add some; drawn once a step, as many values as `x` has. */
  noise: NoiseSource
  /** The model's own levels; TCD counts in training timesteps. */
  levels: NoiseLevels
  /** TCD: share of each jump that it makes up with fresh noise, 0.3 (the authors' default) when left out. */
  eta?: number
}

/**
 * Takes latents at level `sigmas[0]` to the last level. Knows nothing of networks; progress, preview and cancel come with
 * `yield`. `sigmas` falls strictly and ends in 0.
 */
export type Sampler = (
  denoise: Denoiser,
  x: Float32Array,
  sigmas: readonly number[],
  options: SamplerOptions,
) => AsyncGenerator<Step>

export const samplers: Record<SamplerName, Sampler> = {
  euler,
  euler_a: eulerAncestral,
  ddim: euler, // with η = 0 DDIM is Euler's method in these variables (Song et al. 2021, equation 14)
  dpmpp_2m: dpmpp2m,
  dpmpp_2m_sde: dpmpp2mSde,
  dpmpp_3m_sde: dpmpp3mSde,
  heun,
  unipc,
  lcm,
  tcd,
}

/** Euler's method on dx/dσ = (x − denoised) / σ. Karras et al. 2022, algorithm 2 without churn. */
export async function* euler(denoise: Denoiser, x: Float32Array, sigmas: readonly number[]): AsyncGenerator<Step> {
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const denoised = await denoise(x, sigmas[i])
    x = keepNoise(x, denoised, sigmas[i + 1] / sigmas[i])
    yield { index: i, sigma: sigmas[i + 1], x, denoised }
  }
}

/** Euler down to σ_down, then fresh noise up to the next level (k-diffusion's ancestral step, η = 1). */
export async function* eulerAncestral(
  denoise: Denoiser,
  x: Float32Array,
  sigmas: readonly number[],
  { noise }: SamplerOptions,
): AsyncGenerator<Step> {
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, next] = [sigmas[i], sigmas[i + 1]]
    const denoised = await denoise(x, sigma)
    const up = next * Math.sqrt(1 - (next / sigma) ** 2)
    const down = (next * next) / sigma // √(next² − up²)
    x = keepNoise(x, denoised, down / sigma)
    if (next > 0) x = mix([1, x], [up, noise(x.length)])
    yield { index: i, sigma: next, x, denoised }
  }
}

/** Trapezoid rule: averages the slopes at both ends of a step. Two calls a step but the last. Karras et al., algorithm 1. */
export async function* heun(denoise: Denoiser, x: Float32Array, sigmas: readonly number[]): AsyncGenerator<Step> {
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, next] = [sigmas[i], sigmas[i + 1]]
    const denoised = await denoise(x, sigma)
    const predicted = keepNoise(x, denoised, next / sigma)
    if (next === 0) x = predicted
    else {
      const atNext = await denoise(predicted, next)
      const half = (next - sigma) / 2
      x = mix([1 + half / sigma, x], [-half / sigma, denoised], [half / next, predicted], [-half / next, atNext])
    }
    yield { index: i, sigma: next, x, denoised }
  }
}

/** DPM-Solver++(2M), Lu et al. 2022, algorithm 2, in λ = −log σ. First and last step are of first order. */
export async function* dpmpp2m(denoise: Denoiser, x: Float32Array, sigmas: readonly number[]): AsyncGenerator<Step> {
  let previous: Float32Array | undefined
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, next] = [sigmas[i], sigmas[i + 1]]
    const denoised = await denoise(x, sigma)
    let estimate = denoised
    if (previous && next > 0) {
      const half = 0.5 / (Math.log(sigmas[i - 1] / sigma) / Math.log(sigma / next)) // ½ of the ratio of the two λ steps
      estimate = mix([1 + half, denoised], [-half, previous])
    }
    x = keepNoise(x, estimate, next / sigma)
    previous = denoised
    yield { index: i, sigma: next, x, denoised }
  }
}

/** SDE-DPM-Solver++(2M), midpoint form, η = 1 (Lu et al. 2022, appendix; k-diffusion's dpmpp_2m_sde). */
export async function* dpmpp2mSde(
  denoise: Denoiser,
  x: Float32Array,
  sigmas: readonly number[],
  { noise }: SamplerOptions,
): AsyncGenerator<Step> {
  let previous: Float32Array | undefined
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, next] = [sigmas[i], sigmas[i + 1]]
    const denoised = await denoise(x, sigma)
    if (next === 0) x = denoised.slice()
    else {
      const h = Math.log(sigma / next)
      const gain = -Math.expm1(-2 * h) // share of the estimate in the step: 1 − e^(−h(1+η))
      x = mix([Math.exp(-2 * h), x], [gain, denoised], [next * Math.sqrt(gain), noise(x.length)])
      if (previous) {
        const half = 0.5 * gain * (h / Math.log(sigmas[i - 1] / sigma))
        x = mix([1, x], [half, denoised], [-half, previous])
      }
    }
    previous = denoised
    yield { index: i, sigma: next, x, denoised }
  }
}

/** SDE-DPM-Solver++(3M), η = 1 (k-diffusion's dpmpp_3m_sde): the 2M step with a second difference when there is one. */
export async function* dpmpp3mSde(
  denoise: Denoiser,
  x: Float32Array,
  sigmas: readonly number[],
  { noise }: SamplerOptions,
): AsyncGenerator<Step> {
  let before: Float32Array | undefined // denoised of the last step
  let earlier: Float32Array | undefined // and of the one before
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, next] = [sigmas[i], sigmas[i + 1]]
    const denoised = await denoise(x, sigma)
    if (next === 0) x = denoised.slice()
    else {
      const h = Math.log(sigma / next)
      const hEta = 2 * h // h(1 + η)
      const gain = -Math.expm1(-hEta)
      x = mix([1 - gain, x], [gain, denoised], [next * Math.sqrt(gain), noise(x.length)])
      const phi2 = 1 - gain / hEta
      if (before) {
        const r0 = Math.log(sigmas[i - 1] / sigma) / h
        const slope = mix([1 / r0, denoised], [-1 / r0, before])
        if (!earlier) x = mix([1, x], [phi2, slope])
        else {
          const phi3 = phi2 / hEta - 0.5
          const r1 = Math.log(sigmas[i - 2] / sigmas[i - 1]) / h
          const slopeBefore = mix([1 / r1, before], [-1 / r1, earlier])
          // first = slope + (slope − slopeBefore)·r0/(r0 + r1); second = (slope − slopeBefore)/(r0 + r1)
          const bend = (phi2 * r0 - phi3) / (r0 + r1)
          x = mix([1, x], [phi2 + bend, slope], [-bend, slopeBefore])
        }
      }
    }
    ;[before, earlier] = [denoised, before]
    yield { index: i, sigma: next, x, denoised }
  }
}

/**
 * UniPC of order 2 with B(h) = e^h − 1, data prediction (Zhao et al. 2023, algorithms 1 and 2; diffusers' defaults). Every
 * estimate first corrects the step that led to it, then predicts the next; no extra calls. `x` is the predicted state.
 */
export async function* unipc(denoise: Denoiser, x: Float32Array, sigmas: readonly number[]): AsyncGenerator<Step> {
  let start = x // corrected latents at the beginning of the last step
  const estimates: Float32Array[] = []
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, next] = [sigmas[i], sigmas[i + 1]]
    const denoised = await denoise(x, sigma)
    if (i > 0) x = correct(start, sigmas, i, estimates, denoised)
    estimates.push(denoised)
    start = x
    let estimate = denoised
    if (i > 0 && next > 0) {
      const half = (0.5 * Math.log(sigma / next)) / Math.log(sigmas[i - 1] / sigma)
      estimate = mix([1 + half, denoised], [-half, estimates[i - 1]])
    }
    x = keepNoise(x, estimate, next / sigma)
    yield { index: i, sigma: next, x, denoised }
  }
}

/** UniC: redoes the step from σ_(i−1) to σ_i, now that the estimate at its end is known. */
function correct(
  start: Float32Array,
  sigmas: readonly number[],
  i: number,
  estimates: Float32Array[],
  atEnd: Float32Array,
): Float32Array {
  const h = Math.log(sigmas[i - 1] / sigmas[i])
  const phi1 = Math.expm1(-h) // also B(h); both are negative
  const atStart = estimates[i - 1]
  // x = (σ_i/σ_(i−1))·start − φ1·(atStart + ρ1·D1 + ρ2·(atEnd − atStart)), D1 the slope to the estimate before.
  let [rho1, rho2, ratio] = [0, 0.5, 1]
  if (i > 1) {
    ratio = Math.log(sigmas[i - 1] / sigmas[i - 2]) / h // negative: it lies before the step
    const phi2 = phi1 / -h - 1
    const phi3 = phi2 / -h - 0.5
    // Solves [1 1; ratio 1]·[ρ1 ρ2] = [φ2 2·φ3] / φ1.
    rho1 = (phi2 / phi1 - (2 * phi3) / phi1) / (1 - ratio)
    rho2 = phi2 / phi1 - rho1
  }
  const before = i > 1 ? estimates[i - 2] : atStart
  return mix(
    [sigmas[i] / sigmas[i - 1], start],
    [-phi1 * (1 - rho1 / ratio - rho2), atStart],
    [(-phi1 * rho1) / ratio, before],
    [-phi1 * rho2, atEnd],
  )
}

/**
 * Latent consistency sampling: jump to the clean estimate, then fresh noise at the next level. Luo et al. 2023, algorithm 1.
 * The skip connection of the consistency function is left out: from timestep 19, the lowest that LCM uses, it weighs 7e-6.
 */
export async function* lcm(
  denoise: Denoiser,
  x: Float32Array,
  sigmas: readonly number[],
  { noise }: SamplerOptions,
): AsyncGenerator<Step> {
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const next = sigmas[i + 1]
    const denoised = await denoise(x, sigmas[i])
    x = next > 0 ? mix([1, denoised], [next, noise(x.length)]) : denoised.slice()
    yield { index: i, sigma: next, x, denoised }
  }
}

/** Trajectory consistency sampling: Euler to a level below the next, fresh noise up to it. Zheng et al. 2024, algorithm 4. */
export async function* tcd(
  denoise: Denoiser,
  x: Float32Array,
  sigmas: readonly number[],
  { noise, levels, eta = 0.3 }: SamplerOptions,
): AsyncGenerator<Step> {
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, next] = [sigmas[i], sigmas[i + 1]]
    const denoised = await denoise(x, sigma)
    if (next === 0) x = denoised.slice()
    else {
      const below = Math.min(levels.sigmaAt(Math.floor((1 - eta) * levels.timestepAt(next) + 1e-6)), next)
      x = keepNoise(x, denoised, below / sigma)
      if (below < next) x = mix([1, x], [Math.sqrt(next * next - below * below), noise(x.length)])
    }
    yield { index: i, sigma: next, x, denoised }
  }
}

/** denoised + share · (x − denoised): what is left of the noise when it shrinks to `share`. */
function keepNoise(x: Float32Array, denoised: Float32Array, share: number): Float32Array {
  return mix([share, x], [1 - share, denoised])
}

/** Weighted sum of arrays of one length. */
function mix(...terms: [weight: number, values: Float32Array][]): Float32Array {
  const result = new Float32Array(terms[0][1].length)
  for (let j = 0; j < result.length; j++) {
    let sum = 0
    for (const [weight, values] of terms) sum += weight * values[j]
    result[j] = sum
  }
  return result
}
