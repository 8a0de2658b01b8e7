import { freemem, loadavg, availableParallelism, totalmem } from 'node:os'
import { statfs } from 'node:fs/promises'
import type { ErrorReport } from '../../models/errors.ts'
import { limits } from '../../preload/limits.ts'
import type { Entry } from './queue-list.ts'

/** What becomes of a job that failed, and of the queue. */
export type Verdict = {
  job: 'again' | 'failed' | 'waits-for-space'
  /** The queue stops and asks. */
  pauses?: 'failures' | 'disk-full'
  /** A size that should fit. */
  smaller?: { width: number; height: number }
}

/** The last failure, while nothing has succeeded since. */
export type Streak = { code: ErrorReport['code']; batchId: string }

/** An engine that stopped is given one more chance with the same job. */
const maxCrashes = 1

/**
 * Decides. `streak` is the failure before this one. The same twice in a row in a batch would mostly go on to its end:
 * better to stop and ask.
 */
export function judge({ job, crashes }: Entry, { code }: ErrorReport, streak: Streak | undefined): Verdict {
  if (code === 'disk-full') return { job: 'waits-for-space', pauses: 'disk-full' }
  const isCrash = code === 'engine-crashed'
  if (isCrash && crashes <= maxCrashes) return { job: 'again' }
  const isMemory = code === 'out-of-memory' || isCrash
  const smaller = isMemory ? smallerSize(job.request as { width: number; height: number }) : undefined
  const isTwice = streak?.code === code && streak.batchId === job.batchId
  return {
    job: 'failed',
    ...(isCrash || isTwice ? { pauses: 'failures' as const } : {}),
    ...(smaller ? { smaller } : {}),
  }
}

/**
 * Three quarters of each side, which is a little more than half of the memory, in round numbers: 512 × 512 becomes
 * 384 × 384. Nothing when it cannot be smaller.
 */
export function smallerSize(size: { width: number; height: number }): { width: number; height: number } | undefined {
  const long = Math.max(size.width, size.height)
  const multiple = long > 256 ? 64 : long > 128 ? 32 : limits.sizeMultiple
  const side = (value: number) => Math.max(limits.minSize, Math.floor((0.75 * value) / multiple) * multiple)
  const smaller = { width: side(size.width), height: side(size.height) }
  return smaller.width * smaller.height < size.width * size.height ? smaller : undefined
}

/** Below this a disk counts as full: systems slow down and other programs lose work. */
const spareBytes = 1e9

/** Why there is no room for `neededBytes` more, or undefined when there is, or when nobody knows. */
export function lackOfSpace(freeBytes: number | undefined, neededBytes: number): ErrorReport | undefined {
  if (freeBytes === undefined || freeBytes >= Math.max(spareBytes, neededBytes)) return undefined
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`
  return {
    code: 'disk-full',
    message:
      neededBytes > spareBytes
        ? `${gigabytes(freeBytes)} are free, and the pictures that wait need about ${gigabytes(neededBytes)}.`
        : `The disk is nearly full: ${gigabytes(freeBytes)} are free.`,
    hint: 'Free some space, then resume; nothing was lost.',
  }
}

/** Free space where `folder` lies, for this user. */
export async function freeBytesAt(folder: string): Promise<number | undefined> {
  try {
    const { bavail, bsize } = await statfs(folder)
    return bavail * bsize
  } catch {
    return undefined // the folder is not there yet, or its system does not say
  }
}

/** Why work takes longer than it did, as far as this computer tells. */
export function whySlow(): string {
  if (freemem() < 0.05 * totalmem()) return 'This computer is short of memory.'
  // Windows always says 0.
  if (loadavg()[0] > 1.3 * availableParallelism()) return 'Another program is using the processor.'
  return 'The steps take longer than those before.'
}
