import type { Dim, ElementType, Value } from './graph.ts'
import { expectShape, knownDim } from './graph.ts'

// One function per ONNX operator (opset 20, and ONNX Runtime's com.microsoft): it knows the operator's inputs and
// attributes and what shape comes out. Nothing here knows of weights or networks.

const domain = 'com.microsoft'

/** Sizes of two tensors broadcast against each other, aligned at the right. */
function broadcast(a: readonly Dim[], b: readonly Dim[]): Dim[] {
  const rank = Math.max(a.length, b.length)
  return Array.from({ length: rank }, (_, i) => {
    const left = i < rank - a.length ? 1 : a[i - rank + a.length]
    const right = i < rank - b.length ? 1 : b[i - rank + b.length]
    if (left === 1) return right
    if (right === 1 || left === right) return left
    if (typeof left === 'number' && typeof right === 'number')
      throw new Error(`sizes ${left} and ${right} do not broadcast`)
    return typeof left === 'number' ? left : right
  })
}

function elementwise(op: string, a: Value, b: Value): Value {
  return a.graph.node(op, [a, b], { type: a.type, shape: broadcast(a.shape, b.shape) })
}

export const add = (a: Value, b: Value): Value => elementwise('Add', a, b)
export const sub = (a: Value, b: Value): Value => elementwise('Sub', a, b)
export const mul = (a: Value, b: Value): Value => elementwise('Mul', a, b)
export const div = (a: Value, b: Value): Value => elementwise('Div', a, b)

const unary = (op: string, x: Value): Value => x.graph.node(op, [x], x)

export const sigmoid = (x: Value): Value => unary('Sigmoid', x)
export const tanh = (x: Value): Value => unary('Tanh', x)
export const relu = (x: Value): Value => unary('Relu', x)
export const sin = (x: Value): Value => unary('Sin', x)
export const sqrt = (x: Value): Value => unary('Sqrt', x)
export const cos = (x: Value): Value => unary('Cos', x)

/** Exact GELU, x · Φ(x) by the error function. */
export const gelu = (x: Value): Value => x.graph.node('Gelu', [x], x, { domain })

/** x · sigmoid(alpha · x): CLIP's GELU with alpha 1.702, SiLU with 1. */
export const quickGelu = (x: Value, alpha: number): Value =>
  x.graph.node('QuickGelu', [x], x, { domain, attributes: { alpha: { float: alpha } } })

export function clip(x: Value, low: number, high: number): Value {
  const bound = (value: number) => x.graph.constant(x.type, [], [value])
  return x.graph.node('Clip', [x, bound(low), bound(high)], x)
}

const onnxTypes: Record<ElementType, number> = { f32: 1, u8: 2, i8: 3, i32: 6, i64: 7, bool: 9, f16: 10 }

/** `x` itself when it has the type already. */
export function cast(x: Value, type: ElementType): Value {
  return x.type === type
    ? x
    : x.graph.node('Cast', [x], { type, shape: x.shape }, { attributes: { to: onnxTypes[type] } })
}

/** a [m, k] · b [k, n] + c, with b stored as [n, k] when `transB`. */
export function gemm(a: Value, b: Value, c: Value | undefined, { transB = false, name = 'Gemm' } = {}): Value {
  const n = b.shape[transB ? 0 : 1]
  expectShape(name, a, [null, b.shape[transB ? 1 : 0]])
  return a.graph.node(
    'Gemm',
    [a, b, c],
    { type: a.type, shape: [a.shape[0], n] },
    { name, attributes: transB ? { transB: 1 } : {} },
  )
}

export function matMul(a: Value, b: Value): Value {
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2))
  return a.graph.node('MatMul', [a, b], {
    type: a.type,
    shape: [...batch, a.shape.at(-2) ?? null, b.shape.at(-1) ?? null],
  })
}

export type ConvShape = {
  kernel: number
  stride: number
  /** Zeros added: top, left, bottom, right. */
  pads: readonly [number, number, number, number]
}

