import { groupCount, groupScales } from '../../kernels/int4.ts'
import { halfToFloat } from '../graph/half.ts'
import { roundActivations } from './activations.ts'
import type { MatMul } from './algebra.ts'
import { difference, squaredDistance } from './branch.ts'
import { truncatedSvd } from './svd.ts'

/** Weights [n, k] of layers that read the same input. */
export type SmoothedLayer = { n: number; k: number; values: Float32Array }

export type SmoothingOptions = {
  bits: 4 | 8
  group: 32 | 64
  rank: number
  activations: 'tensor' | 'token'
  matMul: MatMul
}

/** What is known of the input, before smoothing. */
export type SmoothingInput = {
  /** Some rows [rows, k]. */
  x: Float32Array
  /** Largest magnitudes [k]. */
  spans: Float32Array
  /** What a squared rounding error of a weight does to the squared error of an output, per row, [k]; see `costsOf`. */
  costs: Float32Array
}

/** λ = span of the input^α / span of the weights^β, channel by channel. (0, 0) is no smoothing. */
type Candidate = { alpha: number; beta: number }

/** SVDQuant tries nineteen; on measured inputs more than three change the result by less than 0.1 dB. */
const alphas = [0.25, 0.5, 0.75]
const candidates: Candidate[] = [
  { alpha: 0, beta: 0 },
  ...alphas.map((alpha) => ({ alpha, beta: 1 - alpha })),
  ...alphas.map((alpha) => ({ alpha, beta: 0 })),
]

/** Share of the unsmoothed error that a vector has to stay below: a few per cent of gain are chance. */
const leastGain = 0.95

/** Outputs of a layer that the choice is made with: every second or third of a wide layer say enough. */
const mostOutputs = 512

/**
 * The smoothing vector λ [k] with which the outputs of all `layers` together come out best when weights, branch and
 * activations are rounded as in the fast mode, or undefined when nothing beats no smoothing. SVDQuant's search over
 * (0, 0), (α, 1−α) and (α, 0). The error of the activations is measured; that of the codes is their steps' variance times
 * its cost in the output, because a code chosen with feedback errs by the same step and yet costs a tenth.
 */
export async function findSmoothing(
  layers: readonly SmoothedLayer[],
  { x, spans, costs }: SmoothingInput,
  options: SmoothingOptions,
): Promise<Float32Array | undefined> {
  const { k } = layers[0]
  const weightSpans = columnSpans(layers)
  const samples = await Promise.all(
    layers.map(async (layer) => {
      const few = everyFewRows(layer)
      return { ...few, outputs: await times(options.matMul, x, few) }
    }),
  )
  let best: Float32Array | undefined
  let least = Infinity
  for (const candidate of candidates) {
    const lambda = smoothingVector(candidate, spans, weightSpans)
    const inputs = roundActivations(divideColumns(x, lambda), k, options.activations)
    const lambdaCosts = costs.map((cost, i) => cost / lambda[i] ** 2)
    let error = 0
    for (const { n, values, outputs } of samples) {
      const layer = { n, k, values: multiplyColumns(values, lambda) }
      const columns = { n, k, values: roundActivations(layer.values, k, 'token') } // int8, as kernels/columns.ts
      error += squaredDistance(await times(options.matMul, inputs, columns), outputs) / (x.length / k)
      error += await costOfCodes(layer, lambdaCosts, options)
    }
    const isPlain = candidate.alpha === 0
    if (error < least) [best, least] = isPlain ? [undefined, error * leastGain] : [lambda, error]
  }
  return best
}

/** Expected squared error of all outputs, per row, that the codes of what a branch leaves will make. */
async function costOfCodes(
  { n, k, values }: SmoothedLayer,
  costs: Float32Array,
  { bits, group, rank, matMul }: SmoothingOptions,
): Promise<number> {
  let rest = values
  if (rank > 0) {
    const found = await truncatedSvd(values, n, k, { rank, matMul, powerIterations: 1 })
    rest = difference(values, await matMul(found.up, [n, found.rank], found.down, [found.rank, k]))
  }
  const scales = groupScales(rest, { n, k, bits, group })
  const perRow = groupCount(k, group)
  let cost = 0
  for (let g = 0; g < perRow; g++) {
    let steps = 0
    for (let row = 0; row < n; row++) steps += halfToFloat(scales[row * perRow + g]) ** 2
    let inGroup = 0
    for (let i = g * group; i < Math.min((g + 1) * group, k); i++) inGroup += costs[i]
    cost += (steps / 12) * inGroup
  }
  return cost
}

/** x · wᵀ */
function times(matMul: MatMul, x: Float32Array, { n, k, values }: SmoothedLayer): Promise<Float32Array> {
  return matMul(x, [x.length / k, k], values, [n, k], { transposeB: true })
}

/** λ of one candidate. Its geometric mean is 1, and no channel lies further than a factor of 100 from it. */
export function smoothingVector(
  { alpha, beta }: Candidate,
  spans: Float32Array,
  weightSpans: Float32Array,
): Float32Array {
  const logs = Float64Array.from(spans, (span, i) => alpha * safeLog(span) - beta * safeLog(weightSpans[i]))
  const mean = logs.reduce((sum, value) => sum + value, 0) / logs.length
  const bound = Math.log(100)
  return Float32Array.from(logs, (value) => Math.exp(Math.max(-bound, Math.min(bound, value - mean))))
}

/** A channel that is never used has no span; a millionth keeps its logarithm finite. */
const safeLog = (span: number) => Math.log(Math.max(span, 1e-6))

/** Largest magnitude of each of the k columns. */
export function columnSpans(matrices: readonly { k: number; values: Float32Array }[]): Float32Array {
  const { k } = matrices[0]
  const spans = new Float32Array(k)
  for (const { values } of matrices) {
    for (let start = 0; start < values.length; start += k) {
      for (let i = 0; i < k; i++) {
        const value = values[start + i]
        const magnitude = value < 0 ? -value : value
        if (magnitude > spans[i]) spans[i] = magnitude
      }
    }
  }
  return spans
}

function everyFewRows({ n, k, values }: SmoothedLayer): SmoothedLayer {
  if (n <= mostOutputs) return { n, k, values }
  const few = new Float32Array(mostOutputs * k)
  for (let i = 0; i < mostOutputs; i++) {
    const row = Math.floor((i * n) / mostOutputs)
    few.set(values.subarray(row * k, (row + 1) * k), i * k)
  }
  return { n: mostOutputs, k, values: few }
}

/** values [rows, k] with each column times its factor. */
export function multiplyColumns(values: Float32Array, factors: Float32Array): Float32Array {
  const k = factors.length
  const out = new Float32Array(values.length)
  for (let start = 0; start < values.length; start += k) {
    for (let i = 0; i < k; i++) out[start + i] = values[start + i] * factors[i]
  }
  return out
}

/** values [rows, k] with each column divided by its divisor. */
export function divideColumns(values: Float32Array, divisors: Float32Array): Float32Array {
  return multiplyColumns(
    values,
    divisors.map((divisor) => 1 / divisor),
  )
}
