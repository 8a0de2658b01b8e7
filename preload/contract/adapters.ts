import * as z from 'zod'
import { limits } from '../limits.ts'
import { ErrorReport } from './generate.ts'

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
  /** Other numbers of steps that are right, too; without it there is only the one. */
  stepRange: z.tuple([z.int(), z.int()]).optional(),
  /** It draws at noise levels of its own. */
  hasLevels: z.boolean().optional(),
  /** Of those steps, the ones at which this adapter acts: from the first on, before the second. */
  activeSteps: z.tuple([z.int(), z.int()]).optional(),
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
  /** Of an adapter that stands in for guidance: the scales it was trained for. */
  guidanceRange: z.tuple([z.number(), z.number()]).optional(),
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

export const adapterRequests = {
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

export const adapterEvents = [
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
] as const
