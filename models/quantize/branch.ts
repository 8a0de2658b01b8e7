import type { Groups } from '../../kernels/int4.ts'
import { toFloat16, toFloat32 } from '../checkpoint/dtypes.ts'
import type { MatMul } from './algebra.ts'
import { fittingScales, roundToScales } from './scales.ts'
import { truncatedSvd } from './svd.ts'

/** A low-rank branch as the file keeps it, and what it leaves to the codes. */
export type Branch = {
  /** Bits of halves [rank, k] and [n, rank]. */
  down: Uint16Array
  up: Uint16Array
  /** up · down of those halves, [n, k]. */
  product: Float32Array
}

export type BranchOptions = {
  rank: number
  groups: Groups
  matMul: MatMul
  /** Times the decomposition may be repeated with the rounding error of the round before. */
  rounds: number
  powerIterations?: number
  /** Error of the layer with `weights` [n, k] in place of the true ones. */
  errorOf: (weights: Float32Array) => Promise<number>
}

/**
 * The branch for `target` [n, k]: its truncated SVD, then that of what the codes leave of it, over and over while the
 * error falls (SVDQuant, Li et al. 2024; deepcompressor's calib/lowrank). `weights` are branch plus nearest codes.
 */
export async function findBranch(
  target: Float32Array,
  { rank, groups, matMul, rounds, powerIterations, errorOf }: BranchOptions,
): Promise<{ branch: Branch | undefined; weights: Float32Array; error: number }> {
  const { n, k } = groups
  if (rank === 0) {
    const weights = roundToScales(target, groups, fittingScales(target, groups))
    return { branch: undefined, weights, error: await errorOf(weights) }
  }
  let best: { branch: Branch; weights: Float32Array; error: number } | undefined
  let wanted = target
  let start: Float32Array | undefined
  for (let round = 0; round < rounds; round++) {
    // From the second round on the last branch is a good guess, and one power iteration mends it.
    const found = await truncatedSvd(wanted, n, k, {
      rank,
      matMul,
      start,
      powerIterations: start ? 1 : powerIterations,
    })
    const down = toFloat16(found.down)
    const up = toFloat16(found.up)
    const halves = (bits: Uint16Array) => toFloat32(new Uint8Array(bits.buffer), 'F16')
    const product = await matMul(halves(up), [n, found.rank], halves(down), [found.rank, k])
    const rest = difference(target, product)
    const rounded = roundToScales(rest, groups, fittingScales(rest, groups))
    const weights = new Float32Array(target.length)
    for (let i = 0; i < weights.length; i++) weights[i] = rounded[i] + product[i]
    const error = await errorOf(weights)
    if (best && !(error < best.error)) break
    best = { branch: { down, up, product }, weights, error }
    if (round + 1 < rounds) wanted = difference(target, rounded)
    start = found.down
  }
  if (!best) throw new Error('a branch needs at least one round')
  return best
}

/** a - b */
export function difference(a: Float32Array, b: Float32Array): Float32Array {
  const out = new Float32Array(a.length)
  for (let i = 0; i < out.length; i++) out[i] = a[i] - b[i]
  return out
}

/** Σ (a - b)² */
export function squaredDistance(a: Float32Array, b: Float32Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2
  return sum
}
