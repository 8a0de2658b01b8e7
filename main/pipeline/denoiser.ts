import type { Conditioning, TextRow } from './conditioning.ts'
import type { Reuse } from './reuse.ts'
import type { Denoiser } from './samplers.ts'
import type { NoiseLevels } from './sigmas.ts'
import { stack, tensor, type FloatTensor, type IdTensor } from './tensor.ts'
import type { Networks } from './types.ts'

export type DenoiserOptions = {
  levels: NoiseLevels
  conditioning: Conditioning
  /** [n, c, h, w] of the latents. */
  shape: readonly number[]
  /** Of each picture. */
  guidanceScales: readonly number[]
  /** Share of the guided prediction whose contrast is set back to the unguided one's (Lin et al. 2023, section 3.4). */
  guidanceRescale: number
  /** Most rows in one run of the network: a guided picture has two, one for its negative prompt. */
  rowsPerRun: number
  /** What may stand in for whole evaluations; all are whole when left out. */
  reuse?: Reuse
  /** Which pixels attention at the outermost level looks at (`key_stride` in models/manifest.ts); 1 when left out. */
  keyStride?: 1 | 2
  /** What the network takes beside its usual inputs, for a run over these pictures with t tokens of text each. */
  extraInputs?: (pictures: readonly number[], tokens: number) => Promise<Record<string, FloatTensor>>
  /** Pictures for which this differs are not in one run. */
  apart?: readonly string[]
}

type Inputs = Record<string, FloatTensor | IdTensor>

/**
 * The unet as a Denoiser for n pictures. Scales x to the variance the network knows, finds the timestep of σ, applies
 * classifier-free guidance to the raw prediction, and turns noise or velocity into clean latents.
 */
export function createDenoiser(networks: Networks, options: DenoiserOptions): Denoiser {
  const { levels, conditioning, shape, guidanceScales, guidanceRescale, reuse } = options
  const isVelocity = networks.manifest.schedule.predictionType === 'v_prediction'
  const size = shape.slice(1).reduce((product, dim) => product * dim, 1)
  const { rows } = conditioning
  const runs = splitRows(rows, options.apart ?? [], networks.singleRows ? 1 : options.rowsPerRun)
  const texts = runs.map((run) =>
    textInputs(
      run.map((row) => rows[row]),
      conditioning.timeIds,
    ),
  )

  /** The raw predictions for the rows of one run. */
  const predict = async (x: Float32Array, sigma: number, run: number, isWhole: boolean) => {
    const pictures = runs[run].map((row) => rows[row].picture)
    const count = pictures.length
    const sample = new Float32Array(count * size)
    pictures.forEach((picture, i) => sample.set(x.subarray(picture * size, (picture + 1) * size), i * size))
    const inputs: Inputs = {
      sample: tensor(sample, [count, ...shape.slice(1)]),
      timestep: tensor(new Float32Array(count).fill(levels.timestepAt(sigma)), [count]),
      ...texts[run],
      ...(await options.extraInputs?.(pictures, texts[run].encoder_hidden_states.shape[1])),
    }
    if (options.keyStride === 2) inputs.key_stride = { data: BigInt64Array.of(2n), shape: [1] }
    if (!isWhole) {
      inputs.deep = reuse!.guess(run, sigma)
      return (await networks.run('unet_shallow', inputs, ['out_sample'])).out_sample.data
    }
    const outputs = await networks.run('unet', inputs, reuse ? ['out_sample', 'deep'] : ['out_sample'])
    reuse?.keep(run, sigma, outputs.deep)
    return outputs.out_sample.data
  }

  return async (x, sigma) => {
    const inputScale = 1 / Math.sqrt(1 + sigma * sigma) // √ᾱ
    const scaled = x.map((value) => value * inputScale)
    const isWhole = reuse?.needsAll(sigma) ?? true
    const predictions: Float32Array[] = []
    for (const [run, members] of runs.entries()) {
      const all = await predict(scaled, sigma, run, isWhole)
      members.forEach((row, i) => (predictions[row] = all.subarray(i * size, (i + 1) * size)))
    }
    const prediction = new Float32Array(x.length)
    for (const [row, { picture, isNegative }] of rows.entries()) {
      if (isNegative) continue
      const positive = predictions[row]
      const opposite = rows.findIndex((other) => other.isNegative && other.picture === picture)
      const own = prediction.subarray(picture * size, (picture + 1) * size)
      if (opposite < 0) own.set(positive)
      else {
        guide(predictions[opposite], positive, guidanceScales[picture], own)
        if (guidanceRescale > 0) rescale(own, positive, guidanceRescale)
      }
    }
    // epsilon: clean = x − σ·noise. v: clean = √ᾱ·(√ᾱ·x) − √(1−ᾱ)·v, with √ᾱ = inputScale and √(1−ᾱ) = σ·inputScale.
    const keep = isVelocity ? inputScale * inputScale : 1
    const remove = isVelocity ? sigma * inputScale : sigma
    return x.map((value, i) => keep * value - remove * prediction[i])
  }
}

/**
 * Rows that are evaluated together, at most `most`: those with as many tokens of text, since padding would change what
 * attention sees, and with the same weights of the network where adapters change those.
 */
function splitRows(rows: readonly TextRow[], apart: readonly string[], most: number): number[][] {
  const alike = new Map<string, number[]>()
  for (const [row, { picture, context }] of rows.entries()) {
    const key = `${context.shape[0]} ${apart[picture] ?? ''}`
    alike.set(key, [...(alike.get(key) ?? []), row])
  }
  return [...alike.values()].flatMap((group) =>
    Array.from({ length: Math.ceil(group.length / most) }, (_, i) => group.slice(i * most, (i + 1) * most)),
  )
}

/** The text of some rows as the network takes it. */
function textInputs(rows: readonly TextRow[], timeIds: readonly number[] | undefined) {
  const sizes = Array.from({ length: rows.length }, () => [...(timeIds ?? [])]).flat()
  const text = { encoder_hidden_states: stack(rows.map(({ context }) => context)) }
  if (!timeIds) return text
  return {
    ...text,
    text_embeds: stack(rows.map(({ pooled }) => pooled!)),
    time_ids: tensor(Float32Array.from(sizes), [rows.length, timeIds.length]),
  }
}

/** Classifier-free guidance (Ho & Salimans 2022): negative + scale · (positive − negative), into `result`. */
function guide(negative: Float32Array, positive: Float32Array, scale: number, result: Float32Array): void {
  for (let i = 0; i < result.length; i++) result[i] = negative[i] + scale * (positive[i] - negative[i])
}

/** Mixes in, by `share`, the prediction scaled to the standard deviation of the unguided one; of one picture, in place. */
function rescale(guided: Float32Array, positive: Float32Array, share: number): void {
  const ratio = deviation(positive) / deviation(guided)
  const factor = Number.isFinite(ratio) ? share * ratio + 1 - share : 1
  for (let i = 0; i < guided.length; i++) guided[i] *= factor
}

function deviation(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length)
}
