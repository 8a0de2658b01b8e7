import { describe, expect, it } from 'vitest'
import { type AppEvent } from '../../../preload/contract.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import { type ImageRecord } from '../../../preload/contract/images.ts'
import { type Job, type QueueState } from '../../../preload/contract/jobs.ts'
import { Announcer } from '../../../renderer/state/announcer.svelte.ts'
import { FormState } from '../../../renderer/state/form.svelte.ts'
import { JobsState, progressOf } from '../../../renderer/state/jobs.svelte.ts'
import { LibraryState } from '../../../renderer/state/library.svelte.ts'
import { shapeNames, shapeOf, sizeOf, snapSide } from '../../../renderer/state/shapes.ts'
import { spokenTime } from '../../../renderer/state/time.ts'
import { modelRecordOf } from '../model-record.ts'

const model = modelRecordOf({
  defaults: { steps: 24, guidanceScale: 4.5, sampler: 'dpmpp_2m', schedule: 'karras' },
})
const job = (part: Partial<Job> = {}): Job => ({
  id: 'j',
  rank: 0,
  status: 'running',
  request: GenerateRequest.parse({ prompt: 'a' }),
  phase: 'denoising',
  step: 0,
  steps: 20,
  batchId: 'b',
  place: 0,
  batchSize: 1,
  source: 'studio',
  createdAt: 0,
  ...part,
})
const changed = (...jobs: Job[]): AppEvent => ({ type: 'jobs:changed', jobs })
const idle: QueueState = { isPaused: false, isPausingAfterCurrent: false }
const image = (id: string, createdAt: number): ImageRecord => ({
  id,
  url: '',
  thumb: '',
  file: '',
  prompt: id,
  seed: 1,
  width: 1,
  height: 1,
  createdAt,
})

describe('the form', () => {
  it('follows the model where nothing was touched, and keeps what was', () => {
    const form = new FormState()
    form.models = [model]
    form.prompt = 'a fox'
    expect(form.size).toEqual({ width: 256, height: 256 })
    expect([form.steps, form.guidanceScale, form.sampler, form.schedule]).toEqual([24, 4.5, 'dpmpp_2m', 'karras'])
    const untouched = form.request()
    for (const key of ['steps', 'guidanceScale', 'sampler', 'schedule', 'width', 'seed', 'adapters'])
      expect(untouched).not.toHaveProperty(key)
    form.steps = 8
    form.models = [{ ...model, defaults: { ...model.defaults, steps: 30, guidanceScale: 7 } }]
    expect([form.steps, form.guidanceScale]).toEqual([8, 7])
    expect(form.request()).toEqual({ ...untouched, steps: 8 })
  })

  it('asks for what the contract accepts, for every shape', () => {
    const form = new FormState()
    form.models = [model]
    form.prompt = 'a fox'
    for (const shape of shapeNames) {
      form.setShape(shape)
      expect(GenerateRequest.safeParse(form.request()).success, shape).toBe(true)
    }
  })
})

describe('shapes', () => {
  it('keep the proportions and about the number of pixels, and are found again by their size', () => {
    for (const native of [
      { width: 256, height: 256 },
      { width: 512, height: 512 },
      { width: 1024, height: 1024 },
    ]) {
      for (const name of shapeNames.filter((one) => one !== 'custom')) {
        const size = sizeOf(name, native)
        const [across, down] = name.split(':').map(Number)
        expect(Math.abs(Math.log(size.width / size.height / (across / down)))).toBeLessThan(0.16)
        expect(Math.abs(Math.log((size.width * size.height) / (native.width * native.height)))).toBeLessThan(0.12)
        expect(shapeOf(size, native)).toBe(name)
      }
    }
    expect(snapSide(Number.NaN)).toBe(64)
    expect(snapSide(70)).toBe(72)
  })
})

