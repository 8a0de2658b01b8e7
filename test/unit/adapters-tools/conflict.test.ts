import { describe, expect, it } from 'vitest'
import { compareAdapters, conflictWords } from '../../../models/adapters/conflict.ts'
import { layerOverlap, sparseOrthogonality, type Change } from '../../../models/adapters/overlap.ts'
import type { LayerDelta } from '../../../models/adapters/write.ts'
import { hashed } from './numbers.ts'

const [n, k, r] = [24, 40, 4]

function lora(name: string, path = 'mid_block.attentions.0.proj_in', rank = r): LayerDelta {
  const factor = (end: string, count: number) => hashed(`${name}.${end}`, count)
  return { target: 'unet', path, weight: [n, k], rank, down: factor('down', rank * k), up: factor('up', n * rank) }
}

/** ΔW in full [n, k]. */
function dense(change: Change): Float64Array {
  const out = new Float64Array(n * k)
  if ('index' in change) change.index.forEach((place, i) => (out[place] = change.delta[i]))
  else {
    const { rank, down, up } = change
    for (let i = 0; i < n; i++)
      for (let j = 0; j < k; j++) for (let p = 0; p < rank; p++) out[i * k + j] += up[i * rank + p] * down[p * k + j]
  }
  return out
}

/** ΔWᵀΔW [k, k] or ΔWΔWᵀ [n, n], in full. */
function gram(w: Float64Array, side: 'input' | 'output'): Float64Array {
  const [size, other] = side === 'input' ? [k, n] : [n, k]
  const at = (i: number, p: number) => (side === 'input' ? w[p * k + i] : w[i * k + p])
  const out = new Float64Array(size * size)
  for (let i = 0; i < size; i++)
    for (let j = 0; j < size; j++) for (let p = 0; p < other; p++) out[i * size + j] += at(i, p) * at(j, p)
  return out
}

const inner = (a: Float64Array, b: Float64Array) => a.reduce((sum, value, i) => sum + value * b[i], 0)
const cosine = (a: Float64Array, b: Float64Array) => inner(a, b) / Math.sqrt(inner(a, a) * inner(b, b))

function sparse(name: string, every: number, shift: number): Change {
  const index = Int32Array.from({ length: Math.floor((n * k - shift) / every) }, (_, i) => shift + i * every)
  return { target: 'unet', path: 'conv_in', weight: [n, k], index, delta: hashed(name, index.length) }
}

