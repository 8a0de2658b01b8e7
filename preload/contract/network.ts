import * as z from 'zod'

/** What the network may be used for; each is a switch of its own. */
export const NetworkPurpose = z.enum(['update-check', 'model-download'])
export type NetworkPurpose = z.infer<typeof NetworkPurpose>

/** One connection that Vignette made. */
export const NetworkEntry = z.object({
  time: z.number(),
  host: z.string(),
  purpose: NetworkPurpose,
  /** Of the answer; the request itself is a few hundred bytes and carries nothing of the person's. */
  bytes: z.number(),
  outcome: z.enum(['running', 'done', 'failed', 'stopped']),
})
export type NetworkEntry = z.infer<typeof NetworkEntry>

export const UpdateReport = z.object({
  checkedAt: z.number(),
  /** Undefined when this is the newest. */
  newer: z
    .object({ version: z.string(), notes: z.string(), url: z.string().optional(), publishedAt: z.string().optional() })
    .optional(),
})
export type UpdateReport = z.infer<typeof UpdateReport>

export const networkRequests = {
  /** Everything that went over the network, newest first. */
  'network:ledger': { input: z.void(), output: z.array(NetworkEntry) },
  /** Asks once, because the person clicked. */
  'network:checkUpdates': { input: z.void(), output: UpdateReport },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const networkEvents = [z.object({ type: z.literal('network:changed'), entries: z.array(NetworkEntry) })] as const
