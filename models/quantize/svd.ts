import type { MatMul } from './algebra.ts'
import { orthonormalizeRows, smallSvd } from './algebra.ts'

/** a [n, k] ≈ up · down. */
export type LowRank = {
  rank: number
  /** Orthonormal rows [rank, k]: right singular vectors, largest first. */
  down: Float32Array
  /** [n, rank]: left singular vectors times singular values. */
  up: Float32Array
  values: Float64Array
}

export type SvdOptions = {
  rank: number
  matMul: MatMul
  /** Rows [m, k] that are thought to lie near the right singular vectors; they save power iterations. */
  start?: Float32Array
  powerIterations?: number
  seed?: number
}

/** More directions than wanted ones, so that the last of those is found well, too. */
const oversampling = 8

/**
 * The `rank` largest singular triplets of a [n, k] by a randomised range finder with power iterations (Halko,
 * Martinsson and Tropp 2011, algorithms 4.4 and 5.1), the same for the same seed. Products are float32, bases float64.
 */
export async function truncatedSvd(a: Float32Array, n: number, k: number, options: SvdOptions): Promise<LowRank> {
  const { matMul, start, powerIterations = 2, seed = 1 } = options
  const count = Math.min(options.rank + oversampling, n, k)
  const rank = Math.min(options.rank, count)

  const first = gaussian(count * k, seed)
  if (start) first.set(start.subarray(0, Math.min(start.length, rank * k)))
  const orthonormal = (rows: Float32Array, length: number) => {
    const wide = Float64Array.from(rows)
    const r = orthonormalizeRows(wide, count, length)
    return { basis: Float32Array.from(wide), r }
  }

  // Rows of `left` [count, n] span the images of `right` [count, k], and the other way round.
  let right = first
  let left: Float32Array = new Float32Array(0)
  let r: Float64Array = new Float64Array(0)
  for (let i = 0; i <= powerIterations; i++) {
    left = orthonormal(await matMul(right, [count, k], a, [n, k], { transposeB: true }), n).basis
    const back = orthonormal(await matMul(left, [count, n], a, [n, k]), k)
    right = back.basis
    r = back.r
  }

  // a ≈ leftᵀ · left · a = leftᵀ · r · right, and r = Σ values · leftᵀright of its own.
  const inner = smallSvd(r, count)
  const pick = (rows: Float64Array) => Float32Array.from(rows.subarray(0, rank * count))
  const down = await matMul(pick(inner.right), [rank, count], right, [count, k])
  const vectors = await matMul(pick(inner.left), [rank, count], left, [count, n])
  const up = new Float32Array(n * rank)
  for (let i = 0; i < rank; i++) for (let j = 0; j < n; j++) up[j * rank + i] = vectors[i * n + j] * inner.values[i]
  return { rank, down, up, values: inner.values.slice(0, rank) }
}

/** Normally distributed numbers (Box and Muller over a 32-bit multiply-and-shift generator: mulberry32). */
function gaussian(count: number, seed: number): Float32Array {
  let state = seed >>> 0
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const out = new Float32Array(count)
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()))
    const angle = 2 * Math.PI * uniform()
    out[i] = radius * Math.cos(angle)
    if (i + 1 < count) out[i + 1] = radius * Math.sin(angle)
  }
  return out
}
