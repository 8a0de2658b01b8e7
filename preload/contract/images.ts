import * as z from 'zod'
import { AdapterRoleName } from './adapters.ts'
import { AdapterUse, GenerateRequest } from './generate.ts'

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
  role: AdapterRoleName.optional(),
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

export const imageRequests = {
  'images:reveal': { input: z.object({ id: z.string() }), output: z.void() },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const imageEvents = [
  z.object({ type: z.literal('image:added'), image: ImageRecord }),
  /** Pictures that changed, or came back from the bin. */
  z.object({ type: z.literal('images:changed'), images: z.array(ImageRecord) }),
  /** Gone to the bin, or for good. */
  z.object({ type: z.literal('images:gone'), ids: z.array(z.string()) }),
  z.object({ type: z.literal('albums:changed'), albums: z.array(Album) }),
  z.object({ type: z.literal('images:replayed'), result: ReplayResult }),
] as const
