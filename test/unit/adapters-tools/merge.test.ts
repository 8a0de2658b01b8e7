import { describe, expect, it } from 'vitest'
import { commonBasis, fromBasis } from '../../../models/adapters/basis.ts'
import { scaled, type RawLayer } from '../../../models/adapters/deltas.ts'
import { inverseMetadata, readInverse, takeOut, type Inverse } from '../../../models/adapters/inverse.ts'
import { mergeAdapters, squaredNorm, truncate, type Member } from '../../../models/adapters/merge.ts'
import { withOneAlpha, type LayerDelta } from '../../../models/adapters/write.ts'
import { floatToHalf, halfToFloat } from '../../../models/graph/half.ts'
import { expectClose } from '../../expect-close.ts'
import { hashed } from './numbers.ts'

const [n, k] = [20, 28]
const paths = ['down_blocks.0.attentions.0.proj_in', 'mid_block.attentions.0.proj_in']
type Stored = 'F16' | 'BF16' | 'F32'

/** Numbers that the stored type can hold. */
function stored(name: string, count: number, dtype: Stored): Float32Array {
  const values = hashed(name, count)
  if (dtype === 'F32') return values
  if (dtype === 'F16') return values.map((value) => halfToFloat(floatToHalf(value)))
  const bits = new Uint32Array(values.buffer)
  for (let i = 0; i < bits.length; i++) bits[i] &= 0xffff0000
  return values
}

function layer(name: string, path: string, rank: number, dtype: Stored, scale = 0.25): RawLayer {
  const source = (end: string, shape: number[]) => ({ name: `${path}.${end}`, dtype, shape })
  return {
    ...{ target: 'unet', path, weight: [n, k], rank, scale },
    down: stored(`${name}${path}down`, rank * k, dtype),
    up: stored(`${name}${path}up`, n * rank, dtype),
    source: { down: source('lora_down', [rank, k]), up: source('lora_up', [n, rank]) },
  }
}

const member = (name: string, rank: number, weight: number, dtype: Stored, only = paths): Member => ({
  name,
  weight,
  layers: only.map((path) => layer(name, path, rank, dtype)),
  sha256: name,
})

function dense({ rank, down, up }: LayerDelta, factor = 1): Float64Array {
  const out = new Float64Array(n * k)
  for (let i = 0; i < n; i++)
    for (let p = 0; p < rank; p++)
      for (let j = 0; j < k; j++) out[i * k + j] += factor * up[i * rank + p] * down[p * k + j]
  return out
}

const norm = (values: Float64Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0))
const minus = (a: Float64Array, b: Float64Array) => a.map((value, i) => value - b[i])

/** Σ weight · ΔW of all members at a path. */
function together(members: readonly Member[], path: string): Float64Array {
  const out = new Float64Array(n * k)
  for (const { layers, weight } of members)
    for (const one of layers) if (one.path === path) dense(scaled(one), weight).forEach((value, i) => (out[i] += value))
  return out
}

/** As it is after a file has been written and read. */
const written = (inverse: Inverse | undefined): Inverse => {
  const read = inverse && readInverse(new Map(Object.entries(inverseMetadata(inverse))), 'merged.safetensors')
  if (!read) throw new Error('no inverse')
  return read
}

const three = (dtype: Stored = 'F16') => [
  member('ink', 3, 0.8, dtype),
  member('fox', 2, -1.3, dtype),
  member('one', 4, 0.35, dtype, [paths[1]]),
]