/** x [n, c, h, w], weight [out, c, k, k], bias [out] -> [n, out, h', w']. */
export function conv(
  x: Value,
  weight: Value,
  bias: Value | undefined,
  { kernel, stride, pads }: ConvShape,
  name = 'Conv',
): Value {
  const size = (dim: Dim, before: number, after: number): Dim => {
    if (typeof dim === 'number') return Math.floor((dim + before + after - kernel) / stride) + 1
    if (dim === null || before + after !== kernel - 1) return null
    return stride === 1 ? dim : `${dim}/${stride}` // rounded up; see sizes.ts
  }
  const shape = [x.shape[0], weight.shape[0], size(x.shape[2], pads[0], pads[2]), size(x.shape[3], pads[1], pads[3])]
  return x.graph.node(
    'Conv',
    [x, weight, bias],
    { type: x.type, shape },
    {
      name,
      attributes: { kernel_shape: [kernel, kernel], strides: [stride, stride], pads },
    },
  )
}

/** Mean 0 and variance 1 over everything but the first two axes, then · scale + bias per channel. */
export function instanceNormalization(x: Value, scale: Value, bias: Value, epsilon: number): Value {
  return x.graph.node('InstanceNormalization', [x, scale, bias], x, { attributes: { epsilon: { float: epsilon } } })
}

/** Over the last axis. */
export function layerNormalization(x: Value, scale: Value, bias: Value, epsilon: number, name?: string): Value {
  return x.graph.node('LayerNormalization', [x, scale, bias], x, {
    name,
    attributes: { axis: -1, epsilon: { float: epsilon } },
  })
}

/** softmax(q·kᵀ/√d + bias)·v per head; q [n, t, c], k and v [n, s, c], bias [n or 1, heads or 1, t, s] -> [n, t, c]. */
export function multiHeadAttention(q: Value, k: Value, v: Value, heads: number, bias?: Value): Value {
  const none = undefined
  return q.graph.node('MultiHeadAttention', bias ? [q, k, v, none, none, bias] : [q, k, v], q, {
    domain,
    attributes: { num_heads: heads },
  })
}

/** Over the last axis. */
export const softmax = (x: Value): Value => x.graph.node('Softmax', [x], x, { attributes: { axis: -1 } })

export function concat(values: readonly Value[], axis: number): Value {
  const [first] = values
  const sizes = values.map((value) => value.shape[axis])
  const total = sizes.every((size) => typeof size === 'number') ? sizes.reduce((sum, size) => sum + size, 0) : null
  const shape = first.shape.map((dim, i) => (i === axis ? total : dim))
  return first.graph.node('Concat', values, { type: first.type, shape }, { attributes: { axis } })
}

/** 0 keeps the size at the same position, −1 takes what is left. */
export function reshape(x: Value, to: readonly number[]): Value {
  const shape = to.map((dim, i): Dim => {
    if (dim !== -1) return dim === 0 ? x.shape[i] : dim
    // What is left is known when every other size is, or when the sizes kept are the unknown ones.
    const kept = new Set(to.flatMap((other, j) => (other === 0 ? [j] : [])))
    const others = x.shape.filter((_, j) => !kept.has(j))
    if (!others.every((size) => typeof size === 'number')) return null
    return (
      others.reduce((product, size) => product * size, 1) /
      to.reduce((product, size) => (size > 0 ? product * size : product), 1)
    )
  })
  return x.graph.node('Reshape', [x, x.graph.constant('i64', [to.length], to)], { type: x.type, shape })
}

/** Reshape to sizes that only the run knows: `to` is an i64 vector, `shape` what is known of it now. */
export function reshapeTo(x: Value, to: Value, shape: readonly Dim[]): Value {
  return x.graph.node('Reshape', [x, to], { type: x.type, shape })
}

export function transpose(x: Value, perm: readonly number[]): Value {
  return x.graph.node(
    'Transpose',
    [x],
    { type: x.type, shape: perm.map((axis) => x.shape[axis]) },
    { attributes: { perm } },
  )
}

/** Sizes of axes start … end − 1 as an i64 vector. */
export function shapeOf(x: Value, start = 0, end = x.shape.length): Value {
  return x.graph.node('Shape', [x], { type: 'i64', shape: [end - start] }, { attributes: { start, end } })
}

/** The first `ends` (an i64 vector of two) elements of the axes `axis` and `axis` + 1, whose sizes become `dims`. */
export function cropTo(x: Value, ends: Value, dims: readonly [Dim, Dim], axis: number): Value {
  const vector = (numbers: number[]) => x.graph.constant('i64', [2], numbers)
  const shape = [...x.shape.slice(0, axis), ...dims, ...x.shape.slice(axis + 2)]
  return x.graph.node('Slice', [x, vector([0, 0]), ends, vector([axis, axis + 1])], { type: x.type, shape })
}

