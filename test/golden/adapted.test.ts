import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AppliedAdapter, LayerFactors, LoadedAdapter } from '../../main/pipeline/adapter-types.ts'
import { generate, type GenerateOptions } from '../../main/pipeline/generate.ts'
import type { RgbImage } from '../../main/pipeline/image.ts'
import { createSlots } from '../../main/pipeline/slots.ts'
import { tensor } from '../../main/pipeline/tensor.ts'
import { createTokenizer, type Tokenizer } from '../../main/pipeline/tokenizer.ts'
import type { GenerateJob, Networks, PictureChoice } from '../../main/pipeline/types.ts'
import type { AdapterTarget } from '../../models/adapters/types.ts'
import { slotsOf, type SlotPlace } from '../../models/build.ts'
import type { ConfigJson } from '../../models/config-json.ts'
import { sdNoiseSchedule } from '../../models/family.ts'
import type { NetworkName } from '../../models/manifest.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import type { SamplerName } from '../../preload/limits.ts'
import { configOf, hashed, writeModel } from './networks-cases.ts'

// Pictures with adapters, from prompt to pixels, against diffusers with the same changes merged into its weights.

type Golden = {
  size: [number, number]
  factor: number
  scale: number
  ranks: Record<string, number>
  /** All that adapters change. */
  layers: Record<'unet' | 'text_encoder', string[]>
  model: Record<'unet' | 'vae' | 'text_encoder', ConfigJson>
  cases: {
    sampler: SamplerName
    seed: number
    steps: number
    /** What each adapter weighs at each step, and on the text encoder. */
    unet: Record<string, number[]>
    text: Record<string, number>
    embedding: [word: string, count: number] | null
    eta: number | null
    timesteps: number[] | null
    prompt: string
    negativePrompt: string
    guidanceScale: number
    image: string
  }[]
}
type Case = Golden['cases'][number]
const golden = JSON.parse(gunzipSync(readFileSync(new URL('adapted.json.gz', import.meta.url))).toString()) as Golden
const [width, height] = golden.size
const groups = new Set(['attention', 'mlp', 'time', 'conv'] as const)

let folder: string
let tokenizer: Tokenizer
/** For rows that weigh alike, and for those of a batch that differ. */
const sessions = { alike: new Map<string, InferenceSession>(), mixed: new Map<string, InferenceSession>() }
const places = {} as Record<'unet' | 'text_encoder', SlotPlace[]>
const adapters = new Map<string, LoadedAdapter>()

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-adapted-'))
  tokenizer = createTokenizer(await readClipMerges())
  for (const part of ['unet', 'text_encoder', 'vae'] as const) {
    const item = { name: part, part, config: golden.model[part], tensors: [], runs: [] }
    if (part !== 'vae') places[part] = slotsOf({ part, config: configOf(item) } as Parameters<typeof slotsOf>[0])
    for (const kind of ['alike', 'mixed'] as const) {
      const home = join(folder, kind, part)
      mkdirSync(home, { recursive: true })
      const slots = part === 'vae' ? undefined : { groups, mixed: kind === 'mixed' && part === 'unet' }
      for (const [network, path] of writeModel(home, item, 'fp32', { dialect: 'cpu', slots })) {
        sessions[kind].set(network, await InferenceSession.create(path, { intraOpNumThreads: 1 }))
      }
    }
  }
  for (const [name, rank] of Object.entries(golden.ranks)) adapters.set(name, adapterOf(name, rank))
})
afterAll(async () => {
  for (const kind of Object.values(sessions)) for (const session of kind.values()) await session.release()
  rmSync(folder, { recursive: true, force: true })
})

/** The factors of the script, as the pipeline takes them: of 3 × 3 layers by tap and then channel, `up` turned. */
function adapterOf(name: string, rank: number): LoadedAdapter {
  const layersOf = (target: 'unet' | 'text_encoder') =>
    new Map(
      places[target].map(({ path, inputs: k, outputs: n, isConv }): [string, LayerFactors] => {
        const stored = Float32Array.from(hashed(`${name}.${target}.${path}.down`, rank * k))
        const channels = k / 9
        const down = isConv
          ? Float32Array.from({ length: rank * k }, (_, i) => {
              const [row, tap, channel] = [Math.floor(i / k), Math.floor((i % k) / channels), i % channels]
              return stored[row * k + channel * 9 + tap]
            })
          : stored
        const across = hashed(`${name}.${target}.${path}.up`, n * rank)
        const up = Float32Array.from({ length: rank * n }, (_, i) => across[(i % n) * rank + Math.floor(i / n)] / Math.sqrt(k))
        return [path, { rank, down: tensor(down, [rank, k]), up: tensor(up, [rank, n]) }]
      }),
    )
  return { name, sha256: name, layers: { unet: layersOf('unet'), text_encoder: layersOf('text_encoder') } }
}

