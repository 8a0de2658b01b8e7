import { floatToHalf, halfToFloat } from '../models/graph/half.ts'

// Codes of 4 or 8 bits with a scale per group of inputs: w ≈ (code - 8) · scale, or (code - 128) · scale.
//
//   a matrix [N outputs, K inputs] in groups of g, here g = 64:
//
//                 inputs 0 … 63          64 … 127               the last group is filled up with zero weights
//   output 0   | group 0 · scale 0 | group 1 · scale 1 | … |    (codes 8 or 128)
//   output 1   | …
//
//   4 bits, one group, g / 2 bytes:      byte 0          byte 1                 byte 31
//                                     | w1  | w0  |   | w3  | w2  |   …     | w63 | w62 |
//                                       7…4   3…0       7…4   3…0             7…4   3…0
//   8 bits, one group, g bytes:          byte 0 = w0, byte 1 = w1, …
//
//   codes U8 [N, B, g / 2] or [N, B, g], scales F16 [N, B], B = ceil(K / g): what MatMulNBits of ONNX Runtime calls B
//   and scales when it has no zero points, so a file can be used as it lies.

export type Bits = 4 | 8

export type Groups = {
  /** Outputs. */
  n: number
  /** Inputs. */
  k: number
  bits: Bits
  /** Inputs that share a scale. */
  group: number
}

export type GroupCodes = {
  /** [n, groups, bytes of a group]. */
  codes: Uint8Array
  /** [n, groups], bits of half floats. */
  scales: Uint16Array
}

/** Inputs that share a scale: 64 where that leaves nothing over, else 32. */
export function groupOf(k: number): 64 | 32 {
  return k % 64 === 0 ? 64 : 32
}

/** Groups per output, the last one perhaps partly filled. */
export function groupCount(k: number, group: number): number {
  return Math.ceil(k / group)
}

/** Two codes 0 … 15 to a byte, the first in the low four bits. The number of codes must be even. */
export function packCodes(codes: Uint8Array): Uint8Array {
  if (codes.length % 2 !== 0) throw new Error(`${codes.length} codes do not fill whole bytes`)
  const bytes = new Uint8Array(codes.length / 2)
  for (let i = 0; i < bytes.length; i++) bytes[i] = codes[2 * i] | (codes[2 * i + 1] << 4)
  return bytes
}

/** What `packCodes` packed. */
export function unpackCodes(bytes: Uint8Array): Uint8Array {
  const codes = new Uint8Array(bytes.length * 2)
  for (let i = 0; i < bytes.length; i++) {
    codes[2 * i] = bytes[i] & 15
    codes[2 * i + 1] = bytes[i] >> 4
  }
  return codes
}

const largestHalf = 65504

/** The nearest half, never infinite. */
function halfScale(scale: number): number {
  return floatToHalf(Math.max(-largestHalf, Math.min(largestHalf, scale)))
}

/**
 * The half nearest to `scale` (positive), or the next one up where rounding down would leave `largest` more than half a
 * step beyond the last code `top`: among the tiniest halves a step is a large part of the number.
 */
function coveringScale(scale: number, largest: number, top: number): number {
  const half = halfScale(scale)
  return halfToFloat(half) * (top + 0.5) < largest && half < 0x7bff ? half + 1 : half
}

/** Codes that the largest weight of a group is tried at: negative ones, because -8 is a code and 8 is not. */
const trials = [-9, -8.5, -8, -7.5, -7, -6.5, -6, -5.5]

/**
 * Bits of the scale with the least squared error for values[from … to), whose largest magnitude is that of `extreme`. Each
 * trial chooses codes c; with p = Σ w·c and q = Σ c² the error of these codes under any scale s is Σ w² - 2sp + s²q, least
 * at s = p / q.
 */
function searchScale(values: Float32Array, from: number, to: number, extreme: number): number {
  let best = 0
  let least = 0 // Σ w² is the same for all
  for (let t = 0; t < trials.length; t++) {
    const inverse = trials[t] / extreme
    let product = 0
    let square = 0
    for (let i = from; i < to; i++) {
      const value = values[i]
      let code = (value * inverse + 8.5) | 0
      if (code < 0) code = 0
      else if (code > 15) code = 15
      code -= 8
      product += value * code
      square += code * code
    }
    const half = halfScale(product / square)
    const scale = halfToFloat(half)
    const error = scale * (scale * square - 2 * product)
    if (error < least) {
      least = error
      best = half
    }
  }
  return best
}

