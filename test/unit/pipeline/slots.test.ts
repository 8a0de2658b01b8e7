import { describe, expect, test } from 'vitest'
import type { LiveWeights, LoadedAdapter, SlotLayer } from '../../../main/pipeline/adapter-types.ts'
import { createSlots } from '../../../main/pipeline/slots.ts'
import type { FloatTensor } from '../../../main/pipeline/tensor.ts'
import { expectClose } from '../../expect-close.ts'
import { loraOf, numbers } from './fake-adapters.ts'

const layers: SlotLayer[] = [
  { path: 'a', inputs: 5, outputs: 4, isConv: false },
  { path: 'b', inputs: 3, outputs: 6, isConv: false },
  { path: 'c', inputs: 18, outputs: 2, isConv: true },
]
const ink = loraOf('ink', layers, { a: 2, b: 1 })
const wash = loraOf('wash', layers, { a: 3, c: 2 })
const fox = loraOf('fox', layers, { b: 4 })

/** What a layer with these inputs adds to row `row` of a batch: x [k] -> [n], in double precision. */
function change(inputs: Record<string, FloatTensor>, path: string, x: Float32Array, row = 0): Float64Array {
  const [down, up, scale] = ['down', 'up', 'scale'].map((name) => inputs[`${path}.${name}`])
  const [rank, k] = down.shape
  const n = up.shape[1]
  expect([up.shape[0], scale.shape[1]]).toEqual([rank, rank])
  const result = new Float64Array(n)
  for (let r = 0; r < rank; r++) {
    let hidden = 0
    for (let i = 0; i < k; i++) hidden += down.data[r * k + i] * x[i]
    hidden *= scale.data[Math.min(row, scale.shape[0] - 1) * rank + r]
    for (let i = 0; i < n; i++) result[i] += hidden * up.data[r * n + i]
  }
  return result
}

/** The same by adding up the adapters one at a time. */
function expected(
  weights: ReadonlyMap<LoadedAdapter, number>,
  { path, outputs }: SlotLayer,
  x: Float32Array,
): Float64Array {
  const result = new Float64Array(outputs)
  for (const [adapter, weight] of weights) {
    const factors = adapter.layers.unet?.get(path)
    if (!factors) continue
    const scale = { data: new Float32Array(factors.rank).fill(1), shape: [1, factors.rank] }
    const own = change({ 'x.down': factors.down, 'x.up': factors.up, 'x.scale': scale }, 'x', x)
    own.forEach((value, i) => (result[i] += weight * value))
  }
  return result
}

const rowOf = (...pairs: [LoadedAdapter, number][]) => new Map(pairs)

