import type { Graph, Value } from './graph/graph.ts'
import { expectShape, knownDim } from './graph/graph.ts'
import {
  add,
  cast,
  concat,
  conv,
  cropTo,
  depthToSpace2,
  gather,
  gemm,
  instanceNormalization,
  layerNormalization,
  matMul,
  mul,
  multiHeadAttention,
  quickGelu,
  reshape,
  reshapeTo,
  shapeOf,
  softmax,
  transpose,
  upsampleNearest2,
} from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'

// The layers of torch.nn that the networks are made of. Only this file touches weights.

/** A weight in the type that the graph computes in; ONNX Runtime folds the Cast away when it loads the graph. */
function weight(graph: Graph, w: Weights, name: string, shape: readonly number[], dims?: readonly number[]): Value {
  return cast(graph.weight(w, name, shape, dims), graph.computeType)
}

/** A small constant in the type that the graph computes in. */
export function constant(graph: Graph, dims: readonly number[], numbers: ArrayLike<number>): Value {
  return cast(graph.constant('f32', dims, numbers), graph.computeType)
}

/**
 * nn.Linear: x [rows, in] -> [rows, out]. `isConv` says that the checkpoint keeps the matrix as a 1 × 1 convolution.
 * Rows are tokens of all pictures in the batch: Gemm takes the weight as it lies in the file, [out, in], and adds the
 * bias, which a MatMul over three axes would not.
 */
export function linear(w: Weights, x: Value, out: number, { bias = true, isConv = false } = {}): Value {
  const channels = knownDim(w.path, x, 1)
  expectShape(w.path, x, [null, channels])
  x.graph.layers.push({ path: w.path, kind: 'linear', input: x, node: x.graph.nodes.length })
  const matrix = weight(x.graph, w, 'weight', isConv ? [out, channels, 1, 1] : [out, channels], [out, channels])
  return gemm(x, matrix, bias ? weight(x.graph, w, 'bias', [out]) : undefined, { transB: true, name: w.path })
}

export type ConvOptions = {
  out: number
  kernel: 1 | 3
  stride?: 1 | 2
  bias?: boolean
  pads?: readonly [number, number, number, number]
}

/** nn.Conv2d: x [n, in, h, w] -> [n, out, h/stride, w/stride], zeros around it (`pads`: top, left, bottom, right). */
export function conv2d(w: Weights, x: Value, { out, kernel, stride = 1, bias = true, pads }: ConvOptions): Value {
  const channels = knownDim(w.path, x, 1)
  expectShape(w.path, x, [null, channels, null, null])
  const around = (kernel - 1) / 2
  const shape = { kernel, stride, pads: pads ?? ([around, around, around, around] as const) }
  x.graph.layers.push({ path: w.path, kind: 'conv', input: x, node: x.graph.nodes.length, ...shape })
  const filter = weight(x.graph, w, 'weight', [out, channels, kernel, kernel])
  // ONNX Runtime 1.30's WebGPU provider crashes on a Conv without a bias.
  const none = x.graph.dialect === 'webgpu' ? constant(x.graph, [out], new Array<number>(out).fill(0)) : undefined
  const shift = bias ? weight(x.graph, w, 'bias', [out]) : none
  return conv(x, filter, shift, shape, w.path)
}

/**
 * nn.GroupNorm over x [n, c, h, w]. As an InstanceNormalization of the groups, then scale and shift per channel:
 * 1.3 to 1.6 times as fast on the CPU as ONNX's GroupNormalization, which the WebGPU provider lacks.
 */
export function groupNorm(w: Weights, x: Value, groups: number, epsilon: number): Value {
  const { graph } = x
  const c = knownDim(w.path, x, 1)
  const ones = constant(graph, [groups], new Array<number>(groups).fill(1))
  const zeros = constant(graph, [groups], new Array<number>(groups).fill(0))
  // [n, groups, c/groups · h, w]: width stays an axis so that both reshapes need no sizes from the run.
  const grouped = instanceNormalization(reshape(x, [0, groups, -1, 0]), ones, zeros, epsilon)
  const normed = { ...reshape(grouped, [0, c, -1, 0]), shape: x.shape }
  const scaled = mul(normed, weight(graph, w, 'weight', [c], [c, 1, 1]))
  return add(scaled, weight(graph, w, 'bias', [c], [c, 1, 1]))
}

/** nn.LayerNorm over the last axis. */
export function layerNorm(w: Weights, x: Value, epsilon = 1e-5): Value {
  const c = knownDim(w.path, x, -1)
  return layerNormalization(x, weight(x.graph, w, 'weight', [c]), weight(x.graph, w, 'bias', [c]), epsilon, w.path)
}

