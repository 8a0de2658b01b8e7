import type { Value } from '../models/graph/graph.ts'
import { expectShape, knownDim } from '../models/graph/graph.ts'
import type { Quantized } from '../models/graph/ops.ts'
import {
  add,
  div,
  dynamicQuantizeLinear,
  expandTo,
  matMulIntegerToFloat,
  maximum,
  mul,
  neg,
  quantizeLinear,
  reduceMaxLast,
  reduceMinLast,
  reshape,
  shapeOf,
  unsqueeze,
} from '../models/graph/ops.ts'
import type { Im2colOptions } from './im2col.ts'
import { convolve } from './im2col.ts'
import { once } from './once.ts'

// Linear layers and convolutions over bytes: activations are quantised by the run, weights beforehand (columns.ts).

export type Int8Weights = {
  /** i8 [k, n]. */
  columns: Value
  /** f32 [n]. */
  scales: Value
}

export type Int8Options = {
  /** One scale for all of x, found by the run, or one for each of its rows. */
  per: 'tensor' | 'token'
  name: string
}

/** A matrix as bytes, one scale for each row: x[m][k] = (q - 128) · scale[m], q and scale [m]. */
type QuantizedRows = { q: Value; scale: Value }

const asBytes = once(dynamicQuantizeLinear)

/** x of any shape as bytes with one scale and zero point; the same one for every layer that reads the same value. */
export function quantizedTensor(x: Value): Quantized {
  const quantized = asBytes(x)
  return { ...quantized, q: { ...quantized.q, shape: x.shape } }
}

/** x [m, k] as bytes with a scale for each row, symmetric about 128; the same for every layer that reads the value. */
export const quantizedRows = once((x: Value): QuantizedRows => {
  const { graph } = x
  const m = x.shape[0]
  // Two passes that only read; the largest of Abs would write all of x once more and take twice as long.
  // The reshape matters for no rows at all: there ONNX Runtime's ReduceMax forgets that an axis should go.
  const extreme = { ...reshape(maximum(reduceMaxLast(x), neg(reduceMinLast(x))), [-1]), shape: [m] }
  // A row of zeros must not divide by zero.
  const largest = maximum(extreme, graph.constant('f32', [], [1e-30]))
  const scale = mul(largest, graph.constant('f32', [], [1 / 127])) // [m]
  const zeros = expandTo(graph.constant('u8', [1], [128]), shapeOf(x, 0, 1), [m])
  return { q: quantizeLinear(x, scale, zeros, 0), scale }
})

/** A one for each row of x [m, k], from what is at hand of its rows: [m, 1]. */
export const onesFor = once((x: Value): Value => {
  const column = unsqueeze(quantizedRows(x).scale, 1)
  return div(column, column)
})

/** x [m, k] · columns · scales + bias -> [m, n], over bytes. */
export function linearInt8(x: Value, w: Int8Weights, bias: Value | undefined, { per, name }: Int8Options): Value {
  const { graph } = x
  const k = knownDim(name, w.columns, 0)
  expectShape(name, x, [null, k])
  expectShape(name, w.scales, [w.columns.shape[1]])
  if (per === 'tensor') return matMulIntegerToFloat(quantizedTensor(x), w.columns, w.scales, bias, name)
  const { q, scale } = quantizedRows(x)
  const unit = { q, scale: graph.constant('f32', [], [1]), zero: graph.constant('u8', [], [128]) }
  const product = matMulIntegerToFloat(unit, w.columns, w.scales, undefined, name) // [m, n], but for the row's scale
  const scaled = mul(product, unsqueeze(scale, 1))
  return bias ? add(scaled, bias) : scaled
}

/** A 3 × 3 convolution: x [n, h, w, c], columns [9c, out] in the order (y, x, channel) -> [n, h', w', out]. */
export function convInt8(
  x: Value,
  w: Int8Weights,
  bias: Value | undefined,
  { stride, pads, name }: Omit<Im2colOptions, 'zero'> & { name: string },
): Value {
  const out = knownDim(name, w.columns, 1)
  expectShape(name, w.columns, [9 * knownDim(name, x, 3), null])
  expectShape(name, w.scales, [out])
  // Bytes are copied nine times, not floats; the pixels around hold the byte that means 0.
  const { q, scale, zero } = quantizedTensor(x)
  return convolve(q, { stride, pads, zero }, (rows) =>
    matMulIntegerToFloat({ q: rows, scale, zero }, w.columns, w.scales, bias, name),
  )
}
