import type { Value } from '../models/graph/graph.ts'
import { expectShape, knownDim } from '../models/graph/graph.ts'
import {
  add,
  concat,
  cast,
  conv,
  div,
  equal,
  expandTo,
  gemm,
  mul,
  pad,
  reshape,
  reshapeTo,
  shapeOf,
  sliceInside,
  transpose,
  unsqueeze,
} from '../models/graph/ops.ts'
import type { Int8Weights } from './linear-int8.ts'
import { linearInt8 } from './linear-int8.ts'
import { once as shared, sizesOf } from '../models/graph/sizes.ts'

// Adapters beside a layer: what it gives plus the product of two thin matrices that are inputs of the network, so that a
// session once loaded takes any adapter at any weight. Several adapters are one whose factors are concatenated along the
// rank (methods.md, section 1.5); in a batch each picture multiplies what is between the two by weights of its own, 0 for
// the adapters that are not its (section 9.15).

/**
 * down [r, k], or bytes as its columns, and up [r, n], r at least 1 and the run's own; scale [1, r] for all pictures, or
 * [n, r] when `mixed`.
 */
export type Slot = { down: Value | Int8Weights; up: Value; scale: Value; mixed: boolean }

/** hidden [m, r], rows of one picture after those of another, times the weights of its picture. */
function weighted(hidden: Value, { scale, mixed }: Slot): Value {
  return mul(hidden, mixed ? gemm(ownersOf(hidden, scale), scale, undefined, { name: 'slot.weights' }) : scale)
}

/**
 * Which picture each of the rows is of: [m, n], a one in each row. A product with it spreads a picture's weights over its
 * rows; a table for every number of rows is in the graph once, where a reshape for every layer would take three nodes.
 */
function ownersOf(rows: Value, scale: Value): Value {
  const { graph } = rows
  const make = () => {
    const [m, n] = [shapeOf(rows, 0, 1), shapeOf(scale, 0, 1)]
    const one = graph.constant('i64', [1], [1])
    const number = (size: Value) => graph.node('Squeeze', [size], { type: 'i64', shape: [] })
    const places = graph.node('Range', [graph.constant('i64', [], [0]), number(n), graph.constant('i64', [], [1])], {
      type: 'i64',
      shape: [null],
    })
    const own = cast(equal(unsqueeze(places, 1), unsqueeze(places, 0)), rows.type) // [n, n]
    const perRow = expandTo(unsqueeze(own, 1), concat([one, div(m, n), one], 0), [null, null, null]) // [n, m / n, n]
    return reshapeTo(perRow, concat([m, n], 0), [rows.shape[0], null])
  }
  const [dim] = rows.shape
  return typeof dim === 'string' ? shared(graph, `owners of ${dim} rows`, make) : make()
}

/** What an adapter keeps of rows x [m, k] before `up`, its weight included: [m, r]. `per` as in `linearInt8`. */
export function slotHidden(x: Value, slot: Slot, per: 'tensor' | 'token' = 'token', name = 'slot'): Value {
  const { down } = slot
  if ('columns' in down) return weighted(linearInt8(x, down, undefined, { per, name: `${name}.down` }), slot)
  return weighted(gemm(x, down, undefined, { transB: true, name: `${name}.down` }), slot)
}

/** base [m, n] + hidden [m, r] · up. */
export function slotAdd(hidden: Value, { up }: Slot, base: Value, name = 'slot'): Value {
  expectShape(name, base, [null, up.shape[1]])
  return gemm(hidden, up, base, { name: `${name}.up` })
}

/**
 * The same and a bias [n] as one rank more, over a column of ones [m, 1]: all that is large is written once less than by
 * an Add of its own (of SD 1.5 in fast mode with a rank of 32, 1.5 % of an evaluation).
 */
export function slotAddWithBias(
  hidden: Value,
  slot: Slot,
  base: Value,
  bias: Value,
  ones: Value,
  name = 'slot',
): Value {
  const up = concat([slot.up, reshape(bias, [1, -1])], 0)
  const more = concat([hidden, ones], 1)
  return slotAdd(
    { ...more, shape: [hidden.shape[0], null] },
    { ...slot, up: { ...up, shape: [null, slot.up.shape[1]] } },
    base,
    name,
  )
}

