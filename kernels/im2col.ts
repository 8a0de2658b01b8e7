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

/** The pixels around each pixel of a picture that has its border already: [n, h, w, c] -> [n, h', w', 9c]. */
function surroundings(x: Value, stride: 1 | 2): Value {
  const taps: Value[] = []
  for (let dy = 0; dy < 3; dy++) {
    const rows = sliceInside(x, 1, { start: dy, leave: 2 - dy, step: stride })
    for (let dx = 0; dx < 3; dx++) taps.push(sliceInside(rows, 2, { start: dx, leave: 2 - dx, step: stride }))
  }
  return concat(taps, 3)
}

const flat = (x: Value) => reshape(x, [-1, knownDim('im2col', x, 3)])

/** [n, h', w', …] from x [n, h, w, …]: h' = ⌊(h + top + bottom - 3) / stride⌋ + 1, and w' likewise. */
function sizesAfter(x: Value, { stride, pads }: Im2colOptions): Dim[] {
  const sizes = [1, 2].map((axis, i) => {
    const [dim, more] = [x.shape[axis], pads[i] + pads[i + 2]]
    if (typeof dim === 'number') return Math.floor((dim + more - 3) / stride) + 1
    return stride === 1 && more === 2 ? dim : null
  })
  return [x.shape[0], ...sizes]
}

/** x [n, h, w, c] -> [n, h', w', 9c]. */
function neighbourhoods(x: Value, options: Im2colOptions): Value {
  expectShape('im2col', x, [null, null, null, null])
  const around = surroundings(padded(x, options), options.stride)
  return { ...around, shape: [...sizesAfter(x, options), around.shape[3]] }
}

/** x [n, h, w, c] -> [n · h' · w', 9c]. */
export function im2col(x: Value, options: Im2colOptions): Value {
  return flat(neighbourhoods(x, options))
}

/**
 * Strips that a layer of `out` channels is worked off in. Pictures are large where layers are narrow: there a strip of
 * neighbourhoods stays in the cache and takes an eighth of the memory. Wide layers read more weights than pixels, and
 * each strip reads all of them.
 */
export function stripsFor(out: number): number {
  if (out <= 320) return 8
  return out <= 640 ? 4 : 1
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
  const bordered = padded(x, options)
  const shape = sizesAfter(x, options)
  const sizes = [shapeOf(x, 0, 1), sizeAfter(bordered, 1, stride), sizeAfter(bordered, 2, stride)] as const
  const vector = (...numbers: number[]) => graph.constant('i64', [numbers.length], numbers)
  const parts = (strips === 1 ? [bordered] : cut(bordered, sizes[1], stride, strips)).map((strip) =>
    product(flat(surroundings(strip, stride))),
  )
  const out = knownDim('convolve', parts[0], 1)
  if (parts.length === 1) return reshapeTo(parts[0], concat([...sizes, vector(out)], 0), [...shape, out])
  // [n, pixels of the strip, out]: strips without rows go through a -1, which a size of 0 would not.
  const perPicture = concat([sizes[0], vector(-1, out)], 0)
  const whole = concat(
    parts.map((part) => reshapeTo(part, perPicture, [shape[0], null, out])),
    1,
  )
  return reshapeTo(whole, concat([...sizes, vector(out)], 0), [...shape, out])
}

/** ⌊(size - 3) / stride⌋ + 1 of an axis, as the run finds it: i64 [1]. */
function sizeAfter(x: Value, axis: number, stride: number): Value {
  const number = (value: number) => x.graph.constant('i64', [1], [value])
  const steps = sub(shapeOf(x, axis, axis + 1), number(3))
  return add(stride === 1 ? steps : div(steps, number(stride)), number(1))
}

/**
 * Strips of a picture with its border, each with the rows it needs from its neighbours. Strip i makes output rows
 * ⌊height · i / strips⌋ up to ⌊height · (i + 1) / strips⌋, none where there are fewer rows than strips.
 */
function cut(x: Value, height: Value, stride: number, strips: number): Value[] {
  const number = (value: number) => x.graph.constant('i64', [1], [value])
  const bounds = Array.from({ length: strips + 1 }, (_, i) =>
    i === 0 ? number(0) : div(mul(height, number(i)), number(strips)),
  )
  return Array.from({ length: strips }, (_, i) => {
    const start = mul(bounds[i], number(stride))
    const end = add(mul(sub(bounds[i + 1], number(1)), number(stride)), number(3))
    return sliceBetween(x, 1, start, end)
  })
}

/** Rows of pixels [n · h · w, c] as a picture [n, h, w, c] of the sizes of `like` [n, h, w, …]. */
export function rowsToPicture(x: Value, like: Value): Value {
  const c = knownDim('picture', x, 1)
  const [n, h, w] = like.shape
  if (typeof h === 'number' && typeof w === 'number') return { ...reshape(x, [-1, h, w, c]), shape: [n, h, w, c] }
  return reshapeTo(x, concat([shapeOf(like, 0, 3), x.graph.constant('i64', [1], [c])], 0), [n, h, w, c])
}