/** Elements start … end − 1 of one axis. */
export function slice(x: Value, axis: number, start: number, end: number): Value {
  const vector = (number: number) => x.graph.constant('i64', [1], [number])
  const shape = x.shape.map((dim, i) => (i === axis ? end - start : dim))
  return x.graph.node('Slice', [x, vector(start), vector(end), vector(axis)], { type: x.type, shape })
}

const doubled = (dim: Dim): Dim => (typeof dim === 'number' ? 2 * dim : null)

/** Every pixel becomes 2 × 2 equal ones. The constant scales let ONNX Runtime keep its blocked layout. */
export function upsampleNearest2(x: Value): Value {
  const shape = [x.shape[0], x.shape[1], doubled(x.shape[2]), doubled(x.shape[3])]
  const scales = x.graph.constant('f32', [4], [1, 1, 2, 2])
  return x.graph.node(
    'Resize',
    [x, undefined, scales],
    { type: x.type, shape },
    {
      attributes: { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' },
    },
  )
}

/** [n, 4 · c, h, w] -> [n, c, 2h, 2w]: the channels of the four pixels of each square come one after the other. */
export function depthToSpace2(x: Value): Value {
  const shape = [x.shape[0], knownDim('DepthToSpace', x, 1) / 4, doubled(x.shape[2]), doubled(x.shape[3])]
  return x.graph.node('DepthToSpace', [x], { type: x.type, shape }, { attributes: { blocksize: 2, mode: 'DCR' } })
}

/** Rows of `table` [rows, d] by `ids` [...] -> [..., d]. */
export function gather(table: Value, ids: Value): Value {
  const shape = [...ids.shape, knownDim('Gather', table, -1)]
  return table.graph.node('Gather', [table, ids], { type: table.type, shape }, { attributes: { axis: 0 } })
}

export function unsqueeze(x: Value, axis: number): Value {
  const shape = [...x.shape.slice(0, axis), 1, ...x.shape.slice(axis)]
  return x.graph.node('Unsqueeze', [x, x.graph.constant('i64', [1], [axis])], { type: x.type, shape })
}

export function equal(a: Value, b: Value): Value {
  return a.graph.node('Equal', [a, b], { type: 'bool', shape: broadcast(a.shape, b.shape) })
}

/** `a` where `condition` holds, else `b`. */
export function where(condition: Value, a: Value, b: Value): Value {
  const shape = broadcast(condition.shape, broadcast(a.shape, b.shape))
  return a.graph.node('Where', [condition, a, b], { type: a.type, shape })
}

export const neg = (x: Value): Value => unary('Neg', x)

/** The larger of two, element by element. */
export const maximum = (a: Value, b: Value): Value => elementwise('Max', a, b)

function reduceLast(op: string, x: Value): Value {
  const axes = x.graph.constant('i64', [1], [-1])
  return x.graph.node(op, [x, axes], { type: x.type, shape: x.shape.slice(0, -1) }, { attributes: { keepdims: 0 } })
}

/** The largest along the last axis, which goes: [..., d] -> [...]. */
export const reduceMaxLast = (x: Value): Value => reduceLast('ReduceMax', x)
/** The least along the last axis, which goes: [..., d] -> [...]. */
export const reduceMinLast = (x: Value): Value => reduceLast('ReduceMin', x)

/** The sum along the last axis, which becomes 1: [..., d] -> [..., 1]. */
export function reduceSumLast(x: Value): Value {
  const axes = x.graph.constant('i64', [1], [-1])
  return x.graph.node('ReduceSum', [x, axes], { type: x.type, shape: [...x.shape.slice(0, -1), 1] })
}

/** `x` repeated to sizes that only the run knows: `to` is an i64 vector, `shape` what is known of it now. */
export function expandTo(x: Value, to: Value, shape: readonly Dim[]): Value {
  return x.graph.node('Expand', [x, to], { type: x.type, shape })
}

/** Adds `before` and `after` elements of `value` (a scalar of the type of `x`, else 0) at the ends of each axis. */
export function pad(x: Value, before: readonly number[], after: readonly number[], value?: Value): Value {
  const pads = x.graph.constant('i64', [2 * before.length], [...before, ...after])
  const shape = x.shape.map((dim, i): Dim => {
    const more = before[i] + after[i]
    if (more === 0) return dim
    return typeof dim === 'number' ? dim + more : null
  })
  return x.graph.node('Pad', [x, pads, value], { type: x.type, shape })
}

/** Every `step`-th element of one axis, from `start` on to `leave` elements before its end. */
export function sliceInside(x: Value, axis: number, { start = 0, leave = 0, step = 1 }): Value {
  const vector = (number: number) => x.graph.constant('i64', [1], [number])
  const shape = x.shape.map((dim, i): Dim => {
    if (i !== axis || (start + leave === 0 && step === 1)) return dim
    return typeof dim === 'number' ? Math.ceil((dim - leave - start) / step) : null
  })
  const end = leave === 0 ? 2 ** 31 - 1 : -leave
  const inputs = [x, vector(start), vector(end), vector(axis), ...(step === 1 ? [] : [vector(step)])]
  return x.graph.node('Slice', inputs, { type: x.type, shape })
}

/** Elements from `start` to before `end` of one axis, both i64 [1] that only the run knows. */
export function sliceBetween(x: Value, axis: number, start: Value, end: Value): Value {
  const shape = x.shape.map((dim, i) => (i === axis ? null : dim))
  const axes = x.graph.constant('i64', [1], [axis])
  return x.graph.node('Slice', [x, start, end, axes], { type: x.type, shape })
}

/** A tensor as bytes: value = (q - zero) · scale, with q and zero u8 and scale f32, one for the whole tensor. */
export type Quantized = { q: Value; scale: Value; zero: Value }

/** The scale and zero point that just hold the least and the largest element (and 0), found by the run. */
export function dynamicQuantizeLinear(x: Value): Quantized {
  const results = [
    { type: 'u8', shape: x.shape },
    { type: 'f32', shape: [] },
    { type: 'u8', shape: [] },
  ] as const
  const [q, scale, zero] = x.graph.nodeOfMany('DynamicQuantizeLinear', [x], results)
  return { q, scale, zero }
}

/** clamp(round(x / scale) + zero), ties to even; scale and zero are scalars, or vectors along `axis`. */
export function quantizeLinear(x: Value, scale: Value, zero: Value, axis?: number): Value {
  const attributes: Record<string, number> = axis === undefined ? {} : { axis }
  return x.graph.node('QuantizeLinear', [x, scale, zero], { type: zero.type, shape: x.shape }, { attributes })
}

/** (q - zero) · scale as floats; scale and zero are scalars, or vectors along `axis`. */
export function dequantizeLinear(q: Value, scale: Value, zero: Value, axis?: number): Value {
  const attributes: Record<string, number> = axis === undefined ? {} : { axis }
  return q.graph.node('DequantizeLinear', [q, scale, zero], { type: scale.type, shape: q.shape }, { attributes })
}

/** (q - zero) · scale of u8 q [m, k], times i8 b [k, n] · scales [n], plus bias [n] -> f32 [m, n]. */
export function matMulIntegerToFloat(a: Quantized, b: Value, scales: Value, bias?: Value, name?: string): Value {
  expectShape(name ?? 'MatMulIntegerToFloat', a.q, [null, b.shape[0]])
  const inputs = [a.q, b, a.scale, scales, a.zero, undefined, ...(bias ? [bias] : [])]
  const shape = [a.q.shape[0], b.shape[1]]
  return b.graph.node('MatMulIntegerToFloat', inputs, { type: 'f32', shape }, { domain, name })
}

export type NBits = { bits: 4 | 8; group: number; k: number; n: number; accuracy: number }

/** x [m, k] · ((codes [n, groups, bytes] - 2^(bits - 1)) · scales [n, groups])ᵀ + bias [n] -> [m, n]. */
export function matMulNBits(
  x: Value,
  codes: Value,
  scales: Value,
  bias: Value | undefined,
  { bits, group, k, n, accuracy }: NBits,
  name?: string,
): Value {
  const none = undefined
  return x.graph.node(
    'MatMulNBits',
    bias ? [x, codes, scales, none, none, bias] : [x, codes, scales],
    { type: x.type, shape: [x.shape[0], n] },
    { domain, name, attributes: { K: k, N: n, bits, block_size: group, accuracy_level: accuracy } },
  )
}
