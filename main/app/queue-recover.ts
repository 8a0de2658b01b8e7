import type { Job, QueueState } from '../../preload/contract/jobs.ts'
import type { Settings } from '../../preload/contract/settings.ts'
import type { Recovered, StoredJob } from './queue-journal.ts'
import type { Entry } from './queue-list.ts'

export type RecoverOptions = {
  /** Jobs of which a checkpoint is there. */
  isKept: ReadonlySet<string>
  afterCrash: NonNullable<Settings['afterCrash']>
  /** The picture of a job that was being saved when everything ended, if it was. */
  madeBy: (job: Job) => string | undefined
  now: number
}

/** A job that took the whole application down this often is not tried again. */
const maxInterruptions = 2

/**
 * The queue as it goes on after a start. One that was left in good order is as it was. After a crash what was being made
 * goes back to the front, and the person is asked whether to go on.
 */
export function recoverQueue(found: Recovered, options: RecoverOptions): { entries: Entry[]; queue: QueueState } {
  const entries = found.jobs.map((job) => backToLife(job, options.isKept))
  const cut = entries.filter(({ job }) => job.status === 'running')
  const waiting = entries.filter(({ job }) => job.status === 'waiting')
  let rank = waiting.reduce((least, { job }) => Math.min(least, job.rank), 0) - cut.length
  for (const entry of cut) {
    settleCut(entry, options)
    entry.job.rank = rank++
  }
  const interrupted = cut.filter(({ job }) => job.status === 'waiting')
  const queue: QueueState = { isPaused: false, isPausingAfterCurrent: false, ...found.queue }
  if ((queue.stopAt ?? Infinity) <= options.now) delete queue.stopAt
  if (!found.wasClosed && waiting.length + interrupted.length > 0 && options.afterCrash === 'pause') {
    Object.assign(queue, { isPaused: true, isPausingAfterCurrent: false, pausedBy: 'interrupted' })
    queue.interrupted = {
      waiting: waiting.length,
      jobs: interrupted.map(({ job: { id, step, steps } }) => ({ id, step, steps })),
    }
  }
  return { entries, queue }
}

function backToLife(stored: StoredJob, isKept: ReadonlySet<string>): Entry {
  const { interruptions, crashes, isGivenUp, ...job } = stored
  if (!isKept.has(job.id)) delete job.resumesAt
  return { job, interruptions, crashes, ...(isGivenUp ? { stop: 'cancel' as const } : {}) }
}

/** What becomes of a job that ran when everything ended. */
function settleCut(entry: Entry, { isKept, madeBy, now }: RecoverOptions): void {
  const { job, interruptions, stop } = entry
  delete entry.stop
  const end = (status: 'done' | 'cancelled' | 'failed') => Object.assign(job, { status, endedAt: now })
  if (job.phase === 'saving') job.imageId ??= madeBy(job)
  // Its file was safe, or the person had given it up, just before.
  if (job.imageId !== undefined) Object.assign(end('done'), { phase: 'done' })
  else if (stop === 'cancel') end('cancelled')
  else if (interruptions >= maxInterruptions) {
    end('failed').error = {
      code: 'engine-crashed',
      message: `Vignette ended ${interruptions} times while making this picture.`,
      hint: 'Try a smaller size, or fewer other programs at the same time.',
    }
  } else {
    Object.assign(job, { status: 'waiting', phase: 'waiting' })
    if (isKept.has(job.id) && job.step > 0) job.resumesAt = job.step
  }
}
