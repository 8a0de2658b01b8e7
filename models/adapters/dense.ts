import type { MatMul } from '../quantize/algebra.ts'
import { hadamardFactors, kroneckerFactors, loraFactors } from './factors.ts'
import type { LayerShape, Numbers, PartNumbers } from './numbers.ts'
import { layerShape, misfit, need, scaleOf } from './numbers.ts'
import { rotated } from './rotations.ts'
import type { AdapterPart } from './types.ts'

// Whole weights with adapters in them, for every kind (formats.md, section 5.5). Weights are [n, channels, taps] as files
// have them, float32; what is added up or normed is so in float64, large products are those of `matMul`.

/** One part of one adapter and what it weighs. */
export type Change = { part: AdapterPart; numbers: PartNumbers; weight: number }

/** Kinds whose change does not grow with their weight in a straight line, or depends on what is there already. */
export const comesLast = ({ kind, tensors }: AdapterPart): boolean =>
  tensors.magnitude !== undefined || kind === 'oft' || kind === 'boft'

/**
 * The weight of this shape with all changes in it: what adds up first, whatever its order, then DoRA and OFT one after
 * the other as they are listed. Two changes that add give the same numbers in any order.
 */
export async function changedWeight(
  base: Float32Array,
  shape: readonly number[],
  changes: readonly Change[],
  matMul: MatMul,
): Promise<Float32Array> {
  const sums = Float64Array.from(base)
  for (const { part, numbers, weight } of changes) {
    if (comesLast(part)) continue
    const change = await deltaOf(part, numbers, shape, base, matMul)
    if (change) addRows(part, sums, change, weight, layerShape(shape))
  }
  let current: Float64Array = sums
  for (const { part, numbers, weight } of changes) {
    if (!comesLast(part)) continue
    current = part.tensors.magnitude
      ? await decomposed(part, numbers, shape, current, weight, matMul)
      : rotated(part, numbers, shape, current, weight)
  }
  return Float32Array.from(current)
}

/** The bias [n] with all changes in it. */
export function changedBias(base: Float32Array, changes: readonly Change[]): Float32Array {
  const out = Float64Array.from(base)
  for (const { part, numbers, weight } of changes) {
    const { diff_b: change, up_bias: shift, ia3 } = numbers.tensors
    if (change) addRow(part, out, change.data, weight)
    if (shift) addRow(part, out, shift.data, weight * scaleOf(part, numbers, numbers.tensors.down?.shape[0]))
    // PEFT's vector multiplies what the layer puts out, its bias included.
    if (part.kind === 'ia3' && ia3 && isPeftVector(part, numbers) && !isOnInput(part, numbers, base.length)) {
      for (let i = 0; i < out.length; i++) out[i] += weight * base[i] * (ia3.data[i] - 1)
    }
  }
  return Float32Array.from(out)
}

/** Whether a part changes a layer's bias. */
export function changesBias({ kind, tensors, origin }: AdapterPart): boolean {
  return Boolean(
    tensors.diff_b || tensors.up_bias || (kind === 'ia3' && (origin === 'peft' || !isFlat(tensors.ia3?.shape))),
  )
}

/** Whether a part changes a layer's weight. */
export function changesWeight({ kind, tensors }: AdapterPart): boolean {
  switch (kind) {
    case 'diff':
      return tensors.diff !== undefined
    case 'lora':
      return tensors.down !== undefined || tensors.up !== undefined
    default:
      return true
  }
}

/**
 * What a part of a kind that adds up adds at weight 1, scale included: [rows, k], rows those of the part. `base` is the
 * unchanged weight, which IA3 and GLoRA multiply. Undefined when it changes no weight.
 */
