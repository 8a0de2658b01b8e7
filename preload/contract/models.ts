import * as z from 'zod'
import { limits, modeNames, samplerNames, scheduleNames } from '../limits.ts'
import { ErrorReport } from './generate.ts'

/** What a model starts a form with. */
export const ModelDefaults = z.object({
  steps: z.int().min(1).max(limits.maxSteps),
  guidanceScale: z.number().min(1).max(limits.maxGuidanceScale),
  sampler: z.string(),
  schedule: z.string(),
})
export type ModelDefaults = z.infer<typeof ModelDefaults>

const side = z.int().min(limits.minSize).max(limits.maxSize).multipleOf(limits.sizeMultiple)

/** What the person has set for a model instead of what it says itself. */
export const OwnDefaults = z
  .object({
    steps: ModelDefaults.shape.steps,
    guidanceScale: ModelDefaults.shape.guidanceScale,
    sampler: z.enum(samplerNames),
    schedule: z.enum(scheduleNames),
    width: side,
    height: side,
  })
  .partial()
export type OwnDefaults = z.infer<typeof OwnDefaults>

/** A model on this computer. Defaults and native size are those that hold: the person's own where they have set some. */
export const ModelRecord = z.object({
  id: z.string(),
  name: z.string(),
  family: z.string(),
  nativeWidth: z.int(),
  nativeHeight: z.int(),
  weightBytes: z.number(),
  defaults: ModelDefaults,
  familyName: z.string(),
  storage: z.enum(['fp32', 'fp16', 'int4']),
  /** Where it lies. */
  folder: z.string(),
  /** All its files. */
  diskBytes: z.number(),
  memory: z.object({
    /** What drawing at its native size takes, and what there is for it. */
    neededBytes: z.number(),
    availableBytes: z.number(),
    fit: z.enum(['fits', 'tight', 'too-big']),
  }),
  state: z.enum(['ready', 'loading', 'missing-part', 'damaged', 'too-big']),
  /** What is wrong with it, in words. */
  problem: z.string().optional(),
  /** It lies in the engine's memory at this moment. */
  isLoaded: z.boolean(),
  isStarter: z.boolean(),
  isHidden: z.boolean(),
  isDefault: z.boolean(),
  ownDefaults: OwnDefaults,
  /** What holds without them. */
  factoryDefaults: ModelDefaults.extend({ width: z.int(), height: z.int() }),
  licence: z.string().optional(),
  author: z.string().optional(),
  source: z.object({ file: z.string(), sha256: z.string(), bytes: z.number() }),
  /** Whether its weights are those that were put there. `recorded`: from now on a change would be seen. */
  check: z.object({ state: z.enum(['unchecked', 'recorded', 'verified', 'changed']), at: z.number().optional() }),
})
export type ModelRecord = z.infer<typeof ModelRecord>

/** What a file or folder is that is offered as a model, before anything is copied. */
export const ModelCandidate = z.object({
  source: z.string(),
  fileName: z.string(),
  /** Why it cannot be a model here. */
  error: ErrorReport.optional(),
  card: z
    .object({
      kind: z.enum(['checkpoint', 'diffusers', 'vignette']),
      name: z.string(),
      familyName: z.string(),
      storage: z.enum(['fp32', 'fp16', 'int4']),
      bytes: z.number(),
      nativeWidth: z.int(),
      nativeHeight: z.int(),
      licence: z.string().optional(),
      author: z.string().optional(),
      description: z.string().optional(),
      /** What it takes on the disk as it is and in four bits (about; absent where that cannot be), and what is free. */
      neededBytes: z.number(),
      fourBitBytes: z.number().optional(),
      freeBytes: z.number(),
    })
    .optional(),
  /** A model here that came from a file of this name and size. */
  known: z.object({ id: z.string(), name: z.string() }).optional(),
})
export type ModelCandidate = z.infer<typeof ModelCandidate>

