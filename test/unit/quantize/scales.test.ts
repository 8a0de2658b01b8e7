import { describe, expect, test } from 'vitest'
import { dequantizeGroups, quantizeGroups } from '../../../kernels/int4.ts'
import { halfToFloat } from '../../../models/graph/half.ts'
import { squaredDistance } from '../../../models/quantize/branch.ts'
import { fittingScales, roundToScales } from '../../../models/quantize/scales.ts'
import { normalMatrix } from './problem.ts'

const groups = { n: 12, k: 80, bits: 4, group: 32 } as const
const values = normalMatrix(groups.n, groups.k, 3)

test('the extreme of a group becomes the code -8, whatever its sign', () => {
  const scales = fittingScales(Float32Array.of(0.5, -1, 4, 2, 1, -4, 2, 0), { n: 2, k: 4, bits: 4, group: 32 })
  expect([...scales].map(halfToFloat)).toEqual([-0.5, 0.5])
})

test('scales, one of five, leave less than the plain rule; a search never more than none', () => {
  const errorWith = (scales: Uint16Array) => squaredDistance(roundToScales(values, groups, scales), values)
  const plain = squaredDistance(dequantizeGroups(quantizeGroups(values, groups), groups), values)
  const extreme = errorWith(fittingScales(values, groups))
  const searched = errorWith(fittingScales(values, groups, { search: true }))
  expect(extreme).toBeLessThan(0.9 * plain)
  expect(searched).toBeLessThan(extreme)
  // Nearly as good as the search of the kernel, which tries more.
  const thorough = quantizeGroups(values, { ...groups, search: true })
  expect(searched).toBeLessThan(1.1 * squaredDistance(dequantizeGroups(thorough, groups), values))
})

test('inputs that matter are served first', () => {
  const importance = new Float32Array(groups.k).map((_, i) => (i % 4 === 0 ? 1 : 1e-6))
  const errorAt = (scales: Uint16Array) => {
    const rounded = roundToScales(values, groups, scales)
    return values.reduce((sum, value, i) => sum + importance[i % groups.k] * (value - rounded[i]) ** 2, 0)
  }
  const uniform = errorAt(fittingScales(values, groups, { search: true }))
  expect(errorAt(fittingScales(values, groups, { search: true, importance }))).toBeLessThan(uniform)
})

describe.each([4, 8] as const)('%i bits', (bits) => {
  test('rounding is what packing and unpacking gives, and stays under them', () => {
    const format = { ...groups, bits }
    const scales = fittingScales(values, format, { search: true })
    const rounded = roundToScales(values, format, scales)
    expect(dequantizeGroups(quantizeGroups(values, { ...format, scales }), format)).toEqual(rounded)
    expect(dequantizeGroups(quantizeGroups(rounded, { ...format, scales }), format)).toEqual(rounded)
  })
})

test('groups of zeros stay zero', () => {
  const zeros = new Float32Array(64)
  const scales = fittingScales(zeros, { n: 1, k: 64, bits: 4, group: 32 }, { search: true })
  expect([...scales]).toEqual([0, 0])
  expect(roundToScales(zeros, { n: 1, k: 64, bits: 4, group: 32 }, scales)).toEqual(zeros)
})
