import { convolve, im2col, rowsToPicture, stripsFor } from '../kernels/im2col.ts'
import { convInt8 } from '../kernels/linear-int8.ts'
import { slotConv, slotConvFirst } from '../kernels/slot.ts'
import type { Dim, Graph, Layer, Value } from './graph/graph.ts'
import { expectShape, knownDim } from './graph/graph.ts'
import {
  add,
  cast,
  concat,
  conv,
  cropTo,
  depthToSpace2,
  div,
  expandTo,
  gather,
  instanceNormalization,
  layerNormalization,
  matMul,
  mul,
  quickGelu,
  reduceSumLast,
  reshape,
  reshapeTo,
  shapeOf,
  sqrt,
  sub,
  transpose,
  upsampleNearest2,
} from './graph/ops.ts'
import { once, productOf, sizeOf, sizesOf } from './graph/sizes.ts'
import type { Weights } from './graph/weights.ts'
import { columnsOf, isLive, matrix, slotOf, storedForm, weight, type StoredForm } from './matrix.ts'

// The layers of torch.nn that the networks are made of. Only this file and matrix.ts touch weights. Pictures are
// [n, c, h, w], or [n, h, w, c] where the graph is `channelsLast`.

/** A small constant in the type that the graph computes in. */
export function constant(graph: Graph, dims: readonly number[], numbers: ArrayLike<number>): Value {
  return cast(graph.constant('f32', dims, numbers), graph.computeType)
}

/** The axis of the channels of a picture: [n, c, h, w], or [n, h, w, c] where the graph is `channelsLast`. */
export const channelAxis = (graph: Graph): 1 | 3 => (graph.channelsLast ? 3 : 1)

export type LinearOptions = {
  bias?: boolean
  /** The checkpoint keeps the matrix as a 1 × 1 convolution. */
  isConv?: boolean
  /** The rows come straight from a norm, so that they are of one size. */
  isNormed?: boolean
}

/**
 * nn.Linear: x [rows, in] -> [rows, out]. Rows are tokens of all pictures in the batch: Gemm takes the weight as it lies
 * in the file, [out, in], and adds the bias, which a MatMul over three axes would not.
 */
export function linear(
  w: Weights,
  x: Value,
  out: number,
  { bias = true, isConv = false, isNormed = false }: LinearOptions = {},
): Value {
  const channels = knownDim(w.path, x, 1)
  expectShape(w.path, x, [null, channels])
  x.graph.layers.push({ path: w.path, kind: 'linear', input: x, node: x.graph.nodes.length })
  const shape = isConv ? [out, channels, 1, 1] : [out, channels]
  return matrix(x.graph, w, channels, { out, bias, shape, per: isNormed ? 'tensor' : 'token' })(x)
}

/**
 * Two halves of one nn.Linear, x [rows, in] from a norm -> 2 × [rows, out / 2]: two products over half the weights each,
 * where cutting the result would copy all of it (of a GEGLU over 4096 rows of floats 14 % of its time).
 */
export function linearHalves(w: Weights, x: Value, out: number, names: readonly [string, string]): [Value, Value] {
  const channels = knownDim(w.path, x, 1)
  x.graph.layers.push({ path: w.path, kind: 'linear', input: x, node: x.graph.nodes.length })
  const half = (index: 0 | 1) => {
    const rows = [(index * out) / 2, ((index + 1) * out) / 2] as const
    const columns = w.at(names[index])
    return matrix(x.graph, w, channels, { out, bias: true, rows, columns, per: 'tensor' })(x)
  }
  return [half(0), half(1)]
}

export type ConvOptions = {
  out: number
  kernel: 1 | 3
  stride?: 1 | 2
  bias?: boolean
  pads?: readonly [number, number, number, number]
}

/**
 * nn.Conv2d: x [n, in, h, w] -> [n, out, h/stride, w/stride], or channels last, zeros around it (`pads`: top, left,
 * bottom, right).
 */
