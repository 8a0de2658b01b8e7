import { groupCount } from '../../kernels/int4.ts'
import type { Groups } from '../../kernels/int4.ts'
import { halfToFloat } from '../graph/half.ts'
import type { MatMul } from './algebra.ts'
import { upperCholesky, whole } from './algebra.ts'

/**
 * How rounding errors of earlier inputs are made good by later ones, for a range of inputs. With the Hessian of the
 * output error H = xᵀx = (F + I) · D · (F + I)ᵀ, F strictly upper triangular, an input k is rounded after
 * Σ error[j] · F[j, k] over the inputs j before it has been added. That is GPTQ (Frantar et al. 2022) without the inverse
 * of H, as QuIP (Chee et al. 2023, theorem 6) shows.
 */
type FeedbackBlock = {
  /** First input of the range. */
  start: number
  size: number
  /** Position in the order of rounding -> input, counted from `start`: strong inputs first. */
  order: Uint32Array
  /** F in that order, [size, size]. */
  factor: Float32Array
  /** Square roots of D, [size]. */
  roots: Float32Array
}
export type Feedback = FeedbackBlock[]

/** Beyond this a Hessian is cut into blocks on its diagonal: its factor would cost more than the layer itself. */
const mostInputs = 1280
/**
 * Share of each diagonal element added to it, so that few samples do not pretend to know every direction. GPTQ takes a
 * hundredth of their mean. Shares of their own do not make the factor depend on smoothing (see `scaledFeedback`), and three
 * hundredths come out better by half a decibel with prompts that the samples are not from.
 */
const damping = 0.03

/**
 * The feedback of inputs x [rows, k]. Nine taps of a convolution see the same pixels: one Hessian over the channels,
 * the mean of all taps of x, serves each of them.
 */
export async function feedbackOf(x: Float32Array, k: number, taps: number, matMul: MatMul): Promise<Feedback> {
  const channels = k / taps
  const parts = Math.ceil(channels / mostInputs)
  const feedback: Feedback = []
  for (let part = 0; part < parts; part++) {
    const from = Math.floor((part * channels) / parts)
    const size = Math.floor(((part + 1) * channels) / parts) - from
    const rows = x.length / channels // [rows · taps, channels] is the same array
    const columns = size === channels ? x : columnsOf(x, rows, channels, from, size)
    const gram = await matMul(columns, [rows, size], columns, [rows, size], { transposeA: true })
    const block = await factorOf(gram, size, rows, matMul)
    for (let tap = 0; tap < taps; tap++) feedback.push({ start: tap * channels + from, size, ...block })
  }
  return feedback
}

/** The feedback of the same inputs divided by `lambda` [k]: F'[i, j] = F[i, j] · λ[j] / λ[i], √D' = √D / λ. */
export function scaledFeedback(feedback: Feedback, lambda: Float32Array): Feedback {
  return feedback.map(({ start, size, order, factor, roots }) => {
    const scales = Float32Array.from(order, (input) => lambda[start + input])
    const scaled = new Float32Array(factor.length)
    for (let i = 0; i < size; i++) {
      for (let j = i + 1; j < size; j++) scaled[i * size + j] = (factor[i * size + j] * scales[j]) / scales[i]
    }
    return { start, size, order, factor: scaled, roots: roots.map((root, i) => root / scales[i]) }
  })
}

/** D by input [k]: what a squared rounding error of that input does to the squared error of an output, per row. */
export function costsOf(feedback: Feedback, k: number): Float32Array {
  const costs = new Float32Array(k)
  for (const { start, order, roots } of feedback) roots.forEach((root, i) => (costs[start + order[i]] = root * root))
  return costs
}

function columnsOf(x: Float32Array, rows: number, width: number, from: number, size: number): Float32Array {
  const out = new Float32Array(rows * size)
  for (let row = 0; row < rows; row++) {
    out.set(x.subarray(row * width + from, row * width + from + size), row * size)
  }
  return out
}

