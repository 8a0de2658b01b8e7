import * as z from 'zod'
import { limits } from '../limits.ts'
import { AdapterRoleName } from './adapters.ts'
import { AdapterUse, ErrorReport, GenerateRequest } from './generate.ts'

/** A saved picture: `url` is vignette-image://<id>, `thumb` a small version of it, `file` where it lies. */
export const ImageRecord = z.object({
  id: z.string(),
  url: z.string(),
  thumb: z.string(),
  file: z.string(),
  prompt: z.string(),
  seed: z.number(),
  width: z.int(),
  height: z.int(),
  createdAt: z.number(),
  isStarred: z.boolean().optional(),
  /** Words for those who do not see it; the prompt where the person has written none. */
  alt: z.string().optional(),
  /** Brought in from another program, whose name stands here when it is known. */
  importedFrom: z.string().optional(),
  /** Why it cannot be shown: the file is damaged or gone. */
  problem: z.string().optional(),
})
export type ImageRecord = z.infer<typeof ImageRecord>

/** `pictures` counts those outside the bin. */
export const Album = z.object({ id: z.string(), name: z.string(), pictures: z.int(), cover: z.string().optional() })
export type Album = z.infer<typeof Album>

/** Which pictures are asked for, newest first. `search` is what the person typed, in the language of the search box. */
export const ImageQuery = z.object({
  search: z.string().max(1000).default(''),
  album: z.string().optional(),
  /** The bin instead of everything else. */
  isBin: z.boolean().default(false),
  order: z.enum(['newest', 'oldest']).default('newest'),
})
export type ImageQuery = z.infer<typeof ImageQuery>
export type ImageQueryInput = z.input<typeof ImageQuery>

/** An adapter that a picture was made with, as far as its file tells. `id` is the one in the library that it was found to be. */
export const RecalledAdapter = AdapterUse.omit({ file: true }).extend({
  name: z.string(),
  /** Hash of its tensors, or the first digits of one. */
  sha256: z.string().optional(),
  id: z.string().optional(),
  /** One of its name is here, but with other content. Only a replay uses it, and says so. */
  otherId: z.string().optional(),
  role: AdapterRoleName.optional(),
  /** How many tensors it has: where names differ, only files with as many are looked into. */
  tensors: z.int().optional(),
  /** It stood in for guidance. */
  isGuidance: z.boolean().optional(),
  /** It brought words for the prompt and changed no network. */
  isEmbedding: z.boolean().optional(),
})
export type RecalledAdapter = z.infer<typeof RecalledAdapter>

/**
 * What a picture says of how it was made: everything of one made here, what can be derived of others. An adapter without
 * `id` is missing here; nothing ever stands for another that was missing.
 */
export const RecalledRecipe = z.object({
  /** Which program wrote it, in words. */
  origin: z.string().optional(),
  request: GenerateRequest.omit({ adapters: true, count: true, preview: true, initImage: true, maskImage: true })
    .partial()
    .optional(),
  /** `isChanged`: there is one of that name, but with other weights than the picture was made with. */
  model: z
    .object({
      id: z.string().optional(),
      name: z.string(),
      sha256: z.string().optional(),
      isChanged: z.boolean().optional(),
    })
    .optional(),
  adapters: z.array(RecalledAdapter).default([]),
  /** The picture it started from; `file` and `id` when the library knows it. */
  source: z
    .object({
      name: z.string(),
      sha256: z.string().optional(),
      file: z.string().optional(),
      id: z.string().optional(),
    })
    .optional(),
  /** What could not be carried over, in words for the person. */
  notices: z.array(z.string()).optional(),
  /** Fields of other programs that have no place here, as they were written. */
  raw: z.array(z.object({ key: z.string(), value: z.string() })).optional(),
  engine: z.object({ runtime: z.string(), provider: z.string(), mode: z.string().optional() }).optional(),
  pixelSha256: z.string().optional(),
  /** Why it cannot be made again to the pixel; absent when it can. */
  replayReason: z.string().optional(),
})
export type RecalledRecipe = z.infer<typeof RecalledRecipe>

/** All the inspector shows of a picture. `recipe` is absent when the file says nothing about how it was made. */
export const ImageDetail = z.object({
  image: ImageRecord,
  bytes: z.number(),
  tags: z.array(z.string()),
  albums: z.array(z.string()),
  note: z.string(),
  isBinned: z.boolean(),
  recipe: RecalledRecipe.optional(),
  /** The recipe as text that other programs read. */
  text: z.string().optional(),
})
export type ImageDetail = z.infer<typeof ImageDetail>

/** How a picture made again compares with the first. */
export const ReplayResult = z.object({
  id: z.string(),
  verdict: z.enum(['identical', 'same', 'different', 'failed']),
  /** Pixels that differ, and by how much at most (0 to 255). */
  pixels: z.int().optional(),
  most: z.int().optional(),
  /** What is not as it was: engine, model or adapters, in words. */
  reasons: z.array(z.string()),
  /** The new picture. */
  againId: z.string().optional(),
})
export type ReplayResult = z.infer<typeof ReplayResult>

