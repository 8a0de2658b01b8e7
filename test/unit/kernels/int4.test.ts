import { describe, expect, it } from 'vitest'
import type { Groups } from '../../../kernels/int4.ts'
import {
  dequantizeGroups,
  groupOf,
  groupScales,
  packCodes,
  quantizeGroups,
  unpackCodes,
} from '../../../kernels/int4.ts'
import { weightAt } from '../../../kernels/reference.ts'
import { floatToHalf, halfToFloat } from '../../../models/graph/half.ts'
import { gaussians, withOutliers } from './numbers.ts'

const shapes: Groups[] = [
  { n: 6, k: 128, bits: 4, group: 64 },
  { n: 5, k: 100, bits: 4, group: 32 }, // the last group holds 4 of 32
  { n: 3, k: 33, bits: 4, group: 32 }, // an odd number: half a byte is filler
  { n: 6, k: 128, bits: 8, group: 64 },
  { n: 5, k: 100, bits: 8, group: 32 },
]
const title = '$n x $k in $bits bits, groups of $group'

/** Sum of squared errors of each group. */
function groupErrors(values: Float32Array, got: Float32Array, { n, k, group }: Groups): number[] {
  const groups = Math.ceil(k / group)
  const errors = new Array<number>(n * groups).fill(0)
  for (let i = 0; i < n * k; i++)
    errors[Math.floor(i / k) * groups + Math.floor((i % k) / group)] += (got[i] - values[i]) ** 2
  return errors
}

describe('packed codes', () => {
  it('hold the even one of two codes in the low four bits', () => {
    expect([...packCodes(Uint8Array.of(1, 2, 15, 0, 8, 8))]).toEqual([0x21, 0x0f, 0x88])
  })

  it('come back out of every byte', () => {
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
    expect(packCodes(unpackCodes(bytes))).toEqual(bytes)
    const codes = Uint8Array.from({ length: 512 }, (_, i) => (i * 7 + (i >> 4)) % 16)
    expect(unpackCodes(packCodes(codes))).toEqual(codes)
  })

  it('refuse half a byte', () => {
    expect(() => packCodes(Uint8Array.of(1, 2, 3))).toThrow('3 codes')
  })
})

