import type { Value } from '../models/graph/graph.ts'
import { expectShape, knownDim } from '../models/graph/graph.ts'
import { concat, pad, reshape, sliceInside } from '../models/graph/ops.ts'

export type Im2colOptions = {
  stride: 1 | 2
  /** Pixels added: top, left, bottom, right. */
  pads: readonly [number, number, number, number]
  /** What the added pixels hold, a scalar of the type of `x`: the zero point of bytes. 0 when left out. */
  zero?: Value
}

/**
 * The 3 × 3 neighbourhoods of a picture x [n, h, w, c], side by side along the last axis in the order (y, x, channel):
 * [n, h', w', 9c] with h' = ⌊(h + top + bottom - 3) / stride⌋ + 1. A 3 × 3 convolution is a product over its last axis.
 */
export function neighbourhoods(x: Value, { stride, pads, zero }: Im2colOptions): Value {
  expectShape('im2col', x, [null, null, null, null])
  const [top, left, bottom, right] = pads
  const padded = top + left + bottom + right === 0 ? x : pad(x, [0, top, left, 0], [0, bottom, right, 0], zero)
  const taps: Value[] = []
  for (let dy = 0; dy < 3; dy++) {
    // A row slice is one copy of whole rows; cutting both axes at once would take three times as many of them.
    const rows = sliceInside(padded, 1, { start: dy, leave: 2 - dy, step: stride })
    for (let dx = 0; dx < 3; dx++) taps.push(sliceInside(rows, 2, { start: dx, leave: 2 - dx, step: stride }))
  }
  const all = concat(taps, 3)
  const same = stride === 1 && top + bottom === 2 && left + right === 2
  return same ? { ...all, shape: [x.shape[0], x.shape[1], x.shape[2], all.shape[3]] } : all
}

/** The rows of pixels of `neighbourhoods`: x [n, h, w, c] -> [n · h' · w', 9c]. */
export function im2col(x: Value, options: Im2colOptions): Value {
  return reshape(neighbourhoods(x, options), [-1, 9 * knownDim('im2col', x, 3)])
}
