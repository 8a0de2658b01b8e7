import type { PartNumbers } from './numbers.ts'
import { layerShape, misfit, need } from './numbers.ts'
import type { AdapterPart } from './types.ts'

// Orthogonal fine-tuning: weights turned by small rotations, each the Cayley transform of a skew matrix Q (Qiu et al.
// 2023). Blocks [count, b, b] turn outputs as LyCORIS and kohya do; [stages, count, b, b] are butterfly stages (BOFT, Liu
// et al. 2024); [count, b · (b − 1) / 2], the upper triangles alone, turn inputs as PEFT does. At a weight m a rotation R
// is 1 + m · (R − 1), and a butterfly every stage of it, as in LyCORIS.

/** The weight [n, channels, taps] `current` turned by a part. */
export function rotated(
  part: AdapterPart,
  numbers: PartNumbers,
  shape: readonly number[],
  current: Float64Array,
  weight: number,
): Float64Array {
  const { n, k } = layerShape(shape)
  const blocks = need(part, numbers, 'oft_blocks')
  const rescale = numbers.tensors.oft_rescale
  if (blocks.shape.length === 2) return turnInputs(part, blocks.data, blocks.shape, current, n, k, weight)
  const [count, b] = blocks.shape.slice(-3)
  if (count * b !== n) throw misfit(part, `it turns ${count * b} outputs where the layer has ${n}`)

  const stages = blocks.data.length / (count * b * b)
  const skew = skewOf(blocks.data, b)
  // Its alpha is the largest norm that all of Q may have, in units of the outputs.
  limitNorm(skew, (part.scale.from === 'alpha' ? (numbers.stored ?? 0) : 0) * n)
  let rows = current
  if (blocks.shape.length === 4) {
    for (let stage = 0; stage < stages; stage++) {
      const half = 2 ** stage * (b / 2)
      const order = butterfly(n, half)
      const turns = rotations(skew.subarray(stage * count * b * b, (stage + 1) * count * b * b), b, weight)
      rows = turnRows(rows, k, turns, b, order, 'rows')
    }
  } else {
    rows = turnRows(rows, k, rotations(skew, b, weight), b, undefined, 'columns')
  }
  if (!rescale) return rows
  return rows.map((value, i) => value * rescale.data[Math.floor(i / k)])
}

/**
 * Rows of `weights` [n, k] mixed block by block. `order` says which row stands at each place of the blocks. New row i of a
 * block is Σ R[i, j] · row j, or with `columns` Σ R[j, i] · row j: the two kinds disagree about that.
 */
function turnRows(
  weights: Float64Array,
  k: number,
  turns: Float64Array,
  b: number,
  order: Int32Array | undefined,
  sumOver: 'rows' | 'columns',
): Float64Array {
  const n = weights.length / k
  const out = new Float64Array(weights.length)
  for (let place = 0; place < n; place++) {
    const [block, i] = [Math.floor(place / b), place % b]
    const to = (order?.[place] ?? place) * k
    for (let j = 0; j < b; j++) {
      const share = turns[block * b * b + (sumOver === 'rows' ? i * b + j : j * b + i)]
      if (share === 0) continue
      const other = block * b + j
      const from = (order?.[other] ?? other) * k
      for (let c = 0; c < k; c++) out[to + c] += share * weights[from + c]
    }
  }
  return out
}

/** Rows in pairs that lie `half` apart, as a butterfly takes them: [.., 2, half] -> [.., half, 2]. */
function butterfly(n: number, half: number): Int32Array {
  return Int32Array.from({ length: n }, (_, place) => {
    const group = Math.floor(place / (2 * half))
    const rest = place % (2 * half)
    return group * 2 * half + (rest % 2) * half + Math.floor(rest / 2)
  })
}

/** PEFT: x · R before the layer, so W' = W · Rᵀ over all inputs, taps included. */
function turnInputs(
  part: AdapterPart,
  triangles: Float32Array,
  shape: readonly number[],
  current: Float64Array,
  n: number,
  k: number,
  weight: number,
): Float64Array {
  const [stored, elements] = shape
  const b = Math.round((1 + Math.sqrt(1 + 8 * elements)) / 2)
  const count = k / b
  if ((b * (b - 1)) / 2 !== elements || !Number.isInteger(count) || (stored !== count && stored !== 1)) {
    throw misfit(part, `its blocks do not make up ${k} inputs`)
  }
  const skew = new Float64Array(stored * b * b)
  for (let block = 0, at = 0; block < stored; block++) {
    for (let i = 0; i < b; i++) {
      for (let j = i + 1; j < b; j++, at++) {
        skew[(block * b + i) * b + j] = triangles[at]
        skew[(block * b + j) * b + i] = -triangles[at]
      }
    }
  }
  const terms = part.neumannTerms ?? 5
  // Without the series PEFT's transform is that of −Q.
  const turns =
    terms > 0
      ? seriesOf(skew, b, terms, weight)
      : rotations(
          skew.map((value) => -value),
          b,
          weight,
        )
  const out = new Float64Array(current.length)
  for (let row = 0; row < n; row++) {
    for (let block = 0; block < count; block++) {
      const from = row * k + block * b
      const turn = stored === 1 ? 0 : block * b * b
      for (let i = 0; i < b; i++) {
        let sum = 0
        for (let j = 0; j < b; j++) sum += turns[turn + i * b + j] * current[from + j]
        out[from + i] = sum
      }
    }
  }
  return out
}