/** An import under way, or one that was; also the making of a 4-bit form, and a check of the weights. */
export const ModelTask = z.object({
  id: z.string(),
  kind: z.enum(['import', 'four-bit', 'verify']),
  /** What it becomes, or is about. */
  name: z.string(),
  model: z.string(),
  status: z.enum(['waiting', 'running', 'done', 'failed', 'cancelled']),
  phase: z.enum(['checking', 'copying', 'building', 'calibrating', 'quantizing', 'verifying']).optional(),
  /** 0 to 1. */
  fraction: z.number(),
  doneBytes: z.number().optional(),
  totalBytes: z.number().optional(),
  layer: z.object({ done: z.int(), of: z.int() }).optional(),
  /** It had begun before the application ended, and goes on from there. */
  isResumed: z.boolean().optional(),
  isStopping: z.boolean().optional(),
  error: ErrorReport.optional(),
})
export type ModelTask = z.infer<typeof ModelTask>

/** A model file in a linked folder of another program. */
export const FoundModel = z.object({
  file: z.string(),
  name: z.string(),
  root: z.string(),
  bytes: z.number(),
  /** The model here that was made from it. */
  importedAs: z.string().optional(),
})
export type FoundModel = z.infer<typeof FoundModel>

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
  'models:list': {
    input: z.void(),
    output: z.object({ models: z.array(ModelRecord), tasks: z.array(ModelTask), found: z.array(FoundModel) }),
  },
  /** The system's own panel; empty when the person thought better of it. */
  'models:choose': { input: z.object({ what: z.enum(['files', 'folder']) }), output: z.array(z.string()) },
  /** Reads headers and descriptions only. */
  'models:inspect': {
    input: z.object({ sources: z.array(z.string()).min(1).max(limits.maxDroppedFiles) }),
    output: z.array(ModelCandidate),
  },
  /** Goes on in the background, also after a restart, until it is done or cancelled. */
  'models:import': {
    input: z.object({ source: z.string(), name: z.string().min(1).max(120), isFourBit: z.boolean().default(false) }),
    output: z.object({ taskId: z.string() }),
  },
  /** A model of the same pictures in a quarter of the space, beside the one it is made from. */
  'models:makeFourBit': { input: z.object({ model: z.string() }), output: z.object({ taskId: z.string() }) },
  /** Compares the weights with what was put there. */
  'models:verify': { input: z.object({ model: z.string() }), output: z.object({ taskId: z.string() }) },
  /** Nothing of it stays. */
  'models:cancelTask': { input: z.object({ taskId: z.string() }), output: z.void() },
  /** Takes one that is over off the list. */
  'models:forgetTask': { input: z.object({ taskId: z.string() }), output: z.void() },
  /** The one a new form starts with. */
  'models:setDefault': { input: z.object({ model: z.string() }), output: z.void() },
  'models:hide': { input: z.object({ model: z.string(), isHidden: z.boolean() }), output: z.void() },
  /** To the bin; the model that comes with Vignette can only be hidden. */
  'models:remove': { input: z.object({ model: z.string() }), output: z.object({ undoId: z.string() }) },
  'models:undoRemove': { input: z.object({ undoId: z.string() }), output: z.object({ model: z.string().optional() }) },
  /** Gives its memory back, unless something is being drawn. */
  'models:unload': { input: z.void(), output: z.void() },
  /** All of the person's own values for a model; an empty object is the model's own. */
  'models:saveDefaults': { input: z.object({ model: z.string(), defaults: OwnDefaults }), output: z.void() },
  /** As JSON, into a file that the person names; nothing comes back when they thought better of it. */
  'models:exportDefaults': {
    input: z.object({ model: z.string() }),
    output: z.object({ file: z.string().optional() }),
  },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const modelEvents = [
  z.object({ type: z.literal('models:changed'), models: z.array(ModelRecord) }),
  /** An import or check that came, went on, or is over. */
  z.object({ type: z.literal('models:task'), task: ModelTask }),
  z.object({ type: z.literal('models:taskGone'), id: z.string() }),
  z.object({ type: z.literal('models:found'), found: z.array(FoundModel) }),
  z.object({ type: z.literal('engine:device'), device: DeviceReport }),
  z.object({ type: z.literal('engine:crashed'), message: z.string() }),
] as const
