import { rm, writeFile } from 'node:fs/promises'
import { readFileSync, existsSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Jobs } from '../../../main/app/jobs.ts'
import { VignetteError } from '../../../models/errors.ts'
import { addEach, filled, JobsDesk, promptsOf, until } from './jobs-desk.ts'

let desk: JobsDesk
beforeEach(async () => {
  desk = await JobsDesk.make()
})
afterEach(() => desk.remove())

const statusOf = (jobs: Jobs, id: string) => jobs.list().find((job) => job.id === id)?.status
const started = (count: number) => until(() => desk.engine.started.length === count)

describe('the queue', () => {
  it('makes jobs one at a time, in order, and saves what comes', async () => {
    const jobs = await desk.open()
    const [first, second] = await addEach(jobs, ['first', 'second'])
    await started(1)
    expect(desk.engine.current).toMatchObject({ id: first, modelFolder: '/models/tiny', request: { prompt: 'first' } })
    expect(statusOf(jobs, second)).toBe('waiting')
    await desk.finish()
    await started(2)
    expect(desk.engine.current.id).toBe(second)
    expect(desk.images.map(({ id }) => id)).toEqual(['first-1'])
    expect(jobs.list().find(({ id }) => id === first)).toMatchObject({ status: 'done', imageId: 'first-1' })
    expect((await desk.onDisk()).jobs.map(({ id, status }) => [id, status])).toEqual([
      [first, 'done'],
      [second, 'running'],
    ])
  })

  it('takes a thousand jobs with one write and one event', async () => {
    const jobs = await desk.open()
    const before = (await desk.text()).split('\n').length
    const began = performance.now()
    const requests = Array.from({ length: 1000 }, (_, i) => ({ request: filled(`p${i}`, { seed: i }) }))
    const { jobIds } = await jobs.add(requests)
    expect(performance.now() - began).toBeLessThan(1000)
    expect(new Set(jobIds).size).toBe(1000)
    const put = (await desk.text()).split('\n').slice(before - 1)
    expect(put.filter((line) => line.startsWith('{"put"'))).toHaveLength(1)
    const all = desk.events.filter((event) => event.type === 'jobs:changed' && event.jobs.length > 1)
    expect(all).toHaveLength(1)
    await started(1)
    expect(jobs.list().map(({ place, batchSize }) => [place, batchSize])).toEqual(requests.map((_, i) => [i, 1000]))
    await expect(jobs.add(Array.from({ length: 9002 }, () => ({ request: filled('more') })))).rejects.toMatchObject({
      code: 'bad-request',
    })
  })

  it('gives the engine adapters by their files, and fails a job whose adapter is gone', async () => {
    const jobs = await desk.open()
    const [first] = (
      await jobs.add([
        {
          request: filled('first', { adapters: [{ file: 'own/ink.safetensors', weight: 0.5 }] }),
          notices: ['ink sets'],
        },
      ])
    ).jobIds
    await addEach(jobs, ['second'], { adapters: [{ file: 'gone/ink.safetensors' }] })
    await started(1)
    expect(desk.engine.current.request.adapters).toMatchObject([{ file: '/home/own/ink.safetensors', weight: 0.5 }])
    for (const message of ['ink sets', 'new']) desk.engine.send({ type: 'notice', jobId: first, message })
    await desk.finish()
    await until(() => jobs.list()[1].status === 'failed')
    expect(jobs.list()[0]).toMatchObject({
      notices: ['ink sets', 'new'],
      request: { adapters: [{ file: 'own/ink.safetensors' }] },
    })
    expect(jobs.list()[1].error?.code).toBe('file-unreadable')
  })

  it('has every transition on disk before it shows it', async () => {
    const late: string[] = []
    const jobs = await desk.open({
      emit: (event) => {
        desk.events.push(structuredClone(event))
        if (event.type !== 'jobs:changed') return
        const text = existsSync(desk.file) ? readFileSync(desk.file, 'utf8') : ''
        for (const { id, status, step } of event.jobs) {
          const last = text
            .split('\n')
            .filter((line) => line.includes(id) && !line.startsWith('{"step"'))
            .at(-1)
          if (step === 0 && !last?.includes(`"status":"${status}"`)) late.push(`${id} ${status}`)
        }
      },
    })
    const ids = await addEach(jobs, ['a', 'b', 'c'])
    await started(1)
    await desk.finish()
    await jobs.cancel([ids[2]])
    await started(2)
    expect(late).toEqual([])
  })

  it('tells steps, previews and, from the first step on, the time left', async () => {
    const jobs = await desk.open()
    const [jobId] = await addEach(jobs, ['a'])
    await started(1)
    desk.engine.send({ type: 'phase', jobId, index: 0, phase: 'denoising' })
    await until(() => desk.shown.at(-1)?.phase === 'denoising')
    expect(desk.shown.at(-1)?.etaMs).toBeUndefined()
    desk.time = 2000
    desk.engine.send({ type: 'step', jobId, index: 0, step: 1, steps: 4, previewPng: Uint8Array.of(137, 80) })
    await until(() => desk.shown.at(-1)?.step === 1)
    // Three steps of a second, and decoding guessed at two steps.
    expect(desk.shown.at(-1)).toMatchObject({ etaMs: 5000, preview: 'data:image/png;base64,iVA=' })
    await expect.poll(async () => (await desk.onDisk()).jobs[0].step).toBe(1)
  })

  it('tells when the batch and the whole queue will be done, from pictures of their kind', async () => {
    const jobs = await desk.open()
    const make = async (next: number) => {
      await started(next)
      const jobId = desk.engine.current.id
      desk.engine.send({ type: 'phase', jobId, index: 0, phase: 'denoising' })
      await until(() => desk.shown.at(-1)?.phase === 'denoising')
      for (let step = 1; step <= 4; step++) {
        desk.time += 1000
        desk.engine.send({ type: 'step', jobId, index: 0, step, steps: 4 })
        await until(() => desk.shown.at(-1)?.step === step)
      }
    }
    await addEach(jobs, ['seen'])
    await make(1)
    await desk.finish()
    await jobs.add([{ request: filled('one') }, { request: filled('two') }])
    await addEach(jobs, ['three'])
    await make(2)
    const last = desk.shown.at(-1)!
    expect(last.batchEtaMs! - last.etaMs!).toBe(4000)
    expect(last.queueEtaMs! - last.etaMs!).toBe(8000)
  })

  it('cancels waiting jobs at once and a running one through the engine', async () => {
    const jobs = await desk.open()
    const [first, second] = await addEach(jobs, ['first', 'second'])
    await started(1)
    await jobs.cancel([second])
    expect(statusOf(jobs, second)).toBe('cancelled')
    await jobs.cancel([first, 'unknown'])
    expect(desk.shown.some((job) => job.id === first && job.isStopping)).toBe(true)
    await until(() => statusOf(jobs, first) === 'cancelled')
    expect(desk.engine.started).toHaveLength(1)
    expect(jobs.list().every((job) => !job.isStopping)).toBe(true)
  })

  it('says once of each batch that it is over, with what became of its jobs', async () => {
    const jobs = await desk.open()
    const { batchId, jobIds } = await jobs.add(['a', 'b', 'c'].map((prompt) => ({ request: filled(prompt) })))
    await started(1)
    await desk.finish()
    await started(2)
    await jobs.cancel([jobIds[2]])
    const finished = () => desk.events.filter((event) => event.type === 'batch:finished')
    expect(finished()).toEqual([])
    await desk.finish()
    await until(() => finished().length > 0)
    expect(finished()).toEqual([{ type: 'batch:finished', batchId, done: 2, failed: 0, cancelled: 1 }])
    await until(() => desk.idle === 1)
  })

  it('refuses jobs that it cannot write down, and goes on with one it has when the disk is gone', async () => {
    const jobs = await desk.open()
    const [id] = await addEach(jobs, ['a'])
    await started(1)
    await rm(desk.folder, { recursive: true })
    await writeFile(desk.folder, 'a file where the folder was')
    await expect(addEach(jobs, ['b'])).rejects.toThrow()
    expect(jobs.list()).toHaveLength(1)
    await desk.finish()
    expect(desk.images).toHaveLength(1)
    await rm(desk.folder)
    const [next] = await addEach(jobs, ['c'])
    await until(() => desk.engine.current.id === next)
    expect((await desk.onDisk()).jobs.map((job) => [job.id, job.status])).toEqual([
      [id, 'done'],
      [next, 'running'],
    ])
  })

  it('fails a job whose model is gone with the words of that', async () => {
    const jobs = await desk.open({
      folderOf: () => Promise.reject(new VignetteError('model-missing', 'It is not installed.')),
    })
    const [id] = await addEach(jobs, ['a'])
    await until(() => statusOf(jobs, id) === 'failed')
    expect(jobs.list()[0].error?.code).toBe('model-missing')
  })
})

