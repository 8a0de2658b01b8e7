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

/** What the person has made of an adapter. Where a field is absent, what the file says of itself holds. */
export const AdapterEdit = z.object({
  name: z.string().min(1).max(120).optional(),
  /** 1 to 5 stars. */
  rating: z.int().min(1).max(5).optional(),
  notes: z.string().max(20_000).optional(),
  /** Beside those that the file brings. */
  tags: z.array(z.string().min(1).max(60)).max(100).optional(),
  collections: z.array(z.string().min(1).max(60)).max(100).optional(),
  isFavourite: z.boolean().optional(),
  isMature: z.boolean().optional(),
  familyName: z.string().min(1).max(80).optional(),
  preferredWeight: z.number().min(-limits.maxAdapterWeight).max(limits.maxAdapterWeight).optional(),
  weightRange: z
    .tuple([
      z.number().min(-limits.maxAdapterWeight).max(limits.maxAdapterWeight),
      z.number().min(-limits.maxAdapterWeight).max(limits.maxAdapterWeight),
    ])
    .optional(),
  triggers: z.array(z.string().min(1).max(100)).max(50).optional(),
  role: AdapterRoleName.optional(),
  sourceLink: z
    .url({ protocol: /^https?$/ })
    .max(2000)
    .optional(),
  licence: z.string().min(1).max(200).optional(),
})
export type AdapterEdit = z.infer<typeof AdapterEdit>

/**
 * A change to several at once: fields to set, with `null` to go back to what the file says, and words to add or to take
 * out.
 */
export const AdapterChange = z
  .object(
    Object.fromEntries(Object.entries(AdapterEdit.shape).map(([key, field]) => [key, field.nullable()])) as {
      [K in keyof typeof AdapterEdit.shape]: z.ZodNullable<(typeof AdapterEdit.shape)[K]>
    },
  )
  .extend({
    addTags: z.array(z.string().min(1).max(60)).max(100).optional(),
    removeTags: z.array(z.string()).max(100).optional(),
    addCollections: z.array(z.string().min(1).max(60)).max(100).optional(),
    removeCollections: z.array(z.string()).max(100).optional(),
  })
export type AdapterChange = z.infer<typeof AdapterChange>

/**
 * An adapter in the library. `id` is what `AdapterUse.file` holds in requests of the window. `own` lies in the person's
 * folder, `starter` came with Vignette, `linked` stays where it is and is only read. Name, triggers, weight and the like
 * are the person's own where they have set them: `edited` says which.
 */
export const AdapterRecord = AdapterCard.extend({
  id: z.string(),
  place: z.enum(['own', 'starter', 'linked']),
  modifiedAt: z.number(),
  /** Below its place, '' for the top; of a linked place its name comes first. */
  folder: z.string(),
  /** Known once it has been asked for or was needed: SHA-256 of its tensors. */
  hash: z.string().optional(),
  /** The same for files that very likely have the same content. */
  twins: z.string().optional(),
  /** Not where it was; its edits are kept and it can be located. */
  isMissing: z.boolean().optional(),
  weightRange: z.tuple([z.number(), z.number()]).optional(),
  rating: z.int().optional(),
  notes: z.string().optional(),
  /** Of `tags`, those that the person gave it. */
  ownTags: z.array(z.string()),
  collections: z.array(z.string()),
  isFavourite: z.boolean(),
  isMature: z.boolean(),
  sourceLink: z.string().optional(),
  timesUsed: z.int(),
  lastUsedAt: z.number().optional(),
  /** Its picture, at an address that the window can show. */
  thumbUrl: z.string().optional(),
  /** Pictures made to show what it does. */
  samples: z.array(z.object({ id: z.string(), url: z.string() })),
  edited: z.array(z.string()),
})
export type AdapterRecord = z.infer<typeof AdapterRecord>

/** What is not needed in a list of thousands. */
export const AdapterDetail = z.object({
  id: z.string(),
  file: z.string(),
  hash: z.string().optional(),
  /** What the file says of itself, for "back to the file's". */
  card: AdapterCard,
  pictures: z.object({
    count: z.int(),
    newest: z.array(z.object({ id: z.string(), url: z.string(), prompt: z.string() })),
  }),
})
export type AdapterDetail = z.infer<typeof AdapterDetail>

/** What lies in a folder of another program. */
export const LinkedKind = z.enum(['adapters', 'checkpoints', 'embeddings', 'vae', 'controlnet'])
export type LinkedKind = z.infer<typeof LinkedKind>

