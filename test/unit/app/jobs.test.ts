import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Jobs, type JobsOptions } from '../../../main/app/jobs.ts'
import { VignetteError } from '../../../models/errors.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import { type ImageRecord } from '../../../preload/contract/images.ts'
import { type Job } from '../../../preload/contract/jobs.ts'
import { FakeEngine } from './fake-engine.ts'

const request = (prompt: string, part: object = {}) =>
  GenerateRequest.parse({
    prompt,
    width: 64,
    height: 64,
    steps: 4,
    seed: 1,
    sampler: 'euler',
    schedule: 'normal',
    guidanceScale: 3,
    ...part,
  }) as Parameters<Jobs['add']>[0]

let folder: string
let engine: FakeEngine
let shown: Job[]
let images: ImageRecord[]
let crashes: string[]
let time: number
let save: () => Promise<void>
let opened: Jobs[]

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-jobs-'))
  engine = new FakeEngine()
  shown = []
  images = []
  crashes = []
  time = 0
  save = async () => {}
  opened = []
})
afterEach(async () => {
  await Promise.all(opened.map((jobs) => jobs.close()))
  await rm(folder, { recursive: true, force: true })
})

async function open(part: Partial<JobsOptions> = {}): Promise<Jobs> {
  const jobs = await Jobs.open({
    file: join(folder, 'queue.json'),
    engine,
    library: {
      add: async (_, { prompt, seed, width, height }) => {
        await save()
        return { id: `${prompt}-${seed}`, url: '', file: '', prompt, seed, width, height, createdAt: 0 }
      },
    },
    folderOf: async () => '/models/tiny',
    adapterFileOf: async (id) => {
      if (id.startsWith('gone/')) throw new VignetteError('file-unreadable', 'gone')
      return `/home/${id}`
    },
    onChange: (job) => void shown.push({ ...job }),
    onImage: (image) => void images.push(image),
    onCrash: (message) => void crashes.push(message),
    log: { info: () => {}, warn: () => {}, error: () => {} },
    now: () => time,
    ...part,
  })
  opened.push(jobs)
  return jobs
}

const onDisk = async () =>
  JSON.parse(await readFile(join(folder, 'queue.json'), 'utf8')) as { jobs: { id: string; interruptions: number }[] }
const until = (condition: () => unknown) => expect.poll(condition, { timeout: 5000, interval: 5 }).toBeTruthy()
const statusOf = (jobs: Jobs, id: string) => jobs.list().find((job) => job.id === id)?.status

describe('the queue', () => {
  it('makes jobs one at a time, in order, and saves what comes', async () => {
    const jobs = await open()
    const first = await jobs.add(request('first'))
    const second = await jobs.add(request('second'))
    await until(() => engine.started.length === 1)
    expect(engine.current).toMatchObject({ id: first, modelFolder: '/models/tiny', request: { prompt: 'first' } })
    expect(statusOf(jobs, second)).toBe('waiting')
    engine.sendImage()
    engine.send({ type: 'finished', jobId: first })
    await until(() => engine.started.length === 2)
    expect(engine.current.id).toBe(second)
    expect(images.map(({ id }) => id)).toEqual(['first-1'])
    expect(jobs.list()[0]).toMatchObject({ status: 'done', images: ['first-1'] })
    expect((await onDisk()).jobs.map(({ id }) => id)).toEqual([second])
  })

  it('gives the engine adapters by their files, and fails a job whose adapter is gone', async () => {
    const jobs = await open()
    const first = await jobs.add(request('first', { adapters: [{ file: 'own/ink.safetensors', weight: 0.5 }] }), [
      'ink sets',
    ])
    await jobs.add(request('second', { adapters: [{ file: 'gone/ink.safetensors' }] }))
    await until(() => engine.started.length === 1)
    expect(engine.current.request.adapters).toMatchObject([{ file: '/home/own/ink.safetensors', weight: 0.5 }])
    for (const message of ['ink sets', 'new']) engine.send({ type: 'notice', jobId: first, message })
    engine.send({ type: 'finished', jobId: first })
    await until(() => jobs.list()[1].status === 'failed')
    expect(jobs.list()[0]).toMatchObject({
      notices: ['ink sets', 'new'],
      request: { adapters: [{ file: 'own/ink.safetensors' }] },
    })
    expect(jobs.list()[1].error?.code).toBe('file-unreadable')
  })

  it('has a job on disk before it shows it', async () => {
    const wasOnDisk: boolean[] = []
    const file = join(folder, 'queue.json')
    const look = (job: Job) => wasOnDisk.push(existsSync(file) && readFileSync(file, 'utf8').includes(job.id))
    const jobs = await open({ onChange: (job) => void (job.status === 'waiting' && look(job)) })
    for (const prompt of ['a', 'b', 'c']) await jobs.add(request(prompt))
    expect(wasOnDisk).toEqual([true, true, true])
  })

  it('tells steps, previews and, from the second step on, the time left', async () => {
    const jobs = await open()
    const jobId = await jobs.add(request('a'))
    await until(() => engine.started.length === 1)
    engine.send({ type: 'phase', jobId, index: 0, phase: 'denoising' })
    await until(() => shown.at(-1)?.phase === 'denoising')
    expect(shown.at(-1)?.etaMs).toBeUndefined()
    time = 1000
    engine.send({ type: 'step', jobId, index: 0, step: 1, steps: 4, previewPng: Uint8Array.of(137, 80) })
    await until(() => shown.at(-1)?.step === 1)
    // Three steps of a second, and decoding guessed at two steps.
    expect(shown.at(-1)).toMatchObject({ etaMs: 5000, preview: 'data:image/png;base64,iVA=' })
  })

  it('cancels a waiting job at once and a running one through the engine', async () => {
    const jobs = await open()
    const first = await jobs.add(request('first'))
    const second = await jobs.add(request('second'))
    await until(() => engine.started.length === 1)
    await jobs.cancel(second)
    expect(statusOf(jobs, second)).toBe('cancelled')
    await jobs.cancel(first)
    expect(shown.some((job) => job.id === first && job.isStopping)).toBe(true)
    await until(() => statusOf(jobs, first) === 'cancelled')
    expect(engine.started).toHaveLength(1)
    await expect.poll(async () => (await onDisk()).jobs).toEqual([])
    await expect(jobs.cancel('unknown')).rejects.toMatchObject({ code: 'bad-request' })
  })

  it('fails the job of an engine that died, says so, and goes on', async () => {
    const jobs = await open()
    const first = await jobs.add(request('first'))
    const second = await jobs.add(request('second'))
    await until(() => engine.started.length === 1)
    engine.send({
      type: 'failed',
      jobId: first,
      error: { code: 'engine-crashed', message: 'It stopped.', hint: 'It is back.' },
    })
    await until(() => engine.current.id === second)
    expect(jobs.list()[0]).toMatchObject({ status: 'failed', error: { code: 'engine-crashed', hint: 'It is back.' } })
    expect(crashes).toEqual(['It stopped.'])
  })

  it('does not call a job done whose picture could not be saved', async () => {
    save = () => Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC', path: '/x' }))
    const jobs = await open()
    const id = await jobs.add(request('a'))
    await until(() => engine.started.length === 1)
    engine.sendImage()
    await until(() => statusOf(jobs, id) === 'failed')
    expect(jobs.list()[0]).toMatchObject({ images: [], error: { code: 'disk-full' } })
    expect(images).toEqual([])
  })

  it('refuses a job that it cannot write down, and goes on with one it has when the disk fills up', async () => {
    const jobs = await open()
    const id = await jobs.add(request('a'))
    await until(() => engine.started.length === 1)
    await rm(folder, { recursive: true })
    await writeFile(folder, 'a file where the folder was')
    await expect(jobs.add(request('b'))).rejects.toThrow()
    expect(jobs.list()).toHaveLength(1)
    engine.sendImage()
    engine.send({ type: 'finished', jobId: id })
    await until(() => statusOf(jobs, id) === 'done')
    expect(images).toHaveLength(1)
    await rm(folder)
    const next = await jobs.add(request('c'))
    await until(() => engine.current.id === next)
  })

  it('fails a job whose model is gone with the words of that', async () => {
    const jobs = await open({
      folderOf: () => Promise.reject(new VignetteError('model-missing', 'It is not installed.')),
    })
    const id = await jobs.add(request('a'))
    await until(() => statusOf(jobs, id) === 'failed')
    expect(jobs.list()[0].error?.code).toBe('model-missing')
  })
})

