/** As long as one piece of work may keep this process from anything else; a few of them may follow each other. */
const turnMs = 2

/**
 * For loops over thousands of things: awaiting it lets other work in when this has gone on for a while, and costs
 * nothing otherwise.
 */
export function breaths(): () => Promise<void> {
  let since = performance.now()
  return async () => {
    if (performance.now() - since < turnMs) return
    await new Promise((resolve) => setImmediate(resolve))
    since = performance.now()
  }
}
