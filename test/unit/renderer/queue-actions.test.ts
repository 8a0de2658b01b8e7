import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import type { RecalledRecipe } from '../../../preload/contract/images.ts'
import type { Job } from '../../../preload/contract/jobs.ts'
import { JobsState } from '../../../renderer/state/jobs.svelte.ts'
import { QueueActions } from '../../../renderer/state/queue.svelte.ts'
import { ToastsState } from '../../../renderer/state/toasts.svelte.ts'
import { UndoState } from '../../../renderer/state/undo.svelte.ts'

let asked: [string, unknown][]
let answer: (name: string) => unknown
let edited: RecalledRecipe[]
let jobs: JobsState
let toasts: ToastsState
let undo: UndoState
let queue: QueueActions

beforeEach(() => {
  asked = []
  edited = []
  answer = () => undefined
  const invoke = async (name: string, input: unknown) => {
    asked.push([name, input])
    const value = answer(name)
    return value instanceof Error
      ? { ok: false, error: { code: 'disk-full', message: value.message, hint: 'Free some.' } }
      : { ok: true, value }
  }
  vi.stubGlobal('window', { vignette: { invoke } })
  jobs = new JobsState()
  toasts = new ToastsState()
  undo = new UndoState()
  const edit = (recipe: RecalledRecipe) => void edited.push(recipe)
  const undoScope = () => 'queue' as const
  queue = new QueueActions({
    jobs,
    toasts,
    undo,
    undoScope,
    edit,
    nameOfAdapter: (id) => (id === 'own/ink' ? 'Ink' : undefined),
  })
})
afterEach(() => vi.unstubAllGlobals())

const job = (id: string, part: Partial<Job> = {}): Job => ({
  ...{ id, batchId: id, batchSize: 1, rank: 0, place: 0, source: 'studio', status: 'waiting', phase: 'waiting' },
  ...{ request: GenerateRequest.parse({ prompt: id }), createdAt: Date.now(), step: 0, steps: 4 },
  ...part,
})
const names = () => asked.map(([name]) => name)

it('clears with a way back, by the message or by undo, once, and again by redo', async () => {
  answer = (name) => (name === 'jobs:clearWaiting' ? { undoId: `u${asked.length}`, count: 3 } : undefined)
  await queue.clearWaiting()
  expect(toasts.shown.at(-1)).toMatchObject({ text: '3 jobs were cleared.', action: { label: 'Undo' } })
  toasts.shown.at(-1)!.action!.run()
  await undo.undo('queue')
  expect(asked.slice(1)).toEqual([['jobs:undoClear', { undoId: 'u1' }]])
  await undo.redo('queue')
  await undo.undo('queue')
  expect(asked.at(-1)).toEqual(['jobs:undoClear', { undoId: 'u3' }])
})

it('clears nothing without a word', async () => {
  answer = () => ({ undoId: 'u', count: 0 })
  await queue.clearWaiting()
  expect(toasts.shown).toEqual([])
  expect(undo.next('queue')).toBeUndefined()
})

it('takes a job back into the form with its adapters by name, and leaves out what is not of the form', () => {
  const request = GenerateRequest.parse({
    ...{ prompt: 'a fox', seed: 7, count: 1, initImage: '/home/me/sketch.png', strength: 0.4 },
    adapters: [{ file: 'own/ink', weight: 0.5 }, { file: 'gone' }],
  })
  queue.editAsNew(job('a', { request }))
  expect(edited[0]).toMatchObject({
    request: { prompt: 'a fox', seed: 7, strength: 0.4 },
    model: { id: 'starter' },
    source: { file: '/home/me/sketch.png' },
    adapters: [
      { id: 'own/ink', name: 'Ink', weight: 0.5 },
      { id: 'gone', name: 'gone' },
    ],
  })
  expect(edited[0].request).not.toHaveProperty('count')
  expect(edited[0].request).not.toHaveProperty('preview')
})

it('says what went wrong, and that a paused queue waits, once', async () => {
  answer = () => new Error('The disk is full.')
  await queue.retry(['a'])
  expect(toasts.shown.at(-1)).toMatchObject({ text: 'The disk is full. Free some.', tone: 'bad' })
  jobs.replace([], { isPaused: true, isPausingAfterCurrent: false })
  const came = { type: 'jobs:changed', jobs: [job('a')] } as const
  queue.apply({ type: 'jobs:changed', jobs: [job('old', { createdAt: 0 })] })
  expect(toasts.shown).toHaveLength(1)
  queue.apply({ ...came, jobs: [...came.jobs] })
  queue.apply({ ...came, jobs: [...came.jobs] })
  expect(toasts.shown).toHaveLength(2)
  expect(toasts.shown.at(-1)?.text).toContain('paused')
})

it('pauses and resumes with one command, and tries all that failed again', async () => {
  await queue.toggle()
  jobs.replace([job('a', { status: 'failed' }), job('b', { status: 'done' }), job('c', { status: 'failed' })], {
    isPaused: false,
    isPausingAfterCurrent: true,
  })
  await queue.toggle()
  expect(names()).toEqual(['queue:pause', 'queue:resume'])
  await queue.retryFailed()
  expect(asked.at(-1)).toEqual(['jobs:retry', { ids: ['a', 'c'] }])
})