/** `gram` is xᵀx over `rows` rows. Factored as a matrix of correlations, which has no badly scaled rows. */
async function factorOf(
  gram: Float32Array,
  size: number,
  rows: number,
  matMul: MatMul,
): Promise<Omit<FeedbackBlock, 'start' | 'size'>> {
  const powers = Float64Array.from({ length: size }, (_, i) => gram[i * size + i] / rows)
  const order = Uint32Array.from(powers.keys()).sort((i, j) => powers[j] - powers[i] || i - j)
  const mean = powers.reduce((sum, power) => sum + power, 0) / size || 1
  // An input that was hardly ever used may be used tomorrow: no deviation counts for less than a hundredth of the usual.
  const deviations = Float64Array.from(order, (i) => Math.sqrt(Math.max(powers[i], 1e-4 * mean)))
  for (let added = damping; ; added *= 2) {
    const correlations = new Float64Array(size * size)
    for (let i = 0; i < size; i++) {
      const row = order[i] * size
      const scale = 1 / (rows * deviations[i])
      for (let j = 0; j < size; j++) correlations[i * size + j] = (gram[row + order[j]] * scale) / deviations[j]
      correlations[i * size + i] = 1 + added
    }
    const u = await upperCholesky(correlations, size, matMul)
    if (!u) continue // float32 sums can leave a nearly singular matrix slightly negative: more damping
    const roots = Float64Array.from(deviations, (deviation, i) => deviation * u[i * size + i])
    const factor = new Float32Array(size * size)
    for (let i = 0; i < size; i++) {
      for (let j = i + 1; j < size; j++) factor[i * size + j] = (deviations[i] * u[i * size + j]) / roots[j]
    }
    return { order, factor, roots: Float32Array.from(roots) }
  }
}

/** Inputs that are rounded one after the other before a product brings the next ones up to date. */
const lazy = 32

/**
 * The values [n, k] that codes times `scales` can have, chosen input by input with feedback. Every block works on its
 * part of the matrix turned round, [size, n], where an input is a contiguous row.
 */
export async function roundWithFeedback(
  values: Float32Array,
  groups: Groups,
  scales: Uint16Array,
  feedback: Feedback,
  matMul: MatMul,
): Promise<Float32Array> {
  const { n, k, bits, group } = groups
  const perRow = groupCount(k, group)
  const low = bits === 4 ? -8 : -128
  const high = -low - 1
  const rounded = new Float32Array(n * k)
  // Scales turned round, too: [groups, n], and their inverses, 0 for a group of zeros.
  const steps = new Float32Array(perRow * n)
  const inverses = new Float64Array(perRow * n)
  for (let row = 0; row < n; row++) {
    for (let g = 0; g < perRow; g++) {
      const step = halfToFloat(scales[row * perRow + g])
      steps[g * n + row] = step
      inverses[g * n + row] = step === 0 ? 0 : 1 / step
    }
  }
  for (const { start, size, order, factor } of feedback) {
    const wanted = turned(values, n, k, start, order) // and, once an input has its turn, what became of it
    const errors = new Float32Array(size * n)
    for (let first = 0; first < size; first += lazy) {
      const end = Math.min(first + lazy, size)
      if (first > 0) {
        const panel = new Float32Array(first * (end - first))
        for (let i = 0; i < first; i++) {
          panel.set(factor.subarray(i * size + first, i * size + end), i * (end - first))
        }
        const before = errors.subarray(0, first * n)
        const update = await matMul(panel, [first, end - first], before, [first, n], { transposeA: true })
        errors.set(update, first * n) // what is to be added before rounding; replaced by the error afterwards
      }
      for (let at = first; at < end; at++) {
        const goal = wanted.subarray(at * n, (at + 1) * n)
        const shifted = errors.subarray(at * n, (at + 1) * n)
        for (let before = first; before < at; before += 2) {
          // Two errors at once save half of the traffic; the second is nothing when their number is odd.
          const pair = before + 1 < at ? before + 1 : before
          const [one, other] = [factor[before * size + at], pair === before ? 0 : factor[pair * size + at]]
          const oneError = errors.subarray(before * n, (before + 1) * n)
          const otherError = errors.subarray(pair * n, (pair + 1) * n)
          for (let row = 0; row < n; row++) shifted[row] += one * oneError[row] + other * otherError[row]
        }
        const g = Math.floor((start + order[at]) / group)
        const step = steps.subarray(g * n, (g + 1) * n)
        const inverse = inverses.subarray(g * n, (g + 1) * n)
        for (let row = 0; row < n; row++) {
          let code = (goal[row] + shifted[row]) * inverse[row] + whole - whole
          if (code > high) code = high
          else if (code < low) code = low
          const value = code * step[row]
          shifted[row] = goal[row] - value
          goal[row] = value
        }
      }
    }
    turnBack(wanted, rounded, n, k, start, order)
  }
  return rounded
}