export function conv2d(w: Weights, x: Value, { out, kernel, stride = 1, bias = true, pads }: ConvOptions): Value {
  const { graph } = x
  const channels = knownDim(w.path, x, channelAxis(graph))
  const around = (kernel - 1) / 2
  const shape = { kernel, stride, pads: pads ?? ([around, around, around, around] as const) }
  graph.layers.push({ path: w.path, kind: 'conv', input: x, node: graph.nodes.length, ...shape })
  if (kernel === 1 && (graph.channelsLast || slotOf(graph, w.path, channels, out))) {
    const multiply = matrix(graph, w, channels, { out, bias, shape: [out, channels, 1, 1] })
    return rowsToPixels(multiply(pixelsToRows(x)), x)
  }
  const base = convolution(w, x, { out, bias, ...shape })
  // Codes multiply rows of neighbourhoods, and the adapter does so with them.
  const isProduct = graph.channelsLast && ['q4', 'q8'].includes(formOf(graph, w))
  const slot = isProduct ? undefined : slotOf(graph, w.path, 9 * channels, out)
  if (!slot) return base
  return graph.channelsLast ? slotConv(x, slot, base, shape, w.path) : slotConvFirst(x, slot, base, shape, w.path)
}

const formOf = (graph: Graph, w: Weights): StoredForm => (isLive(graph, w) ? 'floats' : storedForm(w))

/** The convolution by itself, in whichever form its weights are stored. */
function convolution(w: Weights, x: Value, { out, bias, kernel, stride, pads }: Required<ConvOptions>): Value {
  const { graph } = x
  const channels = knownDim(w.path, x, channelAxis(graph))
  const shape = { kernel, stride, pads }
  const form = formOf(graph, w)
  if (graph.channelsLast && form === 'columns') {
    const shift = bias ? weight(graph, w, 'bias', [out]) : undefined
    return convInt8(x, columnsOf(graph, w, 9 * channels, out), shift, { stride, pads, name: w.path })
  }
  if (graph.channelsLast && form !== 'floats') {
    const multiply = matrix(graph, w, 9 * channels, { out, bias })
    const strips = graph.dialect === 'cpu' ? stripsFor(channels, out) : 1 // graphics cards want few and large pieces of work
    return convolve(x, { stride, pads, strips }, multiply)
  }

  expectShape(w.path, x, graph.channelsLast ? [null, null, null, channels] : [null, channels, null, null])
  const filter = weight(graph, w, 'weight', [out, channels, kernel, kernel])
  // ONNX Runtime 1.30's WebGPU provider crashes on a Conv without a bias.
  const none = graph.dialect === 'webgpu' ? constant(graph, [out], new Array<number>(out).fill(0)) : undefined
  const shift = bias ? weight(graph, w, 'bias', [out]) : none
  return pictureFromNchw(conv(pictureToNchw(x), filter, shift, shape, w.path))
}

/** A picture of the graph's layout from one with its channels in front, which is how networks take and give them. */
export function pictureFromNchw(x: Value): Value {
  return x.graph.channelsLast ? transpose(x, [0, 2, 3, 1]) : x
}

/** The way back. */
export function pictureToNchw(x: Value): Value {
  return x.graph.channelsLast ? transpose(x, [0, 3, 1, 2]) : x
}

/** A picture -> one row per pixel [n·h·w, c], row-major in h and w. */
export function pixelsToRows(x: Value): Value {
  const c = knownDim('pixelsToRows', x, channelAxis(x.graph))
  if (x.graph.channelsLast) return { ...reshape(x, [-1, c]), shape: [productOf(x.shape.slice(0, 3)), c] }
  const rows = reshape(transpose(reshape(x, [0, c, -1]), [0, 2, 1]), [-1, c])
  return { ...rows, shape: [productOf([x.shape[0], ...x.shape.slice(2)]), c] }
}

