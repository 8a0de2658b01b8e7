import type { Job } from '../../preload/contract/jobs.ts'

/** A line of the queue: a job, or jobs of one batch that follow each other. */
export type QueueRow = {
  /** Of the batch, or of the only job. */
  id: string
  jobs: readonly Job[]
  /** Of the whole batch: how many of its pictures are over. */
  over: number
  total: number
  isBatch: boolean
  isOpen: boolean
  /** Belongs to the batch above, which is open. */
  isInside: boolean
}

/**
 * Folds jobs of one batch that follow each other into one row. `open` batches show their jobs below it; `left` counts
 * what of each batch still waits or runs.
 */
export function rowsOf(jobs: readonly Job[], open: ReadonlySet<string>, left: ReadonlyMap<string, number>): QueueRow[] {
  const rows: QueueRow[] = []
  const seen = new Map<string, number>()
  for (let i = 0; i < jobs.length;) {
    const { batchId, batchSize } = jobs[i]
    let end = i + 1
    while (end < jobs.length && jobs[end].batchId === batchId) end++
    const some = jobs.slice(i, end)
    const over = batchSize - Math.min(batchSize, left.get(batchId) ?? 0)
    const isBatch = batchSize > 1
    // A batch that was torn apart by moves has several rows.
    const part = seen.get(batchId) ?? 0
    seen.set(batchId, part + 1)
    const id = isBatch ? (part === 0 ? batchId : `${batchId}-${part}`) : some[0].id
    const isOpen = isBatch && open.has(id)
    rows.push({ id, jobs: some, over, total: batchSize, isBatch, isOpen, isInside: false })
    if (isOpen) {
      for (const job of some)
        rows.push({ id: job.id, jobs: [job], over, total: batchSize, isBatch: false, isOpen: false, isInside: true })
    }
    i = end
  }
  return rows
}

/** How many jobs of each batch wait or run. */
export function leftOf(waiting: readonly Job[], running: Job | undefined): Map<string, number> {
  const left = new Map<string, number>()
  for (const { batchId } of running ? [running, ...waiting] : waiting) left.set(batchId, (left.get(batchId) ?? 0) + 1)
  return left
}

/** Before which job those of a row go when it moves by one, or the end; undefined where it cannot. */
export function neighbourOf(rows: readonly QueueRow[], index: number, way: 'up' | 'down'): string | 'end' | undefined {
  const whole = rows.filter((row) => !row.isInside)
  // A batch passes whole rows, a job inside one passes jobs.
  const passed = rows[index].isInside ? whole.flatMap(({ jobs }) => jobs) : whole.map(({ jobs }) => jobs[0])
  const at = passed.indexOf(rows[index].jobs[0])
  const before = way === 'up' ? at - 1 : at + 2
  if (before < 0 || (way === 'down' && at === passed.length - 1)) return undefined
  return before < passed.length ? passed[before].id : 'end'
}

/** What a job is called in a line. */
export function titleOf({ label, request }: Job): string {
  return label ?? request.prompt
}
