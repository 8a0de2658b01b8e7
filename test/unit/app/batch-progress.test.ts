import { expect, it } from 'vitest'
import { batchMessage, BatchProgress } from '../../../main/app/batch-progress.ts'
import type { Job } from '../../../preload/contract/jobs.ts'

const job = (id: string, status: Job['status'], more: Partial<Job> = {}) =>
  ({ id, batchId: 'a', batchSize: 4, status, step: 0, steps: 10, ...more }) as Job

it('takes a batch for one thing: what is over counts, and the steps of what runs', () => {
  const progress = new BatchProgress()
  progress.replace([job('1', 'waiting'), job('2', 'waiting'), job('3', 'waiting'), job('4', 'waiting')])
  expect([progress.share, progress.isRunning, progress.hasWork]).toEqual([undefined, false, true])
  progress.apply({ type: 'jobs:changed', jobs: [job('1', 'running', { step: 5 })] })
  expect(progress.share).toBe(0.125)
  progress.apply({ type: 'jobs:changed', jobs: [job('1', 'done'), job('2', 'running')] })
  expect(progress.share).toBe(0.25)
  progress.apply({
    type: 'jobs:changed',
    jobs: [job('2', 'failed'), job('3', 'cancelled'), job('4', 'running', { step: 10 })],
  })
  expect(progress.share).toBe(1)
  progress.apply({ type: 'jobs:gone', ids: ['4'] })
  expect([progress.share, progress.isRunning, progress.hasWork]).toEqual([undefined, false, false])
})

it('counts only the batch that runs, also when a part of it was made before the start', () => {
  const progress = new BatchProgress()
  progress.replace([job('4', 'running', { step: 5 }), job('9', 'waiting', { batchId: 'b', batchSize: 1 })])
  expect(progress.share).toBe(0.875)
})

it('has one message for each outcome of a batch', () => {
  expect(batchMessage(1, 0)).toEqual({ title: 'Your picture is ready', body: 'It is in the gallery.' })
  expect(batchMessage(12, 1)).toEqual({ title: '12 pictures are ready', body: '1 picture could not be made.' })
  expect(batchMessage(0, 2).title).toBe('2 pictures could not be made')
})