/** nn.Embedding: ids [...] -> [..., d]. The few rows are cast, not the table, which stays as it is stored. */
export function embedding(w: Weights, ids: Value, rows: number, d: number): Value {
  const { graph } = ids
  return cast(gather(graph.weight(w, 'weight', [rows, d]), ids), graph.computeType)
}

/** A table of learned positions as a constant [1, rows, d]. */
export function positionTable(graph: Graph, w: Weights, rows: number, d: number): Value {
  return weight(graph, w, 'weight', [rows, d], [1, rows, d])
}

/** x · sigmoid(x). */
export function silu(x: Value): Value {
  return quickGelu(x, 1)
}

/**
 * softmax(q·kᵀ/√d + bias)·v per head, over rows: q [n·t, c], k and v [n·s, c] -> [n·t, c]. `sample` is any value with n
 * as its first size; `bias` is [1, 1, t, s].
 */
export function attention(q: Value, k: Value, v: Value, heads: number, sample: Value, bias?: Value): Value {
  const { graph } = q
  const c = knownDim('attention', q, 1)
  const n = sample.shape[0]
  const split = (rows: Value, ...last: number[]) => {
    const sizes = concat([shapeOf(sample, 0, 1), graph.constant('i64', [1 + last.length], [-1, ...last])], 0)
    return reshapeTo(rows, sizes, [n, null, ...last])
  }
  if (graph.fusedAttention)
    return reshape(multiHeadAttention(split(q, c), split(k, c), split(v, c), heads, bias), [-1, c])

  const d = c / heads
  const scaled = mul(q, constant(graph, [], [1 / Math.sqrt(d)]))
  const perHead = (rows: Value, perm: number[]) => transpose(split(rows, heads, d), perm)
  const scores = matMul(perHead(scaled, [0, 2, 1, 3]), perHead(k, [0, 2, 3, 1])) // [n, heads, t, s]
  const weights = softmax(bias ? add(scores, bias) : scores)
  return reshape(transpose(matMul(weights, perHead(v, [0, 2, 1, 3])), [0, 2, 1, 3]), [-1, c])
}

/** Nearest neighbour to twice the size, cut to the size of `like` when given: halving an odd side rounded up. */
export function upsample(x: Value, like?: Value): Value {
  const doubled = upsampleNearest2(x)
  return like ? cropTo(doubled, shapeOf(like, 2, 4), [like.shape[2], like.shape[3]]) : doubled
}

/**
 * Nearest neighbour to twice the size, then nn.Conv2d of 3 × 3, as one: x [n, in, h, w] -> [n, out, 2h, 2w]. Among nine
 * neighbours of a doubled pixel only four differ, so each of the four pixels of a square is a 2 × 2 convolution of the
 * small picture with sums of the weights: 4/9 of the work. The sums are folded when ONNX Runtime loads the graph.
 */
export function upsampleConv2d(w: Weights, x: Value, out: number): Value {
  const { graph } = x
  const channels = knownDim(w.path, x, 1)
  const shape = { kernel: 3, stride: 1, pads: [1, 1, 1, 1], upsampled: true } as const
  graph.layers.push({ path: w.path, kind: 'conv', input: x, node: graph.nodes.length, ...shape })
  const taps = cast(graph.weight(w, 'weight', [out, channels, 3, 3], [out * channels, 9]), 'f32')
  const bias = weight(graph, w, 'bias', [out])
  // Rows (or columns) of the 3 × 3 that fall on the first and second of two: for the upper pixel 0 | 1 2, the lower 0 1 | 2.
  const falls = [
    [[0], [1, 2]],
    [[0, 1], [2]],
  ]
  const squares = falls.flatMap((rows, below) =>
    falls.map((columns, right) => {
      const sums = new Float32Array(9 * 4) // [9 taps, 4 taps]
      rows.forEach((ys, y) =>
        columns.forEach((xs, x) => ys.forEach((dy) => xs.forEach((dx) => (sums[(3 * dy + dx) * 4 + 2 * y + x] = 1)))),
      )
      const filter = reshape(matMul(taps, graph.constant('f32', [9, 4], sums)), [out, channels, 2, 2])
      const pads = [1 - below, 1 - right, below, right] as const
      return conv(x, cast(filter, graph.computeType), bias, { kernel: 2, stride: 1, pads }, w.path)
    }),
  )
  return depthToSpace2(concat(squares, 1))
}
