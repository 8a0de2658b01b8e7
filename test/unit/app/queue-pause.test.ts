import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Jobs } from '../../../main/app/jobs.ts'
import { lackOfSpace, smallerSize } from '../../../main/app/queue-failures.ts'
import { addEach, filled, JobsDesk, promptsOf, until } from './jobs-desk.ts'

let desk: JobsDesk
beforeEach(async () => {
  desk = await JobsDesk.make()
})
afterEach(() => desk.remove())

const started = (count: number) => until(() => desk.engine.started.length === count)
const statusOf = (jobs: Jobs, id: string) => jobs.list().find((job) => job.id === id)?.status
/** What the engine does beside the events: it keeps what is done of a job. */
async function keepCheckpoint(): Promise<void> {
  await mkdir(join(desk.folder, 'checkpoints'), { recursive: true })
  await writeFile(desk.engine.current.checkpointFile!, 'latents')
}
const fail = (code: 'engine-crashed' | 'out-of-memory' | 'file-unreadable', hint?: string) => {
  const error = { code, message: `It was ${code}.`, ...(hint === undefined ? {} : { hint }) }
  desk.engine.send({ type: 'failed', jobId: desk.engine.current.id, error })
}

describe('a pause', () => {
  it('after the current picture lets that be finished', async () => {
    const jobs = await desk.open()
    await addEach(jobs, ['a', 'b'])
    await started(1)
    await jobs.pause('after-current')
    expect(jobs.state()).toMatchObject({ isPaused: false, isPausingAfterCurrent: true })
    await desk.finish()
    await until(() => jobs.state().isPaused)
    expect(jobs.state()).toMatchObject({ pausedBy: 'person', isPausingAfterCurrent: false })
    expect(promptsOf(jobs)).toEqual(['b'])
    await jobs.resume()
    await started(2)
  })

  it('now stops the running job, which goes on from there', async () => {
    const jobs = await desk.open()
    const [a] = await addEach(jobs, ['a', 'b'])
    await started(1)
    await keepCheckpoint()
    desk.engine.send({ type: 'step', jobId: a, index: 0, step: 2, steps: 4 })
    await until(() => desk.shown.at(-1)?.step === 2)
    await jobs.pause('now')
    expect(desk.shown.some(({ isStopping }) => isStopping)).toBe(true)
    await until(() => statusOf(jobs, a) === 'waiting')
    expect(jobs.list()[0]).toMatchObject({ resumesAt: 2, step: 2 })
    expect(promptsOf(jobs)).toEqual(['a', 'b'])
    await jobs.resume()
    await started(2)
    expect(desk.engine.current.id).toBe(a)
  })

  it('without checkpoints begins the picture again', async () => {
    desk.settings = { keepsCheckpoints: false }
    const jobs = await desk.open()
    const [a] = await addEach(jobs, ['a'])
    await started(1)
    expect(desk.engine.current.checkpointFile).toBeUndefined()
    desk.engine.send({ type: 'step', jobId: a, index: 0, step: 2, steps: 4 })
    await until(() => desk.shown.at(-1)?.step === 2)
    await jobs.pause('now')
    await until(() => statusOf(jobs, a) === 'waiting')
    expect(jobs.list()[0].resumesAt).toBeUndefined()
  })

  it('comes at its time, after the picture that is being made', async () => {
    const jobs = await desk.open({ now: Date.now })
    await addEach(jobs, ['a', 'b'])
    await started(1)
    await jobs.stopAt(Date.now() + 20)
    expect(jobs.state().stopAt).toBeGreaterThan(0)
    await until(() => jobs.state().isPausingAfterCurrent)
    await desk.finish()
    await until(() => jobs.state().isPaused)
    expect(jobs.state()).toEqual({ isPaused: true, pausedBy: 'schedule', isPausingAfterCurrent: false })
  })

  it('by the battery ends with it, one by the person does not', async () => {
    const jobs = await desk.open()
    await jobs.pauseBecause('battery')
    await jobs.resume('battery')
    expect(jobs.state().isPaused).toBe(false)
    await jobs.pause('now')
    await jobs.resume('battery')
    expect(jobs.state().isPaused).toBe(true)
  })

  it('lets a cancelled job go on where it was', async () => {
    const jobs = await desk.open()
    const [a] = await addEach(jobs, ['a'])
    await started(1)
    await keepCheckpoint()
    desk.engine.send({ type: 'step', jobId: a, index: 0, step: 2, steps: 4, previewPng: Uint8Array.of(1) })
    await until(() => desk.shown.at(-1)?.step === 2)
    await jobs.cancel([a])
    await until(() => statusOf(jobs, a) === 'cancelled')
    expect(jobs.list()[0]).toMatchObject({ resumesAt: 2, preview: expect.stringContaining('data:') })
    await jobs.retry([a])
    await started(2)
    expect(desk.engine.current.checkpointFile).toContain(a)
  })
})

it('keeps what is done of the last twenty jobs that were given up, not of all', async () => {
  const jobs = await desk.open()
  for (let i = 0; i < 23; i++) {
    desk.time += 1000
    const [id] = await addEach(jobs, [`job ${i}`])
    await started(i + 1)
    await keepCheckpoint()
    desk.engine.send({ type: 'step', jobId: id, index: 0, step: 1, steps: 4 })
    await until(() => desk.shown.at(-1)?.step === 1)
    await jobs.cancel([id])
    await until(() => statusOf(jobs, id) === 'cancelled')
  }
  const kept = () => jobs.list().flatMap((job) => (job.resumesAt === undefined ? [] : [job.request.prompt]))
  expect(kept()).toEqual(Array.from({ length: 20 }, (_, i) => `job ${i + 3}`))
  await expect.poll(() => readdir(join(desk.folder, 'checkpoints'))).toHaveLength(20)
})

