import type { ModelManifest, NetworkName } from '../../models/manifest.ts'
import type { SamplerName, ScheduleName, SpeedName } from '../../preload/limits.ts'
import type { AppliedAdapter, LoadedGuidance } from './adapter-types.ts'
import type { RgbImage } from './image.ts'
import type { FloatTensor, IdTensor } from './tensor.ts'
import type { TextCache } from './text-cache.ts'

/** What the pipeline needs of a loaded model. Names of inputs and outputs are in `models/manifest.ts`. */
export interface Networks {
  readonly manifest: ModelManifest
  has(network: NetworkName): boolean
  /** Runs one network, loading it when needed. `outputs` limits what is copied back. */
  run(
    network: NetworkName,
    inputs: Record<string, FloatTensor | IdTensor>,
    outputs?: readonly string[],
  ): Promise<Record<string, FloatTensor>>
  /** Says that a network is not needed again soon; its memory may be given back. */
  rest?(network: NetworkName): Promise<void>
  /** Memory ran out: unloads everything; what is run afterwards is loaded again. */
  release?(): Promise<void>
  /**
   * The unet takes one row at a time: its scales are found over all of a tensor, so a neighbour in the batch would change
   * the numbers (and a batch is no faster there).
   */
  readonly singleRows?: boolean
  /** What the text encoders said before. */
  readonly texts?: TextCache
}

/** One picture to make: a request with the model's defaults filled in and its files read. */
export type GenerateJob = {
  prompt: string
  negativePrompt: string
  width: number
  height: number
  steps: number
  seed: number
  sampler: SamplerName
  schedule: ScheduleName
  guidanceScale: number
  guidanceRescale: number
  clipSkip: number
  zeroTerminalSnr: boolean
  /** Start picture, already width × height, and the share of the schedule that runs on it. */
  init?: { image: RgbImage; strength: number }
  /** One byte a pixel, 255 where the picture may change. Only with `init`. */
  mask?: Uint8Array
  preview: 'off' | 'fast'
  /** How much of each step is computed (reuse.ts); exact when left out. */
  speed?: SpeedName
  /** The noise levels by their timesteps of training, from noise to picture, instead of `schedule` and `steps`. */
  timesteps?: readonly number[]
  /** TCD's share of fresh noise. */
  eta?: number
  adapters?: readonly AppliedAdapter[]
  /** Stands in for the second evaluation of guidance. */
  guidanceAdapter?: LoadedGuidance
}

/** What a picture of a batch has of its own; the rest is the job's. */
export type PictureChoice = Partial<
  Pick<GenerateJob, 'prompt' | 'negativePrompt' | 'seed' | 'guidanceScale' | 'adapters'>
>

export type GenerateEvent =
  | { type: 'phase'; phase: 'loading' | 'encoding' | 'denoising' | 'decoding' }
  /** After `step` of `steps` calls; `preview` only when asked for. */
  | { type: 'step'; step: number; steps: number; preview?: RgbImage }
  /** The first `step` steps were not computed but remembered (`GenerateOptions.memory`); the next is. */
  | { type: 'resumed'; step: number; steps: number; preview?: RgbImage }
  | { type: 'image'; image: RgbImage; seed: number }
  /** Something the person should know but that does not stop the job, e.g. prompt words that were not read. */
  | { type: 'notice'; message: string }