/** Q = A − Aᵀ of each block. */
function skewOf(blocks: Float32Array, b: number): Float64Array {
  const out = new Float64Array(blocks.length)
  for (let start = 0; start < blocks.length; start += b * b) {
    for (let i = 0; i < b; i++) {
      for (let j = 0; j < b; j++) out[start + i * b + j] = blocks[start + i * b + j] - blocks[start + j * b + i]
    }
  }
  return out
}

function limitNorm(skew: Float64Array, limit: number): void {
  if (!(limit > 0)) return
  const norm = Math.sqrt(skew.reduce((sum, value) => sum + value * value, 0)) + 1e-8
  if (norm > limit) for (let i = 0; i < skew.length; i++) skew[i] *= limit / norm
}

/** (1 + Q)·(1 − Q)⁻¹ of each block, blended with 1. The two factors commute. */
function rotations(skew: Float64Array, b: number, weight: number): Float64Array {
  const out = new Float64Array(skew.length)
  for (let start = 0; start < skew.length; start += b * b) {
    const q = skew.subarray(start, start + b * b)
    const left = q.map((value, i) => (isDiagonal(i, b) ? 1 : 0) - value)
    const right = q.map((value, i) => (isDiagonal(i, b) ? 1 : 0) + value)
    out.set(blend(solve(left, right, b), b, weight), start)
  }
  return out
}

/** 1 + 2Q + 2Q² + … + Qᵗ⁻¹, the last term once: what PEFT takes for the Cayley transform. */
function seriesOf(skew: Float64Array, b: number, terms: number, weight: number): Float64Array {
  const out = new Float64Array(skew.length)
  for (let start = 0; start < skew.length; start += b * b) {
    const q = skew.subarray(start, start + b * b)
    const sum = new Float64Array(b * b)
    for (let i = 0; i < b; i++) sum[i * b + i] = 1
    let power: Float64Array = q.slice()
    for (let exponent = 1; exponent < terms; exponent++) {
      const factor = exponent === terms - 1 && terms > 2 ? 1 : 2
      for (let i = 0; i < sum.length; i++) sum[i] += factor * power[i]
      power = times(power, q, b)
    }
    out.set(blend(sum, b, weight), start)
  }
  return out
}

const isDiagonal = (i: number, b: number) => i % (b + 1) === 0

const blend = (r: Float64Array, b: number, weight: number): Float64Array =>
  weight === 1 ? r : r.map((value, i) => weight * value + (isDiagonal(i, b) ? 1 - weight : 0))

function times(a: Float64Array, c: Float64Array, b: number): Float64Array {
  const out = new Float64Array(b * b)
  for (let i = 0; i < b; i++)
    for (let j = 0; j < b; j++) for (let x = 0; x < b; x++) out[i * b + x] += a[i * b + j] * c[j * b + x]
  return out
}

/** x of left · x = right, [b, b], by elimination. 1 − Q of a skew Q is never singular. */
function solve(left: Float64Array, right: Float64Array, b: number): Float64Array {
  for (let column = 0; column < b; column++) {
    let best = column
    for (let row = column + 1; row < b; row++) {
      if (Math.abs(left[row * b + column]) > Math.abs(left[best * b + column])) best = row
    }
    for (const matrix of [left, right]) swapRows(matrix, column, best, b)
    for (let row = 0; row < b; row++) {
      if (row === column) continue
      const factor = left[row * b + column] / left[column * b + column]
      if (factor === 0) continue
      for (let i = column; i < b; i++) left[row * b + i] -= factor * left[column * b + i]
      for (let i = 0; i < b; i++) right[row * b + i] -= factor * right[column * b + i]
    }
  }
  return right.map((value, i) => value / left[Math.floor(i / b) * (b + 1)])
}

function swapRows(matrix: Float64Array, one: number, other: number, b: number): void {
  if (one === other) return
  const kept = matrix.slice(one * b, (one + 1) * b)
  matrix.copyWithin(one * b, other * b, (other + 1) * b)
  matrix.set(kept, other * b)
}
