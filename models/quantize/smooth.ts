import { roundActivations } from './activations.ts'
import type { MatMul } from './algebra.ts'
import { findBranch, squaredDistance } from './branch.ts'

/** Weights [n, k] of layers that read the same input. */
export type SmoothedLayer = { n: number; k: number; values: Float32Array }

export type SmoothingOptions = {
  bits: 4 | 8
  group: 32 | 64
  rank: number
  activations: 'tensor' | 'token'
  matMul: MatMul
}

/** λ = span of the input^α / span of the weights^β, channel by channel. (0, 0) is no smoothing. */
type Candidate = { alpha: number; beta: number }

const alphas = [0.2, 0.35, 0.5, 0.65, 0.8]
const candidates: Candidate[] = [
  { alpha: 0, beta: 0 },
  ...alphas.map((alpha) => ({ alpha, beta: 1 - alpha })),
  ...alphas.map((alpha) => ({ alpha, beta: 0 })),
]

/** Outputs of a layer that the choice is made with: every second or third of a wide layer say enough. */
const mostOutputs = 512

/**
 * The smoothing vector λ [k] with which the outputs of all `layers` together come out best when weights, branch and
 * activations are rounded as in the fast mode, or undefined when nothing beats no smoothing. x [rows, k] are inputs;
 * `spans` [k] their largest magnitudes, perhaps over more rows. SVDQuant's search over (0, 0), (α, 1−α) and (α, 0).
 */
export async function findSmoothing(
  layers: readonly SmoothedLayer[],
  x: Float32Array,
  spans: Float32Array,
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
    const lambda = lambdaOf(candidate, spans, weightSpans)
    const smoothed = roundActivations(divideColumns(x, lambda), k, options.activations)
    let error = 0
    for (const sample of samples) error += await errorWith(sample, lambda, smoothed, options)
    if (error < least) [best, least] = [candidate.alpha === 0 ? undefined : lambda, error]
  }
  return best
}

/** Squared error of the outputs with everything rounded. `x` [rows, k] is smoothed and rounded already. */
async function errorWith(
  { n, k, values, outputs }: SmoothedLayer & { outputs: Float32Array },
  lambda: Float32Array,
  x: Float32Array,
  { bits, group, rank, matMul }: SmoothingOptions,
): Promise<number> {
  const target = multiplyColumns(values, lambda)
  const { weights } = await findBranch(target, {
    rank: Math.min(rank, n),
    groups: { n, k, bits, group },
    matMul,
    rounds: 1,
    powerIterations: 1,
    errorOf: async () => 0,
  })
  const columns = roundActivations(weights, k, 'token') // int8 with a scale per output, as kernels/columns.ts
  return squaredDistance(await times(matMul, x, { n, k, values: columns }), outputs)
}

/** x · wᵀ */
function times(matMul: MatMul, x: Float32Array, { n, k, values }: SmoothedLayer): Promise<Float32Array> {
  return matMul(x, [x.length / k, k], values, [n, k], { transposeB: true })
}

/** The geometric mean of λ is 1, and no channel lies further than a factor of 100 from it. */
function lambdaOf({ alpha, beta }: Candidate, spans: Float32Array, weightSpans: Float32Array): Float32Array {
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
