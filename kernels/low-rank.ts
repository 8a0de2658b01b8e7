import type { Value } from '../models/graph/graph.ts'
import { expectShape } from '../models/graph/graph.ts'
import { gemm } from '../models/graph/ops.ts'
import { castLate } from './late.ts'

/**
 * base + x·downᵀ·upᵀ: x [m, k], down [r, k], up [n, r], base [m, n] -> [m, n]: the branch that is stored beside a matrix
 * (adapters: slot.ts). Half floats are cast where they are used, so they may stay halves in memory.
 */
export function lowRank(x: Value, down: Value, up: Value, base: Value, name = 'low-rank'): Value {
  expectShape(name, base, [null, up.shape[0]])
  const hidden = gemm(x, castLate(down, x, x.type), undefined, { transB: true, name: `${name}.down` }) // [m, r]
  return gemm(hidden, castLate(up, x, x.type), base, { transB: true, name: `${name}.up` })
}