function floats({ down }: Slot): Value {
  if ('columns' in down) throw new Error('a 3 x 3 convolution takes adapters as floats')
  return down
}

type ConvShape = { stride: 1 | 2; pads: readonly [number, number, number, number] }

/**
 * base [n, h', w', out] plus the adapter's 3 × 3 convolution of x [n, h, w, c], channels last. The nine products of a pixel
 * are made where it lies, r numbers each, and added up after shifting: shifting r numbers is cheaper than gathering 9 · c.
 */
export function slotConv(x: Value, slot: Slot, base: Value, { stride, pads }: ConvShape, name = 'slot'): Value {
  const { graph } = x
  const c = knownDim(name, x, 3)
  const n = knownDim(name, base, 3)
  const down = floats(slot)
  const vector = (...numbers: number[]) => graph.constant('i64', [numbers.length], numbers)
  // [r, 9c] -> [9r, c], tap by tap.
  const taps = reshape(transpose(reshape(down, [-1, 9, c]), [1, 0, 2]), [-1, c])
  const products = gemm(reshape(x, [-1, c]), taps, undefined, { transB: true, name: `${name}.down` }) // [n·h·w, 9r]
  const sizes = concat([sizesOf(x, [0, 1, 2]), vector(9, -1)], 0)
  const perTap = reshapeTo(products, sizes, [...x.shape.slice(0, 3), 9, null]) // [n, h, w, 9, r]
  const [top, left, bottom, right] = pads
  const border = top + left + bottom + right
  const around = border === 0 ? perTap : pad(perTap, [0, top, left, 0, 0], [0, bottom, right, 0, 0])
  let sum: Value | undefined
  for (let tap = 0; tap < 9; tap++) {
    const [dy, dx] = [Math.floor(tap / 3), tap % 3]
    const one = sliceInside(around, 3, { start: tap, leave: 8 - tap })
    const rows = sliceInside(one, 1, { start: dy, leave: 2 - dy, step: stride })
    const shifted = sliceInside(rows, 2, { start: dx, leave: 2 - dx, step: stride })
    sum = sum ? add(sum, shifted) : shifted
  }
  const rank = concat([vector(-1), shapeOf(down, 0, 1)], 0)
  const hidden = weighted(reshapeTo(sum!, rank, [null, null]), slot)
  const rows = gemm(hidden, slot.up, reshape(base, [-1, n]), { name: `${name}.up` })
  return reshapeTo(rows, shapeOf(base), base.shape)
}

/** The same with channels in front: x [n, c, h, w], base [n, out, h', w']. */
export function slotConvFirst(x: Value, slot: Slot, base: Value, { stride, pads }: ConvShape, name = 'slot'): Value {
  const c = knownDim(name, x, 1)
  const filter = transpose(reshape(floats(slot), [-1, 3, 3, c]), [0, 3, 1, 2]) // [r, c, 3, 3]
  const narrow = conv(x, filter, zeroBias(slot), { kernel: 3, stride, pads }, `${name}.down`) // [n, r, h', w']
  const scales = unsqueeze(unsqueeze(slot.scale, 2), 3) // [1 or n, r, 1, 1]
  const wide = unsqueeze(unsqueeze(transpose(slot.up, [1, 0]), 2), 3) // [out, r, 1, 1]
  const bias =
    x.graph.dialect === 'webgpu'
      ? x.graph.constant(x.type, [knownDim(name, base, 1)], new Array<number>(knownDim(name, base, 1)).fill(0))
      : undefined
  const shape = { kernel: 1, stride: 1, pads: [0, 0, 0, 0] as const }
  return add(base, conv(mul(narrow, scales), wide, bias, shape, `${name}.up`))
}

/** ONNX Runtime 1.30's WebGPU provider crashes on a Conv without a bias; the rank is known to the run only. */
function zeroBias(slot: Slot): Value | undefined {
  const down = floats(slot)
  const { graph } = down
  if (graph.dialect !== 'webgpu') return undefined
  const zeros = graph.node('Expand', [graph.constant('f32', [1], [0]), shapeOf(down, 0, 1)], {
    type: 'f32',
    shape: [null],
  })
  return down.type === 'f32'
    ? zeros
    : graph.node('Cast', [zeros], { type: down.type, shape: [null] }, { attributes: { to: 10 } })
}