export async function deltaOf(
  part: AdapterPart,
  numbers: PartNumbers,
  shape: readonly number[],
  base: Float32Array,
  matMul: MatMul,
): Promise<Float32Array | undefined> {
  if (!changesWeight(part)) return undefined
  const layer = layerShape(shape)
  const { n, channels, taps, k } = layer
  const timesScale = (values: Float32Array, rank: number | undefined) => {
    const scale = scaleOf(part, numbers, rank)
    if (scale !== 1) for (let i = 0; i < values.length; i++) values[i] *= scale
    return values
  }
  switch (part.kind) {
    case 'lora': {
      const { rank, down, up } = loraFactors(part, numbers, layer)
      return timesScale(await matMul(up, [up.length / rank, rank], down, [rank, k]), rank)
    }
    case 'loha': {
      const [one, two] = [1, 2].map((which) => hadamardFactors(part, numbers, layer, which as 1 | 2))
      const rows = one.a.length / one.rank
      const out = await matMul(one.a, [rows, one.rank], one.b, [one.rank, k])
      const other = await matMul(two.a, [rows, two.rank], two.b, [two.rank, k])
      for (let i = 0; i < out.length; i++) out[i] *= other[i]
      return timesScale(out, one.rank)
    }
    case 'lokr':
      return kroneckerDelta(part, numbers, layer)
    case 'ia3': {
      const vector = need(part, numbers, 'ia3').data
      const onInput = isOnInput(part, numbers, n)
      if (vector.length !== (onInput ? channels : n)) throw misfit(part, `its vector has ${vector.length} numbers`)
      const offset = isPeftVector(part, numbers) ? 1 : 0
      return base.map((value, i) => {
        const row = Math.floor(i / k)
        return value * (vector[onInput ? Math.floor((i - row * k) / taps) : row] - offset)
      })
    }
    case 'glora':
      return gloraDelta(part, numbers, layer, base, matMul)
    case 'diff':
      return need(part, numbers, 'diff').data
    case 'sparse': {
      const out = new Float32Array(n * k)
      const { data } = need(part, numbers, 'sparse_delta')
      const scale = scaleOf(part, numbers, undefined)
      numbers.places?.forEach((place, i) => (out[place] += scale * data[i]))
      return out
    }
    default:
      throw new Error(`${part.path}: ${part.kind} does not add up`)
  }
}

/**
 * DoRA over any kind that adds up: V · (1 + m · (D / ‖V‖ − 1)), V = W + m · ΔW, W what the changes before it made. At
 * weight 1 that is LyCORIS's and PEFT's formula; below it LyCORIS keeps all of ΔW, so that a weight near 0 would not be
 * near the model. Norms are over each output's inputs, or (older LyCORIS: D is [1, channels, …]) over each channel.
 */
async function decomposed(
  part: AdapterPart,
  numbers: PartNumbers,
  shape: readonly number[],
  current: Float64Array,
  weight: number,
  matMul: MatMul,
): Promise<Float64Array> {
  const layer = layerShape(shape)
  const { n, channels, taps, k } = layer
  const magnitudes = need(part, numbers, 'magnitude')
  const change = await deltaOf(part, numbers, shape, Float32Array.from(current), matMul)
  if (change) addRows(part, current, change, weight, layer)
  const perInput = part.origin !== 'peft' && isPerInput(magnitudes, layer)
  const count = perInput ? channels : n
  if (magnitudes.data.length !== count) throw misfit(part, `it has ${magnitudes.data.length} magnitudes, not ${count}`)

  const squares = new Float64Array(count)
  const groupOf = (i: number) => (perInput ? Math.floor((i % k) / taps) : Math.floor(i / k))
  for (let i = 0; i < current.length; i++) squares[groupOf(i)] += current[i] ** 2
  // LyCORIS's guard against rows of zeros: the smallest step of a float32 at 1.
  const factors = squares.map((square, i) => 1 + weight * (magnitudes.data[i] / (Math.sqrt(square) + 2 ** -23) - 1))
  for (let i = 0; i < current.length; i++) current[i] *= factors[groupOf(i)]
  return current
}

/** [out], [out, 1, …] are magnitudes of the outputs; [1, x, …] those of the inputs unless only the outputs fit. */
function isPerInput({ data, shape }: Numbers, { n, channels }: LayerShape): boolean {
  return shape.length > 1 && shape[0] === 1 && n !== 1 && data.length === channels
}

