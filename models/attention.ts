import type { Value } from './graph/graph.ts'
import { knownDim } from './graph/graph.ts'
import {
  add,
  concat,
  matMul,
  mul,
  multiHeadAttention,
  reshape,
  reshapeTo,
  shapeOf,
  softmax,
  transpose,
} from './graph/ops.ts'
import { sizesOf } from './graph/sizes.ts'
import { constant } from './layers.ts'

/**
 * softmax(q·kᵀ/√d + bias)·v per head, over rows: q [n·t, c], k and v [n·s, c] -> [n·t, c]. `sample` is any value with n
 * as its first size; `bias` is [1, 1, t, s].
 */
export function attention(q: Value, k: Value, v: Value, heads: number, sample: Value, bias?: Value): Value {
  const { graph } = q
  const c = knownDim('attention', q, 1)
  const n = sample.shape[0]
  const split = (rows: Value, ...last: number[]) => {
    return reshapeTo(rows, sizesOf(sample, [0], -1, ...last), [n, null, ...last])
  }
  const joined = (mixed: Value): Value => ({ ...reshape(mixed, [-1, c]), shape: [q.shape[0], c] })
  if (graph.fusedAttention) return joined(multiHeadAttention(split(q, c), split(k, c), split(v, c), heads, bias))

  const d = c / heads
  const scaled = mul(q, constant(graph, [], [1 / Math.sqrt(d)]))
  const perHead = (rows: Value, perm: number[]) => transpose(split(rows, heads, d), perm)
  const scores = matMul(perHead(scaled, [0, 2, 1, 3]), perHead(k, [0, 2, 3, 1])) // [n, heads, t, s]
  const weights = softmax(bias ? add(scores, bias) : scores)
  return joined(transpose(matMul(weights, perHead(v, [0, 2, 1, 3])), [0, 2, 1, 3]))
}

/**
 * Every `stride`-th pixel of every `stride`-th row, as keys or values for queries at all pixels (ToDo, Smith et al. 2024):
 * rows [n·h·w, c] of a picture -> [n·⌈h/stride⌉·⌈w/stride⌉, c]. `stride` is an i64 vector of one number, 1 keeps all.
 */
export function everyOther(rows: Value, picture: Value, stride: Value): Value {
  const { graph } = rows
  const c = knownDim('everyOther', rows, 1)
  const vector = (...numbers: number[]) => graph.constant('i64', [numbers.length], numbers)
  const sides = graph.channelsLast ? shapeOf(picture, 1, 3) : shapeOf(picture, 2, 4)
  const grid = reshapeTo(rows, concat([shapeOf(picture, 0, 1), sides, vector(c)], 0), [picture.shape[0], null, null, c])
  const kept = graph.node(
    'Slice',
    [grid, vector(0, 0), vector(2 ** 31 - 1, 2 ** 31 - 1), vector(1, 2), concat([stride, stride], 0)],
    { type: rows.type, shape: [picture.shape[0], null, null, c] },
  )
  return reshape(kept, [-1, c])
}
