import * as z from 'zod'

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

export const imageRequests = {
  'images:reveal': { input: z.object({ id: z.string() }), output: z.void() },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const imageEvents = [z.object({ type: z.literal('image:added'), image: ImageRecord })] as const