function kroneckerDelta(part: AdapterPart, numbers: PartNumbers, layer: LayerShape): Float32Array {
  const { one, two, rank } = kroneckerFactors(part, numbers, layer)
  const scale = scaleOf(part, numbers, rank)
  const width = two.inner * two.taps
  const out = new Float32Array(one.outer * two.outer * one.inner * width)
  for (let a = 0, at = 0; a < one.outer; a++) {
    for (let c = 0; c < two.outer; c++) {
      for (let b = 0; b < one.inner; b++) {
        const left = scale * one.whole[a * one.inner + b]
        for (let d = 0; d < width; d++) out[at++] = left * two.whole[c * width + d]
      }
    }
  }
  return out
}

/** W·a1·a2 + b1·b2, tap by tap for convolutions: a1 and a2 are over channels. */
async function gloraDelta(
  part: AdapterPart,
  numbers: PartNumbers,
  layer: LayerShape,
  base: Float32Array,
  matMul: MatMul,
): Promise<Float32Array> {
  const { n, channels, taps, k } = layer
  const [a1, a2, b1, b2] = (['a1', 'a2', 'b1', 'b2'] as const).map((role) => need(part, numbers, role))
  const r = a2.shape[0]
  const scale = scaleOf(part, numbers, r)
  const core = numbers.tensors.bm
  const asLora = { ...numbers, tensors: { down: b2, up: b1, ...(core ? { mid: core } : {}) } }
  const { rank, down, up } = loraFactors(part, asLora, layer)
  const out = await matMul(up, [n, rank], down, [rank, k])
  for (let tap = 0; tap < taps; tap++) {
    const plane = taps === 1 ? base : Float32Array.from({ length: n * channels }, (_, i) => base[i * taps + tap])
    const through = await matMul(plane, [n, channels], a1.data, [channels, r])
    const change = await matMul(through, [n, r], a2.data, [r, channels])
    for (let i = 0; i < change.length; i++) out[i * taps + tap] += change[i]
  }
  for (let i = 0; i < out.length; i++) out[i] *= scale
  return out
}

const isFlat = (shape: readonly number[] | undefined) => shape !== undefined && shape.length === 1

/** PEFT's vector multiplies; LyCORIS's, [n] for matrices and [1, n, 1, 1] for convolutions, is added to 1. */
function isPeftVector(part: AdapterPart, { tensors }: PartNumbers): boolean {
  const shape = tensors.ia3?.shape ?? []
  return part.origin === 'peft' || shape.length === 2
}

/** PEFT's vectors for inputs are [1, channels, …], those for outputs of matrices [n, 1]. */
function isOnInput(part: AdapterPart, numbers: PartNumbers, n: number): boolean {
  if (part.onInput !== undefined) return part.onInput
  const shape = numbers.tensors.ia3?.shape ?? []
  return isPeftVector(part, numbers) && shape.length === 2 && shape[0] === 1 && n !== 1
}

/** sums [n, k] += weight · change [rows, k], the rows that the part has. */
function addRows(
  part: AdapterPart,
  sums: Float64Array,
  change: Float32Array,
  weight: number,
  { n, k }: LayerShape,
): void {
  const [from, start, rows] = overlap(part, change.length / k, n)
  for (let i = 0, at = start * k, to = from * k; i < rows * k; i++) sums[to++] += weight * change[at++]
}

function addRow(part: AdapterPart, sums: Float64Array, change: Float32Array, weight: number): void {
  const [from, start, rows] = overlap(part, change.length, sums.length)
  for (let i = 0; i < rows; i++) sums[from + i] += weight * change[start + i]
}

/** First row of the layer, first row of the part, and how many: see `AdapterPart.rows`. */
function overlap(part: AdapterPart, rows: number, n: number): [number, number, number] {
  if (rows === n) return [0, 0, n]
  const [from, to] = part.rows ?? [0, 0]
  if (rows === to - from && to <= n) return [from, 0, rows]
  if (n === to - from && to <= rows) return [0, from, n]
  throw misfit(part, `it has ${rows} outputs where the layer has ${n}`)
}
