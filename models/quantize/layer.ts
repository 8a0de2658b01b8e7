import { groupScales, quantizeGroups } from '../../kernels/int4.ts'
import { roundActivations } from './activations.ts'
import type { MatMul } from './algebra.ts'
import type { Factors } from './branch.ts'
import { difference, findBranch, nearest, productOf, refitBranch, squaredDistance, sum } from './branch.ts'
import type { Feedback } from './gptq.ts'
import { costsOf, feedbackOf, roundWithFeedback, scaledFeedback } from './gptq.ts'
import { columnSpans, divideColumns, findSmoothing, multiplyColumns } from './smooth.ts'

/** A linear layer, or a convolution as a matrix over its taps, that waits to be quantised. */
export type LinearWeights = {
  /** Its name in the checkpoint without `.weight`; errors name it. */
  path: string
  /** Outputs. */
  n: number
  /** Inputs; for 3 × 3 convolutions 9 · channels in the order (ky, kx, channel). */
  k: number
  /** [n, k], rows already times the layer's output_scale. Left as it is. */
  values: Float32Array
}

export type QuantizeOptions = {
  bits: 4 | 8
  /** Inputs that share a scale; 32 where k is no multiple of 64. */
  group: 32 | 64
  /** Of the low-rank branch; 0 for none. */
  rank: number
  /** Look for a smoothing vector; only with samples. */
  smooth?: boolean
  /** Hand rounding errors on to later columns (GPTQ); only with samples. */
  gptq?: boolean
  /** 9 when k is nine taps over the same channels. */
  taps?: number
  /** How the fast mode quantises what the layer reads: one scale for all, or one per row. */
  activations?: 'tensor' | 'token'
  matMul: MatMul
}

/** Squared error of the layer's output over the squared output, on samples that were not used to choose codes. */
export type LayerErrors = {
  /** Nearest codes, no branch, no smoothing, exact activations. */
  nearest: number
  /** What is handed back, exact activations: the low-memory and webgpu modes. */
  weights: number
  /** What is handed back with int8 activations: the fast mode. */
  activations: number
}

/** One layer as the 4-bit file holds it. Halves are bits. */
export type QuantizedLinear = {
  path: string
  n: number
  k: number
  bits: 4 | 8
  group: 32 | 64
  /** Biased by +8 or +128: [n, groups, group / 2] with the even index in the low nibble, or [n, groups, group]. */
  codes: Uint8Array
  /** [n, groups] */
  scales: Uint16Array
  /** [rank, k]; both absent without a branch. */
  down?: Uint16Array
  /** [n, rank] */
  up?: Uint16Array
  /** Without samples: of the weights themselves, as if every input were equally strong and independent. */
  errors: LayerErrors
}

export type QuantizedGroup = {
  /** The smoothing vector [k], shared: the layers read x / inputScale. Absent where none helps. */
  inputScale?: Float32Array
  layers: QuantizedLinear[]
}

/** Times the branch may be decomposed anew. Feedback makes up for the third and fourth. */
const rounds = { withFeedback: 2, alone: 4 }
/** Rows of the input that decide on smoothing and on the branch; the Hessian has all but the held-out ones. */
const searchRows = 256

/**
 * Quantises layers that read the same input, all in one format. `samples` [rows, k] are rows of that input before any
 * smoothing, for convolutions patches in the order of the weights; without them the weights alone decide. Every eighth
 * row is held out to measure errors and to decide whether feedback has helped.
 */
export async function quantizeGroup(
  layers: readonly LinearWeights[],
  samples: Float32Array | undefined,
  options: QuantizeOptions,
): Promise<QuantizedGroup> {
  const { k } = layers[0]
  for (const layer of layers) expectFinite(layer)
  if (samples) expectFinite({ path: `input of ${layers[0].path}`, n: samples.length / k, k, values: samples })
  const { bits, group, rank, taps = 1, activations = 'token', matMul } = options
  const rows = samples && splitRows(samples, k)

  const feedback = rows && options.gptq ? await feedbackOf(rows.fit, k, taps, matMul) : undefined
  const inputScale =
    rows && options.smooth
      ? await findSmoothing(
          layers,
          {
            x: fewRows(rows.fit, k, searchRows),
            spans: columnSpans([{ k, values: rows.fit }]),
            costs: feedback ? costsOf(feedback, k) : meanSquares(rows.fit, k),
          },
          { bits, group, rank, activations, matMul },
        )
      : undefined
  const smoothed = (x: Float32Array) => (inputScale ? divideColumns(x, inputScale) : x)
  const inputs: Inputs | undefined = rows && {
    search: smoothed(fewRows(rows.fit, k, searchRows)),
    heldOut: smoothed(rows.heldOut),
    feedback: feedback && inputScale ? scaledFeedback(feedback, inputScale) : feedback,
  }
  const quantized: QuantizedLinear[] = []
  for (const layer of layers) quantized.push(await quantizeLayer(layer, inputScale, inputs, options))
  return { ...(inputScale ? { inputScale } : {}), layers: quantized }
}

/** Rows [.., k] of the smoothed input by what they are for. */
type Inputs = {
  search: Float32Array
  heldOut: Float32Array
  feedback: Feedback | undefined
}

/** The values [n, k] that codes stand for, and the branch beside them. */
type Rounded = { codes: Float32Array; branch: Factors | undefined }

type Measure = {
  /** Squared sum of what is right. */
  power: number
  /** `rows` in place of the ones measured with: their rounded form. */
  errorOf: (weights: Float32Array, rows?: Float32Array) => Promise<number>
}