describe('the queue as the window sees it', () => {
  it('replaces a known job and adds a new one', () => {
    const jobs = new JobsState()
    jobs.replace([job({ id: 'a' }), job({ id: 'b', status: 'waiting' })], idle)
    jobs.apply(changed(job({ id: 'a', step: 3 })))
    jobs.apply(changed(job({ id: 'c', status: 'waiting' })))
    expect(jobs.running?.step).toBe(3)
    expect(jobs.waiting.map(({ id }) => id)).toEqual(['b', 'c'])
    jobs.markStopping(['a'])
    expect(jobs.running?.isStopping).toBe(true)
  })

  it('keeps what waits in the order of its ranks, moves it at once, and leaves it alone while steps are told', () => {
    const jobs = new JobsState()
    const waits = (id: string, rank: number) => job({ id, rank, status: 'waiting' })
    jobs.replace([job({ id: 'r' }), waits('b', 2), waits('c', 3), waits('a', 1)], idle)
    const order = () => jobs.waiting.map(({ id }) => id).join('')
    expect(order()).toBe('abc')
    jobs.moveNow(['c'], { before: 'b' })
    expect(order()).toBe('acb')
    jobs.moveNow(['a'], 'bottom')
    expect(order()).toBe('cba')
    const list = jobs.waiting
    jobs.apply(changed(job({ id: 'r', step: 4 })))
    expect(jobs.waiting).toBe(list)
    jobs.apply(changed(waits('c', 0), waits('b', 0.5)))
    expect(order()).toBe('cba')
    jobs.apply({ type: 'jobs:gone', ids: ['b'] })
    expect(order()).toBe('ca')
  })

  it('shows a failure until it is put away or something newer has ended', () => {
    const jobs = new JobsState()
    const error = { code: 'engine-crashed', message: 'x' } as const
    jobs.replace([job({ id: 'a', status: 'failed', error })], idle)
    expect(jobs.failed?.id).toBe('a')
    jobs.dismiss('a')
    expect(jobs.failed).toBeUndefined()
    jobs.apply(changed(job({ id: 'b', status: 'failed', error })))
    expect(jobs.failed?.id).toBe('b')
    jobs.apply(changed(job({ id: 'c', status: 'done' })))
    expect(jobs.failed).toBeUndefined()
  })

  it('counts progress over phases and pictures, never backwards', () => {
    const values = [
      job({ phase: 'loading' }),
      job({ phase: 'encoding' }),
      job({ step: 1 }),
      job({ step: 20 }),
      job({ phase: 'decoding', step: 20 }),
      job({ phase: 'saving', step: 20 }),
      job({ status: 'done', phase: 'done' }),
    ].map(progressOf)
    expect(values).toEqual([...values].sort((a, b) => a - b))
    expect(values.at(-1)).toBe(1)
  })

  it('AC52 is announced at the quarters, once each, and at its end', () => {
    const announcer = new Announcer()
    const heard: string[] = []
    const listen = () => heard.at(-1) !== announcer.polite && heard.push(announcer.polite)
    const over = { type: 'batch:finished', batchId: 'b', failed: 0, cancelled: 0 } as const
    for (let step = 0; step <= 20; step++) {
      announcer.apply(changed(job({ step })))
      listen()
    }
    announcer.apply(changed(job({ status: 'done', imageId: 'x' })))
    listen()
    announcer.apply({ ...over, done: 1 })
    listen()
    expect(heard).toEqual(['', '25 % done', '50 % done', '75 % done', '100 % done', 'The picture is finished.'])
    announcer.apply(changed(job({ id: 'k' })))
    announcer.apply(
      changed(
        job({
          id: 'k',
          status: 'failed',
          error: { code: 'disk-full', message: 'The disk is full.', hint: 'Free some.' },
        }),
      ),
    )
    expect(announcer.assertive).toBe('The disk is full. Free some.')
  })

  it('AC52 is announced as a batch: its own quarters, and one word at its end', () => {
    const jobs = new JobsState()
    const announcer = new Announcer({ shareOf: (one) => jobs.batchShare(one) })
    const heard: string[] = []
    const apply = (event: AppEvent) => {
      jobs.apply(event)
      announcer.apply(event)
      if (heard.at(-1) !== announcer.polite) heard.push(announcer.polite)
    }
    const four = [0, 1, 2, 3].map((place) =>
      job({ id: `${place}`, rank: place, place, batchSize: 4, status: 'waiting' }),
    )
    apply(changed(...four))
    for (const one of four) {
      for (const step of [0, 10, 20]) apply(changed({ ...one, status: 'running', step }))
      apply(changed({ ...one, status: one.id === '2' ? 'failed' : 'done' }))
    }
    apply({ type: 'batch:finished', batchId: 'b', done: 3, failed: 1, cancelled: 0 })
    apply({ type: 'batch:finished', batchId: 'other', done: 1, failed: 0, cancelled: 0 })
    expect(heard).toEqual([
      '',
      '25 % done',
      '50 % done',
      '75 % done',
      '100 % done',
      '3 of 4 pictures are finished, 1 failed.',
    ])
  })
})

describe('the pictures', () => {
  it('are newest first, each once, and the chosen one stays chosen when more come', () => {
    const library = new LibraryState()
    library.replace([image('b', 2), image('a', 1)])
    library.select('a')
    library.add(image('c', 3))
    library.add(image('c', 3))
    expect(library.images.map(({ id }) => id)).toEqual(['c', 'b', 'a'])
    expect(library.selected?.id).toBe('a')
    library.follow()
    expect(library.selected).toBeUndefined()
    expect(library.newest?.id).toBe('c')
  })
})

it('says times as people do', () => {
  expect([100, 7400, 43_000, 100_000, 7_300_000].map(spokenTime)).toEqual(['1 s', '7 s', '45 s', '2 min', '2 h'])
})
