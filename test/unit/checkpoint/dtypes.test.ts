import { describe, expect, it } from 'vitest'
import { convertElements, toFloat32 } from '../../../models/checkpoint/dtypes.ts'
import { floatToHalf, halfToFloat } from '../../../models/graph/half.ts'

const bytesOf = (values: Uint16Array | Float32Array | Float64Array) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
const asHalves = (bytes: Uint8Array) => [...new Uint16Array(Uint8Array.from(bytes).buffer)]
const asFloats = (bytes: Uint8Array) => [...new Float32Array(Uint8Array.from(bytes).buffer)]

/** All finite non-negative halves in order: index = bits. */
const halves = Array.from({ length: 0x7c00 }, (_, bits) => halfToFloat(bits))

/** The nearest half by looking at both neighbours; ties go to the even one. Beyond 65504 the next step would be 65536. */
function nearestHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  let low = 0
  let high = halves.length
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (halves[middle] <= size) low = middle
    else high = middle
  }
  const above = low + 1 < halves.length ? halves[low + 1] : 65536
  const below = size - halves[low]
  const over = above - size
  const up = over < below || (over === below && low % 2 === 1)
  return sign | (up ? low + 1 : low)
}

describe('halves', () => {
  it('decode the values the format defines', () => {
    expect([0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x7c00, 0x3555].map(halfToFloat)).toEqual([
      1,
      -2,
      65504,
      2 ** -24,
      2 ** -14,
      Infinity,
      0.333251953125,
    ])
    expect(halfToFloat(0x7e01)).toBeNaN()
    expect(Object.is(halfToFloat(0x8000), -0)).toBe(true)
  })

  it('survive the way to float32 and back, every one of them', () => {
    const all = Array.from({ length: 65536 }, (_, bits) => bits).filter((bits) => (bits & 0x7fff) <= 0x7c00)
    expect(all.filter((bits) => floatToHalf(halfToFloat(bits)) !== bits)).toEqual([])
  })

  it('are the nearest to any float32, ties to even', () => {
    let state = 1
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647
    const values = Array.from({ length: 50_000 }, () =>
      Math.fround((random() - 0.5) * 2 ** (Math.floor(random() * 44) - 27)),
    )
    expect(values.filter((value) => floatToHalf(value) !== nearestHalf(value))).toEqual([])
    const evens = Array.from({ length: 0x7bff }, (_, bits) => bits)
    expect(evens.filter((bits) => floatToHalf((halves[bits] + halves[bits + 1]) / 2) !== bits + (bits % 2))).toEqual([])
    expect(floatToHalf(65519)).toBe(0x7bff)
    expect(floatToHalf(65520)).toBe(0x7c00)
    expect(floatToHalf(2 ** -25)).toBe(0)
    expect(floatToHalf(-(2 ** -25) * 1.001)).toBe(0x8001)
  })
})

describe('8-bit floats', () => {
  it('E4M3 is the finite kind: 0x7E is 448, 0x7F and 0xFF are no numbers', () => {
    const decoded = toFloat32(Uint8Array.of(0x7e, 0xfe, 0x01, 0x08, 0x38, 0x80), 'F8_E4M3')
    expect([...decoded]).toEqual([448, -448, 2 ** -9, 2 ** -6, 1, -0])
    expect([...toFloat32(Uint8Array.of(0x7f, 0xff), 'F8_E4M3')]).toEqual([NaN, NaN])
  })
  it('E5M2 is the high byte of a half', () => {
    expect([...toFloat32(Uint8Array.of(0x7c, 0x3c, 0xc0, 0x7b), 'F8_E5M2')]).toEqual([Infinity, 1, -2, 57344])
  })
})

describe('convertElements', () => {
  it('brings every float type to F32', () => {
    expect(asFloats(convertElements(bytesOf(Uint16Array.of(0x3f80, 0xc000)), 'BF16', 'F32').bytes)).toEqual([1, -2])
    expect(asFloats(convertElements(bytesOf(Uint16Array.of(0x3c00)), 'F16', 'F32').bytes)).toEqual([1])
    expect(asFloats(convertElements(bytesOf(Float64Array.of(0.1)), 'F64', 'F32').bytes)).toEqual([Math.fround(0.1)])
    expect(asFloats(convertElements(Uint8Array.of(0x38), 'F8_E4M3', 'F32').bytes)).toEqual([1])
  })
  it('brings every float type to F16', () => {
    expect(asHalves(convertElements(bytesOf(Float32Array.of(1, 0.1)), 'F32', 'F16').bytes)).toEqual([0x3c00, 0x2e66])
    expect(asHalves(convertElements(bytesOf(Uint16Array.of(0x3f80)), 'BF16', 'F16').bytes)).toEqual([0x3c00])
    expect(asHalves(convertElements(Uint8Array.of(0x38, 0x3c), 'F8_E5M2', 'F16').bytes)).toEqual([0x3800, 0x3c00])
  })
  it('multiplies by the factor of a scaled file', () => {
    expect(asFloats(convertElements(Uint8Array.of(0x38, 0x40), 'F8_E4M3', 'F32', 0.25).bytes)).toEqual([0.25, 0.5])
    expect(asHalves(convertElements(Uint8Array.of(0x38), 'F8_E4M3', 'F16', 2).bytes)).toEqual([0x4000])
  })
  it('tells values that are not numbers from values that are too large', () => {
    const floats = bytesOf(Float32Array.of(1, NaN, Infinity, 70000, -70000, -1e30))
    expect(convertElements(floats, 'F32', 'F16')).toMatchObject({ nonFinite: 2, overflowed: 3 })
    expect(convertElements(floats, 'F32', 'F32')).toMatchObject({ nonFinite: 2, overflowed: 0 })
    expect(convertElements(bytesOf(Uint16Array.of(0x7f80, 0x7fc0, 0x4800, 0x3f80)), 'BF16', 'F16')).toMatchObject({
      nonFinite: 2,
      overflowed: 1,
    })
    expect(convertElements(bytesOf(Uint16Array.of(0x7c00, 0xfe00, 0x7bff)), 'F16', 'F16')).toMatchObject({
      nonFinite: 2,
      overflowed: 0,
    })
    expect(convertElements(bytesOf(Uint16Array.of(0x7c00)), 'F16', 'F32')).toMatchObject({ nonFinite: 1 })
    expect(convertElements(Uint8Array.of(0x7e), 'F8_E4M3', 'F16', 1000)).toMatchObject({ nonFinite: 0, overflowed: 1 })
  })
  it('does not change its input, and reads from any byte', () => {
    const raw = new Uint8Array([0, ...bytesOf(Float32Array.of(1, 2))])
    const before = [...raw]
    expect(asFloats(convertElements(raw.subarray(1), 'F32', 'F32', 3).bytes)).toEqual([3, 6])
    expect([...raw]).toEqual(before)
  })
})
