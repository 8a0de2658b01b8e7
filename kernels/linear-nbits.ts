import type { Value } from '../models/graph/graph.ts'
import { expectShape } from '../models/graph/graph.ts'
import {
  add,
  cast,
  dequantizeLinear,
  expandTo,
  gemm,
  matMulNBits,
  reshape,
  reshapeTo,
  slice,
} from '../models/graph/ops.ts'
import type { Bits } from './int4.ts'
import { groupCount } from './int4.ts'
import { castLate, zeroOf } from './late.ts'

export type NBitsWeights = {
  /** u8 [n, groups, bytes of a group], as drawn in int4.ts. */
  codes: Value
  /** [n, groups], f16 or f32. Halves are cast by the run, so they can stay halves in memory. */
  scales: Value
  bits: Bits
  group: number
  k: number
  n: number
}

/**
 * MatMulNBits' accuracy_level for arithmetic in float32. 4 rounds the activations to bytes by groups: no faster for more
 * than one row, a bit more for each weight once loaded, and on the CPU silently wrong with scales that are not constant.
 */
const float32 = 1

/** x [m, k] · wᵀ + bias over weights that stay packed in memory -> [m, n]. */
export function linearNBits(x: Value, w: NBitsWeights, bias: Value | undefined, name: string): Value {
  const { codes, bits, group, k, n } = w
  const groups = groupCount(k, group)
  expectShape(name, x, [null, k])
  expectShape(name, codes, [n, groups, (group * bits) / 8])
  expectShape(name, w.scales, [n, groups])
  const scales = castLate(w.scales, x, x.type)
  const shift = bias && cast(bias, x.type)
  if (bits === 8 && x.graph.dialect === 'cpu') return linearOfBytes(x, { ...w, scales }, shift, name)
  return matMulNBits(x, codes, scales, shift, { bits, group, k, n, accuracy: float32 }, name)
}

/**
 * 8 bits on the CPU: the run makes the floats of this one layer (0.4 to 1 ns each) and a Gemm multiplies them. ONNX
 * Runtime does not fold a DequantizeLinear, and its MatMulNBits takes five times as long to do the same.
 */
function linearOfBytes(x: Value, w: NBitsWeights, bias: Value | undefined, name: string): Value {
  const { codes, scales, group, k, n } = w
  const { graph } = x
  const groups = groupCount(k, group)
  // Sizes that wait for x, see late.ts: else floats of all layers would be made at once.
  const sizes = (...numbers: number[]) => add(graph.constant('i64', [numbers.length], numbers), zeroOf(x))
  const bytes = reshapeTo(codes, sizes(n * groups, group), [n * groups, group])
  const zeros = expandTo(graph.constant('u8', [1], [128]), sizes(n * groups), [n * groups])
  const floats = dequantizeLinear(bytes, reshape(scales, [n * groups]), zeros, 0)
  const matrix = reshape(floats, [n, groups * group])
  return gemm(x, groups * group === k ? matrix : slice(matrix, 1, 0, k), bias, { transB: true, name })
}