/** The way back: rows [n·h·w, c] -> a picture with the sizes of `like`. */
export function rowsToPixels(rows: Value, like: Value): Value {
  const c = knownDim('rowsToPixels', rows, 1)
  const { graph } = rows
  if (graph.channelsLast) return rowsToPicture(rows, like)
  const [n, , h, w] = like.shape
  const tokens = reshapeTo(rows, concat([shapeOf(like, 0, 1), graph.constant('i64', [2], [-1, c])], 0), [n, null, c])
  const sizes = concat([shapeOf(like, 0, 1), graph.constant('i64', [1], [c]), shapeOf(like, 2, 4)], 0)
  return reshapeTo(transpose(tokens, [0, 2, 1]), sizes, [n, c, h, w])
}

/**
 * The rows that a layer multiplies its matrix with: [rows, in], or [rows, 9 · in] in the order (y, x, channel) for a 3 × 3
 * convolution. For calibration; adds nodes to the graph of `layer.input`, which must be channels last.
 */
export function layerRows(layer: Layer): Value {
  if (layer.kind === 'linear') return layer.input
  if (layer.kernel === 1) return pixelsToRows(layer.input)
  return im2col(layer.input, { stride: layer.stride, pads: layer.pads })
}

/**
 * nn.GroupNorm over a picture. As an InstanceNormalization of the groups, then scale and shift per channel: 1.3 to 1.6
 * times as fast on the CPU as ONNX's GroupNormalization, which the WebGPU provider lacks.
 */
export function groupNorm(w: Weights, x: Value, groups: number, epsilon: number): Value {
  const { graph } = x
  if (graph.channelsLast) return groupNormLast(w, x, groups, epsilon)
  const c = knownDim(w.path, x, 1)
  const ones = constant(graph, [groups], new Array<number>(groups).fill(1))
  const zeros = constant(graph, [groups], new Array<number>(groups).fill(0))
  // [n, groups, c/groups · h, w]: width stays an axis so that both reshapes need no sizes from the run.
  const grouped = instanceNormalization(reshape(x, [0, groups, -1, 0]), ones, zeros, epsilon)
  const normed = { ...reshape(grouped, [0, c, -1, 0]), shape: x.shape }
  const scaled = mul(normed, weight(graph, w, 'weight', [c], [c, 1, 1]))
  return add(scaled, weight(graph, w, 'bias', [c], [c, 1, 1]))
}

/**
 * nn.GroupNorm over x [n, h, w, c]: sums over the pixels are products with a row of ones, 5 to 20 times as fast as
 * ReduceMean over an inner axis. The mean is taken off before squaring: a difference of two large means would lose what
 * a picture far from 0 varies by.
 */
function groupNormLast(w: Weights, x: Value, groups: number, epsilon: number): Value {
  const { graph } = x
  const c = knownDim(w.path, x, 3)
  const size = c / groups
  const pixels = reshape(cast(x, 'f32'), [0, -1, c]) // [n, h·w, c]
  const ones = onesRow(x) // [1, h·w]
  const share = div(graph.constant('f32', [1], [1 / size]), reduceSumLast(ones)) // of one element in its group
  /** Mean over each group of v [n, h·w, c]: [n, groups, 1]. */
  const groupMean = (v: Value) => mul(reduceSumLast(reshape(matMul(ones, v), [0, groups, size])), share)
  /** [n, groups, size], perhaps with 1 for a size -> [n, 1, c]. */
  const perChannel = (v: Value) =>
    reshape(v.shape[2] === 1 ? expandTo(v, graph.constant('i64', [3], [1, 1, size]), [v.shape[0], groups, size]) : v, [
      0,
      1,
      c,
    ])

  const centred = sub(pixels, perChannel(groupMean(pixels)))
  const variance = groupMean(mul(centred, centred)) // [n, groups, 1]
  const deviation = sqrt(add(variance, graph.constant('f32', [], [epsilon])))
  const factors = weight(graph, w, 'weight', [c], [1, groups, size], undefined, 'f32')
  const scaled = mul(centred, perChannel(div(factors, deviation)))
  const normed = add(scaled, weight(graph, w, 'bias', [c], undefined, undefined, 'f32'))
  return cast(reshapeTo(normed, sizesOf(x, [0, 1, 2], c), x.shape), graph.computeType)
}

