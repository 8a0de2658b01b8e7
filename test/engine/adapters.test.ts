import { mkdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openAdapterFiles, type AdapterFiles } from '../../main/engine/adapters.ts'
import { openNetworks, type OpenNetworks } from '../../main/engine/networks.ts'
import type { LoadedAdapter } from '../../main/pipeline/adapter-types.ts'
import { writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import {
  evaluate,
  readKinds,
  unetCase,
  writeKind,
  writeModelFolder,
  writeWeights,
  type Kind,
} from '../golden/adapter-kinds-cases.ts'
import { scaleOf } from '../golden/networks-cases.ts'
import { writeQuantizedCase } from './quantized-case.ts'
import { plainWeights, smoothedCase } from './smoothed-case.ts'
import { scratchFolder } from './tiny-model.ts'

const kinds = readKinds()
const kindOf = (name: string) => kinds.cases.find((kind) => kind.name === name)!

type Model = { networks: OpenNetworks; files: AdapterFiles; folder: string }
const models: Model[] = []
function openModel(folder: string): Model {
  const networks = openNetworks(folder, { threads: 1, mode: 'low-memory' })
  const model = { networks, files: openAdapterFiles(folder, { threads: 1 }), folder }
  models.push(model)
  return model
}

let folder: string
/** In 4 bits with smoothing, and floats that its codes stand for. */
let fourBit: Model
let plain: Model
let weights: ReadonlyMap<string, Float32Array>
beforeAll(async () => {
  folder = await scratchFolder('adapters')
  const smoothed = smoothedCase(unetCase)
  const int4 = join(folder, 'int4')
  mkdirSync(int4)
  const file = await writeQuantizedCase(int4, unetCase, { bits: 4, rank: 4 }, smoothed)
  fourBit = openModel(await writeModelFolder(int4, 'int4'))
  const floats = await writeModelFolder(join(folder, 'dequantized'))
  weights = await plainWeights(file, unetCase, smoothed)
  await writeWeights(join(floats, 'unet.safetensors'), unetCase, weights)
  plain = openModel(floats)
  for (const kind of kinds.cases) {
    if (kind.target === 'unet')
      for (const path of plain.files.live.paths('unet', [await load(plain, kind)])) live.add(path)
  }
}, 60_000)
afterAll(async () => {
  for (const { networks, files } of models) {
    await networks.release()
    await files.release()
  }
  await rm(folder, { recursive: true, force: true })
})

async function load({ files }: Model, kind: Kind): Promise<LoadedAdapter> {
  return (await files.load(await writeKind(folder, kind))).adapter!
}

/** The layers that any of the adapters needs whole: one graph with all of them opens faster than one for each test. */
const live = new Set<string>()

const draw = ({ networks, files }: Model, weights: readonly (readonly [LoadedAdapter, number])[]) =>
  evaluate('unet', networks, files, weights, kinds, live)

const minus = (a: Float32Array, b: Float32Array) => a.map((value, i) => value - b[i])
/** Size of the difference in units of `expected`. */
const distance = (actual: Float32Array, expected: Float32Array) => scaleOf(minus(actual, expected)) / scaleOf(expected)

describe('a 4-bit model', () => {
  it('is changed by every kind of adapter as its dequantised weights are', async () => {
    const onUnet = kinds.cases.filter(({ target }) => target === 'unet')
    const loaded: { kind: Kind; ours: LoadedAdapter; reference: LoadedAdapter }[] = []
    for (const kind of onUnet) {
      loaded.push({ kind, ours: await load(fourBit, kind), reference: await load(plain, kind) })
    }
    const [without, expectedWithout] = [await draw(fourBit, []), await draw(plain, [])]
    // Codes, branch and smoothing stand for the same weights.
    expect(distance(without, expectedWithout)).toBeLessThan(1e-4)
    const distances: Record<string, number> = {}
    for (const { kind, ours, reference } of loaded) {
      const change = minus(await draw(fourBit, [[ours, kind.weight]]), without)
      const expected = minus(await draw(plain, [[reference, kind.weight]]), expectedWithout)
      distances[kind.name] = distance(change, expected)
    }
    for (const [name, found] of Object.entries(distances)) expect(found, name).toBeLessThan(0.001)
  }, 60_000)
})

/** The same change in other numbers: B twice and alpha half as large, so that it has another content. */
function copyOf(kind: Kind): Kind {
  const tensors = kind.tensors.map(([name, dtype, shape, numbers]): Kind['tensors'][number] => {
    if (!name.endsWith('.alpha')) return [name, dtype, shape, numbers]
    const half = Buffer.from((numbers as { bytes: string }).bytes, 'base64')
    half.writeFloatLE(half.readFloatLE() / 2)
    return [name, dtype, shape, { bytes: half.toString('base64') }]
  })
  return { ...kind, name: `${kind.name} again`, tensors }
}

describe('several adapters', () => {
  const models = [
    ['floats', () => plain],
    ['4 bits', () => fourBit],
  ] as const

  it.each(models)('are one sum whatever their order: %s', async (_, model) => {
    const names = ['kohya LoRA', 'LyCORIS LoHa', 'LyCORIS full', 'LyCORIS IA3 on inputs', 'PEFT SHiRA']
    const adapters: LoadedAdapter[] = []
    for (const name of names) adapters.push(await load(model(), kindOf(name)))
    const weights = adapters.map((adapter, i) => [adapter, 0.3 + 0.1 * i] as const)
    const one = await draw(model(), weights)
    const other = await draw(model(), [weights[3], weights[1], weights[4], weights[0], weights[2]])
    expect(other).toEqual(one)
    expect(distance(await draw(model(), []), one)).toBeGreaterThan(0.1)
  })

  it.each(models)('of weight 0 leave the network as it is, bit for bit: %s', async (_, model) => {
    const before = await draw(model(), [])
    const [lora, full] = [await load(model(), kindOf('kohya LoRA')), await load(model(), kindOf('LyCORIS full'))]
    await draw(model(), [
      [lora, 0.8],
      [full, 0.5],
    ])
    expect(
      await draw(model(), [
        [lora, 0],
        [full, 0],
      ]),
    ).toEqual(before)
  })

  it.each(['LyCORIS LoCon, Tucker', 'LyCORIS LoHa', 'LyCORIS LoKr, Tucker'])(
    'add: two halves of %s are one, 0.3 and 0.4 are 0.7',
    async (name) => {
      const [one, twice] = [await load(plain, kindOf(name)), await load(plain, copyOf(kindOf(name)))]
      expect(one.sha256).not.toBe(twice.sha256)
      const whole = await draw(plain, [[one, 1]])
      expect(
        distance(
          await draw(plain, [
            [one, 0.5],
            [twice, 1],
          ]),
          whole,
        ),
      ).toBeLessThan(1e-5)
      const some = await draw(plain, [[one, 0.7]])
      expect(
        distance(
          await draw(plain, [
            [one, 0.3],
            [twice, 0.8],
          ]),
          some,
        ),
      ).toBeLessThan(1e-5)
      expect(
        distance(
          await draw(plain, [
            [one, 0.3],
            [one, 0.4],
          ]),
          some,
        ),
      ).toBeLessThan(1e-6)
    },
  )

  it('with DoRA last: weights that adapters add come before it', async () => {
    const [dora, full] = [
      await load(plain, kindOf('LyCORIS DoRA by output')),
      await load(plain, kindOf('LyCORIS full')),
    ]
    const one = await draw(plain, [
      [dora, 1],
      [full, 0.5],
    ])
    expect(
      await draw(plain, [
        [full, 0.5],
        [dora, 1],
      ]),
    ).toEqual(one)
  })
})

describe('live weights', () => {
  it('take sparse changes and give them back, to the bit', async () => {
    const sparse = await load(plain, kindOf('PEFT SHiRA'))
    const other = await load(plain, { ...kindOf('PEFT SHiRA'), name: 'other', tensors: reversed(kindOf('PEFT SHiRA')) })
    const { live } = plain.files
    const paths = live.paths('unet', [sparse, other])
    const at = async (...weights: [LoadedAdapter, number][]) => {
      const inputs = await live.inputs('unet', paths, new Map(weights))
      return Object.fromEntries(Object.entries(inputs).map(([name, { data }]) => [name, data.slice()]))
    }
    const base = await at()
    for (const [name, data] of Object.entries(base)) expect(data, name).toEqual(weights.get(name))
    const once = await at([sparse, 0.7])
    expect(once).not.toEqual(base)
    await at([sparse, 1], [other, -2])
    expect(await at([sparse, 0.7])).toEqual(once)
    expect(await at()).toEqual(base)
  })

  it('follow a weight that changes from step to step', async () => {
    const norms = await load(plain, kindOf('LyCORIS norms'))
    const strong = await draw(plain, [[norms, 1]])
    const weak = await draw(plain, [[norms, 0.1]])
    expect(await draw(plain, [[norms, 1]])).toEqual(strong)
    const without = await draw(plain, [])
    expect(distance(weak, without)).toBeLessThan(0.3 * distance(strong, without))
  })
})

/** Other numbers at the same places. */
function reversed({ tensors }: Kind): Kind['tensors'] {
  return tensors.map(([name, dtype, shape, numbers]) => [
    name,
    dtype,
    shape,
    'scale' in numbers ? { scale: -0.2, shift: 0.1 } : numbers,
  ])
}

describe('adapter files', () => {
  it('are kept by content while there is room', async () => {
    const files = openAdapterFiles(plain.folder, { threads: 1, budgetBytes: 60_000 })
    const [lora, other] = [kindOf('PEFT LoRA, rank-stabilised'), kindOf('LyCORIS LoHa')]
    const place = await writeKind(folder, lora)
    const { adapter, info } = await files.load(place)
    const copy = await files.load(await writeKind(folder, { ...lora, name: 'the same' }))
    expect(copy.adapter).toBe(adapter)
    expect(copy.info.file).not.toBe(info.file)
    expect((await files.load(place)).adapter).toBe(adapter)
    const cut = await files.load(place, 2)
    expect(cut.adapter).not.toBe(adapter)
    await files.load(await writeKind(folder, other))
    expect((await files.load(place)).adapter).not.toBe(adapter)
    await files.release()
  })

  it('longer than their rank budget are cut, and the loss is told', async () => {
    const kind = kindOf('kohya LoRA')
    const { adapter, notices } = await plain.files.load(await writeKind(folder, kind), 2)
    for (const { rank } of adapter!.layers.unet!.values()) expect(rank).toBe(2)
    expect(notices.join()).toMatch(/cut to rank 2 in 19 layers: \d+(\.\d)? % of its change is lost/)
    const whole = await draw(plain, [[await load(plain, kind), 1]])
    const [without, cut] = [await draw(plain, []), await draw(plain, [[adapter!, 1]])]
    expect(distance(cut, whole)).toBeLessThan(distance(without, whole))
    const kept = await plain.files.load(await writeKind(folder, kind), 4)
    expect(kept.notices).toEqual([])
  })

  it.each([NaN, -Infinity])('with a number that is %s are refused, naming the layer', async (bad) => {
    const file = join(folder, `bad${bad}.safetensors`)
    const shapes = [
      { name: 'lora_unet_conv_out.lora_down.weight', dtype: 'F32' as const, shape: [2, 32, 3, 3] },
      { name: 'lora_unet_conv_out.lora_up.weight', dtype: 'F32' as const, shape: [4, 2, 1, 1] },
    ]
    await writeSafetensors(file, shapes, ({ shape }) => {
      const values = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(0.1)
      if (shape[0] === 4) values[5] = bad
      return [new Uint8Array(values.buffer)]
    })
    await expect(plain.files.load(file)).rejects.toMatchObject({
      code: 'file-unreadable',
      message: expect.stringContaining('"conv_out"'),
    })
  })
})
