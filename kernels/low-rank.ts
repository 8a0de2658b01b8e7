import type { Value } from '../models/graph/graph.ts'
import { expectShape } from '../models/graph/graph.ts'
import { gemm } from '../models/graph/ops.ts'

/**
 * base + x·downᵀ·upᵀ: x [m, k], down [r, k], up [n, r], base [m, n] -> [m, n]. The rank may be 0 and may be known to the
 * run only. Several branches are one whose `down` and `up` are concatenated along the rank.
 */
export function lowRank(x: Value, down: Value, up: Value, base: Value, name = 'low-rank'): Value {
  expectShape(name, base, [null, up.shape[0]])
  const hidden = gemm(x, down, undefined, { transB: true, name: `${name}.down` }) // [m, r]
  return gemm(hidden, up, base, { transB: true, name: `${name}.up` })
}
