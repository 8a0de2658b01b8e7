import { halfToFloat } from '../models/graph/half.ts'

// What the kernels compute, slow and obvious, in float64: for tests only. Matrices are row by row.

/** Numbers with the sum of the magnitudes of the terms of each: what rounding in a sum is to be measured against. */
export type Sums = { values: Float64Array; magnitudes: Float64Array }

type Numbers = ArrayLike<number>

/** Sizes of x [m, k] and w [n, k]. */
export type Product = { m: number; k: number; n: number }

/** x·wᵀ + bias: x [m, k], w [n, k], bias [n] -> [m, n]. */
export function linear(x: Numbers, w: Numbers, bias: Numbers | undefined, { m, k, n }: Product): Sums {
  const values = new Float64Array(m * n)
  const magnitudes = new Float64Array(m * n)
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) {
      const at = row * n + column
      values[at] = bias ? bias[column] : 0
      magnitudes[at] = Math.abs(values[at])
      for (let i = 0; i < k; i++) {
        const term = x[row * k + i] * w[column * k + i]
        values[at] += term
        magnitudes[at] += Math.abs(term)
      }
    }
  }
  return { values, magnitudes }
}

/** base + x·downᵀ·upᵀ: x [m, k], down [r, k], up [n, r], base [m, n] -> [m, n]. */
export function lowRank(
  x: Numbers,
  down: Numbers,
  up: Numbers,
  base: Numbers,
  { m, k, n, r }: Product & { r: number },
): Sums {
  const hidden = linear(x, down, undefined, { m, k, n: r })
  const branch = linear(hidden.values, up, undefined, { m, k: r, n })
  const most = linear(hidden.magnitudes, Array.from(up, Math.abs), undefined, { m, k: r, n })
  return {
    values: branch.values.map((value, i) => base[i] + value),
    magnitudes: most.values.map((value, i) => Math.abs(base[i]) + value),
  }
}

/** Sizes of a picture [n, h, w, c] and of a 3 × 3 convolution of it. */
export type Convolution = {
  n: number
  h: number
  w: number
  c: number
  out: number
  stride: number
  /** Top, left, bottom, right. */
  pads: readonly [number, number, number, number]
}

/** Height and width of what comes out. */
export function sizeAfter({ h, w, stride, pads: [top, left, bottom, right] }: Convolution): [number, number] {
  return [Math.floor((h + top + bottom - 3) / stride) + 1, Math.floor((w + left + right - 3) / stride) + 1]
}

/** A 3 × 3 convolution: x [n, h, w, c], filter [out, 3, 3, c], bias [out] -> [n, h', w', out]. */
export function convolution(x: Numbers, filter: Numbers, bias: Numbers, shape: Convolution): Sums {
  const { n, h, w, c, out, stride, pads } = shape
  const [height, width] = sizeAfter(shape)
  const values = new Float64Array(n * height * width * out)
  const magnitudes = new Float64Array(values.length)
  let at = 0
  for (let picture = 0; picture < n; picture++) {
    for (let y = 0; y < height; y++) {
      for (let z = 0; z < width; z++) {
        for (let o = 0; o < out; o++, at++) {
          values[at] = bias[o]
          magnitudes[at] = Math.abs(bias[o])
          for (let dy = 0; dy < 3; dy++) {
            for (let dx = 0; dx < 3; dx++) {
              const [row, column] = [y * stride + dy - pads[0], z * stride + dx - pads[1]]
              if (row < 0 || row >= h || column < 0 || column >= w) continue
              for (let channel = 0; channel < c; channel++) {
                const pixel = x[((picture * h + row) * w + column) * c + channel]
                const term = pixel * filter[((o * 3 + dy) * 3 + dx) * c + channel]
                values[at] += term
                magnitudes[at] += Math.abs(term)
              }
            }
          }
        }
      }
    }
  }
  return { values, magnitudes }
}

/** The weight at [row, column] of codes and scales as drawn in int4.ts. */
export function weightAt(
  { codes, scales }: { codes: Numbers; scales: Numbers },
  { k, bits, group }: { k: number; bits: 4 | 8; group: number },
  row: number,
  column: number,
): number {
  const groups = Math.ceil(k / group)
  const scale = halfToFloat(scales[row * groups + Math.floor(column / group)])
  const code = row * groups * group + column // counted over all codes of the matrix
  if (bits === 8) return (codes[code] - 128) * scale
  const byte = codes[Math.floor(code / 2)]
  return ((code % 2 === 0 ? byte % 16 : Math.floor(byte / 16)) - 8) * scale
}

/** A whole number from one that may lie between two: ties to even, as ONNX rounds. */
function roundToEven(value: number): number {
  const below = Math.floor(value)
  const rest = value - below
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1
  return below % 2 === 0 ? below : below + 1
}

/** What activations become as bytes: the values that the bytes stand for, and the size of a step for each. */
export type Rounded = { values: Float64Array; steps: Float64Array }

/** DynamicQuantizeLinear: one scale and zero point for all of x, in the float32 of the operator. */
export function roundTensor(x: Numbers): Rounded {
  let [low, high] = [0, 0]
  for (let i = 0; i < x.length; i++) [low, high] = [Math.min(low, x[i]), Math.max(high, x[i])]
  const scale = high === low ? 1 : Math.fround(Math.fround(high - low) / 255)
  const zero = Math.max(0, Math.min(255, roundToEven(Math.fround(0 - Math.fround(low / scale)))))
  const byte = (value: number) => Math.max(0, Math.min(255, roundToEven(Math.fround(value / scale)) + zero))
  return {
    values: Float64Array.from(x, (value) => (byte(value) - zero) * scale),
    steps: new Float64Array(x.length).fill(scale),
  }
}

/** One scale for each row of x [m, k], its largest magnitude at 127. */
export function roundRows(x: Numbers, k: number): Rounded {
  const values = new Float64Array(x.length)
  const steps = new Float64Array(x.length)
  for (let from = 0; from < x.length; from += k) {
    let largest = 1e-30
    for (let i = from; i < from + k; i++) largest = Math.max(largest, Math.abs(x[i]))
    const scale = Math.fround(Math.fround(largest) * Math.fround(1 / 127))
    for (let i = from; i < from + k; i++) {
      const byte = roundToEven(Math.fround(x[i] / scale))
      values[i] = Math.max(-128, Math.min(127, byte)) * scale
      steps[i] = scale
    }
  }
  return { values, steps }
}
