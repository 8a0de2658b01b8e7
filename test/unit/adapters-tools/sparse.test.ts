import { describe, expect, it } from 'vitest'
import {
  applySparse,
  maskPlaces,
  sparseTensors,
  sparsify,
  weightCrc,
  type SparseLayer,
} from '../../../models/adapters/sparse.ts'
import { VignetteError } from '../../../models/errors.ts'

const wave = (count: number, step = 0.37) => Float32Array.from({ length: count }, (_, i) => Math.sin(step * (i + 1)))

describe('masks', () => {
  const [n, k] = [24, 16]
  const weight = wave(n * k)

  it.each(['struct', 'rand', 'wm', 'largest'] as const)('%s gives ascending places within the budget', (mask) => {
    const places = maskPlaces(mask, { n, k, count: 90, weight, delta: weight })
    expect([...places]).toEqual([...new Set(places)].sort((a, b) => a - b))
    expect(places[0]).toBeGreaterThanOrEqual(0)
    expect(places[places.length - 1]).toBeLessThan(n * k)
    expect(places.length).toBeLessThanOrEqual(90)
    expect(places.length).toBeGreaterThan(60)
  })

  it('wm takes the largest weights and the first of equal ones', () => {
    const values = Float32Array.of(0.5, -3, 0.5, 2, 0.5, -0.1)
    expect([...maskPlaces('wm', { n: 2, k: 3, count: 3, weight: values })]).toEqual([0, 1, 3])
    const places = maskPlaces('wm', { n, k, count: 40, weight })
    const kept = new Set(places)
    const least = Math.min(...[...places].map((place) => Math.abs(weight[place])))
    weight.forEach((value, i) => kept.has(i) || expect(Math.abs(value)).toBeLessThanOrEqual(least))
  })

  it('struct has whole rows and the diagonal', () => {
    const places = new Set(maskPlaces('struct', { n: 8, k: 8, count: 8 + 2 * 7 }))
    for (let i = 0; i < 8; i++) expect(places.has(i * 9)).toBe(true)
    const whole = Array.from({ length: 8 }, (_, row) => row).filter((row) =>
      Array.from({ length: 8 }, (_, column) => places.has(row * 8 + column)).every(Boolean),
    )
    expect(whole).toHaveLength(2)
    expect(places.size).toBe(22)
  })

  it('rand spreads evenly and follows its seed', () => {
    const half = maskPlaces('rand', { n: 100, k: 100, count: 5000, seed: 4 })
    expect(half).toHaveLength(5000)
    const early = half.filter((place) => place < 5000).length
    expect(early).toBeGreaterThan(2350)
    expect(early).toBeLessThan(2650)
    expect(maskPlaces('rand', { n: 100, k: 100, count: 5000, seed: 5 })).not.toEqual(half)
  })
})

describe('a sparse layer', () => {
  const base = wave(60)
  const dense = wave(60, 0.9).map((value) => value / 8)
  const index = maskPlaces('largest', { n: 6, k: 10, count: 20, delta: dense })
  const { delta, error } = sparsify(dense, index)
  const layer: SparseLayer = { target: 'unet', path: 'conv_in', index, delta, crc: weightCrc(base) }

  it('states the share of the change that it leaves out', () => {
    const all = Math.hypot(...dense)
    const rest = dense.slice()
    index.forEach((place, i) => (rest[place] -= delta[i]))
    expect(error).toBeCloseTo(Math.hypot(...rest) / all, 6)
    expect(error).toBeGreaterThan(0.3)
    const more = sparsify(dense, maskPlaces('largest', { n: 6, k: 10, count: 60, delta: dense }))
    expect(more.error).toBeLessThan(1e-3) // rounding to halves alone
  })

  it('adds to a copy, by its strength, and leaves every other weight', () => {
    const changed = applySparse(base, layer, -2)
    const kept = new Set(index)
    base.forEach((value, i) => {
      if (!kept.has(i)) expect(changed[i]).toBe(value)
    })
    index.forEach((place, i) => expect(changed[place]).toBe(Math.fround(base[place] - 2 * delta[i])))
    expect(base).toEqual(wave(60))
  })

  it('is refused by another base, by the check value or by the size', () => {
    const other = base.slice()
    other[3] += 0.01
    const refused = (weight: Float32Array, changed: SparseLayer) => {
      try {
        applySparse(weight, changed)
      } catch (thrown) {
        return thrown as VignetteError
      }
      throw new Error('it was applied')
    }
    expect(refused(other, layer)).toMatchObject({ code: 'adapter-mismatch' })
    expect(refused(other, layer).message).toMatch(/another model/)
    expect(refused(base.subarray(0, 30), { ...layer, crc: undefined }).message).toMatch(/has 30/)
  })

  it('has the check value of zip and PNG over the halves', () => {
    // 1.0 and 2.0 as halves are 00 3c 00 40; the value is Python's zlib.crc32 of those four bytes.
    expect(weightCrc(Float32Array.of(1, 2))).toBe('7ae98278')
    expect(weightCrc(Float32Array.of(1 + 1e-5, 2))).toBe(weightCrc(Float32Array.of(1, 2)))
  })

  it('is written as places and halves, with its check value in the notes', () => {
    const { tensors, metadata } = sparseTensors([layer, { ...layer, target: 'text_encoder_2', crc: undefined }])
    expect(tensors.map(({ name, dtype, shape }) => [name, dtype, ...shape])).toEqual([
      ['unet.conv_in.sparse_index', 'I32', 20],
      ['unet.conv_in.sparse_delta', 'F16', 20],
      ['text_encoder_2.conv_in.sparse_index', 'I32', 20],
      ['text_encoder_2.conv_in.sparse_delta', 'F16', 20],
    ])
    expect(metadata['vignette_crc:unet.conv_in']).toBe(layer.crc)
    expect(() => sparseTensors([{ ...layer, index: index.slice().reverse() }])).toThrow(/ascend/)
  })
})
