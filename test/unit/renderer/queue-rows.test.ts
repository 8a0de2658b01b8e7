import { expect, it } from 'vitest'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import type { Job } from '../../../preload/contract/jobs.ts'
import { leftOf, neighbourOf, rowsOf } from '../../../renderer/state/queue-rows.ts'

const job = (id: string, batchId = id, batchSize = 1): Job => ({
  ...{ id, batchId, batchSize, rank: 0, place: 0, source: 'studio', status: 'waiting', phase: 'waiting' },
  ...{ request: GenerateRequest.parse({ prompt: id }), createdAt: 0, step: 0, steps: 4 },
})
const jobs = [job('a'), job('b1', 'b', 4), job('b2', 'b', 4), job('c'), job('b3', 'b', 4)]

it('folds jobs of a batch that follow each other into one row, with how many are over', () => {
  const rows = rowsOf(jobs, new Set(), leftOf(jobs, undefined))
  expect(rows.map(({ id, jobs: some, over, total }) => [id, some.length, over, total])).toEqual([
    ['a', 1, 0, 1],
    ['b', 2, 1, 4],
    ['c', 1, 0, 1],
    ['b-1', 1, 1, 4],
  ])
  expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length)
})

it('shows the jobs of a batch that is open below it', () => {
  const rows = rowsOf(jobs, new Set(['b']), leftOf(jobs, undefined))
  expect(rows.map(({ id, isInside }) => `${id}${isInside ? '<' : ''}`)).toEqual(['a', 'b', 'b1<', 'b2<', 'c', 'b-1'])
})

it('moves rows past whole rows, and jobs of an open batch past jobs', () => {
  const rows = rowsOf(jobs, new Set(['b']), leftOf(jobs, undefined))
  const at = (id: string) => rows.findIndex((row) => row.id === id)
  expect(neighbourOf(rows, at('c'), 'up')).toBe('b1')
  expect(neighbourOf(rows, at('a'), 'down')).toBe('c')
  expect(neighbourOf(rows, at('c'), 'down')).toBe('end')
  expect(neighbourOf(rows, at('a'), 'up')).toBeUndefined()
  expect(neighbourOf(rows, at('b-1'), 'down')).toBeUndefined()
  expect(neighbourOf(rows, at('b1'), 'down')).toBe('c')
  expect(neighbourOf(rows, at('b2'), 'up')).toBe('b1')
})