async function quantizeLayer(
  { path, n, k, values }: LinearWeights,
  inputScale: Float32Array | undefined,
  inputs: Inputs | undefined,
  { bits, group, rank, activations = 'token', matMul }: QuantizeOptions,
): Promise<QuantizedLinear> {
  const groups = { n, k, bits, group }
  const target = inputScale ? multiplyColumns(values, inputScale) : values
  const outputs = (x: Float32Array, weights: Float32Array) =>
    matMul(x, [x.length / k, k], weights, [n, k], { transposeB: true })
  /** Squared error of the outputs for rows `x`, or of the weights themselves, that `weights` leave. */
  const measure = async (x: Float32Array | undefined): Promise<Measure> => {
    if (!x) return { power: sumOfSquares(target), errorOf: async (weights) => squaredDistance(weights, target) }
    const exact = await outputs(x, target)
    const errorOf = async (weights: Float32Array, rows = x) => squaredDistance(await outputs(rows, weights), exact)
    return { power: sumOfSquares(exact), errorOf }
  }
  const heldOut = await measure(inputs?.heldOut)

  // A convolution has up to 118 MB as float32. What can be worked out again is not kept: neither the product of the
  // branch nor what it leaves.
  const decompose = async (): Promise<Factors> => {
    const { errorOf } = await measure(inputs?.search)
    const most = inputs?.feedback ? rounds.withFeedback : rounds.alone
    const { down, up } = (await findBranch(target, { rank, groups, matMul, rounds: most, errorOf })).branch
    return { down, up }
  }
  const first = rank > 0 ? await decompose() : undefined
  const rest = async () => (first ? difference(target, await productOf(first, n, k, matMul)) : target)
  const complete = async (codes: Float32Array, branch: Factors | undefined) =>
    branch ? sum(codes, await productOf(branch, n, k, matMul)) : codes

  // What the branch leaves goes into codes: the nearest ones, or those with feedback where they come out better.
  const scales = groupScales(await rest(), groups, { search: true })
  const roundToNearest = async (): Promise<Rounded> => ({ codes: nearest(await rest(), groups, scales), branch: first })
  const roundFedBack = async (feedback: Feedback): Promise<Rounded> => {
    const codes = await roundWithFeedback(await rest(), groups, scales, feedback, matMul)
    if (!first) return { codes, branch: undefined }
    const { down, up } = await refitBranch(target, codes, { rank, groups, matMul, feedback })
    return { codes, branch: { down, up } }
  }
  const errorOf = async ({ codes, branch }: Rounded) => heldOut.errorOf(await complete(codes, branch))

  let error = await errorOf(await roundToNearest())
  let found: Rounded | undefined
  if (inputs?.feedback) {
    const other = await roundFedBack(inputs.feedback)
    const otherError = await errorOf(other)
    if (otherError < error) [found, error] = [other, otherError]
  }
  const { codes: rounded, branch } = found ?? (await roundToNearest())

  const power = heldOut.power || 1
  const plainError = () => {
    const plain = nearest(values, groups, groupScales(values, groups))
    return heldOut.errorOf(inputScale ? multiplyColumns(plain, inputScale) : plain)
  }
  const fastError = async () => {
    const columns = roundActivations(await complete(rounded, branch), k, 'token') // as kernels/columns.ts: int8, a scale per output
    return heldOut.errorOf(columns, inputs && roundActivations(inputs.heldOut, k, activations))
  }
  const errors: LayerErrors = {
    nearest: (await plainError()) / power,
    weights: error / power,
    activations: (await fastError()) / power,
  }

  const { codes } = quantizeGroups(rounded, { ...groups, scales })
  return { path, n, k, bits, group, codes, scales, ...branch, errors }
}

/** Every eighth row apart, where there are enough to spare some. */
function splitRows(x: Float32Array, k: number): { fit: Float32Array; heldOut: Float32Array } {
  const rows = x.length / k
  if (!Number.isInteger(rows) || rows === 0) throw new Error(`${x.length} values are no rows of ${k}`)
  if (rows < 64) return { fit: x, heldOut: x }
  const apart = Math.floor(rows / 8)
  const fit = new Float32Array((rows - apart) * k)
  const heldOut = new Float32Array(apart * k)
  for (let row = 0, fitted = 0, held = 0; row < rows; row++) {
    const values = x.subarray(row * k, (row + 1) * k)
    if (row % 8 === 7) heldOut.set(values, k * held++)
    else fit.set(values, k * fitted++)
  }
  return { fit, heldOut }
}

/** `count` rows spread evenly over all of x. */
function fewRows(x: Float32Array, k: number, count: number): Float32Array {
  const rows = x.length / k
  if (rows <= count) return x
  const few = new Float32Array(count * k)
  for (let i = 0; i < count; i++) {
    const row = Math.floor((i * rows) / count)
    few.set(x.subarray(row * k, (row + 1) * k), i * k)
  }
  return few
}

function expectFinite({ path, n, k, values }: LinearWeights): void {
  if (values.length !== n * k) throw new Error(`${path}: ${values.length} values are not ${n} x ${k}`)
  let zero = 0
  for (let i = 0; i < values.length; i++) zero += values[i] * 0
  if (zero === 0) return
  const at = values.findIndex((value) => !Number.isFinite(value))
  throw new Error(`${path}: ${values[at]} at [${Math.floor(at / k)}, ${at % k}]`)
}

/** Mean square of each column of x [rows, k]. */
function meanSquares(x: Float32Array, k: number): Float32Array {
  const squares = new Float64Array(k)
  for (let start = 0; start < x.length; start += k) for (let i = 0; i < k; i++) squares[i] += x[start + i] ** 2
  return Float32Array.from(squares, (square) => square / (x.length / k))
}

function sumOfSquares(a: Float32Array): number {
  let total = 0
  for (let i = 0; i < a.length; i++) total += a[i] * a[i]
  return total
}
