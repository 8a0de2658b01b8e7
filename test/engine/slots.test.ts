import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { floatToHalf, halfToFloat } from '../../models/graph/half.ts'
import { dequantizeGroups } from '../../kernels/int4.ts'
import { adapterColumns } from '../../models/adapters/columns.ts'
import { buildNetworks, slotsOf, type BuildOptions, type Part, type SlotPlace } from '../../models/build.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readTensor } from '../../models/checkpoint/safetensors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import { plainMatMul } from '../../models/quantize/algebra.ts'
import { expandWeights } from '../../models/quantize/expand.ts'
import type { UnetConfig } from '../../models/unet.ts'
import { softwareVulkan } from '../../scripts/software-vulkan.ts'
import { configOf, feedsOf, readCases, storeWeights, weightsOf, type Case } from '../golden/networks-cases.ts'
import { tableOf, writeQuantizedCase } from './quantized-case.ts'

// What a network gives with adapters in its slots must be what it gives with the adapters in its weights.

const cases = readCases()
const named = (name: string) => cases.find((item) => item.name === name)!
const vulkan = softwareVulkan()
const everything = new Set(['attention', 'mlp', 'time', 'conv'] as const)

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-slots-'))
  Object.assign(process.env, vulkan.variables)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** 10 · log10 of the power of `expected` over that of the difference. */
function decibels(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length)
  let [signal, noise] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    signal += expected[i] ** 2
    noise += (actual[i] - expected[i]) ** 2
  }
  return 10 * Math.log10(signal / noise)
}

const minus = (a: Float32Array, b: Float32Array) => a.map((value, i) => value - b[i])

type Model = { at: string; item: Case; tensors: Map<string, StoredTensor> }

function floatModel(item: Case, name: string): Model {
  const at = join(folder, name)
  mkdirSync(at, { recursive: true })
  return { at, item, tensors: storeWeights(at, item, 'fp32') }
}

let graphs = 0
async function open({ at, item, tensors }: Model, options: BuildOptions, provider = 'cpu'): Promise<InferenceSession> {
  const part = { part: item.part, config: configOf(item), tensors } as Part
  const [{ onnx }] = buildNetworks([part], options)
  const path = join(at, `graph-${graphs++}.onnx`)
  writeFileSync(path, onnx)
  return InferenceSession.create(path, { executionProviders: [provider], intraOpNumThreads: 1, logSeverityLevel: 3 })
}

type Factors = { rank: number; down: Float32Array; up: Float32Array }
type Adapter = ReadonlyMap<string, Factors>

/** An adapter for all layers, its ranks 1 to 3 in turns; up is [r, n]. */
function adapterFor(item: Case, seed: number, size = 0.4): Adapter {
  const places = slotsOf({ part: item.part, config: configOf(item) } as Part)
  return new Map(
    places.map(({ path, inputs, outputs }, i) => {
      const rank = 1 + (i % 3)
      const numbers = (count: number, phase: number) =>
        Float32Array.from({ length: count }, (_, j) => Math.sin(seed * 5.3 + i * 1.7 + phase + j * j * 0.37 + j))
      const down = numbers(rank * inputs, 0)
      const up = numbers(rank * outputs, 2).map((value) => (size * value) / Math.sqrt(inputs * rank))
      return [path, { rank, down, up }] as const
    }),
  )
}

/** The slots' inputs for one adapter at a weight, or for several whose weights differ from row to row. */
function feedsFor(
  session: InferenceSession,
  adapters: readonly Adapter[],
  weights: readonly (readonly number[])[],
): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {}
  for (const input of session.inputMetadata) {
    const path = /^(.*)\.down$/.exec(input.name)?.[1]
    if (path === undefined) continue
    const layers = adapters.map((adapter) => adapter.get(path)!)
    const rank = layers.reduce((sum, layer) => sum + layer.rank, 0)
    const join = (key: 'down' | 'up') => Float32Array.from(layers.flatMap((layer) => [...layer[key]]))
    const scale = weights.flatMap((row) => layers.flatMap((layer, i) => new Array<number>(layer.rank).fill(row[i])))
    const [down, up] = [join('down'), join('up')]
    if (session.inputNames.includes(`${path}.down_scales`)) {
      const { columns, scales } = adapterColumns(down, rank)
      feeds[input.name] = new Tensor('int8', columns, [down.length / rank, rank])
      feeds[`${path}.down_scales`] = new Tensor('float32', scales, [rank])
    } else feeds[input.name] = new Tensor('float32', down, [rank, down.length / rank])
    feeds[`${path}.up`] = new Tensor('float32', up, [rank, up.length / rank])
    feeds[`${path}.scale`] = new Tensor('float32', Float32Array.from(scale), [weights.length, rank])
  }
  return feeds
}