describe('two changes of one layer', () => {
  const cases: [string, Change, Change][] = [
    ['low-rank ones', lora('a'), lora('b')],
    ['sparse ones', sparse('s', 7, 0), sparse('t', 5, 2)],
    ['a low-rank and a sparse one', lora('a'), sparse('s', 3, 1)],
  ]
  it.each(cases)('%s: the cosines are those of the full matrices', (_, a, b) => {
    const overlap = layerOverlap(a, b)
    const [x, y] = [dense(a), dense(b)]
    for (const side of ['input', 'output'] as const)
      expect(overlap[side]).toBeCloseTo(cosine(gram(x, side), gram(y, side)), 6)
    expect(overlap.agreement).toBeCloseTo(cosine(x, y), 6)
    expect(overlap.norms[0]).toBeCloseTo(Math.sqrt(inner(x, x)), 5)
  })

  it('do not depend on how ΔW is split into factors', () => {
    const a = lora('a')
    const mixed = lora('a')
    // down <- M down, up <- up M⁻¹ with M = [[1, 3], [0, 0.1]] on the first two ranks.
    for (let j = 0; j < k; j++) {
      mixed.down[j] = a.down[j] + 3 * a.down[k + j]
      mixed.down[k + j] = 0.1 * a.down[k + j]
    }
    for (let i = 0; i < n; i++) {
      mixed.up[i * r] = a.up[i * r]
      mixed.up[i * r + 1] = -30 * a.up[i * r] + 10 * a.up[i * r + 1]
    }
    const [plain, other] = [layerOverlap(a, lora('b')), layerOverlap(mixed, lora('b'))]
    for (const key of ['input', 'output', 'agreement', 'top'] as const) expect(other[key]).toBeCloseTo(plain[key], 4)
  })

  it('the top direction is the first right singular vector', () => {
    const a = lora('a', 'conv_in', 3)
    // One rank far stronger than the others: its row is the direction, as far as the others do not lean on it.
    for (let i = 0; i < n; i++) a.up[i * 3] *= 1000
    const single: LayerDelta = { ...a, rank: 1, down: a.down.slice(0, k), up: a.up.filter((_, i) => i % 3 === 0) }
    expect(layerOverlap(a, single).top).toBeGreaterThan(0.99999)
    const orthogonal = {
      ...single,
      down: single.down.map((_, j) => (j % 2 === 0 ? single.down[j + 1] : -single.down[j - 1])),
    }
    expect(layerOverlap(single, orthogonal).top).toBeLessThan(1e-6)
  })

  it('sparse measures are those of the product of the full matrices', () => {
    const [a, b] = [sparse('s', 11, 0), sparse('t', 13, 2)]
    const [x, y] = [dense(a), dense(b)]
    const full = new Float64Array(k * k)
    for (let i = 0; i < k; i++)
      for (let j = 0; j < k; j++) for (let p = 0; p < n; p++) full[i * k + j] += x[p * k + i] * y[p * k + j]
    if (!('index' in a) || !('index' in b)) throw new Error('sparse')
    const { awom, awor } = sparseOrthogonality(a, b)
    expect(awom).toBeCloseTo(Math.sqrt(inner(full, full)), 6)
    expect(awor).toBeCloseTo(full.filter((value) => value === 0).length / k ** 2, 10)
    expect(awor).toBeLessThan(1)
  })
})

describe('two adapters', () => {
  const paths = ['down_blocks.0.attentions.0.proj_in', 'up_blocks.1.attentions.0.proj_in']
  const adapter = (name: string) => paths.map((path) => lora(name + path, path))

  it('an adapter and itself meet wholly, one and its negative pull against each other', () => {
    const same = compareAdapters(adapter('a'), adapter('a'))
    expect(same.blocks.map(({ block, overlap }) => [block, Math.round(overlap * 1e5) / 1e5])).toEqual([
      ['down_blocks.0', 1],
      ['up_blocks.1', 1],
    ])
    expect([same.overlap, same.agreement]).toEqual([expect.closeTo(1, 5), expect.closeTo(1, 5)])
    expect(same.words).toMatch(/too strong/)
    const negative = adapter('a').map((layer) => ({ ...layer, up: layer.up.map((value) => -value) }))
    const against = compareAdapters(adapter('a'), negative)
    expect(against.overlap).toBeCloseTo(1, 5)
    expect(against.words).toMatch(/against each other/)
  })

  it('adapters of other layers do not meet, and count in the share', () => {
    const [a, b] = [adapter('a'), adapter('b')]
    const none = compareAdapters([a[0]], [b[1]])
    expect(none.overlap).toBe(0)
    expect(none.blocks.map(({ shared, layers }) => [shared, layers])).toEqual([
      [0, 1],
      [0, 1],
    ])
    expect(none.words).toMatch(/go well together/)
    const half = compareAdapters(a, [a[0]])
    expect(half.overlap).toBeGreaterThan(0.5)
    expect(half.overlap).toBeLessThan(0.9)
  })

  it('sparse ones tell the measures of their paper', () => {
    const { sparse: measures } = compareAdapters([sparse('s', 7, 0)], [sparse('t', 7, 1)])
    expect(measures?.awor).toBeGreaterThan(0)
    expect(measures?.awor).toBeLessThan(1)
  })

  it('every degree has its own words', () => {
    const words = new Set([0.05, 0.2, 0.4, 0.8].flatMap((o) => [-0.5, 0, 0.5].map((a) => conflictWords(o, a))))
    expect(words.size).toBe(10)
  })
})
