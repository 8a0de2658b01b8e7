import type { Conditioning } from './conditioning.ts'
import type { Reuse } from './reuse.ts'
import type { Denoiser } from './samplers.ts'
import type { NoiseLevels } from './sigmas.ts'
import { tensor, type FloatTensor, type IdTensor } from './tensor.ts'
import type { Networks } from './types.ts'

export type DenoiserOptions = {
  levels: NoiseLevels
  conditioning: Conditioning
  /** [n, c, h, w] of the latents. */
  shape: readonly number[]
  guidanceScale: number
  /** Share of the guided prediction whose contrast is set back to the unguided one's (Lin et al. 2023, section 3.4). */
  guidanceRescale: number
  /** Both guidance passes as one batch. */
  batchGuidance: boolean
  /** What may stand in for whole evaluations; all are whole when left out. */
  reuse?: Reuse
  /** Which pixels attention at the outermost level looks at (`key_stride` in models/manifest.ts); 1 when left out. */
  keyStride?: 1 | 2
}

/**
 * The unet as a Denoiser for n pictures of one prompt. Scales x to the variance the network knows, finds the timestep of σ,
 * applies classifier-free guidance to the raw prediction, and turns noise or velocity into clean latents.
 */
export function createDenoiser(networks: Networks, options: DenoiserOptions): Denoiser {
  const { levels, conditioning, shape, guidanceScale, guidanceRescale, reuse } = options
  const isVelocity = networks.manifest.schedule.predictionType === 'v_prediction'
  const rows = conditioning.context.shape[0] // 2 when guided: negative, positive

  const n = shape[0]
  const size = shape.slice(1).reduce((product, dim) => product * dim, 1)
  /** All there is to predict: every picture under the first row of the conditioning, then every picture under the next. */
  const total = rows * n
  const perRun = networks.singleRows ? 1 : options.batchGuidance ? total : n

  /** The raw predictions `first` to `first + count` of all. */
  const predict = async (x: Float32Array, sigma: number, first: number, count: number, isWhole: boolean) => {
    const indices = Array.from({ length: count }, (_, i) => first + i)
    const conditions = indices.map((index) => Math.floor(index / n))
    const sample = new Float32Array(count * size)
    indices.forEach((index, i) => sample.set(x.subarray((index % n) * size, ((index % n) + 1) * size), i * size))
    const inputs: Record<string, FloatTensor | IdTensor> = {
      sample: tensor(sample, [count, ...shape.slice(1)]),
      timestep: tensor(new Float32Array(count).fill(levels.timestepAt(sigma)), [count]),
      encoder_hidden_states: pickRows(conditioning.context, conditions),
    }
    if (conditioning.pooled && conditioning.timeIds) {
      inputs.text_embeds = pickRows(conditioning.pooled, conditions)
      const timeIds = tensor(Float32Array.from(conditioning.timeIds), [1, conditioning.timeIds.length])
      inputs.time_ids = pickRows(timeIds, new Array<number>(count).fill(0))
    }
    if (options.keyStride === 2) inputs.key_stride = { data: BigInt64Array.of(2n), shape: [1] }
    if (!isWhole) {
      inputs.deep = reuse!.guess(first, sigma)
      return (await networks.run('unet_shallow', inputs, ['out_sample'])).out_sample.data
    }
    const outputs = await networks.run('unet', inputs, reuse ? ['out_sample', 'deep'] : ['out_sample'])
    reuse?.keep(first, sigma, outputs.deep)
    return outputs.out_sample.data
  }

  return async (x, sigma) => {
    const inputScale = 1 / Math.sqrt(1 + sigma * sigma) // √ᾱ
    const scaled = x.map((value) => value * inputScale)
    const isWhole = reuse?.needsAll(sigma) ?? true
    const all = new Float32Array(total * size)
    for (let first = 0; first < total; first += perRun) {
      all.set(await predict(scaled, sigma, first, perRun, isWhole), first * size)
    }
    let prediction: Float32Array = all
    if (rows === 2) {
      const [negative, positive] = [all.subarray(0, x.length), all.subarray(x.length)]
      prediction = guide(negative, positive, guidanceScale)
      if (guidanceRescale > 0) rescale(prediction, positive, guidanceRescale, n)
    }
    // epsilon: clean = x − σ·noise. v: clean = √ᾱ·(√ᾱ·x) − √(1−ᾱ)·v, with √ᾱ = inputScale and √(1−ᾱ) = σ·inputScale.
    const keep = isVelocity ? inputScale * inputScale : 1
    const remove = isVelocity ? sigma * inputScale : sigma
    return x.map((value, i) => keep * value - remove * prediction[i])
  }
}

/** Classifier-free guidance (Ho & Salimans 2022): negative + scale · (positive − negative). */
function guide(negative: Float32Array, positive: Float32Array, guidanceScale: number): Float32Array {
  return negative.map((value, i) => value + guidanceScale * (positive[i] - value))
}

/** Mixes in, by `share`, the prediction scaled to the standard deviation of the unguided one; each picture for itself. */
function rescale(prediction: Float32Array, positive: Float32Array, share: number, n: number): void {
  const size = prediction.length / n
  for (let start = 0; start < prediction.length; start += size) {
    const guided = prediction.subarray(start, start + size)
    const ratio = deviation(positive.subarray(start, start + size)) / deviation(guided)
    const factor = Number.isFinite(ratio) ? share * ratio + 1 - share : 1
    for (let i = 0; i < size; i++) guided[i] *= factor
  }
}

function deviation(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length)
}

/** Rows of a tensor by their numbers. */
function pickRows(source: FloatTensor, rows: readonly number[]): FloatTensor {
  const size = source.data.length / source.shape[0]
  const data = new Float32Array(rows.length * size)
  rows.forEach((row, i) => data.set(source.data.subarray(row * size, (row + 1) * size), i * size))
  return tensor(data, [rows.length, ...source.shape.slice(1)])
}