/** weights [n, …] + weight · (up · down), the nine taps of a 3 × 3 filter in their own order. */
function merged(place: SlotPlace, weights: Float32Array, { rank, down, up }: Factors, weight = 1): Float32Array {
  const { inputs, outputs, isConv } = place
  const channels = isConv ? inputs / 9 : inputs
  return weights.map((value, i) => {
    const row = Math.floor(i / inputs)
    const rest = i % inputs
    const k = isConv ? (rest % 9) * channels + Math.floor(rest / 9) : rest
    let sum = 0
    for (let r = 0; r < rank; r++) sum += up[r * outputs + row] * down[r * inputs + k]
    return value + weight * sum
  })
}

/** Live weights of all layers with slots: those of `weights` with the adapter in them. */
function liveFeeds(item: Case, weights: ReadonlyMap<string, Float32Array>, adapter: Adapter): Record<string, Tensor> {
  const part = { part: item.part, config: configOf(item) } as Part
  const shapes = new Map(item.tensors)
  const feeds: Record<string, Tensor> = {}
  for (const place of slotsOf(part)) {
    const name = `${place.path}.weight`
    const values = merged(place, weights.get(name)!, adapter.get(place.path)!)
    feeds[name] = new Tensor('float32', values, shapes.get(name)!)
    const bias = weights.get(`${place.path}.bias`)
    if (bias) feeds[`${place.path}.bias`] = new Tensor('float32', bias, [bias.length])
  }
  return feeds
}

async function run(session: InferenceSession, feeds: Record<string, Tensor>, output: string): Promise<Float32Array> {
  const known = new Set(session.inputNames)
  const results = await session.run(Object.fromEntries(Object.entries(feeds).filter(([name]) => known.has(name))))
  return results[output].data as Float32Array
}

const isUnet = ({ part }: Case) => part === 'unet'
const outputOf = (item: Case) => (isUnet(item) ? 'out_sample' : 'normed_states')

/** Two rows for textual inversion that put nothing in. */
function noVectors(item: Case): Record<string, Tensor> {
  if (isUnet(item)) return {}
  const ids = feedsOf(item.runs[0]).input_ids
  const d = (configOf(item) as { hiddenSize: number }).hiddenSize
  return {
    token_vectors: new Tensor('float32', new Float32Array(ids.size * d), [...ids.dims, d]),
    token_mask: new Tensor('float32', new Float32Array(ids.size), ids.dims),
  }
}

const models = cases.filter(({ part }) => part !== 'vae' && part !== 'tiny_vae')

describe.each(models)('slots of $name', (item) => {
  const places = slotsOf({ part: item.part, config: configOf(item) } as Part)
  const adapter = adapterFor(item, 1)
  // Channels last is how quantised networks run; two structures show it.
  const layouts = ['no-middle', 'sdxl'].some((name) => item.name.includes(name)) ? [false, true] : [false]

  it.each(layouts)('give what weights with the adapter in them give, channels last: %s', async (channelsLast) => {
    const model = floatModel(item, `${item.name}-${channelsLast}`)
    const options = { dialect: 'cpu', channelsLast } as const
    const feeds = { ...feedsOf(item.runs[0]), ...noVectors(item) }
    const output = outputOf(item)
    const session = await open(model, { ...options, slots: { groups: everything } })
    const inSlots = await run(session, { ...feeds, ...feedsFor(session, [adapter], [[1]]) }, output)
    const idle = await run(session, { ...feeds, ...feedsFor(session, [adapter], [[0]]) }, output)
    const half = await run(session, { ...feeds, ...feedsFor(session, [adapter, adapter], [[0.5, 0.5]]) }, output)
    await session.release()
    const liveSession = await open(model, { ...options, live: new Set(places.map(({ path }) => path)) })
    const expected = await run(liveSession, { ...feeds, ...liveFeeds(item, weightsOf(item), adapter) }, output)
    const unchanged = new Map([...adapter].map(([path, layer]) => [path, { ...layer, up: layer.up.map(() => 0) }]))
    const liveIdle = await run(liveSession, { ...feeds, ...liveFeeds(item, weightsOf(item), unchanged) }, output)
    await liveSession.release()
    const plain = await run(await open(model, options), feeds, output)
    // float32 sums in another order: 100 to 130 dB.
    expect(decibels(inSlots, expected)).toBeGreaterThan(95)
    expect(decibels(half, expected)).toBeGreaterThan(95)
    expect(decibels(idle, plain)).toBeGreaterThan(110)
    expect(decibels(liveIdle, plain)).toBeGreaterThan(95)
    expect(decibels(plain, expected)).toBeLessThan(25) // the adapter does something
  })
})