function networks(kind: 'alike' | 'mixed'): Networks {
  const manifest: Networks['manifest'] = {
    version: 1,
    id: 'adapted',
    name: 'Adapted',
    family: 'sd15',
    schedule: { ...sdNoiseSchedule, predictionType: 'epsilon' },
    latents: { channels: 4, scale: golden.scale, shift: 0, spatialFactor: golden.factor },
    textEncoders: [
      {
        width: Number(golden.model.text_encoder.hidden_size),
        layers: Number(golden.model.text_encoder.num_hidden_layers),
        padTokenId: 49407,
      },
    ],
    nativeSize: { width, height },
    storage: 'fp32',
    networks: [...sessions.alike.keys()] as NetworkName[],
    defaults: { steps: 6, guidanceScale: 5, sampler: 'dpmpp_2m', schedule: 'trailing' },
    source: { file: '', sha256: '', bytes: 0 },
    weightBytes: 0,
  }
  return {
    manifest,
    has: (network) => network !== 'unet_shallow' && sessions[kind].has(network),
    async run(network, inputs, outputs) {
      const session = sessions[kind].get(network) as InferenceSession
      const feeds = Object.fromEntries(
        Object.entries(inputs).map(([key, { data, shape }]) => [
          key,
          data instanceof Float32Array ? new Tensor('float32', data, shape) : new Tensor('int64', data, shape),
        ]),
      )
      const results = await session.run(feeds, outputs ?? session.outputNames)
      return Object.fromEntries(
        Object.entries(results).map(([key, value]) => [key, { data: value.data as Float32Array, shape: value.dims }]),
      )
    },
  }
}

/** The same weights at the same steps, said as windows and ramps. */
function appliedOf({ unet, text, embedding, steps }: Case): AppliedAdapter[] {
  const names = [...new Set([...Object.keys(unet), ...Object.keys(text)])]
  const all = names.map((name): AppliedAdapter => {
    const weights = unet[name] ?? []
    const first = weights.findIndex((weight) => weight !== 0)
    const end = weights.length - [...weights].reverse().findIndex((weight) => weight !== 0)
    const inside = first < 0 ? [] : weights.slice(first, end)
    const isFlat = inside.every((weight) => weight === inside[0])
    const count = inside.length
    return {
      adapter: adapters.get(name)!,
      weight: inside.length === 0 ? 0 : isFlat ? inside[0] : 1,
      textWeight: text[name] ?? 0,
      start: first < 0 ? 0 : first / steps,
      end: first < 0 ? 1 : end / steps,
      ramp: isFlat ? 'flat' : inside.map((weight, i) => [i / (count - 1), weight] as const),
    }
  })
  if (!embedding) return all
  const [word, count] = embedding
  const wide = Number(golden.model.text_encoder.hidden_size)
  const vectors = tensor(Float32Array.from(hashed(`embedding.${word}`, count * wide)), [count, wide])
  const adapter = { name: word, sha256: word, layers: {}, embeddings: new Map([[word, { text_encoder: vectors }]]) }
  return [...all, { adapter, weight: 1, textWeight: 1, start: 0, end: 1, ramp: 'flat' }]
}

const jobOf = (item: Case): GenerateJob => ({
  prompt: item.prompt,
  negativePrompt: item.negativePrompt,
  width,
  height,
  steps: item.steps,
  seed: item.seed,
  sampler: item.sampler,
  schedule: 'trailing',
  guidanceScale: item.guidanceScale,
  guidanceRescale: 0,
  clipSkip: 1,
  zeroTerminalSnr: false,
  preview: 'off',
  ...(item.timesteps ? { timesteps: item.timesteps } : {}),
  ...(item.eta === null ? {} : { eta: item.eta }),
  adapters: appliedOf(item),
})

async function draw(job: GenerateJob, pictures?: PictureChoice[]): Promise<RgbImage[]> {
  const kind = pictures ? 'mixed' : 'alike'
  const slot = (target: AdapterTarget & keyof typeof places, isMixed: boolean) =>
    createSlots(target, places[target], { isMixed })
  const slots: GenerateOptions['slots'] = {
    unet: slot('unet', kind === 'mixed'),
    text_encoder: slot('text_encoder', false),
  }
  const images: RgbImage[] = []
  for await (const event of generate(job, networks(kind), tokenizer, { pictures, slots })) {
    if (event.type === 'image') images.push(event.image)
  }
  return images
}

const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'))
function largestDifference(actual: Uint8Array, expected: Uint8Array): number {
  expect(actual.length).toBe(expected.length)
  return actual.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0)
}

test('adapters may enter every layer that has a matrix', () => {
  for (const target of ['unet', 'text_encoder'] as const) {
    expect(places[target].map(({ path }) => path).sort()).toEqual([...golden.layers[target]].sort())
  }
})

describe('the same picture as diffusers with the adapters merged, to 2 of 255', () => {
  test.each(golden.cases)('$sampler, seed $seed', async (item) => {
    const [image] = await draw(jobOf(item))
    const difference = largestDifference(image.data, bytes(item.image))
    if (process.env.VIGNETTE_SHOW_ERRORS) console.log(`${item.sampler} ${item.seed}: ${difference}`)
    expect(difference).toBeLessThanOrEqual(2)
    // And not because adapters hardly change anything.
    const [without] = await draw({ ...jobOf(item), adapters: [] })
    expect(largestDifference(without.data, bytes(item.image))).toBeGreaterThan(20)
  })
})

test('so are the pictures of one batch, each with its own prompt, guidance and adapters', async () => {
  const items = golden.cases.filter(({ sampler }) => sampler === 'dpmpp_2m')
  expect(items.length).toBeGreaterThan(3)
  const pictures = items.map((item): PictureChoice => {
    const { prompt, negativePrompt, seed, guidanceScale, adapters: applied } = jobOf(item)
    return { prompt, negativePrompt, seed, guidanceScale, adapters: applied }
  })
  const images = await draw(jobOf(items[0]), pictures)
  items.forEach((item, i) =>
    expect(largestDifference(images[i].data, bytes(item.image)), `seed ${item.seed}`).toBeLessThanOrEqual(2),
  )
})
