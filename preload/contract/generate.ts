import * as z from 'zod'
import { errorCodes } from '../../models/errors.ts'
import { limits, rampNames, samplerNames, scheduleNames, speedNames } from '../limits.ts'

const size = z
  .int()
  .min(limits.minSize)
  .max(limits.maxSize)
  .check((ctx) => {
    const value = ctx.value
    if (value % limits.sizeMultiple === 0) return
    const lower = Math.floor(value / limits.sizeMultiple) * limits.sizeMultiple
    ctx.issues.push({
      code: 'custom',
      input: value,
      message: `must be a multiple of ${limits.sizeMultiple}, got ${value}; try ${lower} or ${lower + limits.sizeMultiple}`,
    })
  })

/** Weight of an adapter over its steps: a share of it at places 0 (its first step) to 1 (its last), straight between them. */
export const Ramp = z.union([
  z.enum(rampNames),
  z
    .array(z.tuple([z.number().min(0).max(1), z.number().min(-4).max(4)]))
    .min(2)
    .max(limits.maxRampPoints),
])
export type Ramp = z.infer<typeof Ramp>

/** One adapter in a picture: where its file lies, and how strongly and when it acts. */
export const AdapterUse = z.object({
  file: z.string(),
  /** Left out: what the file prefers. */
  weight: z.number().min(-limits.maxAdapterWeight).max(limits.maxAdapterWeight).optional(),
  /** On the text encoders; as `weight` when left out. */
  textWeight: z.number().min(-limits.maxAdapterWeight).max(limits.maxAdapterWeight).optional(),
  /** Shares of the steps: it acts from the first on and stops before the second. */
  start: z.number().min(0).max(1).default(0),
  end: z.number().min(0).max(1).default(1),
  ramp: Ramp.default('flat'),
  /** Cut to this rank, with the error said. */
  rankBudget: z.int().min(1).max(limits.maxAdapterRank).optional(),
})
export type AdapterUse = z.infer<typeof AdapterUse>

/** One picture, or `count` pictures with consecutive seeds, as the person asked for it. Model defaults fill what is left out. */
export const GenerateRequest = z.object({
  prompt: z.string().max(limits.promptCharacters),
  negativePrompt: z.string().max(limits.promptCharacters).default(''),
  /** What was typed, where choices, lists or comments made something else of it. */
  promptTemplate: z.string().max(limits.promptCharacters).optional(),
  negativeTemplate: z.string().max(limits.promptCharacters).optional(),
  model: z.string().default('starter'),
  width: size.optional(),
  height: size.optional(),
  steps: z.int().min(1).max(limits.maxSteps).optional(),
  seed: z.int().min(0).max(limits.maxSeed).optional(),
  count: z.int().min(1).max(limits.maxCount).default(1),
  sampler: z.enum(samplerNames).optional(),
  schedule: z.enum(scheduleNames).optional(),
  guidanceScale: z.number().min(1).max(limits.maxGuidanceScale).optional(),
  /** 0 = off; 0.7 is usual with zero-terminal-SNR models (Lin et al. 2023, section 3.4). */
  guidanceRescale: z.number().min(0).max(1).default(0),
  /** A1111 convention: 1 = last block, 2 = the one before. */
  clipSkip: z.int().min(1).max(12).default(1),
  zeroTerminalSnr: z.boolean().optional(),
  /** A picture file to start from, and which share of the schedule runs on it. */
  initImage: z.string().optional(),
  strength: z.number().min(0).max(1).default(0.6),
  /** A picture file, white where the picture may change. Needs initImage. */
  maskImage: z.string().optional(),
  speed: z.enum(speedNames).default('exact'),
  adapters: z.array(AdapterUse).max(limits.maxAdapters).default([]),
  /** Noise levels by their timesteps of training, from noise to picture, instead of a schedule: what adapters for few steps bring. */
  timesteps: z.array(z.number().min(0).max(999)).min(1).max(limits.maxSteps).optional(),
  /** Of the sampler tcd: share of each jump that fresh noise makes up. */
  eta: z.number().min(0).max(1).optional(),
  preview: z.enum(['off', 'fast']).default('fast'),
})
export type GenerateRequest = z.infer<typeof GenerateRequest>
export type GenerateRequestInput = z.input<typeof GenerateRequest>

export const ErrorReport = z.object({ code: z.enum(errorCodes), message: z.string(), hint: z.string().optional() })