describe('a mixed batch', () => {
  const item = named('no-middle')

  it.each([false, true])('gives each picture its own adapters, channels last: %s', async (channelsLast) => {
    const model = floatModel(item, `mixed-${channelsLast}`)
    const rows = 3
    const feeds = Object.fromEntries(
      Object.entries(feedsOf(item.runs[0])).map(([name, { data, dims }]) => {
        const one = (data as Float32Array).slice(0, data.length / dims[0])
        const all = Float32Array.from(
          { length: rows * one.length },
          (_, i) => one[i % one.length] * (1 + (0.1 * i) / one.length),
        )
        return [name, new Tensor('float32', all, [rows, ...dims.slice(1)])]
      }),
    )
    const adapters = [adapterFor(item, 1), adapterFor(item, 2)]
    const weights = Array.from({ length: rows }, (_, row) => [row % 2, 0.7 * (1 - (row % 2))])
    const mixed = await open(model, { dialect: 'cpu', channelsLast, slots: { groups: everything, mixed: true } })
    const together = await run(mixed, { ...feeds, ...feedsFor(mixed, adapters, weights) }, 'out_sample')
    const single = await open(model, { dialect: 'cpu', channelsLast, slots: { groups: everything } })
    const size = together.length / rows
    for (let row = 0; row < rows; row++) {
      const alone = Object.fromEntries(
        Object.entries(feeds).map(([name, { data, dims }]) => {
          const part = data.length / dims[0]
          const values = (data as Float32Array).slice(row * part, (row + 1) * part)
          return [name, new Tensor('float32', values, [1, ...dims.slice(1)])]
        }),
      )
      const expected = await run(single, { ...alone, ...feedsFor(single, adapters, [weights[row]]) }, 'out_sample')
      expect(decibels(together.slice(row * size, (row + 1) * size), expected)).toBeGreaterThan(95)
    }
  })
})

