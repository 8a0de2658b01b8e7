import * as z from 'zod'
import { AdapterUse, GenerateRequest } from './generate.ts'

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

/** An adapter that a picture was made with, as far as its file tells. `id` is the one in the library that it was found to be. */
export const RecalledAdapter = AdapterUse.omit({ file: true }).extend({
  name: z.string(),
  /** Hash of its tensors, or the first digits of one. */
  sha256: z.string().optional(),
  id: z.string().optional(),
})
export type RecalledAdapter = z.infer<typeof RecalledAdapter>

/** What a picture says of how it was made: everything of one made here, what can be derived of others. */
export const RecalledRecipe = z.object({
  /** Which program wrote it, in words. */
  origin: z.string().optional(),
  request: GenerateRequest.omit({ adapters: true, count: true, preview: true, initImage: true, maskImage: true })
    .partial()
    .optional(),
  model: z.object({ id: z.string().optional(), name: z.string(), sha256: z.string().optional() }).optional(),
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
})
export type RecalledRecipe = z.infer<typeof RecalledRecipe>

export const imageRequests = {
  'images:reveal': { input: z.object({ id: z.string() }), output: z.void() },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const imageEvents = [z.object({ type: z.literal('image:added'), image: ImageRecord })] as const
