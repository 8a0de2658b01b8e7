import * as z from 'zod'

export const appRequests = {
  /** Shows a web page in the person's browser; only after they have seen its address. */
  'app:openLink': { input: z.object({ url: z.url({ protocol: /^https$/ }) }), output: z.void() },
  /** What the person said when the window asked whether to leave with work in the queue. */
  'app:quit': { input: z.object({ when: z.enum(['after-current', 'now']) }), output: z.void() },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const appEvents = [
  /** From the native menu: a command of the window by its id. */
  z.object({ type: z.literal('app:command'), id: z.string() }),
  /** Files that a second start, the system or the dock handed over. */
  z.object({ type: z.literal('app:files'), files: z.array(z.string()) }),
  /** The person wants to leave, and there is work in the queue: the window asks how. */
  z.object({ type: z.literal('app:quitting') }),
] as const
