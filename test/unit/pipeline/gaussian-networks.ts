import { sdNoiseSchedule, type FamilyId, type PredictionType } from '../../../models/family.ts'
import type { ModelManifest, NetworkName } from '../../../models/manifest.ts'
import { noiseLevels } from '../../../main/pipeline/sigmas.ts'
import { tensor, type FloatTensor, type IdTensor } from '../../../main/pipeline/tensor.ts'
import type { GenerateJob, Networks } from '../../../main/pipeline/types.ts'

type Options = { family?: FamilyId; predictionType?: PredictionType; zeroTerminalSnr?: boolean; spatialFactor?: number }

/** Calls made to each network, and the largest batch it saw. */
export type Calls = Partial<Record<NetworkName, { runs: number; largestBatch: number }>>

const layers = 2
const width = 6
const deviation = 0.5 // of the clean latents about their mean

/**
 * A model whose right answer is known: clean latents are normal about a mean that the text decides (the mean of its first
 * number over all tokens). The text encoder looks ids up in a formula; the VAE repeats or averages pixels, channel k for k.
 */
export function gaussianNetworks(options: Options = {}): Networks & { calls: Calls } {
  const factor = options.spatialFactor ?? 8
  const predictionType = options.predictionType ?? 'epsilon'
  const family = options.family ?? 'sd15'
  const encoders = family === 'sdxl' ? 2 : 1
  const manifest: ModelManifest = {
    version: 1,
    id: 'gaussian',
    name: 'Gaussian',
    family,
    schedule: { ...sdNoiseSchedule, predictionType, zeroTerminalSnr: options.zeroTerminalSnr ?? false },
    latents: { channels: 4, scale: 0.5, shift: 0.1, spatialFactor: factor },
    textEncoders: Array.from({ length: encoders }, (_, i) => ({ width, layers, padTokenId: i === 0 ? 49407 : 0 })),
    nativeSize: { width: 64, height: 64 },
    storage: 'fp32',
    networks: ['text_encoder', 'unet', 'vae_encoder', 'vae_decoder'],
    previewMatrix: [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [0, 0, 0],
      [0, 0, 0],
    ],
    defaults: { steps: 8, guidanceScale: 1, sampler: 'euler', schedule: 'normal' },
    source: { file: '', sha256: '', bytes: 0 },
    weightBytes: 0,
  }
  const levels = noiseLevels(manifest.schedule)
  const calls: Calls = {}

  const textEncoder = (ids: IdTensor, eos: IdTensor): Record<string, FloatTensor> => {
    const n = ids.shape[0]
    const states = new Float32Array((layers + 1) * n * 77 * width)
    for (let i = 0; i < states.length; i++) {
      const layer = Math.floor(i / (n * 77 * width))
      states[i] = Math.sin(Number(ids.data[Math.floor(i / width) % (n * 77)]) * 0.37 + (i % width) + layer) + 0.2
    }
    const pooled = Float32Array.from(
      { length: n * width },
      (_, i) => Number(eos.data[Math.floor(i / width)]) + (i % width),
    )
    const hidden = tensor(states, [layers + 1, n, 77, width])
    return {
      hidden_states: hidden,
      normed_states: tensor(
        states.map((v) => v / 2),
        hidden.shape,
      ),
      pooled: tensor(pooled, [n, width]),
    }
  }

  const unet = ({ sample, timestep, encoder_hidden_states: context }: Record<string, FloatTensor>): FloatTensor => {
    const n = sample.shape[0]
    const size = sample.data.length / n
    const perRow = context.data.length / n
    const data = new Float32Array(sample.data.length)
    for (let row = 0; row < n; row++) {
      const sigma = levels.sigmaAt(timestep.data[row])
      const total = Math.sqrt(1 + sigma * sigma)
      let mean = 0
      for (let t = 0; t < perRow; t += context.shape[2]) mean += context.data[row * perRow + t] / context.shape[1]
      for (let i = row * size; i < (row + 1) * size; i++) {
        const x = sample.data[i] * total
        const clean = (x * deviation ** 2 + mean * sigma ** 2) / (sigma ** 2 + deviation ** 2)
        data[i] = predictionType === 'epsilon' ? (x - clean) / sigma : ((x / total ** 2 - clean) * total) / sigma
      }
    }
    return tensor(data, sample.shape)
  }

  const resize = (input: FloatTensor, channels: number, scale: number, map: (v: number) => number): FloatTensor => {
    const [n, c, h, w] = input.shape
    const [outH, outW] = [h * scale, w * scale]
    const data = new Float32Array(n * channels * outH * outW)
    for (let i = 0; i < data.length; i++) {
      const x = i % outW
      const y = Math.floor(i / outW) % outH
      const channel = Math.floor(i / (outW * outH)) % channels
      const image = Math.floor(i / (outW * outH * channels))
      if (channel < c)
        data[i] = map(input.data[((image * c + channel) * h + Math.floor(y / scale)) * w + Math.floor(x / scale)])
    }
    return tensor(data, [n, channels, outH, outW])
  }

  return {
    manifest,
    calls,
    has: (network) => manifest.networks.includes(network),
    async run(network, inputs) {
      const call = (calls[network] ??= { runs: 0, largestBatch: 0 })
      const first = Object.values(inputs)[0]
      call.runs++
      call.largestBatch = Math.max(call.largestBatch, first.shape[0])
      const floats = inputs as Record<string, FloatTensor>
      if (network.startsWith('text_encoder')) {
        return textEncoder(inputs.input_ids as IdTensor, inputs.eos_index as IdTensor)
      }
      if (network === 'unet') return { out_sample: unet(floats) }
      if (network === 'vae_decoder') return { sample: resize(floats.latent_sample, 3, factor, (v) => v) }
      const mean = resize(floats.sample, 4, 1 / factor, (v) => v)
      return { latent_mean: mean, latent_logvar: mean }
    },
  }
}

/** A whole job, small enough to draw in milliseconds. */
export function smallJob(changes: Partial<GenerateJob> = {}): GenerateJob {
  return {
    prompt: 'a red barn at dusk',
    negativePrompt: '',
    width: 64,
    height: 64,
    steps: 8,
    seed: 7,
    sampler: 'euler',
    schedule: 'normal',
    guidanceScale: 1,
    guidanceRescale: 0,
    clipSkip: 1,
    zeroTerminalSnr: false,
    preview: 'off',
    ...changes,
  }
}