describe('after the application went down', () => {
  it('waiting jobs are there in order, and the one that ran comes first', async () => {
    const before = await open()
    for (const prompt of ['one', 'two', 'three']) await before.add(request(prompt))
    await until(() => engine.started.length === 1)
    engine = new FakeEngine()
    const after = await open()
    await until(() => engine.started.length === 1)
    expect(after.list().map(({ request: { prompt }, status }) => [prompt, status])).toEqual([
      ['one', 'running'],
      ['two', 'waiting'],
      ['three', 'waiting'],
    ])
  })

  it('makes only the pictures that are missing', async () => {
    const before = await open()
    await before.add(request('a', { seed: 4294967294, count: 3 }))
    await until(() => engine.started.length === 1)
    engine.sendImage()
    await until(() => images.length === 1)
    engine = new FakeEngine()
    await open()
    await until(() => engine.started.length === 1)
    expect(engine.current.request).toMatchObject({ seed: 4294967295, count: 2 })
  })

  it('does not make again what was finished or given up just before', async () => {
    const finished = await open()
    await finished.add(request('finished'))
    await until(() => engine.started.length === 1)
    engine.sendImage() // and no word of the end
    await until(() => images.length === 1)
    engine = new FakeEngine()
    const second = await open()
    expect(second.list()).toEqual([])

    const id = await second.add(request('given up'))
    await until(() => engine.started.length === 1)
    engine.cancel = () => {} // it hears it, but goes down before it can say so
    await second.cancel(id)
    engine = new FakeEngine()
    expect((await open()).list()).toEqual([])
  })

  it('gives up on a job that took it down twice, but not on one that was left in good order', async () => {
    await (await open()).add(request('a'))
    await until(() => engine.started.length === 1)
    await expect.poll(async () => (await onDisk()).jobs[0].interruptions).toBe(1)
    engine = new FakeEngine()
    const second = await open()
    await until(() => engine.started.length === 1)
    await second.close()
    engine = new FakeEngine()
    await open()
    await until(() => engine.started.length === 1)
    await expect.poll(async () => (await onDisk()).jobs[0].interruptions).toBe(2)
    engine = new FakeEngine()
    const last = await open()
    expect(last.list()[0]).toMatchObject({ status: 'failed', error: { code: 'engine-crashed' } })
    expect(engine.started).toEqual([])
  })

  it('opens from the copy when the file is cut off', async () => {
    const before = await open()
    await before.add(request('a'))
    await before.add(request('b'))
    await until(() => engine.started.length === 1)
    await writeFile(join(folder, 'queue.json'), '{"version":1,"jobs":[{"id"')
    engine = new FakeEngine()
    expect((await open()).list().length).toBeGreaterThan(0)
  })
})
