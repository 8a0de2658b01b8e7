import * as z from 'zod'
import { errorCodes } from '../models/errors.ts'
import { limits, modeNames, rampNames, samplerNames, scheduleNames, speedNames } from './limits.ts'

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

export const Job = z.object({
  id: z.string(),
  status: z.enum(['waiting', 'running', 'done', 'failed', 'cancelled']),
  request: GenerateRequest,
  /** What it is doing, in words for the screen. */
  phase: z.enum(['waiting', 'loading', 'encoding', 'denoising', 'decoding', 'saving', 'done']),
  step: z.int(),
  steps: z.int(),
  /** Which picture of `count` is being made, from 0. */
  index: z.int(),
  etaMs: z.number().optional(),
  /** Small data: URL of the unfinished picture. */
  preview: z.string().optional(),
  images: z.array(z.string()),
  /** Cancelled by the person, but the running step is not over yet. */
  isStopping: z.boolean().optional(),
  /** What the person should know although it did not stop the job, e.g. words that were not read. */
  notices: z.array(z.string()).optional(),
  error: ErrorReport.optional(),
})
export type Job = z.infer<typeof Job>

/** A saved picture: `url` is vignette-image://<id>, `file` where it lies. */
export const ImageRecord = z.object({
  id: z.string(),
  url: z.string(),
  file: z.string(),
  prompt: z.string(),
  seed: z.number(),
  width: z.int(),
  height: z.int(),
  createdAt: z.number(),
})
export type ImageRecord = z.infer<typeof ImageRecord>

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

/** What an adapter is for. Those for speed, guidance and watermark sit in slots of their own. */
export const AdapterRoleName = z.enum([
  'style',
  'subject',
  'detail',
  'condition',
  'speed',
  'speed-slow',
  'speed-fast',
  'guidance',
  'watermark',
])
export type AdapterRoleName = z.infer<typeof AdapterRoleName>

/** How well an adapter goes with the model asked about, in words for the person. */
export const AdapterVerdict = z.object({
  fit: z.enum(['fits', 'partly', 'wrong-family', 'unsupported', 'refused']),
  message: z.string(),
  hint: z.string().optional(),
})
export type AdapterVerdict = z.infer<typeof AdapterVerdict>

/** What an adapter for few steps sets where the person has set nothing. */
export const AdapterPreset = z.object({
  name: z.string(),
  sampler: z.string(),
  schedule: z.string().optional(),
  steps: z.int(),
  guidanceScale: z.number(),
})
export type AdapterPreset = z.infer<typeof AdapterPreset>

/** What header, metadata and sidecars of an adapter file tell the person. */
export const AdapterCard = z.object({
  name: z.string(),
  fileName: z.string(),
  bytes: z.number(),
  /** 'LoRA', 'LoCon', 'DoRA', …; several when mixed. */
  kinds: z.array(z.string()),
  familyName: z.string().optional(),
  rank: z.object({ min: z.number(), max: z.number() }).optional(),
  precision: z.string(),
  /** Tensors that found their place in the model, of all. */
  matched: z.int(),
  total: z.int(),
  hasTextEncoder: z.boolean(),
  triggers: z.array(z.string()),
  preferredWeight: z.number().optional(),
  description: z.string().optional(),
  author: z.string().optional(),
  licence: z.string().optional(),
  tags: z.array(z.string()),
  role: AdapterRoleName,
  preset: AdapterPreset.optional(),
  verdict: AdapterVerdict,
  notices: z.array(z.string()),
})
export type AdapterCard = z.infer<typeof AdapterCard>

/**
 * An adapter in the library. `id` is what `AdapterUse.file` holds in requests of the window. `own` lies in the person's
 * folder, `starter` came with Vignette, `linked` stays where it is and is only read.
 */
export const AdapterRecord = AdapterCard.extend({
  id: z.string(),
  place: z.enum(['own', 'starter', 'linked']),
  modifiedAt: z.number(),
})
export type AdapterRecord = z.infer<typeof AdapterRecord>

/** A file that is offered to the library, and what has the same content there already. */
export const AdapterCandidate = z.object({
  file: z.string(),
  card: AdapterCard,
  /** Why it is refused, by its code. */
  error: ErrorReport.optional(),
  known: z.object({ id: z.string(), name: z.string() }).optional(),
})
export type AdapterCandidate = z.infer<typeof AdapterCandidate>

/** A slot of the strip: an adapter of the library, and how it is set. */
export const StudioSlot = AdapterUse.pick({ start: true, end: true, ramp: true }).extend({
  id: z.string(),
  /** Shown when the file is gone. */
  name: z.string(),
  role: AdapterRoleName,
  isOn: z.boolean(),
  weight: z.number().min(-limits.maxAdapterWeight).max(limits.maxAdapterWeight),
})
export type StudioSlot = z.infer<typeof StudioSlot>