const imageId = z.object({ id: z.string() })
const imageIds = z.object({ ids: z.array(z.string()).min(1).max(limits.maxPicturesAtOnce) })
const tag = z.string().trim().min(1).max(60)
const albumName = z.string().trim().min(1).max(100)

export const imageRequests = {
  'images:reveal': { input: imageId, output: z.void() },
  /** A part of what was asked for, and how many there are in all. `unknown`: words of the search that mean nothing. */
  'images:query': {
    input: ImageQuery.extend({ offset: z.int().min(0).default(0), limit: z.int().min(1).max(500).default(200) }),
    output: z.object({ images: z.array(ImageRecord), total: z.int(), unknown: z.array(z.string()) }),
  },
  /** How many pictures each day has, as YYYY-MM-DD, in the order of the query. */
  'images:days': { input: ImageQuery, output: z.array(z.object({ day: z.string(), count: z.int() })) },
  /** Only the ids of a part, for choosing many at once. */
  'images:ids': {
    input: ImageQuery.extend({
      offset: z.int().min(0).default(0),
      limit: z.int().min(1).max(limits.maxPicturesAtOnce),
    }),
    output: z.array(z.string()),
  },
  'images:detail': { input: imageId, output: ImageDetail },
  /** From a picture of the library, or any picture file. Throws `file-unreadable` for what is no picture. */
  'images:recipe': {
    input: z.union([imageId, z.object({ file: z.string() })]),
    output: RecalledRecipe,
  },
  /** A small version of any picture file, as a data: URL. Throws `file-unreadable` for what is no picture. */
  'images:preview': {
    input: z.object({ file: z.string() }),
    output: z.object({ url: z.string(), width: z.int(), height: z.int() }),
  },
  'images:star': { input: imageIds.extend({ isStarred: z.boolean() }), output: z.void() },
  'images:tag': {
    input: imageIds.extend({ add: z.array(tag).max(50).default([]), remove: z.array(tag).max(50).default([]) }),
    output: z.void(),
  },
  'images:describe': {
    input: imageId.extend({ alt: z.string().max(2000).optional(), note: z.string().max(10_000).optional() }),
    output: z.void(),
  },
  'images:tags': { input: z.void(), output: z.array(z.object({ tag: z.string(), count: z.int() })) },
  'albums:list': { input: z.void(), output: z.array(Album) },
  'albums:create': { input: z.object({ name: albumName }), output: Album },
  'albums:rename': { input: z.object({ id: z.string(), name: albumName }), output: z.void() },
  /** The pictures stay. What comes back makes the same album again. */
  'albums:remove': { input: z.object({ id: z.string() }), output: z.object({ pictures: z.array(z.string()) }) },
  'albums:restore': {
    input: z.object({ id: z.string(), name: albumName, pictures: z.array(z.string()) }),
    output: z.void(),
  },
  'albums:put': { input: imageIds.extend({ id: z.string() }), output: z.void() },
  'albums:take': { input: imageIds.extend({ id: z.string() }), output: z.void() },
  'images:bin': { input: imageIds, output: z.void() },
  /** Back to where they were, with their albums, stars and tags. */
  'images:restore': { input: imageIds, output: z.void() },
  'images:binSize': { input: z.void(), output: z.object({ count: z.int(), bytes: z.number() }) },
  /** The only way a picture is ever deleted, but for those that have been in the bin for `binDays`. */
  'images:emptyBin': { input: z.void(), output: z.object({ count: z.int() }) },
  /** Copies picture files into the library. A bad one is told about and does not hold up the others. */
  'images:import': {
    input: z.object({ files: z.array(z.string()).min(1).max(limits.maxDroppedFiles) }),
    output: z.object({
      images: z.array(ImageRecord),
      refused: z.array(z.object({ name: z.string(), error: ErrorReport })),
    }),
  },
  /** Asks the person for picture files in the system's own panel; empty when they thought better of it. */
  'images:choose': { input: z.void(), output: z.array(z.string()) },
  'images:rebuildThumb': { input: imageId, output: z.void() },
  /** The person drags pictures out of the window: the system takes it from here. */
  'images:drag': { input: z.object({ ids: z.array(z.string()).min(1).max(500) }), output: z.void() },
  'images:copy': { input: imageId, output: z.void() },
  /** Makes it again with what its recipe names; `images:replayed` tells how the two compare. */
  'images:replay': { input: imageId, output: z.object({ jobId: z.string() }) },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const imageEvents = [
  z.object({ type: z.literal('image:added'), image: ImageRecord }),
  /** Pictures that changed, or came back from the bin. */
  z.object({ type: z.literal('images:changed'), images: z.array(ImageRecord) }),
  /** Gone to the bin, or for good. */
  z.object({ type: z.literal('images:gone'), ids: z.array(z.string()) }),
  /** The index is compared with the files: how far, and nothing when that is over. Pictures may have come or gone. */
  z.object({
    type: z.literal('library:reading'),
    reading: z.object({ done: z.int(), total: z.int() }).optional(),
  }),
  z.object({ type: z.literal('albums:changed'), albums: z.array(Album) }),
  z.object({ type: z.literal('images:replayed'), result: ReplayResult }),
] as const