/** Side of the tiles in which a matrix is turned: both sides of a tile stay in the first cache. */
const tile = 32

/** Columns start + order[…] of values [n, k] as rows [size, n]. */
function turned(values: Float32Array, n: number, k: number, start: number, order: Uint32Array): Float32Array {
  const out = new Float32Array(order.length * n)
  for (let row0 = 0; row0 < n; row0 += tile) {
    const end = Math.min(row0 + tile, n)
    for (let i = 0; i < order.length; i++) {
      const column = start + order[i]
      for (let row = row0; row < end; row++) out[i * n + row] = values[row * k + column]
    }
  }
  return out
}

function turnBack(
  rows: Float32Array,
  values: Float32Array,
  n: number,
  k: number,
  start: number,
  order: Uint32Array,
): void {
  for (let row0 = 0; row0 < n; row0 += tile) {
    const end = Math.min(row0 + tile, n)
    for (let i = 0; i < order.length; i++) {
      const column = start + order[i]
      for (let row = row0; row < end; row++) values[row * k + column] = rows[i * n + row]
    }
  }
}

/** (F + I) · √D of one block: the square root R of its Hessian, in the order of rounding. */
function rootOf({ size, factor, roots }: FeedbackBlock): Float32Array {
  const root = factor.slice()
  for (let i = 0; i < size; i++) {
    root[i * size + i] = 1
    for (let j = i; j < size; j++) root[i * size + j] *= roots[j]
  }
  return root
}

/** values [n, k] · R, blocks in their order of rounding: what is small there does little to the layer's output. */
export async function toOutputSpace(
  values: Float32Array,
  n: number,
  k: number,
  feedback: Feedback,
  matMul: MatMul,
): Promise<Float32Array> {
  const out = new Float32Array(values.length)
  for (const block of feedback) {
    const { start, size, order } = block
    const columns = turned(values, n, k, start, order)
    const product = await matMul(columns, [size, n], rootOf(block), [size, size], { transposeA: true })
    for (let row = 0; row < n; row++) out.set(product.subarray(row * size, (row + 1) * size), row * k + start)
  }
  return out
}

/** The way back for a few rows [count, k]: rows · R⁻¹. */
export function fromOutputSpace(rows: Float32Array, count: number, k: number, feedback: Feedback): Float32Array {
  const out = new Float32Array(rows.length)
  for (const { start, size, order, factor, roots } of feedback) {
    const solved = new Float64Array(size)
    for (let row = 0; row < count; row++) {
      for (let j = 0; j < size; j++) solved[j] = rows[row * k + start + j] / roots[j]
      for (let i = 0; i < size; i++) {
        const value = solved[i]
        for (let j = i + 1, at = i * size + j; j < size; j++, at++) solved[j] -= value * factor[at]
      }
      for (let j = 0; j < size; j++) out[row * k + start + order[j]] = solved[j]
    }
  }
  return out
}
