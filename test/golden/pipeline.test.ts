import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { generate, type GenerateOptions } from '../../main/pipeline/generate.ts'
import type { RgbImage } from '../../main/pipeline/image.ts'
import { createTokenizer, type Tokenizer } from '../../main/pipeline/tokenizer.ts'
import type { GenerateJob, Networks } from '../../main/pipeline/types.ts'
import type { PartName } from '../../models/build.ts'
import type { ConfigJson } from '../../models/config-json.ts'
import { families, sdNoiseSchedule, type FamilyId, type PredictionType } from '../../models/family.ts'
import type { ModelManifest, NetworkName } from '../../models/manifest.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import type { SamplerName, ScheduleName } from '../../preload/limits.ts'
import { writeModel } from './networks-cases.ts'

// Prompt to picture through our graphs and ONNX Runtime, against diffusers' pipelines over the same tiny networks.

type Model = { family: FamilyId } & Partial<Record<PartName, ConfigJson>>
type Golden = {
  size: [number, number]
  factor: number
  scale: number
  init: string
  mask: string
  models: Record<string, Model>
  cases: {
    model: string
    sampler: SamplerName
    schedule: ScheduleName
    prediction: PredictionType
    seed: number
    zeroSnr: boolean
    steps: number
    kind: 'Text' | 'Img2Img' | 'Inpaint'
    prompt: string
    negativePrompt: string
    guidanceScale: number
    guidanceRescale: number
    clipSkip: number
    strength: number | null
    image: string
  }[]
}
const golden = JSON.parse(gunzipSync(readFileSync(new URL('pipeline.json.gz', import.meta.url))).toString()) as Golden
const [width, height] = golden.size
const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'))
const init: RgbImage = { data: bytes(golden.init), width, height }

let folder: string
let tokenizer: Tokenizer
const sessions = new Map<string, InferenceSession>()

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-pipeline-'))
  tokenizer = createTokenizer(await readClipMerges())
  for (const [name, model] of Object.entries(golden.models)) {
    for (const part of ['text_encoder', 'text_encoder_2', 'unet', 'vae'] as const) {
      const config = model[part]
      if (config === undefined) continue
      const place = join(folder, name, part)
      mkdirSync(place, { recursive: true })
      const item = { name, part, config, tensors: [], runs: [] }
      for (const [network, path] of writeModel(place, item, 'fp32', { dialect: 'cpu' })) {
        sessions.set(`${name}/${network}`, await InferenceSession.create(path, { intraOpNumThreads: 1 }))
      }
    }
  }
})
afterAll(async () => {
  for (const session of sessions.values()) await session.release()
  rmSync(folder, { recursive: true, force: true })
})

function networksOf(name: string, predictionType: PredictionType): Networks {
  const model = golden.models[name]
  const manifest: ModelManifest = {
    version: 1,
    id: name,
    name,
    family: model.family,
    schedule: { ...sdNoiseSchedule, predictionType },
    latents: { channels: 4, scale: golden.scale, shift: 0, spatialFactor: golden.factor },
    textEncoders: families[model.family].textEncoders.map((encoder, i) => ({
      width: Number(model[encoder]?.hidden_size),
      layers: Number(model[encoder]?.num_hidden_layers),
      padTokenId: families[model.family].padTokenIds[i],
    })),
    nativeSize: { width, height },
    storage: 'fp32',
    networks: [...sessions.keys()]
      .filter((key) => key.startsWith(`${name}/`))
      .map((key) => key.split('/')[1] as NetworkName),
    defaults: { steps: 8, guidanceScale: 5, sampler: 'ddim', schedule: 'ddim_uniform' },
    source: { file: '', sha256: '', bytes: 0 },
    weightBytes: 0,
  }
  return {
    manifest,
    has: (network) => manifest.networks.includes(network),
    async run(network, inputs, outputs) {
      const session = sessions.get(`${name}/${network}`) as InferenceSession
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

type Case = Golden['cases'][number]
const jobOf = (item: Case): GenerateJob => ({
  ...item,
  width,
  height,
  zeroTerminalSnr: item.zeroSnr,
  ...(item.kind === 'Text' ? {} : { init: { image: init, strength: item.strength as number } }),
  ...(item.kind === 'Inpaint' ? { mask: bytes(golden.mask) } : {}),
  preview: 'off',
})

async function draw(item: Case, options?: GenerateOptions): Promise<RgbImage[]> {
  const images: RgbImage[] = []
  for await (const event of generate(jobOf(item), networksOf(item.model, item.prediction), tokenizer, options)) {
    if (event.type === 'image') images.push(event.image)
  }
  return images
}

function largestDifference(actual: Uint8Array, expected: Uint8Array): number {
  expect(actual.length).toBe(expected.length)
  return actual.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0)
}

describe('the same picture as diffusers, to 2 of 255', () => {
  test.each(golden.cases)('$model $kind $sampler $schedule $prediction, seed $seed', async (item) => {
    const [image] = await draw(item)
    const difference = largestDifference(image.data, bytes(item.image))
    if (process.env.VIGNETTE_SHOW_ERRORS) console.log(`${item.model} ${item.kind} ${item.sampler}: ${difference}`)
    expect(difference).toBeLessThanOrEqual(2)
  })
})

test('in a batch of three with other seeds the picture stays the same', async () => {
  const item = golden.cases.find(({ sampler }) => sampler === 'euler_a') as Case
  const images = await draw(item, { pictures: [{ seed: 1 }, {}, { seed: 3 }] })
  expect(largestDifference(images[1].data, bytes(item.image))).toBeLessThanOrEqual(2)
  expect(largestDifference(images[0].data, bytes(item.image))).toBeGreaterThan(50)
})

test.each([
  ['another prompt', { prompt: 'a fox wearing a red raincoat, storybook style' }],
  ['another negative prompt', { negativePrompt: 'blurry' }],
  ['another clip skip', { clipSkip: 2 }],
] as const)('%s changes the picture by more than the tolerance', async (_, change) => {
  const [image] = await draw({ ...golden.cases[0], ...change })
  expect(largestDifference(image.data, bytes(golden.cases[0].image))).toBeGreaterThan(8)
})
