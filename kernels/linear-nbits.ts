import type { Value } from '../models/graph/graph.ts'
import { expectShape } from '../models/graph/graph.ts'
import { cast, matMulNBits } from '../models/graph/ops.ts'

export type NBitsWeights = {
  /** u8 [n, groups, bytes of a group], as drawn in int4.ts. */
  codes: Value
  /** [n, groups]. */
  scales: Value
  bits: 4 | 8
  group: number
  k: number
  n: number
}

/** x [m, k] · wᵀ + bias over weights of 4 or 8 bits that stay as they are in memory -> [m, n]. */
export function linearNBits(x: Value, w: NBitsWeights, bias: Value | undefined, name: string): Value {
  const { codes, bits, group, k, n } = w
  const groups = Math.ceil(k / group)
  expectShape(name, x, [null, k])
  expectShape(name, codes, [n, groups, (group * bits) / 8])
  expectShape(name, w.scales, [n, groups])
  const scales = cast(w.scales, x.type)
  return matMulNBits(x, codes, scales, bias && cast(bias, x.type), { bits, group, k, n, accuracy: 4 }, name)
}