/** A one for each pixel of a picture x [n, h, w, c]: [1, h·w]. */
function onesRow(x: Value): Value {
  const { graph } = x
  const [, h, w] = x.shape
  const make = () => {
    const to = concat([graph.constant('i64', [1], [1]), mul(sizeOf(x, 1), sizeOf(x, 2))], 0)
    return expandTo(graph.constant('f32', [1, 1], [1]), to, [1, null])
  }
  return h === null || w === null ? make() : once(graph, `ones ${h}·${w}`, make)
}

/** nn.LayerNorm over the last axis. */
export function layerNorm(w: Weights, x: Value, epsilon = 1e-5): Value {
  const c = knownDim(w.path, x, -1)
  return layerNormalization(x, weight(x.graph, w, 'weight', [c]), weight(x.graph, w, 'bias', [c]), epsilon, w.path)
}

/**
 * nn.Embedding: ids [...] -> [..., d]. On the CPU the few rows are cast and not the table, which stays as it is stored;
 * graphics cards may have no half floats to look up, so there the table is cast when the graph is loaded.
 */
export function embedding(w: Weights, ids: Value, rows: number, d: number): Value {
  const { graph } = ids
  const table = graph.weight(w, 'weight', [rows, d])
  if (graph.dialect === 'webgpu') return gather(cast(table, graph.computeType), ids)
  return cast(gather(table, ids), graph.computeType)
}

/** A table of learned positions as a constant [1, rows, d]. */
export function positionTable(graph: Graph, w: Weights, rows: number, d: number): Value {
  return weight(graph, w, 'weight', [rows, d], [1, rows, d])
}

/** x · sigmoid(x). */
export function silu(x: Value): Value {
  return quickGelu(x, 1)
}

/** Nearest neighbour to twice the size, cut to the size of `like` when given: halving an odd side rounded up. */
export function upsample(x: Value, like?: Value): Value {
  if (x.graph.channelsLast) return upsampleLast(x, like)
  const doubled = upsampleNearest2(x)
  return like ? cropTo(doubled, shapeOf(like, 2, 4), [like.shape[2], like.shape[3]], 2) : doubled
}

/** x [n, h, w, c]: what stands next to itself is copied whole, so pixels are doubled along the axis after them. */
function upsampleLast(x: Value, like?: Value): Value {
  const { graph } = x
  const [n, h, w] = x.shape
  const c = knownDim('upsample', x, 3)
  const twice = (dim: Dim) => (typeof dim === 'number' ? 2 * dim : null)
  const wide = { ...reshape(concat([x, x], 3), [0, 0, -1, c]), shape: [n, h, twice(w), c] }
  const sizes = concat([graph.constant('i64', [2], [0, -1]), shapeOf(wide, 2, 4)], 0)
  const doubled = reshapeTo(concat([wide, wide], 2), sizes, [n, twice(h), twice(w), c])
  return like ? cropTo(doubled, sizesOf(like, [1, 2]), [like.shape[1], like.shape[2]], 1) : doubled
}

/** Pictures side by side along their channels. */
export function concatChannels(pictures: readonly Value[]): Value {
  return concat(pictures, channelAxis(pictures[0].graph))
}

/** x [n, c, h, w] or channels last, plus one number per picture and channel [n, c]. */
export function addPerChannel(x: Value, shift: Value): Value {
  const c = knownDim('addPerChannel', shift, 1)
  return add(x, reshape(shift, x.graph.channelsLast ? [0, 1, 1, c] : [0, c, 1, 1]))
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