/** What a folder holds, shown before it is linked. `unreadable` files are of a format that could run programs. */
export const RootReport = z.object({
  folder: z.string(),
  name: z.string(),
  layout: z.enum(['comfyui', 'a1111', 'plain']),
  kinds: z.array(z.object({ kind: LinkedKind, count: z.int(), unreadable: z.int(), bytes: z.number() })),
  folders: z.array(z.object({ kind: LinkedKind, path: z.string() })),
})
export type RootReport = z.infer<typeof RootReport>

/** Something in the adapters' bin. */
export const BinnedAdapter = z.object({
  undoId: z.string(),
  name: z.string(),
  bytes: z.number(),
  removedAt: z.number(),
})
export type BinnedAdapter = z.infer<typeof BinnedAdapter>

const adapterIds = z.object({ ids: z.array(z.string()).min(1).max(limits.maxAdaptersAtOnce) })

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
    output: z.object({
      adapters: z.array(AdapterRecord),
      isScanning: z.boolean(),
      /** Linked folders and files, and linked roots of other programs. */
      links: z.array(z.string()),
      roots: z.array(z.string()),
    }),
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
  /** What a folder holds, by kind, before it is linked. Asking about another ends the counting. */
  'adapters:lookAt': { input: z.object({ folder: z.string() }), output: RootReport },
  'adapters:cancelLook': { input: z.void(), output: z.void() },
  /** Lists a folder's adapters where they lie; nothing in it is ever changed. Known layouts bring their models, too. */
  'adapters:link': { input: z.object({ folder: z.string() }), output: z.void() },
  'adapters:unlink': { input: z.object({ folder: z.string() }), output: z.void() },
  /** Ends the reading of headers; the next `adapters:list` goes on with it. */
  'adapters:cancelScan': { input: z.void(), output: z.void() },
  'adapters:detail': { input: z.object({ id: z.string(), model: z.string() }), output: AdapterDetail },
  /** `undoId` takes the change back. */
  'adapters:edit': {
    input: adapterIds.extend({ change: AdapterChange.partial() }),
    output: z.object({ undoId: z.string() }),
  },
  /** Nothing comes back when it is too long ago; otherwise what takes the taking back, back. */
  'adapters:undoEdit': { input: z.object({ undoId: z.string() }), output: z.object({ undoId: z.string().optional() }) },
  /** From a picture of the gallery, or a picture file; without either back to what lies beside the adapter. */
  'adapters:setThumb': {
    input: z.object({ id: z.string(), image: z.string().optional(), file: z.string().optional() }),
    output: z.void(),
  },
  /** Another file of the same content takes the place of one that is missing. */
  'adapters:locate': {
    input: z.object({ id: z.string(), file: z.string(), model: z.string() }),
    output: z.object({ adapter: AdapterRecord }),
  },
  /** Missing ones are not listed any more. */
  'adapters:forget': { input: adapterIds, output: z.void() },
  /** Compares files that look the same by all of their content, in the background. */
  'adapters:findTwins': { input: z.void(), output: z.void() },
  'adapters:cancelTwins': { input: z.void(), output: z.void() },
  'adapters:bin': { input: z.void(), output: z.object({ items: z.array(BinnedAdapter), bytes: z.number() }) },
  /** For good: nothing else in the library ever deletes a file. */
  'adapters:emptyBin': { input: z.void(), output: z.void() },
  /** Writes what the library knows of them as files that other programs read, into a folder that the person chose. */
  'adapters:export': {
    input: adapterIds.extend({ folder: z.string() }),
    output: z.object({ written: z.int(), skipped: z.array(z.string()) }),
  },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const adapterEvents = [
  /** Judged for `model`: what came or changed, what is gone; and, of a reading of headers, how far it is, `null` at its end. */
  z.object({
    type: z.literal('adapters:changed'),
    model: z.string(),
    changed: z.array(AdapterRecord),
    gone: z.array(z.string()),
    scan: z.object({ done: z.int(), total: z.int() }).nullable().optional(),
  }),
  /** Comparing content, how many of how many; over without `total`. */
  z.object({ type: z.literal('adapters:comparing'), done: z.int(), total: z.int().optional() }),
  /** Copying a file into the library. */
  z.object({ type: z.literal('adapters:copying'), file: z.string(), doneBytes: z.number(), totalBytes: z.number() }),
] as const
