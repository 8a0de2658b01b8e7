import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { extractLora, extractSparse } from '../../../models/adapters/extract.ts'
import type { ModelWeights } from '../../../models/adapters/model-weights.ts'
import { applySparse, expectSparseBase, sparseTensors, weightCrc } from '../../../models/adapters/sparse.ts'
import { readAdapter } from '../../../models/adapters/read.ts'
import { writeTensors, type LayerDelta } from '../../../models/adapters/write.ts'
import { expectClose } from '../../expect-close.ts'
import { hashed } from './numbers.ts'

const shapes = new Map<string, { weight: number[]; bias?: number[] }>([
  ['conv_in', { weight: [24, 4, 3, 3], bias: [24] }],
  ['mid_block.attentions.0.proj_in', { weight: [24, 32], bias: [24] }],
  ['mid_block.attentions.0.norm', { weight: [24], bias: [24] }],
  ['mid_block.attentions.0.proj_out', { weight: [32, 24] }],
])
const size = (shape: number[]) => shape.reduce((product, dim) => product * dim, 1)

type Change = (name: string, values: Float32Array) => Float32Array

function model(name: string, change: Change = (_, values) => values): ModelWeights {
  return {
    name,
    shape: { family: 'sd15', layers: { unet: shapes } },
    read: async (_, path, leaf = 'weight') => {
      const shape = shapes.get(path)?.[leaf]
      return shape && change(`${path}.${leaf}`, hashed(`${path}.${leaf}`, size(shape)))
    },
    close: async () => {},
  }
}

function lora(path: string, rank: number, seed = ''): LayerDelta {
  const weight = shapes.get(path)!.weight
  const k = size(weight) / weight[0]
  const down = hashed(`${seed}${path}down`, rank * k)
  return {
    target: 'unet',
    path,
    weight,
    rank,
    down,
    up: hashed(`${seed}${path}up`, weight[0] * rank).map((v) => v / 50),
  }
}

function dense({ weight, rank, down, up }: LayerDelta): Float64Array {
  const [n, k] = [weight[0], down.length / rank]
  const out = new Float64Array(n * k)
  for (let i = 0; i < n; i++)
    for (let p = 0; p < rank; p++) for (let j = 0; j < k; j++) out[i * k + j] += up[i * rank + p] * down[p * k + j]
  return out
}

const added = [lora('conv_in', 3), lora('mid_block.attentions.0.proj_in', 6)]
const tuned = model('tuned', (name, values) => {
  if (name === 'mid_block.attentions.0.norm.weight') return values.map((value) => value + 0.5)
  if (name === 'conv_in.bias') return values.map((value) => value + 0.1)
  const layer = added.find(({ path }) => name === `${path}.weight`)
  if (!layer) return values
  const change = dense(layer)
  return values.map((value, i) => value + change[i])
})

describe('a low-rank adapter from two models', () => {
  it('finds what was added, at the rank that it has', async () => {
    const { layers, error, unchanged, leftOut } = await extractLora(model('base'), tuned, { rank: 8 })
    expect(layers.map(({ path, rank }) => [path, rank])).toEqual([
      ['conv_in', 3],
      ['mid_block.attentions.0.proj_in', 6],
    ])
    layers.forEach((layer, i) => expectClose(dense(layer), dense(added[i]), { abs: 2e-6 }))
    expect(error).toBeLessThan(1e-4)
    expect(unchanged).toBe(1)
    expect(leftOut.map(({ path }) => path)).toEqual(['conv_in.bias', 'mid_block.attentions.0.norm.weight'])
    expect(leftOut[1].size).toBeCloseTo(0.5 * Math.sqrt(24), 5)
  })

  it('of a lower rank states the error of every layer', async () => {
    const { layers, error, errors } = await extractLora(model('base'), tuned, { rank: 4 })
    let [lost, all] = [0, 0]
    layers.forEach((layer, i) => {
      const [exact, near] = [dense(added[i]), dense(layer)]
      const left = Math.hypot(...exact.map((value, at) => value - near[at]))
      expect(errors[i].error).toBeCloseTo(left / Math.hypot(...exact), 4)
      lost += left ** 2
      all += Math.hypot(...exact) ** 2
    })
    expect(error).toBeCloseTo(Math.sqrt(lost / all), 4)
    expect(errors[1].error).toBeGreaterThan(0.1)
  })

  it('refuses models that are alike or of different kinds', async () => {
    await expect(extractLora(model('base'), model('same'), { rank: 4 })).rejects.toMatchObject({
      code: 'adapter-mismatch',
      message: 'same does not differ from base in any layer.',
    })
    const other = { ...tuned, shape: { family: 'sdxl', layers: tuned.shape.layers } } as ModelWeights
    await expect(extractLora(model('base'), other, { rank: 4 })).rejects.toThrow(/different kinds/)
  })
})

describe('a sparse adapter from a low-rank one', () => {
  it.each(['struct', 'rand', 'wm', 'largest'] as const)('%s: ΔW at its places, with the error', async (mask) => {
    const base = model('base')
    const { layers, errors } = await extractSparse(added, { mask, rank: 4, base })
    for (const [i, layer] of layers.entries()) {
      const exact = dense(added[i])
      const weight = (await base.read('unet', layer.path))!
      expect(layer.crc).toBe(weightCrc(weight))
      const [n, k] = [added[i].weight[0], exact.length / added[i].weight[0]]
      expect(layer.index.length).toBeLessThanOrEqual(4 * (n + k))
      const changed = applySparse(weight, layer)
      const left = Math.hypot(...exact.map((value, at) => weight[at] + value - changed[at]))
      expect(errors[i].error).toBeCloseTo(left / Math.hypot(...exact), 4)
    }
  })

  it('the largest changes leave out least, every weight nothing but rounding', async () => {
    const base = model('base')
    const errorOf = async (mask: 'rand' | 'wm' | 'largest', rank: number) =>
      (await extractSparse(added, { mask, rank, base })).error
    const [rand, wm, largest] = [await errorOf('rand', 4), await errorOf('wm', 4), await errorOf('largest', 4)]
    expect(largest).toBeLessThan(0.8 * Math.min(rand, wm))
    expect(await errorOf('largest', 1000)).toBeLessThan(1e-3)
  })

  it('needs the model for the mask by weights, and is refused by another model', async () => {
    await expect(extractSparse(added, { mask: 'wm' })).rejects.toMatchObject({ code: 'bad-request' })
    const base = model('base')
    const { layers } = await extractSparse(added, { mask: 'largest', rank: 2, base })
    const folder = await mkdtemp(join(tmpdir(), 'vignette-sparse-'))
    try {
      const file = join(folder, 'sparse.safetensors')
      const shape = base.shape
      const { tensors, metadata } = sparseTensors(layers)
      const check = async (model: ModelWeights) => expectSparseBase(await readAdapter(file, shape), model.read)
      await writeTensors(file, tensors, metadata)
      await expect(check(base)).resolves.toBeUndefined()
      await expect(check(tuned)).rejects.toMatchObject({ code: 'adapter-mismatch' })
      // Without check values nobody can tell.
      await writeTensors(file, tensors, { vignette_kind: 'sparse' })
      await expect(check(tuned)).resolves.toBeUndefined()
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
