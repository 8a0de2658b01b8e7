import type { Dim, Value } from '../models/graph/graph.ts'
import { expectShape, knownDim } from '../models/graph/graph.ts'
import {
  add,
  concat,
  div,
  mul,
  pad,
  reshape,
  reshapeTo,
  shapeOf,
  sliceBetween,
  sliceInside,
  sub,
} from '../models/graph/ops.ts'

import { halfOf, once, sizeOf, sizesOf } from '../models/graph/sizes.ts'

// A 3 × 3 convolution over [n, h, w, c] as a product: the nine pixels around a pixel, side by side, are one row of 9c
// numbers in the order (y, x, channel), and the filter is a matrix [out, 9c].

export type Im2colOptions = {
  stride: 1 | 2
  /** Pixels added: top, left, bottom, right. */
  pads: readonly [number, number, number, number]
  /** What the added pixels hold, a scalar of the type of `x`: the zero point of bytes. 0 when left out. */
  zero?: Value
}

function padded(x: Value, { pads: [top, left, bottom, right], zero }: Im2colOptions): Value {
  return top + left + bottom + right === 0 ? x : pad(x, [0, top, left, 0], [0, bottom, right, 0], zero)
}

/** The three pixels beside each pixel of a picture that has its border already: [n, h, w, c] -> [n, h, w', 3c]. */
function beside(x: Value, stride: 1 | 2): Value {
  const taps = [0, 1, 2].map((dx) => sliceInside(x, 2, { start: dx, leave: 2 - dx, step: stride }))
  return concat(taps, 3)
}

/** The three rows around each row of such a picture, or of a strip of it: [n, h, w', 3c] -> [n, h', w', 9c]. */
function above(x: Value, stride: 1 | 2): Value {
  const taps = [0, 1, 2].map((dy) => sliceInside(x, 1, { start: dy, leave: 2 - dy, step: stride }))
  return concat(taps, 3)
}

const flat = (x: Value) => reshape(x, [-1, knownDim('im2col', x, 3)])

/** [n, h', w', …] from x [n, h, w, …]: h' = ⌊(h + top + bottom - 3) / stride⌋ + 1, and w' likewise. */
function sizesAfter(x: Value, { stride, pads }: Im2colOptions): Dim[] {
  const sizes = [1, 2].map((axis, i) => {
    const [dim, more] = [x.shape[axis], pads[i] + pads[i + 2]]
    if (typeof dim === 'number') return Math.floor((dim + more - 3) / stride) + 1
    if (more !== 2) return null
    return stride === 1 ? dim : halfOf(dim)
  })
  return [x.shape[0], ...sizes]
}

/** x [n, h, w, c] -> [n, h', w', 9c]. */
function neighbourhoods(x: Value, options: Im2colOptions): Value {
  expectShape('im2col', x, [null, null, null, null])
  const around = above(beside(padded(x, options), options.stride), options.stride)
  return { ...around, shape: [...sizesAfter(x, options), around.shape[3]] }
}

/** x [n, h, w, c] -> [n · h' · w', 9c]. */
export function im2col(x: Value, options: Im2colOptions): Value {
  return flat(neighbourhoods(x, options))
}

/**
 * Strips that a convolution over floats of `channels` inputs and `out` outputs is worked off in: one row of
 * neighbourhoods is nine pixels, 141 MB for 960 channels at 64 × 64, and pictures are large where layers are narrow. It
 * costs no time and saves SD 1.5 a fifth of its memory in the low-memory mode; more strips make a graph slower to load.
 */
export function stripsFor(channels: number, out: number): number {
  return channels >= 256 && out <= 640 ? 4 : 1
}

/**
 * A 3 × 3 convolution of x [n, h, w, c] -> [n, h', w', out]: `product` takes rows [m, 9c] of neighbourhoods to
 * [m, out]. It is called once for each of `strips` strips of the picture, so it must not make its weights itself.
 */
export function convolve(
  x: Value,
  { strips = 1, ...options }: Im2colOptions & { strips?: number },
  product: (rows: Value) => Value,
): Value {
  expectShape('convolve', x, [null, null, null, null])
  const { graph } = x
  const { stride } = options
  const wide = beside(padded(x, options), stride)
  const shape = sizesAfter(x, options)
  // A size that has no name is what the run makes of it.
  const like = (axis: number): Value =>
    shape[axis] === null ? sizeAfter(wide, axis, axis === 1 ? stride : 1) : sizeOf({ ...x, shape }, axis)
  const whole = shape.includes(null)
    ? (out: number) => concat([sizeOf(x, 0), like(1), wideSize(wide), graph.constant('i64', [1], [out])], 0)
    : (out: number) => sizesOf({ ...x, shape }, [0, 1, 2], out)
  const parts = (strips === 1 ? [wide] : cut(wide, shape[1], like(1), stride, strips)).map((strip) =>
    product(flat(above(strip, stride))),
  )
  const out = knownDim('convolve', parts[0], 1)
  if (parts.length === 1) return reshapeTo(parts[0], whole(out), [...shape, out])
  // [n, pixels of the strip, out]: strips without rows go through a -1, which a size of 0 would not.
  const perPicture = sizesOf(x, [0], -1, out)
  const pictures = parts.map((part) => reshapeTo(part, perPicture, [shape[0], null, out]))
  return reshapeTo(concat(pictures, 1), whole(out), [...shape, out])
}

/** Width of a picture, as the run finds it. */
const wideSize = (x: Value) => shapeOf(x, 2, 3)

/** ⌊(size - 3) / stride⌋ + 1 of an axis, as the run finds it: i64 [1]. */
function sizeAfter(x: Value, axis: number, stride: number): Value {
  const number = (value: number) => x.graph.constant('i64', [1], [value])
  const steps = sub(shapeOf(x, axis, axis + 1), number(3))
  return add(stride === 1 ? steps : div(steps, number(stride)), number(1))
}

/**
 * Strips of a picture with its border, each with the rows it needs from its neighbours. Strip i makes output rows
 * ⌊height · i / strips⌋ up to ⌊height · (i + 1) / strips⌋, none where there are fewer rows than strips. The bounds of a
 * height that has a name are in the graph once.
 */
function cut(x: Value, name: Dim, height: Value, stride: number, strips: number): Value[] {
  const { graph } = x
  const number = (value: number) => graph.constant('i64', [1], [value])
  const shared = (key: string, make: () => Value) =>
    typeof name === 'string' ? once(graph, `${name} ${key} of ${strips} by ${stride}`, make) : make()
  const bounds = Array.from({ length: strips + 1 }, (_, i) =>
    shared(`bound ${i}`, () => div(mul(height, number(i)), number(strips))),
  )
  return Array.from({ length: strips }, (_, i) => {
    const start = shared(`start ${i}`, () => mul(bounds[i], number(stride)))
    const end = shared(`end ${i}`, () => add(mul(sub(bounds[i + 1], number(1)), number(stride)), number(3)))
    return sliceBetween(x, 1, start, end)
  })
}

/** Rows of pixels [n · h · w, c] as a picture [n, h, w, c] of the sizes of `like` [n, h, w, …]. */
export function rowsToPicture(x: Value, like: Value): Value {
  const c = knownDim('picture', x, 1)
  const [n, h, w] = like.shape
  if (typeof h === 'number' && typeof w === 'number') return { ...reshape(x, [-1, h, w, c]), shape: [n, h, w, c] }
  return reshapeTo(x, sizesOf(like, [0, 1, 2], c), [n, h, w, c])
}