describe('groups of weights', () => {
  it('are 64 where that leaves nothing over, else 32', () => {
    expect([320, 768, 2880, 1280, 352, 36].map(groupOf)).toEqual([64, 64, 64, 64, 32, 32])
  })

  it('become the bytes drawn in kernels/README.md', () => {
    const row = new Float32Array(34)
    row.set([0.7, -0.7, 0.1, -0.25, 0.35], 0)
    row.set([-0.35, 0.3], 32)
    const { codes, scales } = quantizeGroups(row, { n: 1, k: 34, bits: 4, group: 32 })
    expect([...codes.subarray(0, 4)]).toEqual([0x1f, 0x59, 0x8c, 0x88]) // 15 1 | 9 5 | 12 8 | 8 8
    expect([...codes.subarray(16, 18)]).toEqual([0xe1, 0x88]) // 1 14 | 8 8
    expect([...scales]).toEqual([0x2e66, 0x2a66]) // 0.1 and 0.05, the nearest halves
  })

  it.each(shapes)(`lose at most half a step: ${title}`, (shape) => {
    const values = withOutliers(gaussians(shape.n * shape.k, 3), shape.k)
    const packed = quantizeGroups(values, shape)
    const got = dequantizeGroups(packed, shape)
    const groups = Math.ceil(shape.k / shape.group)
    const ratios = Array.from(values, (value, i) => {
      const scale = packed.scales[Math.floor(i / shape.k) * groups + Math.floor((i % shape.k) / shape.group)]
      return Math.abs(got[i] - value) / halfToFloat(scale)
    })
    // Half a step, and what rounding 1/scale and the product in float64 may add; more than 0.45 is met in any sample.
    expect(Math.max(...ratios)).toBeLessThanOrEqual(0.5 + 1e-6)
    expect(Math.max(...ratios)).toBeGreaterThan(0.45)
  })

  it.each(shapes)(`mean what the reference reads: ${title}`, (shape) => {
    const packed = quantizeGroups(gaussians(shape.n * shape.k, 5), { ...shape, search: true })
    const got = dequantizeGroups(packed, shape)
    const wanted = Array.from(got, (_, i) => weightAt(packed, shape, Math.floor(i / shape.k), i % shape.k))
    expect([...got]).toEqual(wanted)
  })

  it.each(shapes)(`stay what they are when quantised again with their scales: ${title}`, (shape) => {
    const packed = quantizeGroups(gaussians(shape.n * shape.k, 7), shape)
    const again = quantizeGroups(dequantizeGroups(packed, shape), { ...shape, scales: packed.scales })
    expect(again.codes).toEqual(packed.codes)
  })

  it('take the scale as a half before they choose codes', () => {
    // 1/7 = 0.142857 becomes 0.142822 as a half, so that 0.5 lies at 3.5008: code 4, where the exact scale has a tie.
    const row = new Float32Array(64)
    row.set([1, 0.5])
    const { codes, scales } = quantizeGroups(row, { n: 1, k: 64, bits: 4, group: 64 })
    expect(scales[0]).toBe(floatToHalf(1 / 7))
    expect(halfToFloat(scales[0])).toBeLessThan(1 / 7)
    expect(codes[0]).toBe(0xcf)
  })

  it('of zeros have scale 0 and codes that mean 0, and so has the filling of the last group', () => {
    for (const bits of [4, 8] as const) {
      const shape = { n: 2, k: 40, bits, group: 32 }
      const values = new Float32Array(80)
      values.fill(1, 32, 40) // only the last 8 inputs of the first output
      const { codes, scales } = quantizeGroups(values, { ...shape, search: true })
      expect([...scales].map((scale) => scale > 0)).toEqual([false, true, false, false])
      const plain = bits === 4 ? unpackCodes(codes) : codes
      const zero = bits === 4 ? 8 : 128
      expect([...plain.subarray(0, 32)].every((code) => code === zero)).toBe(true)
      expect([...plain.subarray(40)].every((code) => code === zero)).toBe(true)
      expect(dequantizeGroups({ codes, scales }, shape).slice(40)).toEqual(new Float32Array(40))
    }
  })

  it('of the tiniest weights stay within half a step, though halves are coarse there', () => {
    for (const bits of [4, 8] as const) {
      const shape = { n: 20, k: 64, bits, group: 64 }
      const values = Float32Array.from(
        gaussians(20 * 64, 11),
        (value, i) => value * 10 ** (-4 - Math.floor(i / 64) / 10),
      )
      const packed = quantizeGroups(values, shape)
      const got = dequantizeGroups(packed, shape)
      got.forEach((value, i) => {
        const scale = halfToFloat(packed.scales[Math.floor(i / 64)])
        expect(Math.abs(value - values[i])).toBeLessThanOrEqual(scale * (0.5 + 1e-6))
      })
    }
  })

  it('too large for a half are cut off, not infinite', () => {
    const packed = quantizeGroups(new Float32Array(64).fill(1e7), { n: 1, k: 64, bits: 4, group: 64 })
    expect(halfToFloat(packed.scales[0])).toBe(65504)
  })

  it('fit better, and no group worse, when the scale is searched; negative scales reach code 0', () => {
    const shape: Groups = { n: 64, k: 256, bits: 4, group: 64 }
    const values = gaussians(shape.n * shape.k, 13)
    const plain = groupErrors(values, dequantizeGroups(quantizeGroups(values, shape), shape), shape)
    const packed = quantizeGroups(values, { ...shape, search: true })
    const searched = groupErrors(values, dequantizeGroups(packed, shape), shape)
    const sum = (numbers: number[]) => numbers.reduce((total, value) => total + value, 0)
    expect(searched.every((error, i) => error <= plain[i])).toBe(true)
    expect(sum(searched) / sum(plain)).toBeLessThan(0.9)
    expect([...packed.scales].some((scale) => halfToFloat(scale) < 0)).toBe(true)
    expect([...unpackCodes(packed.codes)].includes(0)).toBe(true)
  })

  it('follow their outputs when these change places', () => {
    const shape: Groups = { n: 4, k: 64, bits: 4, group: 32 }
    const values = gaussians(256, 17)
    const order = [2, 0, 3, 1]
    const moved = Float32Array.from(order.flatMap((row) => [...values.subarray(row * 64, (row + 1) * 64)]))
    const [before, after] = [values, moved].map((matrix) => dequantizeGroups(quantizeGroups(matrix, shape), shape))
    order.forEach((row, i) => expect(after.slice(i * 64, (i + 1) * 64)).toEqual(before.slice(row * 64, (row + 1) * 64)))
  })

  it('say when sizes do not fit', () => {
    const shape: Groups = { n: 2, k: 64, bits: 4, group: 64 }
    expect(() => quantizeGroups(new Float32Array(100), shape)).toThrow('100 weights')
    expect(() => quantizeGroups(new Float32Array(128), { ...shape, scales: new Uint16Array(3) })).toThrow('3 scales')
    expect(() => dequantizeGroups({ codes: new Uint8Array(5), scales: new Uint16Array(2) }, shape)).toThrow('5 bytes')
    expect(groupScales(new Float32Array(128), shape)).toHaveLength(2)
  })
})
