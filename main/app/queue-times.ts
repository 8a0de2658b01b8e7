import type { Job } from '../../preload/contract/jobs.ts'
import type { Pace } from './pace.ts'
import type { Entry, FilledRequest, QueueList } from './queue-list.ts'

/** How often what waits is added up again: ten thousand jobs take some milliseconds. */
const freshMs = 2000

/** Tells of the running job when its batch and the whole queue will be done, as far as each kind of picture has been made. */
export function timeAfter({ job }: Entry, list: QueueList, pace: Pace, now: () => number): { tell: () => void } {
  let rest: { batch: number | undefined; queue: number | undefined } = { batch: undefined, queue: undefined }
  let addedUpAt = -Infinity
  return {
    tell() {
      if (now() - addedUpAt > freshMs) {
        rest = addUp(list.waiting(), job.batchId, pace)
        addedUpAt = now()
      }
      set(job, 'batchEtaMs', rest.batch)
      set(job, 'queueEtaMs', rest.queue)
    },
  }
}

function set(job: Job, key: 'batchEtaMs' | 'queueEtaMs', rest: number | undefined): void {
  if (rest === undefined || job.etaMs === undefined) delete job[key]
  else job[key] = Math.round(job.etaMs + rest)
}

function addUp(waiting: readonly Entry[], batchId: string, pace: Pace) {
  // Mostly alike: asked once each.
  const known = new Map<string, number | undefined>()
  const timeOf = (request: FilledRequest) => {
    const { model, width, height, steps, guidanceScale, speed, initImage, strength } = request
    const key = [model, width, height, steps, guidanceScale, speed, initImage !== undefined && strength].join(' ')
    if (!known.has(key)) known.set(key, pace.estimate(request).ms)
    return known.get(key)
  }
  const sum = (entries: readonly Entry[]) =>
    entries.reduce<number | undefined>((total, { job }) => {
      const ms = timeOf(job.request as FilledRequest)
      return total === undefined || ms === undefined ? undefined : total + ms
    }, 0)
  const going = waiting.filter(({ job }) => !job.isHeld)
  return { batch: sum(going.filter(({ job }) => job.batchId === batchId)), queue: sum(going) }
}