/**
 * Scales [n, groups] for `values` [n, k], as half floats: the largest magnitude of a group at code 7 or 127. With
 * `search` (4 bits only) the scale, positive or negative, that leaves the least squared error. A group of zeros gets 0.
 */
export function groupScales(
  values: Float32Array,
  { n, k, bits, group }: Groups,
  { search = false }: { search?: boolean } = {},
): Uint16Array {
  const count = groupCount(k, group)
  const top = bits === 4 ? 7 : 127
  const scales = new Uint16Array(n * count)
  for (let row = 0; row < n; row++) {
    for (let b = 0; b < count; b++) {
      const from = row * k + b * group
      const to = Math.min(from + group, (row + 1) * k)
      let low = 0
      let high = 0
      for (let i = from; i < to; i++) {
        const value = values[i]
        if (value < low) low = value
        else if (value > high) high = value
      }
      const largest = high > -low ? high : -low
      if (largest === 0) continue
      const found = search && bits === 4 ? searchScale(values, from, to, high > -low ? high : low) : 0
      scales[row * count + b] = found === 0 ? coveringScale(largest / top, largest, top) : found
    }
  }
  return scales
}

/**
 * The nearest codes of `values` [n, k] under `scales` (`groupScales` when left out), packed as the drawing shows. The
 * scales are halves before any code is chosen, so rounding them costs no precision.
 */
export function quantizeGroups(
  values: Float32Array,
  options: Groups & { scales?: Uint16Array; search?: boolean },
): GroupCodes {
  const { n, k, bits, group, search } = options
  if (values.length !== n * k) throw new Error(`${values.length} weights are not ${n} x ${k}`)
  const count = groupCount(k, group)
  const scales = options.scales ?? groupScales(values, options, { search })
  if (scales.length !== n * count) throw new Error(`${scales.length} scales for ${n} x ${count} groups`)
  const zero = bits === 4 ? 8 : 128
  const most = 2 * zero - 1
  const half = zero + 0.5
  const bytes = (group * bits) / 8
  const codes = new Uint8Array(n * count * bytes).fill(bits === 4 ? 0x88 : 0x80)
  for (let row = 0; row < n; row++) {
    for (let b = 0; b < count; b++) {
      const scale = halfToFloat(scales[row * count + b])
      if (scale === 0) continue
      const inverse = 1 / scale
      const from = row * k + b * group
      const size = Math.min(group, k - b * group)
      const at = (row * count + b) * bytes
      if (bits === 8) {
        for (let i = 0; i < size; i++) {
          const code = (values[from + i] * inverse + half) | 0
          codes[at + i] = code < 0 ? 0 : code > most ? most : code
        }
      } else {
        for (let i = 0; i < size; i += 2) {
          let low = (values[from + i] * inverse + half) | 0
          let high = i + 1 < size ? (values[from + i + 1] * inverse + half) | 0 : zero
          if (low < 0) low = 0
          else if (low > most) low = most
          if (high < 0) high = 0
          else if (high > most) high = most
          codes[at + (i >> 1)] = low | (high << 4)
        }
      }
    }
  }
  return { codes, scales }
}

/** The weights [n, k] that the codes stand for. */
export function dequantizeGroups({ codes, scales }: GroupCodes, { n, k, bits, group }: Groups): Float32Array {
  const count = groupCount(k, group)
  const bytes = (group * bits) / 8
  if (codes.length !== n * count * bytes) throw new Error(`${codes.length} bytes for ${n} x ${count} groups`)
  const values = new Float32Array(n * k)
  for (let row = 0; row < n; row++) {
    for (let b = 0; b < count; b++) {
      const scale = halfToFloat(scales[row * count + b])
      const to = row * k + b * group
      const size = Math.min(group, k - b * group)
      const at = (row * count + b) * bytes
      if (bits === 8) {
        for (let i = 0; i < size; i++) values[to + i] = (codes[at + i] - 128) * scale
      } else {
        const pairs = size >> 1
        for (let i = 0; i < pairs; i++) {
          const byte = codes[at + i]
          values[to + 2 * i] = ((byte & 15) - 8) * scale
          values[to + 2 * i + 1] = ((byte >> 4) - 8) * scale
        }
        if (size % 2 === 1) values[to + size - 1] = ((codes[at + pairs] & 15) - 8) * scale
      }
    }
  }
  return values
}
