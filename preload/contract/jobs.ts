import * as z from 'zod'
import { limits } from '../limits.ts'
import { ErrorReport, GenerateRequest } from './generate.ts'

/** Where a job came from: Studio jobs may go before the others. */
export const JobSource = z.enum(['studio', 'audition', 'sample', 'test', 'story', 'character'])
export type JobSource = z.infer<typeof JobSource>

/** One picture to make. Its request never changes once it is in the queue, but for its size after a retry with less. */
export const Job = z.object({
  id: z.string(),
  /** What waits is made in the order of this number. */
  rank: z.number(),
  /** Jobs that were asked for together: one row in the queue. */
  batchId: z.string(),
  /** Its place in the batch, from 0, and how many that has. */
  place: z.int(),
  batchSize: z.int(),
  source: JobSource,
  /** Says in the queue what it is, instead of the prompt. */
  label: z.string().optional(),
  status: z.enum(['waiting', 'running', 'done', 'failed', 'cancelled']),
  request: GenerateRequest,
  createdAt: z.number(),
  startedAt: z.number().optional(),
  endedAt: z.number().optional(),
  /** What it is doing, in words for the screen. */
  phase: z.enum(['waiting', 'loading', 'encoding', 'denoising', 'decoding', 'saving', 'done']),
  step: z.int(),
  steps: z.int(),
  etaMs: z.number().optional(),
  /** Of the running job: time left to the end of its batch, and to the end of all that waits. */
  batchEtaMs: z.number().optional(),
  queueEtaMs: z.number().optional(),
  /** Why it takes longer than was said, when it does. */
  slowReason: z.string().optional(),
  /** Small data: URL of the unfinished picture. */
  preview: z.string().optional(),
  /** The saved picture, once there is one. */
  imageId: z.string().optional(),
  /** How long it took to put the adapters in place. */
  appliedMs: z.number().optional(),
  /** Cancelled or paused by the person, but the running step is not over yet. */
  isStopping: z.boolean().optional(),
  /** It, or its batch, is held back while the others go on. */
  isHeld: z.boolean().optional(),
  /** It was interrupted after this step and goes on from there. */
  resumesAt: z.int().optional(),
  /** What the person should know although it did not stop the job, e.g. words that were not read. */
  notices: z.array(z.string()).optional(),
  error: ErrorReport.optional(),
  /** A size that should fit into memory, when this one did not. */
  smaller: z.object({ width: z.int(), height: z.int() }).optional(),
})
export type Job = z.infer<typeof Job>

/** What holds for the queue as a whole. */
export const QueueState = z.object({
  isPaused: z.boolean(),
  /** Why, when it was not the person. `failures`: the same error twice in a row. */
  pausedBy: z.enum(['person', 'interrupted', 'failures', 'disk-full', 'schedule', 'battery']).optional(),
  /** The running job is the last one. */
  isPausingAfterCurrent: z.boolean(),
  /** The application ended in the middle: what was waiting, and what was being made. Until the person has decided. */
  interrupted: z
    .object({ waiting: z.int(), jobs: z.array(z.object({ id: z.string(), step: z.int(), steps: z.int() })) })
    .optional(),
  /** Stops after the job that runs at this time (ms since 1970). */
  stopAt: z.number().optional(),
  /** What stopped the queue, or the engine that was started again. */
  problem: ErrorReport.optional(),
})
export type QueueState = z.infer<typeof QueueState>

const jobIds = z.object({ ids: z.array(z.string()).max(2 * limits.maxWaitingJobs) })

export const jobRequests = {
  /**
   * Each request with `count` n becomes n jobs with consecutive seeds; all of one call are a batch. `front`: before
   * everything that waits.
   */
  'jobs:add': {
    input: z.object({
      requests: z.array(GenerateRequest).min(1).max(limits.maxJobsAtOnce),
      place: z.enum(['back', 'front']).default('back'),
      source: JobSource.default('studio'),
      label: z.string().max(200).optional(),
    }),
    output: z.object({ batchId: z.string(), jobIds: z.array(z.string()) }),
  },
  /** Waiting jobs end at once, the running one at the end of its step. */
  'jobs:cancel': { input: jobIds, output: z.void() },
  'jobs:move': {
    input: jobIds.extend({
      to: z.union([z.enum(['up', 'down', 'top', 'bottom']), z.object({ before: z.string() })]),
    }),
    output: z.void(),
  },
  /** Failed or cancelled jobs go back into the queue, with the same seed; `size` makes them smaller. */
  'jobs:retry': {
    input: jobIds.extend({ size: z.object({ width: z.int(), height: z.int() }).optional() }),
    output: z.void(),
  },
  /** The same again, each with a seed of its own, right after what waits. */
  'jobs:duplicate': { input: jobIds, output: z.void() },
  /** Holds jobs back, or lets them go on. */
  'jobs:hold': { input: jobIds.extend({ isHeld: z.boolean() }), output: z.void() },
  /** Takes jobs that are over out of the list. */
  'jobs:forget': { input: jobIds, output: z.void() },
  'jobs:clearWaiting': { input: z.void(), output: z.object({ undoId: z.string(), count: z.int() }) },
  'jobs:undoClear': { input: z.object({ undoId: z.string() }), output: z.void() },
  /** `now` keeps what the running job has done, so that it goes on from there. */
  'queue:pause': { input: z.object({ when: z.enum(['now', 'after-current']) }), output: z.void() },
  'queue:resume': { input: z.void(), output: z.void() },
  /** Throws away what was interrupted and what waits; `jobs:undoClear` brings it back. */
  'queue:discard': { input: z.void(), output: z.object({ undoId: z.string(), count: z.int() }) },
  /** When to stop; null never. What happens when all is done is a setting. */
  'queue:stopAt': { input: z.object({ at: z.number().nullable() }), output: z.void() },
  /** How long jobs like this take here, from the last of them; nothing while none has been made. */
  'jobs:estimate': {
    input: z.object({ request: GenerateRequest }),
    output: z.object({ ms: z.number().optional(), bytes: z.number() }),
  },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const jobEvents = [
  /** Jobs that came or changed. */
  z.object({ type: z.literal('jobs:changed'), jobs: z.array(Job) }),
  z.object({ type: z.literal('jobs:gone'), ids: z.array(z.string()) }),
  z.object({ type: z.literal('queue:changed'), queue: QueueState }),
  /** One a batch, when its last job is over. */
  z.object({
    type: z.literal('batch:finished'),
    batchId: z.string(),
    done: z.int(),
    failed: z.int(),
    cancelled: z.int(),
  }),
] as const

/** What the queue tells unasked. */
export type JobEvent = z.infer<(typeof jobEvents)[number]>
