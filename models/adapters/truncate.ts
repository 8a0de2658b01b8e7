import type { MatMul } from '../quantize/algebra.ts'
import { orthonormalizeRows, smallSvd } from '../quantize/algebra.ts'
import { truncatedSvd } from '../quantize/svd.ts'
import type { Factors } from './factors.ts'

/** Jacobi rotations take n³ steps a sweep; above this a randomised range finder is quicker and, for what is kept, as good. */
const jacobiSize = 96

/**
 * The best factors of at most `budget` ranks, and what they leave out: ‖ΔW − ΔW'‖ / ‖ΔW‖. Both factors are brought to
 * orthonormal rows first, so that the decomposition is of a square of the old rank.
 */
export async function truncateFactors(
  factors: Factors,
  budget: number,
  matMul: MatMul,
): Promise<{ factors: Factors; error: number }> {
  const { rank } = factors
  if (rank <= budget) return { factors, error: 0 }
  const [k, n] = [factors.down.length / rank, factors.up.length / rank]
  const down = Float64Array.from(factors.down)
  const up = Float64Array.from(factors.up)
  const [rDown, rUp] = [orthonormalizeRows(down, rank, k), orthonormalizeRows(up, rank, n)]
  // ΔW = upᵀ · down = newUpᵀ · (rUpᵀ · rDown) · newDown
  const inner = new Float64Array(rank * rank)
  for (let i = 0; i < rank; i++) {
    for (let j = 0; j < rank; j++) {
      let sum = 0
      for (let x = Math.max(i, j); x < rank; x++) sum += rUp[x * rank + i] * rDown[x * rank + j]
      inner[i * rank + j] = sum
    }
  }
  const power = inner.reduce((sum, value) => sum + value * value, 0)
  const { left, right, values } = await largest(inner, rank, budget, matMul)
  const kept = values.length
  const shares = values.map(Math.sqrt)
  const cut: Factors = {
    rank: kept,
    down: combine(right, down, kept, rank, k, shares),
    up: combine(left, up, kept, rank, n, shares),
  }
  const keptPower = values.reduce((sum, value) => sum + value * value, 0)
  return { factors: cut, error: power === 0 ? 0 : Math.sqrt(Math.max(0, 1 - keptPower / power)) }
}

/** The `count` largest singular triplets of a square a [n, n]; rows are the vectors. */
async function largest(a: Float64Array, n: number, count: number, matMul: MatMul) {
  if (n <= jacobiSize) {
    const { left, right, values } = smallSvd(a, n)
    return { left, right, values: values.slice(0, count) }
  }
  const found = await truncatedSvd(Float32Array.from(a), n, n, { rank: count, matMul, powerIterations: 4 })
  const left = new Float64Array(found.rank * n)
  for (let i = 0; i < found.rank; i++) {
    const value = found.values[i] || 1
    for (let j = 0; j < n; j++) left[i * n + j] = found.up[j * found.rank + i] / value
  }
  return { left, right: Float64Array.from(found.down), values: found.values }
}

/** share[i] · Σ vectors[i, j] · basis[j]: [count, length]. */
function combine(
  vectors: Float64Array,
  basis: Float64Array,
  count: number,
  rank: number,
  length: number,
  shares: Float64Array,
): Float32Array {
  const out = new Float32Array(count * length)
  const row = new Float64Array(length)
  for (let i = 0; i < count; i++) {
    row.fill(0)
    for (let j = 0; j < rank; j++) {
      const share = shares[i] * vectors[i * rank + j]
      for (let c = 0, at = j * length; c < length; c++, at++) row[c] += share * basis[at]
    }
    out.set(row, i * length)
  }
  return out
}
