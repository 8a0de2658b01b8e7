import * as z from 'zod'
import { modeNames } from '../limits.ts'

export const ModelRecord = z.object({
  id: z.string(),
  name: z.string(),
  family: z.string(),
  nativeWidth: z.int(),
  nativeHeight: z.int(),
  weightBytes: z.number(),
  defaults: z.object({ steps: z.int(), guidanceScale: z.number(), sampler: z.string(), schedule: z.string() }),
})
export type ModelRecord = z.infer<typeof ModelRecord>

/**
 * How 4-bit models run here: on the graphics card, in one of the processor's modes, or not (`plain`: only models of
 * other storage). `usable` are the modes that give the right picture on this processor, `reason` what a test found.
 */
export const FourBitReport = z.object({
  verdict: z.enum(['graphics', ...modeNames, 'plain']),
  usable: z.array(z.enum(modeNames)),
  reason: z.string(),
})
export type FourBitReport = z.infer<typeof FourBitReport>

/** What the engine runs on, and why. */
export const DeviceReport = z.object({
  provider: z.enum(['cpu', 'webgpu', 'dml', 'coreml', 'cuda']),
  name: z.string(),
  reason: z.string(),
  fourBit: FourBitReport.optional(),
})
export type DeviceReport = z.infer<typeof DeviceReport>

/** What the model and this computer can do; a control without its capability is shown, but off, with `reasons` saying why. */
export const Capabilities = z.object({
  model: z.string(),
  adapterSlots: z.int(),
  perStepAdapterWeights: z.boolean(),
  regionalAdapters: z.boolean(),
  negativePrompt: z.boolean(),
  promptWeights: z.boolean(),
  distilledGuidance: z.enum(['none', 'fixed', 'scaled']),
  phaseSpeed: z.enum(['none', 'slowFast']),
  conditions: z.object({ types: z.array(z.string()), max: z.int() }),
  imageToImage: z.boolean(),
  resumeFromLatent: z.boolean(),
  deterministic: z.boolean(),
  watermark: z.enum(['none', 'post', 'inGeneration']),
  sizes: z.object({
    min: z.int(),
    max: z.int(),
    multiple: z.int(),
    native: z.array(z.object({ width: z.int(), height: z.int() })),
  }),
  tinyPreview: z.boolean(),
  /** Why something is missing, by the name of the field, in words for the person. */
  reasons: z.record(z.string(), z.string()),
})
export type Capabilities = z.infer<typeof Capabilities>

export const modelRequests = {
  'models:capabilities': { input: z.object({ model: z.string() }), output: Capabilities },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const modelEvents = [
  z.object({ type: z.literal('models:changed'), models: z.array(ModelRecord) }),
  z.object({ type: z.literal('engine:device'), device: DeviceReport }),
  z.object({ type: z.literal('engine:crashed'), message: z.string() }),
] as const