describe('side by side', () => {
  it('does what the adapters do together', async () => {
    const members = three()
    const { layers, error } = await mergeAdapters(members)
    expect(error).toBe(0)
    expect(layers.map(({ rank }) => rank)).toEqual([5, 9])
    for (const one of layers) expectClose(dense(one), together(members, one.path), { abs: 1e-6 })
  })

  it.each(['F16', 'BF16', 'F32'] as const)('%s: every adapter comes back bit for bit', async (dtype) => {
    const members = three(dtype)
    const { layers, inverse } = await mergeAdapters(members, { keepInverse: true })
    const back = written(inverse)
    members.forEach((one, i) => {
      const out = takeOut(back, i, withOneAlpha(layers))
      expect(out.map(({ up, down, rank, scale, source, path }) => ({ up, down, rank, scale, source, path }))).toEqual(
        one.layers.map(({ up, down, rank, scale, source, path }) => ({ up, down, rank, scale, source, path })),
      )
      expect(back.members[i]).toMatchObject({ name: one.name, weight: one.weight, sha256: one.name, error: 0 })
    })
    // Halves need no corrections; float32 does, or the test would prove nothing.
    const hasCorrections = inverse?.members.some(({ layers: own }) => own.some(({ correction }) => correction))
    expect(hasCorrections).toBe(dtype === 'F32')
  })

  it('an adapter with two parts for one layer, as fused files have', async () => {
    const fused = {
      ...member('ink', 2, 0.7, 'F16'),
      layers: [layer('q', paths[0], 2, 'F16'), layer('k', paths[0], 3, 'F16')],
    }
    const { layers, inverse } = await mergeAdapters([fused, member('fox', 2, 1, 'F16')], { keepInverse: true })
    expect(layers[0].rank).toBe(7)
    const out = takeOut(written(inverse), 0, withOneAlpha(layers))
    expect(out.map(({ up, down }) => [up, down])).toEqual(fused.layers.map(({ up, down }) => [up, down]))
  })

  it('refuses what could not be taken out again', async () => {
    await expect(mergeAdapters([member('ink', 2, 0, 'F16')], { keepInverse: true })).rejects.toMatchObject({
      code: 'bad-request',
    })
    const still = { ...member('ink', 2, 1, 'F16'), layers: [layer('ink', paths[0], 2, 'F16', 0)] }
    await expect(mergeAdapters([still], { keepInverse: true })).rejects.toMatchObject({ code: 'adapter-mismatch' })
    const { layers, inverse } = await mergeAdapters(three(), { keepInverse: true })
    expect(() => takeOut(written(inverse), 0, withOneAlpha(layers.slice(1)))).toThrow(/no layer down_blocks/)
    const other = written(inverse)
    other.members[0].layers[0].source!.up.shape = [n, 99]
    expect(() => takeOut(other, 0, withOneAlpha(layers))).toThrow(/another size/)
    const metadata = inverseMetadata(inverse!)
    const cut = new Map([['vignette_inverse', metadata.vignette_inverse.replace(/"layers":"..../, '"layers":"')]])
    expect(() => readInverse(cut, 'x.safetensors')).toThrow(/damaged/)
    const nameless = new Map([['vignette_inverse', metadata.vignette_inverse.replace('"name":"ink"', '"name":7')]])
    expect(() => readInverse(nameless, 'x.safetensors')).toThrow(/damaged/)
    expect(readInverse(new Map(), 'x.safetensors')).toBeUndefined()
  })
})

describe('of a lower rank', () => {
  it('cut by singular values: the error is the one it states, and the least', async () => {
    const members = three()
    const { layers, error, worst } = await mergeAdapters(members, { rank: 4 })
    let [lost, all, most] = [0, 0, 0]
    for (const one of layers) {
      const exact = together(members, one.path)
      const difference = norm(minus(dense(one), exact))
      most = Math.max(most, difference / norm(exact))
      lost += difference ** 2
      all += norm(exact) ** 2
      expect(one.rank).toBeLessThanOrEqual(4)
    }
    expect(error).toBeCloseTo(Math.sqrt(lost / all), 5)
    expect(error).toBeGreaterThan(0.05)
    expect(worst?.error).toBeCloseTo(most, 5)
    // Layers that fit are not cut, but are part of the whole.
    const { error: less } = await mergeAdapters(members, { rank: 5 })
    const sizes = paths.map((path) => norm(together(members, path)))
    const { layers: five } = await mergeAdapters(members, { rank: 5 })
    const gone = norm(minus(dense(five[1]), together(members, paths[1])))
    expect(less).toBeCloseTo(gone / Math.hypot(...sizes), 5)
    // A rank that holds everything loses nothing.
    expect((await mergeAdapters(members, { rank: 9 })).error).toBe(0)
  })

  it('with the inverse: merged and every adapter are within the errors it states', async () => {
    const members = three('F32')
    const { layers, error, inverse } = await mergeAdapters(members, { rank: 5, keepInverse: true })
    const back = written(inverse)
    let [lost, all] = [0, 0]
    for (const one of layers) {
      const exact = together(members, one.path)
      lost += norm(minus(dense(one), exact)) ** 2
      all += norm(exact) ** 2
    }
    expect(error).toBeCloseTo(Math.sqrt(lost / all), 4)
    for (const [i, one] of members.entries()) {
      const out = takeOut(back, i, withOneAlpha(layers))
      let [left, size] = [0, 0]
      one.layers.forEach((own, at) => {
        const exact = dense(scaled(own))
        left += norm(minus(dense(out[at]), exact)) ** 2
        size += norm(exact) ** 2
        expect(out[at].rank).toBe(Math.min(own.rank, layers.find(({ path }) => path === own.path)!.rank))
      })
      expect(back.members[i].error).toBeCloseTo(Math.sqrt(left / size), 4)
    }
    expect(back.members[2].error).toBeGreaterThan(0.05)
    // The basis is for the sum as well, which cannot be far from the best of that rank.
    const best = (await mergeAdapters(members, { rank: 5 })).error
    expect(error).toBeGreaterThan(0.999 * best)
    expect(error).toBeLessThan(1.45 * best)
  })

  it('a basis of full rank gives everything back, also when the adapters cancel out', () => {
    const ink = scaled(layer('ink', paths[0], 3, 'F32'))
    const fox = scaled(layer('fox', paths[0], 2, 'F32'))
    const negative = { ...ink, up: ink.up.map((value) => -value) }
    const basis = commonBasis(
      [
        { layer: ink, weight: 1 },
        { layer: fox, weight: 1 },
        { layer: negative, weight: 1 },
      ],
      8,
    )
    expectClose(dense(basis.merged), dense(fox), { abs: 1e-4 })
    for (const [i, one] of [ink, fox, negative].entries()) {
      const out = fromBasis(basis.merged, basis.cores[i].core, one.rank)
      expect(norm(minus(dense(out), dense(one))) / norm(dense(one))).toBeLessThan(1e-5)
    }
  })

  it('gives everything back even where the sum is nothing at all', () => {
    const both = ['ink', 'fox'].map((name) => ({ layer: scaled(layer(name, paths[0], 3, 'F32')), weight: 0 }))
    const basis = commonBasis(both, 6)
    expect(norm(dense(basis.merged))).toBeLessThan(1e-4 * norm(dense(both[0].layer)))
    for (const [i, one] of both.entries()) {
      const out = dense(fromBasis(basis.merged, basis.cores[i].core, 3))
      expect(norm(minus(out, dense(one.layer))) / norm(dense(one.layer))).toBeLessThan(1e-5)
    }
  })

  it('truncation knows the size of what it cuts', async () => {
    const one = scaled(layer('ink', paths[0], 3, 'F32'))
    expect(Math.sqrt(squaredNorm(one))).toBeCloseTo(norm(dense(one)), 5)
    const { layer: cut, error } = await truncate(one, 2)
    expect(error).toBeCloseTo(norm(minus(dense(cut), dense(one))) / norm(dense(one)), 5)
  })
})