describe('order', () => {
  it('goes to the back, to the front, and with the Studio first before batches that nobody waits for', async () => {
    const jobs = await desk.open()
    await addEach(jobs, ['running'])
    await started(1)
    await jobs.add([{ request: filled('story 1') }, { request: filled('story 2') }], { source: 'story' })
    await addEach(jobs, ['studio 1', 'studio 2'])
    await jobs.add([{ request: filled('front') }], { place: 'front' })
    expect(promptsOf(jobs)).toEqual(['front', 'studio 1', 'studio 2', 'story 1', 'story 2'])
    desk.settings = { isStudioFirst: false }
    await addEach(jobs, ['studio 3'])
    expect(promptsOf(jobs).at(-1)).toBe('studio 3')
  })

  it('moves up, down, to both ends and before another, alone and together', async () => {
    const jobs = await desk.open()
    const [, a, b, c, d, e] = await addEach(jobs, ['running', 'a', 'b', 'c', 'd', 'e'])
    await started(1)
    const order = async (ids: string[], to: Parameters<Jobs['move']>[1]) => {
      await jobs.move(ids, to)
      return promptsOf(jobs).join('')
    }
    expect(await order([e], 'up')).toBe('abced')
    expect(await order([a], 'down')).toBe('baced')
    expect(await order([d], 'top')).toBe('dbace')
    expect(await order([b, a], 'bottom')).toBe('dceba')
    expect(await order([b, a], 'up')).toBe('dcbae')
    expect(await order([d, c], 'down')).toBe('bdcae')
    expect(await order([e], { before: d })).toBe('bedca')
    expect(await order([b], 'up')).toBe('bedca')
    expect(await order([a], 'down')).toBe('bedca')
    expect((await desk.onDisk()).jobs.filter((job) => job.status === 'waiting').sort((x, y) => x.rank - y.rank).map(({ request }) => request.prompt).join('')).toBe('bedca') // prettier-ignore
  })

  it('finds room between two neighbours however often', async () => {
    const jobs = await desk.open()
    await addEach(jobs, ['running'])
    await started(1)
    await jobs.add([{ request: filled('story') }], { source: 'story' })
    const prompts = Array.from({ length: 200 }, (_, i) => `studio ${i}`)
    await addEach(jobs, prompts)
    expect(promptsOf(jobs)).toEqual([...prompts, 'story'])
    const ranks = jobs.list().flatMap((job) => (job.status === 'waiting' ? [job.rank] : []))
    expect(new Set(ranks).size).toBe(201)
  })

  it('duplicates with other seeds, holds jobs back while others go on, and forgets what is over', async () => {
    const jobs = await desk.open()
    const [a, b, c] = await addEach(jobs, ['a', 'b', 'c'])
    await started(1)
    await jobs.duplicate([a])
    const copy = jobs.list().find((job) => job.request.prompt === 'a' && job.id !== a)!
    expect(copy.request.seed).not.toBe(1)
    await jobs.hold([b], true)
    await desk.finish()
    await until(() => desk.engine.current.id === c)
    await jobs.hold([b], false)
    await desk.finish()
    await until(() => desk.engine.current.id === b)
    await jobs.forget([a, b])
    expect(jobs.list().map(({ id }) => id)).toEqual([b, c, copy.id])
    expect(desk.events.at(-1)).toEqual({ type: 'jobs:gone', ids: [a] })
  })

  it('clears what waits, and brings it back in its order', async () => {
    const jobs = await desk.open()
    await addEach(jobs, ['running', 'a', 'b', 'c'])
    await started(1)
    const { undoId, count } = await jobs.clearWaiting()
    expect([count, promptsOf(jobs), (await desk.onDisk()).jobs.length]).toEqual([3, [], 1])
    await jobs.undoClear(undoId)
    expect(promptsOf(jobs)).toEqual(['a', 'b', 'c'])
    expect((await desk.onDisk()).jobs.length).toBe(4)
    await expect(jobs.undoClear(undoId)).rejects.toMatchObject({ code: 'bad-request' })
  })
})