describe('a 4-bit network', () => {
  const item = named('no-middle')
  const quality = { bits: 4, rank: 4 } as const
  const adapter = adapterFor(item, 3)
  const places = slotsOf({ part: 'unet', config: configOf(item) } as Part)

  /** The weights that the codes and branches of the file stand for. */
  async function dequantized(
    tensors: ReadonlyMap<string, StoredTensor>,
    at: string,
  ): Promise<Map<string, Float32Array>> {
    const weights = new Map(weightsOf(item))
    const floats = async (name: string) => {
      const stored = tensors.get(name)!
      return toFloat32(await readTensor({ ...stored, file: join(at, 'unet.safetensors') }), stored.dtype)
    }
    for (const { path, inputs: k, outputs: n, isConv } of places) {
      const codes = tensors.get(`${path}.weight.q4`)
      if (!codes) continue
      const group = codes.shape[2] * 2
      const bytes = await readTensor({ ...codes, file: join(at, 'unet.safetensors') })
      const scales = Uint16Array.from(await floats(`${path}.weight.scales`), floatToHalf)
      expect(halfToFloat(scales[0])).toBeCloseTo((await floats(`${path}.weight.scales`))[0], 10)
      const matrix = dequantizeGroups({ codes: bytes, scales }, { bits: 4, group, n, k })
      const [down, up] = [await floats(`${path}.weight.down`), await floats(`${path}.weight.up`)]
      const rank = down.length / k
      const channels = k / 9
      weights.set(
        `${path}.weight`,
        matrix.map((_, i) => {
          const [row, rest] = [Math.floor(i / k), i % k]
          const at = isConv ? (rest % 9) * channels + Math.floor(rest / 9) : rest
          let sum = matrix[row * k + at]
          for (let r = 0; r < rank; r++) sum += up[row * rank + r] * down[r * k + at]
          return sum
        }),
      )
    }
    return weights
  }

  it('takes adapters as its dequantised weights do, in every mode', async () => {
    const at = join(folder, 'q4')
    mkdirSync(join(at, 'fast'), { recursive: true })
    const file = await writeQuantizedCase(at, item, quality)
    const model: Model = { at, item, tensors: await tableOf(file) }
    const feeds = { ...feedsOf(item.runs[0]) }
    for (const [name, { data, dims }] of Object.entries(feeds)) {
      const values = (data as Float32Array).slice(0, data.length / dims[0]) // the fast mode runs single rows
      feeds[name] = new Tensor('float32', values, [1, ...dims.slice(1)])
    }
    const evaluate = async (from: Model, options: BuildOptions, provider?: string) => {
      const session = await open(from, { ...options, slots: { groups: everything } }, provider)
      const withIt = await run(session, { ...feeds, ...feedsFor(session, [adapter], [[1]]) }, 'out_sample')
      const without = await run(session, { ...feeds, ...feedsFor(session, [adapter], [[0]]) }, 'out_sample')
      await session.release()
      return { withIt, difference: minus(withIt, without) }
    }
    const lowMemory = await evaluate(model, { dialect: 'cpu' })

    const live = await open(model, { dialect: 'cpu', live: new Set(places.map(({ path }) => path)) })
    const weights = await dequantized(model.tensors, at)
    const expected = await run(live, { ...feeds, ...liveFeeds(item, weights, adapter) }, 'out_sample')
    expect(decibels(lowMemory.withIt, expected)).toBeGreaterThan(80)

    const target = join(at, 'fast', 'unet.safetensors')
    await expandWeights(file, target, { config: configOf(item) as UnetConfig, matMul: plainMatMul })
    const fast = await evaluate({ at: join(at, 'fast'), item, tensors: await tableOf(target) }, { dialect: 'cpu' })
    // Bytes for activations: the change an adapter makes is a difference of two roundings.
    expect(decibels(fast.difference, lowMemory.difference)).toBeGreaterThan(20)
    if (!vulkan.variables) return
    const webgpu = await evaluate(model, { dialect: 'webgpu' }, 'webgpu')
    expect(decibels(webgpu.withIt, lowMemory.withIt)).toBeGreaterThan(80)
  })
})

describe('textual inversion', () => {
  it('puts a vector where the mask says', async () => {
    const item = cases.find(({ part }) => part === 'text_encoder')!
    const model = floatModel(item, 'vectors')
    const session = await open(model, { dialect: 'cpu', slots: { groups: new Set(['attention'] as const) } })
    const adapter = adapterFor(item, 1)
    const feeds = feedsOf(item.runs[0])
    const nothing = { ...feeds, ...noVectors(item), ...feedsFor(session, [adapter], [[0]]) }
    // Another token, and that token's own vector in place of the first one.
    const ids = (feeds.input_ids.data as BigInt64Array).slice()
    const [place, token] = [2, 5]
    ids[place] = BigInt(token)
    const other = { ...nothing, input_ids: new Tensor('int64', ids, feeds.input_ids.dims) }
    const d = (configOf(item) as { hiddenSize: number }).hiddenSize
    const table = weightsOf(item).get('text_model.embeddings.token_embedding.weight')!
    const vectors = new Float32Array(ids.length * d)
    vectors.set(table.subarray(token * d, (token + 1) * d), place * d)
    const mask = new Float32Array(ids.length)
    mask[place] = 1
    const inVector = {
      ...nothing,
      token_vectors: new Tensor('float32', vectors, [...feeds.input_ids.dims, d]),
      token_mask: new Tensor('float32', mask, feeds.input_ids.dims),
    }
    const expected = await run(session, other, 'normed_states')
    expect(decibels(await run(session, inVector, 'normed_states'), expected)).toBeGreaterThan(120)
    expect(decibels(await run(session, nothing, 'normed_states'), expected)).toBeLessThan(40)
  })
})