describe('inputs of the slots', () => {
  test('are what the adapters add by themselves, in every layer and row', async () => {
    const rows = [rowOf([ink, 0.8], [wash, -0.5]), rowOf([fox, 1.2]), rowOf(), rowOf([wash, 1], [fox, 0.1], [ink, 2])]
    const inputs = await createSlots('unet', layers, { isMixed: true }).inputs(rows)
    expect(Object.keys(inputs)).toHaveLength(9)
    for (const [i, layer] of layers.entries()) {
      const x = numbers(layer.inputs, i)
      expect(inputs[`${layer.path}.scale`].shape[0]).toBe(4)
      rows.forEach((row, r) => expectClose(change(inputs, layer.path, x, r), expected(row, layer, x), { abs: 1e-6 }))
    }
    expect(inputs['a.down'].shape).toEqual([5, 5])
    expect(inputs['c.down'].shape).toEqual([2, 18])
  })

  test('are so for any adapters, ranks and weights', async () => {
    let state = 1
    const next = (below: number) => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8) % below
    const slots = createSlots('unet', layers, { isMixed: true })
    for (let round = 0; round < 60; round++) {
      const adapters = Array.from({ length: 1 + next(5) }, (_, i) => {
        const ranks = layers.flatMap(({ path }) => (next(3) > 0 ? [[path, 1 + next(6)] as const] : []))
        return loraOf(`${round} ${i} ${next(1000)}`, layers, Object.fromEntries(ranks))
      })
      const rows = Array.from({ length: 1 + next(4) }, () =>
        rowOf(...adapters.flatMap((one): [LoadedAdapter, number][] => (next(2) ? [[one, next(9) / 4 - 1]] : []))),
      )
      const inputs = await slots.inputs(rows)
      for (const [i, layer] of layers.entries()) {
        const x = numbers(layer.inputs, i)
        rows.forEach((row, r) => expectClose(change(inputs, layer.path, x, r), expected(row, layer, x), { abs: 1e-5 }))
      }
    }
  })

  test('do not depend on the order of adapters, to the bit', async () => {
    const slots = createSlots('unet', layers)
    const one = await slots.inputs([rowOf([ink, 0.3], [wash, 0.5], [fox, 0.7])])
    const other = await createSlots('unet', layers).inputs([rowOf([fox, 0.7], [ink, 0.3], [wash, 0.5])])
    expect(other).toEqual(one)
    expect(await slots.inputs([rowOf([fox, 0.7], [ink, 0.3], [wash, 0.5])])).toBe(one)
  })

  test('have a rank of at least 1, of zeros, where nothing acts', async () => {
    const inputs = await createSlots('unet', layers).inputs([rowOf([ink, 1])])
    expect(inputs['c.down']).toEqual({ data: new Float32Array(18), shape: [1, 18] })
    expect(inputs['c.up']).toEqual({ data: new Float32Array(2), shape: [1, 2] })
    expect(inputs['c.scale']).toEqual({ data: new Float32Array(1), shape: [1, 1] })
    const none = await createSlots('unet', layers, { isMixed: true }).inputs([rowOf(), rowOf()])
    for (const { path } of layers) expect(none[`${path}.scale`]).toEqual({ data: new Float32Array(2), shape: [2, 1] })
  })

  test('of one adapter are its own arrays, not copies', async () => {
    const inputs = await createSlots('unet', layers).inputs([rowOf([ink, 0.4]), rowOf([ink, 0.4])])
    expect(inputs['a.down']).toBe(ink.layers.unet?.get('a')?.down)
    expect(inputs['a.up']).toBe(ink.layers.unet?.get('a')?.up)
    expect([...inputs['a.scale'].data]).toEqual([0.4, 0.4].map(Math.fround))
    expect(inputs['a.scale'].shape).toEqual([1, 2])
  })

  test('stay the same objects from step to step; a new weight makes new scales only', async () => {
    const slots = createSlots('unet', layers)
    const first = await slots.inputs([rowOf([ink, 1], [wash, 1])])
    expect(await slots.inputs([rowOf([ink, 1], [wash, 1])])).toBe(first)
    const other = await slots.inputs([rowOf([ink, 1], [wash, 0.5])])
    for (const path of ['a', 'b', 'c']) {
      expect(other[`${path}.down`]).toBe(first[`${path}.down`])
      expect(other[`${path}.up`]).toBe(first[`${path}.up`])
    }
    expect([...other['a.scale'].data]).toEqual([1, 1, 0.5, 0.5, 0.5])
    // A window closes and opens again: back to the arrays of before.
    await slots.inputs([rowOf([ink, 1])])
    expect((await slots.inputs([rowOf([ink, 1], [wash, 1])]))['a.down']).toBe(first['a.down'])
  })

  test('are refused for mixed rows by a network that takes one weight for all', async () => {
    const slots = createSlots('unet', layers)
    await expect(slots.inputs([rowOf([ink, 1]), rowOf([ink, 0.5])])).rejects.toThrow('mixed rows')
    await slots.inputs([rowOf([ink, 1])])
    await expect(slots.inputs([rowOf([ink, 1]), rowOf([ink, 0.5])])).rejects.toThrow('mixed rows')
    const text = loraOf('text', layers, { a: 1 }, 'text_encoder')
    expect((await slots.inputs([rowOf([ink, 1]), rowOf([ink, 1], [text, 1])]))['a.scale'].shape).toEqual([1, 2])
  })

  test('are refused for an adapter that changes a layer without a slot, or of other shapes', async () => {
    await expect(createSlots('unet', layers.slice(0, 2)).inputs([rowOf([wash, 1])])).rejects.toThrow(
      'c, which takes no adapters',
    )
    const wider = [{ ...layers[0], inputs: 7 }, layers[1]]
    await expect(createSlots('unet', wider).inputs([rowOf([ink, 1])])).rejects.toThrow(
      '[2, 7] and [2, 4], got [2, 5] and [2, 4]',
    )
  })
})

describe('weights that are inputs', () => {
  const norm: LoadedAdapter = { ...ink, name: 'norm', sha256: 'norm', live: { unet: new Map([['n', {} as never]]) } }
  const live = (asked: unknown[] = []): LiveWeights => ({
    paths: () => new Set(['n']),
    async inputs(target, paths, weights) {
      asked.push([target, [...paths], [...weights].map(([{ name }, weight]) => [name, weight])])
      return { 'n.weight': { data: Float32Array.of(1), shape: [1] } }
    },
  })

  test('come beside the slots, asked for with the adapters that change them alone', async () => {
    const asked: unknown[] = []
    const slots = createSlots('unet', layers, { live: { paths: new Set(['n']), weights: live(asked) } })
    const inputs = await slots.inputs([rowOf([ink, 0.5], [norm, 0.25])])
    expect(inputs['n.weight'].data[0]).toBe(1)
    expect([...inputs['a.scale'].data]).toEqual([0.5, 0.5, 0.25, 0.25])
    expect(asked).toEqual([['unet', ['n'], [['norm', 0.25]]]])
    // Without any they are what the model has: the network takes them all the same.
    await slots.inputs([rowOf()])
    expect(asked[1]).toEqual(['unet', ['n'], []])
  })

  test('keep rows apart where they differ', () => {
    const slots = createSlots('unet', layers, { isMixed: true, live: { paths: new Set(['n']), weights: live() } })
    const keys = [rowOf([ink, 1]), rowOf(), rowOf([norm, 1]), rowOf([norm, 0.5]), rowOf([wash, 1], [norm, 0.5])]
    expect(keys.map((row) => slots.apart(row))).toEqual(['', '', 'norm 1', 'norm 0.5', 'norm 0.5'])
  })
})

test('ranks add up over the adapters of a layer: told above 256, refused above 1024', async () => {
  const slots = createSlots('unet', layers)
  const wide = (sha256: string, rank: number) => loraOf(sha256, layers, { a: rank, b: 1 })
  expect(slots.check([wide('x', 128), wide('y', 128)])).toBeUndefined()
  expect(slots.check([wide('x', 128), wide('y', 129)])).toContain('rank 257')
  expect(slots.check([wide('x', 512), wide('y', 512)])).toContain('rank 1024')
  try {
    slots.check([wide('x', 512), wide('y', 513)])
    expect.unreachable()
  } catch (error) {
    expect(error).toMatchObject({ code: 'bad-request', hint: expect.stringContaining('rank budget') })
    expect(String(error)).toContain('1025')
  }
})
