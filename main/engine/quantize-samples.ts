import type { Layer } from '../../models/graph/graph.ts'
import type { FloatTensor } from '../pipeline/tensor.ts'

/** Rows [count, k] of what one layer reads, gathered from several evaluations. */
export type SampleCollector = {
  /** Takes the layer's share of rows out of its input in one evaluation: [rows, k], or [n, c, h, w] for a convolution. */
  add(input: FloatTensor): void
  /** All rows that were taken, [count, k], or undefined when there are none. */
  finish(): Float32Array | undefined
}

/** Collects at most `perEvaluation` rows of each of `evaluations` inputs, spread evenly, the same ones every time. */
export function collectSamples(layer: Layer, k: number, perEvaluation: number, evaluations: number): SampleCollector {
  let rows: Float32Array | undefined
  let count = 0
  let turn = 0
  return {
    add(input) {
      const positions = spread(positionsIn(layer, input), perEvaluation, turn++)
      rows ??= new Float32Array(evaluations * Math.max(1, positions.length) * k)
      const room = Math.floor(rows.length / k) - count
      for (const position of positions.slice(0, room)) {
        copyRow(layer, input, position, rows.subarray(count * k, (count + 1) * k))
        count++
      }
    },
    finish() {
      const found = rows?.subarray(0, count * k)
      rows = undefined
      return count === 0 ? undefined : found
    },
  }
}

/** `wanted` of `count` places, one somewhere in each of as many equal stretches. */
function spread(count: number, wanted: number, seed: number): number[] {
  if (count <= wanted) return Array.from({ length: count }, (_, i) => i)
  return Array.from({ length: wanted }, (_, i) => {
    const [from, to] = [Math.floor((i * count) / wanted), Math.floor(((i + 1) * count) / wanted)]
    return from + (hash(seed * 65537 + i) % (to - from))
  })
}

/** Well mixed bits of a number (the finaliser of MurmurHash3). */
function hash(value: number): number {
  let x = value >>> 0
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
  return (x ^ (x >>> 16)) >>> 0
}

/** How many rows the layer reads of this input: tokens, or places where a convolution puts out a pixel. */
function positionsIn(layer: Layer, { shape }: FloatTensor): number {
  if (layer.kind === 'linear') return shape[0]
  const [height, width] = outputSize(layer, shape)
  return shape[0] * height * width
}

function outputSize(layer: Layer & { kind: 'conv' }, shape: readonly number[]): [number, number] {
  const [top, left, bottom, right] = layer.pads
  const times = layer.upsampled ? 2 : 1
  return [
    Math.floor((times * shape[2] + top + bottom - layer.kernel) / layer.stride) + 1,
    Math.floor((times * shape[3] + left + right - layer.kernel) / layer.stride) + 1,
  ]
}

/** Row `position` into `target` [k]: for convolutions the neighbourhood in the order (ky, kx, channel), zeros outside. */
function copyRow(layer: Layer, { data, shape }: FloatTensor, position: number, target: Float32Array): void {
  if (layer.kind === 'linear') {
    target.set(data.subarray(position * target.length, (position + 1) * target.length))
    return
  }
  const [, channels, height, width] = shape
  const [outHeight, outWidth] = outputSize(layer, shape)
  const halves = layer.upsampled ? 1 : 0 // a pixel of the doubled picture is that of the small one at half the place
  const picture = Math.floor(position / (outHeight * outWidth))
  const y = (Math.floor(position / outWidth) % outHeight) * layer.stride - layer.pads[0]
  const x = (position % outWidth) * layer.stride - layer.pads[1]
  let at = 0
  for (let ky = 0; ky < layer.kernel; ky++) {
    for (let kx = 0; kx < layer.kernel; kx++, at += channels) {
      const [row, column] = [(y + ky) >> halves, (x + kx) >> halves]
      if (row < 0 || row >= height || column < 0 || column >= width) continue // the array starts as zeros
      const first = (picture * channels * height + row) * width + column
      for (let c = 0; c < channels; c++) target[at + c] = data[first + c * height * width]
    }
  }
}