/** The form of the Studio as the person left it; what is absent follows the model. */
export const StudioForm = GenerateRequest.omit({ initImage: true, maskImage: true, adapters: true })
  .partial()
  .extend({ seedMode: z.enum(['random', 'fixed']).optional(), slots: z.array(StudioSlot).optional() })
export type StudioForm = z.infer<typeof StudioForm>

/** What is remembered from one start to the next, besides pictures and queue. */
export const Settings = z.object({
  isWelcomeDismissed: z.boolean().optional(),
  form: StudioForm.optional(),
})
export type Settings = z.infer<typeof Settings>

export const AppState = z.object({
  version: z.string(),
  jobs: z.array(Job),
  images: z.array(ImageRecord),
  models: z.array(ModelRecord),
  device: DeviceReport.optional(),
  samplePrompts: z.array(z.string()),
  /** The model that comes with Vignette is being put in place; `models:changed` says when that is over. */
  isSettingUp: z.boolean(),
  settings: Settings,
})
export type AppState = z.infer<typeof AppState>

/** Every request the window can make: the key is the channel. */
export const requests = {
  'app:state': { input: z.void(), output: AppState },
  'jobs:add': { input: GenerateRequest, output: z.object({ jobId: z.string() }) },
  'jobs:cancel': { input: z.object({ jobId: z.string() }), output: z.void() },
  /** Changes the fields named and leaves the others. */
  'settings:save': { input: Settings.partial(), output: z.void() },
  'images:reveal': { input: z.object({ id: z.string() }), output: z.void() },
  /** What is known of the library now, judged for `model`; the rest comes as `adapters:changed` while files are read. */
  'adapters:list': {
    input: z.object({ model: z.string() }),
    output: z.object({ adapters: z.array(AdapterRecord), isScanning: z.boolean(), links: z.array(z.string()) }),
  },
  /** Asks the person for files, or for a folder, in the system's own panel; empty when they thought better of it. */
  'adapters:choose': { input: z.object({ what: z.enum(['files', 'folder']) }), output: z.array(z.string()) },
  /** Reads headers only. One bad file is told about as a refusal and does not hold up the others. */
  'adapters:inspect': {
    input: z.object({ files: z.array(z.string()).max(limits.maxDroppedFiles), model: z.string() }),
    output: z.array(AdapterCandidate),
  },
  /** Copies a file into the library, or links it where it lies. What is there already by content is not added again. */
  'adapters:add': {
    input: z.object({ file: z.string(), model: z.string(), isLink: z.boolean().default(false) }),
    output: z.object({ adapter: AdapterRecord, isNew: z.boolean() }),
  },
  /** Ends the copying of this file; nothing of it stays. */
  'adapters:cancel': { input: z.object({ file: z.string() }), output: z.void() },
  /** To the bin; a link is only forgotten. `undoId` brings it back. */
  'adapters:remove': { input: z.object({ id: z.string() }), output: z.object({ undoId: z.string() }) },
  'adapters:undo': {
    input: z.object({ undoId: z.string(), model: z.string() }),
    output: z.object({ adapter: AdapterRecord.optional() }),
  },
  /** Lists a folder's adapters where they lie; nothing in it is ever changed. */
  'adapters:link': { input: z.object({ folder: z.string() }), output: z.void() },
  'adapters:unlink': { input: z.object({ folder: z.string() }), output: z.void() },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export type RequestName = keyof typeof requests
export type Input<K extends RequestName> = z.input<(typeof requests)[K]['input']>
export type Output<K extends RequestName> = z.output<(typeof requests)[K]['output']>
export type Reply<T> = { ok: true; value: T } | { ok: false; error: z.infer<typeof ErrorReport> }

/** Everything main tells the window unasked. */
export const AppEvent = z.discriminatedUnion('type', [
  z.object({ type: z.literal('job:changed'), job: Job }),
  z.object({ type: z.literal('image:added'), image: ImageRecord }),
  z.object({ type: z.literal('models:changed'), models: z.array(ModelRecord) }),
  /** Judged for `model`: what came or changed, what is gone, and how far the reading of headers is. */
  z.object({
    type: z.literal('adapters:changed'),
    model: z.string(),
    changed: z.array(AdapterRecord),
    gone: z.array(z.string()),
    scan: z.object({ done: z.int(), total: z.int() }).optional(),
  }),
  /** Copying a file into the library. */
  z.object({ type: z.literal('adapters:copying'), file: z.string(), doneBytes: z.number(), totalBytes: z.number() }),
  z.object({ type: z.literal('engine:device'), device: DeviceReport }),
  z.object({ type: z.literal('engine:crashed'), message: z.string() }),
])
export type AppEvent = z.infer<typeof AppEvent>

/** All that the window can reach outside itself: what preload/index.ts puts at `window.vignette`. It does not grow. */
export type Bridge = {
  invoke<K extends RequestName>(name: K, input: Input<K>): Promise<Reply<Output<K>>>
  /** Returns a function that ends the listening. */
  onEvent(listener: (event: AppEvent) => void): () => void
  /** Where a file dropped on the window lies on disk. */
  pathOf(file: File): string
}