describe('failures', () => {
  it('an engine that stopped gets the job once more, and says so; then the job fails and the queue asks', async () => {
    const jobs = await desk.open()
    const [a, b] = await addEach(jobs, ['a', 'b'])
    await started(1)
    fail('engine-crashed')
    await started(2)
    expect(desk.engine.current.id).toBe(a)
    expect(jobs.state()).toMatchObject({ isPaused: false, problem: { code: 'engine-crashed' } })
    fail('engine-crashed')
    await until(() => jobs.state().isPaused)
    expect(jobs.list()[0]).toMatchObject({ status: 'failed', error: { code: 'engine-crashed' } })
    expect(jobs.state()).toMatchObject({ pausedBy: 'failures', problem: { code: 'engine-crashed' } })
    expect(desk.crashes).toHaveLength(2)
    await jobs.resume()
    await started(3)
    expect(desk.engine.current.id).toBe(b)
  })

  it('one that worked the second time leaves nothing behind', async () => {
    const jobs = await desk.open()
    await addEach(jobs, ['a'])
    await started(1)
    fail('engine-crashed')
    await started(2)
    await desk.finish()
    await until(() => jobs.state().problem === undefined)
    expect(jobs.list()[0].status).toBe('done')
  })

  it('without memory offers a smaller size; the queue goes on, and the job with it', async () => {
    const jobs = await desk.open()
    const [a, b] = await addEach(jobs, ['a', 'b'], { width: 512, height: 512 })
    await started(1)
    fail('out-of-memory')
    await started(2)
    expect(desk.engine.current.id).toBe(b)
    const failed = jobs.list()[0]
    expect(failed).toMatchObject({ status: 'failed', smaller: { width: 384, height: 384 } })
    await jobs.retry([a], failed.smaller)
    await desk.finish()
    await started(3)
    expect(desk.engine.current.request).toMatchObject({ prompt: 'a', seed: 1, width: 384, height: 384 })
    expect((await desk.onDisk()).jobs.find(({ id }) => id === a)?.request.width).toBe(384)
    expect(jobs.list()[0].smaller).toBeUndefined()
  })

  it('the same twice in a row in a batch pause it, in two batches or with a success between they do not', async () => {
    const jobs = await desk.open()
    await addEach(jobs, ['x', 'y'])
    await started(1)
    fail('file-unreadable')
    await started(2)
    fail('file-unreadable')
    await until(() => promptsOf(jobs, 'failed').length === 2)
    expect(jobs.state().isPaused).toBe(false)
    await jobs.add(['a', 'b', 'c', 'd', 'e'].map((prompt) => ({ request: filled(prompt) })))
    await started(3)
    fail('file-unreadable')
    await started(4)
    await desk.finish()
    await started(5)
    fail('file-unreadable')
    await started(6)
    fail('file-unreadable')
    await until(() => jobs.state().isPaused)
    expect(jobs.state()).toMatchObject({ pausedBy: 'failures', problem: { code: 'file-unreadable' } })
    expect(promptsOf(jobs)).toEqual(['e'])
  })

  it('a full disk loses no picture: it is saved when there is room', async () => {
    let isFull = true
    desk.save = async () => {
      if (isFull) throw Object.assign(new Error('no space'), { code: 'ENOSPC', path: '/x' })
    }
    const jobs = await desk.open()
    const [a] = await addEach(jobs, ['a', 'b'])
    await started(1)
    desk.engine.sendImage()
    await until(() => jobs.state().isPaused)
    expect(jobs.state()).toMatchObject({ pausedBy: 'disk-full', problem: { code: 'disk-full' } })
    expect(jobs.list()[0]).toMatchObject({ status: 'waiting' })
    expect(jobs.list()[0].imageId).toBeUndefined()
    await jobs.resume()
    await until(() => jobs.state().isPaused)
    isFull = false
    await jobs.resume()
    await until(() => statusOf(jobs, a) === 'done')
    expect(desk.images.map(({ id }) => id)).toEqual(['a-1'])
    expect(desk.engine.started.filter(({ id }) => id === a)).toHaveLength(1)
    await started(2)
  })

  it('a nearly full disk stops the queue before it begins', async () => {
    desk.freeBytes = 5e8
    const jobs = await desk.open()
    const [a] = await addEach(jobs, ['a'])
    await until(() => jobs.state().isPaused)
    expect([statusOf(jobs, a), jobs.state().pausedBy, desk.engine.started.length]).toEqual(['waiting', 'disk-full', 0])
    desk.freeBytes = undefined // nobody knows
    await jobs.resume()
    await started(1)
  })
})

it('finds a smaller size in round numbers and the same proportions, or none', () => {
  const to = (width: number, height: number) => Object.values(smallerSize({ width, height }) ?? {}).join('x')
  expect([to(512, 512), to(1024, 1024), to(1024, 768), to(256, 256), to(128, 128), to(72, 64), to(64, 64)]).toEqual([
    '384x384',
    '768x768',
    '768x576',
    '192x192',
    '96x96',
    '64x64',
    '',
  ])
})

it('asks for a gigabyte, or for what the batch needs', () => {
  expect(lackOfSpace(2e9, 1e6)).toBeUndefined()
  expect(lackOfSpace(undefined, 1e12)).toBeUndefined()
  expect(lackOfSpace(9e8, 1e6)?.message).toBe('The disk is nearly full: 0.9 GB are free.')
  expect(lackOfSpace(2e9, 3e9)?.message).toContain('need about 3.0 GB')
})
