import * as z from 'zod'
import { limits } from '../limits.ts'

/** How much of a prompt the model reads, counted by the tokenizer that it is drawn with. */
export const PromptReading = z.object({
  /** Words and parts of words, with the two marks that frame each part. Of choices the longest is counted. */
  tokens: z.int(),
  /** Room in the parts that are needed: 77 for each, and never more than the encoder reads. */
  limit: z.int(),
  /** How many parts the text is read in, one after the other. */
  parts: z.int(),
  /** It has choices or lists: what is drawn may be shorter. */
  isLongest: z.boolean(),
  /** Where the tail begins, in the text as typed, that no part has room for. */
  unreadFrom: z.int().optional(),
  /** `__lists__` that are not in the library of lists. */
  missingLists: z.array(z.string()),
  /** `@handles` that no character has. */
  unknownHandles: z.array(z.string()),
})
export type PromptReading = z.infer<typeof PromptReading>

const text = z.string().max(limits.promptCharacters)

export const promptRequests = {
  /** Both prompts as they are typed, with marks and choices. */
  'prompt:read': {
    input: z.object({ prompt: text, negativePrompt: text.default('') }),
    output: z.object({ prompt: PromptReading, negativePrompt: PromptReading }),
  },
  /** Names of the lists that `__name__` takes a line of, and where they lie. */
  'prompt:lists': { input: z.void(), output: z.object({ folder: z.string(), names: z.array(z.string()) }) },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>
