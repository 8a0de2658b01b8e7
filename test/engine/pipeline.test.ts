import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { generate, type GenerateOptions } from '../../main/pipeline/generate.ts'
import type { RgbImage } from '../../main/pipeline/image.ts'
import { createTokenizer, type Tokenizer } from '../../main/pipeline/tokenizer.ts'
import type { GenerateJob, Networks } from '../../main/pipeline/types.ts'
import type { PartName } from '../../models/build.ts'
import { sdNoiseSchedule } from '../../models/family.ts'
import type { NetworkName } from '../../models/manifest.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { writeModel } from '../golden/networks-cases.ts'

// The structure of the starter: eight latent channels, a VAE of factor 16; random weights, real runtime.

const vaeChannels = [16, 16, 24, 32, 32]
const configs: Partial<Record<PartName, Record<string, unknown>>> = {
  text_encoder: {
    architectures: ['CLIPTextModel'],
    vocab_size: 49408,
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    hidden_act: 'quick_gelu',
    max_position_embeddings: 77,
  },
  unet: {
    in_channels: 8,
    out_channels: 8,
    block_out_channels: [32, 64],
    layers_per_block: 1,
    cross_attention_dim: 16,
    attention_head_dim: 4,
    norm_num_groups: 16,
    down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
  },
  vae: {
    block_out_channels: vaeChannels,
    layers_per_block: 1,
    latent_channels: 8,
    norm_num_groups: 8,
    down_block_types: vaeChannels.map(() => 'DownEncoderBlock2D'),
    up_block_types: vaeChannels.map(() => 'UpDecoderBlock2D'),
  },
}

let folder: string
let tokenizer: Tokenizer
const sessions = new Map<NetworkName, InferenceSession>()
const runs: string[] = []

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-pipeline-engine-'))
  tokenizer = createTokenizer(await readClipMerges())
  for (const [part, config] of Object.entries(configs) as [PartName, Record<string, unknown>][]) {
    mkdirSync(join(folder, part))
    const item = { name: part, part, config, tensors: [], runs: [] }
    for (const [network, path] of writeModel(join(folder, part), item, 'fp32', { dialect: 'cpu' })) {
      sessions.set(network, await InferenceSession.create(path, { intraOpNumThreads: 1 }))
    }
  }
})
afterAll(async () => {
  for (const session of sessions.values()) await session.release()
  rmSync(folder, { recursive: true, force: true })
})

const networks: Networks = {
  manifest: {
    version: 1,
    id: 'random',
    name: 'Random',
    family: 'sd15',
    schedule: { ...sdNoiseSchedule, predictionType: 'v_prediction' },
    latents: { channels: 8, scale: 0.8, shift: 0, spatialFactor: 16 },
    textEncoders: [{ width: 16, layers: 2, padTokenId: 49407 }],
    nativeSize: { width: 256, height: 256 },
    storage: 'fp32',
    networks: ['text_encoder', 'unet', 'vae_encoder', 'vae_decoder'],
    defaults: { steps: 6, guidanceScale: 4, sampler: 'dpmpp_2m', schedule: 'karras' },
    source: { file: '', sha256: '', bytes: 0 },
    weightBytes: 0,
  },
  has: (network) => sessions.has(network),
  async run(network, inputs, outputs = []) {
    runs.push(`${network} ${Object.values(inputs)[0].shape.join('x')}`)
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([name, { data, shape }]) => [
        name,
        data instanceof Float32Array ? new Tensor('float32', data, shape) : new Tensor('int64', data, shape),
      ]),
    )
    const results = await (sessions.get(network) as InferenceSession).run(feeds, outputs)
    return Object.fromEntries(
      outputs.map((name) => [name, { data: results[name].data as Float32Array, shape: results[name].dims }]),
    )
  },
}

const job: GenerateJob = {
  prompt: 'a fox in a (yellow:1.2) raincoat',
  negativePrompt: 'rain',
  width: 128,
  height: 96,
  steps: 6,
  seed: 5,
  sampler: 'dpmpp_2m',
  schedule: 'karras',
  guidanceScale: 4,
  guidanceRescale: 0,
  clipSkip: 1,
  zeroTerminalSnr: false,
  preview: 'off',
}

async function draw(changes: Partial<GenerateJob> = {}, options?: GenerateOptions): Promise<RgbImage[]> {
  const images: RgbImage[] = []
  for await (const event of generate({ ...job, ...changes }, networks, tokenizer, options)) {
    if (event.type === 'image') images.push(event.image)
  }
  return images
}

function compare(a: RgbImage, b: RgbImage): { largest: number; mean: number } {
  const differences = a.data.map((value, i) => Math.abs(value - b.data[i]))
  return {
    largest: differences.reduce((x, y) => Math.max(x, y)),
    mean: differences.reduce((x, y) => x + y, 0) / a.data.length,
  }
}

test('same job, same bytes; batches and split guidance change no pixel by more than 1', async () => {
  const [first] = await draw()
  const [again] = await draw()
  expect(again.data).toEqual(first.data)
  const batch = await draw({}, { pictures: [{ seed: 5 }, { seed: 6 }] })
  const [split] = await draw({}, { batchGuidance: false })
  expect(compare(batch[0], first).largest).toBeLessThanOrEqual(1)
  expect(compare(split, first).largest).toBeLessThanOrEqual(1)
  expect(compare(batch[1], first).mean).toBeGreaterThan(20)
})

test('long prompts reach the unet in chunks of 77', async () => {
  runs.length = 0
  await draw({ prompt: 'a fox, '.repeat(40), steps: 1 })
  expect(runs.slice(0, 5)).toEqual([...Array(4).fill('text_encoder 1x77'), 'unet 2x8x6x8']) // two chunks each for negative and positive
})

test('a large picture is decoded in tiles of bounded size, without a seam', async () => {
  const changes = { width: 832, height: 384, steps: 2 }
  const [whole] = await draw(changes, { tileAbovePixels: 1e9 })
  runs.length = 0
  const [tiled] = await draw(changes, { tileAbovePixels: 384 * 384 })
  expect(runs.filter((run) => run.startsWith('vae_decoder'))).toEqual(Array(3).fill('vae_decoder 1x8x24x22'))
  // Random norms react to what a tile holds far more than trained ones do; what matters is that no column stands out.
  expect(compare(tiled, whole).mean).toBeLessThan(12)
  const columnSteps = ({ data, width }: RgbImage) => {
    const sums = new Float64Array(width)
    for (let i = 3; i < data.length; i++) sums[Math.floor(i / 3) % width] += Math.abs(data[i] - data[i - 3])
    return sums.subarray(1)
  }
  const [stepsWhole, stepsTiled] = [columnSteps(whole), columnSteps(tiled)]
  const ratios = Array.from(stepsTiled, (value, x) => value / stepsWhole[x])
  expect(Math.max(...ratios)).toBeLessThan(1.35)
})
