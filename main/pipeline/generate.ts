import type { AdapterTarget } from '../../models/adapters/types.ts'
import { VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { encodePrompts } from './conditioning.ts'
import { createDenoiser } from './denoiser.ts'
import { distilledGuidance } from './guidance.ts'
import {
  batchNoise,
  keepKnown,
  latentMask,
  pasteOutside,
  repeatLatents,
  sigmasForStrength,
  startLatents,
} from './latents.ts'
import type { RgbImage } from './image.ts'
import { preview } from './preview.ts'
import { createReuse, keyStride, speeds } from './reuse.ts'
import { recalling, type DenoiserMemory } from './recall.ts'
import { samplers } from './samplers.ts'
import { noiseLevels, sigmasAtTimesteps, sigmaSchedule } from './sigmas.ts'
import type { Slots } from './slots.ts'
import { changes, effective, textWeights, weightsAt, type Weights } from './steps.ts'
import { tensor } from './tensor.ts'
import type { Tokenizer } from './tokenizer.ts'
import type { GenerateEvent, GenerateJob, Networks, PictureChoice } from './types.ts'
import { decode, encode } from './vae.ts'

export type GenerateOptions = {
  /** Several pictures of the job in one batch, each what it would be alone but for the last digits; one when left out. */
  pictures?: readonly PictureChoice[]
  /** Slots of the networks that were opened with any, for the job's adapters. */
  slots?: Partial<Record<AdapterTarget, Slots>>
  /** Both guidance passes in one batch of two, or one after the other; left out, by size. Single rows are that anyway. */
  batchGuidance?: boolean
  /** The most pixels that are encoded or decoded in one run; larger pictures are tiled. Default 768 × 768. */
  tileAbovePixels?: number
  /** What an earlier, interrupted run of the very same job has computed, and where to put what this one computes. */
  memory?: DenoiserMemory
}

/**
 * Makes the picture (or pictures) of one job and reports on the way. To cancel, stop iterating: nothing runs after the
 * current step. `tokenizer` is `createTokenizer(await readClipMerges())`.
 */
export async function* generate(
  job: GenerateJob,
  networks: Networks,
  tokenizer: Tokenizer,
  options: GenerateOptions = {},
): AsyncGenerator<GenerateEvent> {
  const { manifest } = networks
  const pictures = (options.pictures ?? [{}]).map((choice) => ({ ...job, ...choice }))
  let tiles = { tileAbovePixels: options.tileAbovePixels ?? 768 * 768 }
  checkSize(job, manifest)

  // Noise levels from large to none; with a start picture only the later ones.
  const { levels, sigmas, skipped, notices } = planSteps(job, manifest)
  const steps = sigmas.length - 1
  const allSteps = skipped + steps
  const adapters = pictures.map((picture) => effective(picture.adapters ?? [], allSteps))
  const distilled =
    job.guidanceAdapter &&
    distilledGuidance(job.guidanceAdapter, {
      scales: pictures.map(({ guidanceScale }) => guidanceScale),
      rescale: job.guidanceRescale,
      hasNegativePrompt: pictures.some(({ negativePrompt }) => negativePrompt.trim() !== ''),
    })

  // Words, and the start picture, as the networks read them.
  yield { type: 'phase', phase: 'encoding' }
  const conditioning = await encodePrompts(networks, tokenizer, {
    clipSkip: job.clipSkip,
    width: job.width,
    height: job.height,
    pictures: pictures.map(({ prompt, negativePrompt, guidanceScale }, i) => ({
      prompt,
      negativePrompt: distilled ? '' : negativePrompt,
      guided: !distilled && guidanceScale > 1,
      weights: textWeights(adapters[i], allSteps),
    })),
    slots: options.slots,
  })
  for (const message of [...conditioning.notices, ...notices, ...(distilled?.notices ?? [])]) {
    yield { type: 'notice', message }
  }
  const init = job.init && repeatLatents((await encode(networks, job.init.image, tiles)).data, pictures.length)

  const { reuse: limits } = speeds[job.speed ?? 'exact']
  const canReuse = networks.has('unet_shallow')
  if (limits && !canReuse) yield { type: 'notice', message: `${manifest.name} can only be drawn exactly.` }
  const reuse = limits && canReuse ? createReuse(limits, sigmas) : undefined

  // What every picture's adapters weigh at each step.
  const slots = options.slots?.unet
  const weights = Array.from({ length: allSteps }, (_, i) => adapters.map((own) => weightsAt(own, i, allSteps)))
  for (const message of checkAdapters(weights, slots)) yield { type: 'notice', message }
  let current = skipped

  // Denoising, all pictures side by side.
  yield { type: 'phase', phase: 'denoising' }
  const factor = manifest.latents.spatialFactor
  const shape = [manifest.latents.channels, job.height / factor, job.width / factor]
  const size = shape.reduce((a, b) => a * b)
  const noise = batchNoise(pictures.map(({ seed }) => seed))
  const startNoise = noise(pictures.length * size)
  const mask = job.init && job.mask && latentMask(job.mask, job.width, job.height, factor)
  // A region that is drawn from nothing must not start as the old picture (diffusers' inpainting does the same).
  const startsFromNoise = mask !== undefined && job.init?.strength === 1
  let latents = steps === 0 && init ? init : startLatents(startNoise, sigmas[0], startsFromNoise ? undefined : init)
  const networkDenoiser = createDenoiser(networks, {
    levels,
    conditioning,
    shape: [pictures.length, ...shape],
    guidanceScales: pictures.map(({ guidanceScale }) => guidanceScale),
    guidanceRescale: job.guidanceRescale,
    rowsPerRun: rowsPerRun(shape[1] * shape[2], options.batchGuidance, pictures.length),
    ...(reuse ? { reuse } : {}),
    keyStride: keyStride(shape[1] * shape[2], canReuse ? job.speed : 'exact'),
    extraInputs: async (rows, tokens) => ({
      ...(await slots?.inputs(rows.map((picture) => weights[current][picture]))),
      ...distilled?.inputs(rows, tokens),
    }),
    apart: slots && pictures.map((_, i) => weights.map((step) => slots.apart(step[i])).join(';')),
  })
  // What stands in for whole evaluations follows from earlier ones, which a memory does not hold.
  const memory = reuse ? undefined : options.memory
  const { denoise, recallOf } = recalling(networkDenoiser, pictures.length * size, memory)
  for await (const step of samplers[job.sampler](denoise, latents, sigmas, { noise, levels, eta: job.eta })) {
    // A sampler may ask for several levels within a step: the step says what adapters weigh, not the level.
    const next = Math.min(skipped + step.index + 1, allSteps - 1)
    if (activeIn(weights[next]) !== activeIn(weights[current])) reuse?.forget()
    current = next
    if (init && mask) keepKnown(step.x, step.sigma, init, startNoise, mask)
    latents = step.x
    const recall = recallOf()
    if (recall === 'between') continue
    const matrix = job.preview === 'fast' ? manifest.previewMatrix : undefined
    const small = matrix && preview(step.denoised.subarray(0, size), shape, matrix)
    yield {
      type: recall === 'last' ? 'resumed' : 'step',
      step: step.index + 1,
      steps,
      ...(small && { preview: small }),
    }
  }
  if (!latents.every(Number.isFinite)) {
    throw new VignetteError('internal', 'The numbers of the picture ran out of range while drawing.', {
      hint: 'Try a lower guidance scale or another sampler; if it stays, import the model with fp32 weights.',
    })
  }

  // Pixels, one picture after the other.
  yield { type: 'phase', phase: 'decoding' }
  for (const [i, { seed }] of pictures.entries()) {
    const one = tensor(latents.slice(i * size, (i + 1) * size), [1, ...shape])
    let decoded: RgbImage
    try {
      decoded = await decode(networks, one, tiles)
    } catch (error) {
      if (!(error instanceof VignetteError) || error.code !== 'out-of-memory') throw error
      // Once more, with everything else out of memory and a quarter of the pixels at a time.
      await networks.release?.()
      tiles = { tileAbovePixels: Math.floor(Math.min(tiles.tileAbovePixels, job.width * job.height) / 4) }
      yield { type: 'notice', message: 'Memory ran short: the picture was developed in pieces, which shows a little.' }
      decoded = await decode(networks, one, tiles)
    }
    const image = job.init && job.mask ? pasteOutside(decoded, job.init.image, job.mask) : decoded
    yield { type: 'image', image, seed }
  }
}

/**
 * Latent positions (height times width) of all rows of a run together: two rows of 64 × 64. By size alone, because a batch
 * may differ in the last digits and the same request must give the same picture. Processor seconds for a batch of two, as a
 * share of two runs, two Xeon cores: starter 0.71 at 8 × 8 positions, 0.85 at 16 × 16, 0.93 at 24 × 24; SD 1.5 0.97 at
 * 32 × 32, 0.97 to 1.02 at 64 × 64 for 0.12 GB more. Beyond, only the memory grows: eight rows of the starter take 0.76 of
 * eight runs at 16 × 16 and 1.04 at 32 × 32.
 */
const mostPositions = 2 * 64 * 64

/** Rows that a run of the network takes, of `positions` each; `batchGuidance` asks for both rows of a picture, or for one. */
function rowsPerRun(positions: number, batchGuidance: boolean | undefined, pictures: number): number {
  if (batchGuidance === false) return pictures
  return Math.max(batchGuidance ? 2 : 1, Math.floor(mostPositions / positions))
}

/** Which noise levels the job runs through, and what of its wishes cannot be met. */
function planSteps(job: GenerateJob, manifest: ModelManifest) {
  const notices: string[] = []
  // From pure noise there is nothing to subtract noise from: only a velocity says where to go.
  const canStartFromNoise = manifest.schedule.predictionType === 'v_prediction'
  const zeroTerminalSnr = job.zeroTerminalSnr && canStartFromNoise
  if (job.zeroTerminalSnr && !canStartFromNoise) {
    notices.push('Starting from pure noise needs a model that predicts velocity; it was left off.')
  }
  const levels = noiseLevels({ ...manifest.schedule, zeroTerminalSnr })
  const all = job.timesteps ? sigmasAtTimesteps(job.timesteps, levels) : sigmaSchedule(job.schedule, levels, job.steps)
  if (zeroTerminalSnr && !job.timesteps && all[0] < 0.99 * levels.sigmas[levels.sigmas.length - 1]) {
    notices.push(`The schedule ${job.schedule} never starts from pure noise; trailing does.`)
  }
  const sigmas = job.init ? sigmasForStrength(all, job.init.strength) : all
  if (job.init && sigmas.length === 1) {
    notices.push(`At strength ${job.init.strength} none of ${all.length - 1} steps runs; the picture stays.`)
  }
  return { levels, sigmas, skipped: all.length - sigmas.length, notices }
}

/** Refuses what is too much for the slots at any step, and says what is much. */
function checkAdapters(weights: readonly Weights[][], slots: Slots | undefined): Set<string> {
  const notices = new Set<string>()
  const checked = new Set<string>()
  for (const pictures of weights) {
    const key = activeIn(pictures)
    if (key === '' || checked.has(key)) continue
    checked.add(key)
    if (!slots && pictures.some((own) => [...own.keys()].some((adapter) => changes(adapter, 'unet')))) {
      throw new Error('generate: adapters change the unet, but it has no slots')
    }
    const notice = slots?.check(pictures.flatMap((own) => [...own.keys()]))
    if (notice) notices.add(notice)
  }
  return notices
}

/** Names the adapters that act. */
function activeIn(pictures: readonly Weights[]): string {
  return pictures
    .map((own) => [...own.keys()].map(({ sha256 }) => sha256).sort())
    .join(';')
    .replace(/^;*$/, '')
}

function checkSize(job: GenerateJob, manifest: ModelManifest): void {
  const factor = manifest.latents.spatialFactor
  for (const side of ['width', 'height'] as const) {
    if (job[side] % factor === 0) continue
    const lower = Math.floor(job[side] / factor) * factor
    throw new VignetteError(
      'bad-request',
      `${manifest.name} draws in multiples of ${factor} pixels, and the ${side} is ${job[side]}.`,
      {
        hint: `Try ${Math.max(lower, factor)} or ${lower + factor}.`,
      },
    )
  }
  const wrong = job.init && (job.init.image.width !== job.width || job.init.image.height !== job.height)
  if (wrong || (job.mask && job.mask.length !== job.width * job.height)) {
    throw new Error('generate: start picture and mask must already have the size of the job')
  }
}
