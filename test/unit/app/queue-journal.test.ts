import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { QueueJournal, type Line, type StoredJob } from '../../../main/app/queue-journal.ts'
import { filled } from './jobs-desk.ts'

let folder: string
let file: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-journal-'))
  file = join(folder, 'queue.jsonl')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const queue = { isPaused: false, isPausingAfterCurrent: false }
const job = (id: string, part: Partial<StoredJob> = {}): StoredJob => ({
  ...{ id, rank: 0, batchId: 'b', place: 0, batchSize: 1, source: 'studio', status: 'waiting', phase: 'waiting' },
  ...{ createdAt: 1, step: 0, steps: 4, request: filled(`ein Bär, 1 – ${id}`), interruptions: 0, crashes: 0 },
  ...part,
})
const state = (id: string, part: Partial<StoredJob>) => {
  const { request, ...rest } = job(id, part)
  expect(request.prompt).toContain(id)
  return rest
}

/** A journal over jobs in memory that the test keeps in step with it. */
async function journal(jobs: Map<string, StoredJob> = new Map()) {
  const made = new QueueJournal({ file, snapshot: () => ({ jobs: jobs.values(), queue }) })
  await made.rewrite()
  return made
}

const idsOf = async () => (await QueueJournal.read(file)).jobs.map(({ id }) => id)

describe('the journal', () => {
  it('gives back what was written: jobs, states, steps, what is gone, the queue', async () => {
    const lines: Line[] = [
      { put: [job('a'), job('b'), job('c')] },
      { set: [state('a', { status: 'running', imageId: 'x' })] },
      { gone: ['b'] },
      { queue: { ...queue, isPaused: true, pausedBy: 'person', stopAt: 5 } },
    ]
    const made = await journal()
    for (const line of lines) await made.write([line])
    made.note('c', 3, 20)
    await made.write([{ set: [state('a', { status: 'done' })] }])
    const found = await QueueJournal.read(file)
    expect(found.jobs).toEqual([job('a', { status: 'done' }), job('c', { step: 3, steps: 20 })])
    expect(found).toMatchObject({ isThere: true, wasClosed: false, damaged: 0 })
    expect(found.queue).toEqual({ ...queue, isPaused: true, pausedBy: 'person', stopAt: 5 })
    await made.write([{ closed: true }])
    expect((await QueueJournal.read(file)).wasClosed).toBe(true)
  })

  it('cut off at any byte of its end, is as it was after the last whole line', async () => {
    const made = await journal()
    await made.write([{ put: [job('a')] }])
    const base = (await readFile(file)).length
    await made.write([{ put: [job('b')] }, { set: [state('a', { status: 'running' })] }, { gone: ['b'] }])
    const whole = await readFile(file)
    const ends = [...whole.keys()].filter((at) => at >= base && whole[at] === 10)
    const expected = [['a:waiting'], ['a:waiting', 'b:waiting'], ['a:running', 'b:waiting'], ['a:running']]
    for (let length = base; length <= whole.length; length++) {
      await writeFile(file, whole.subarray(0, length))
      const { jobs, damaged } = await QueueJournal.read(file)
      const lines = ends.filter((at) => at < length).length
      expect(
        jobs.map(({ id, status }) => `${id}:${status}`),
        `cut at ${length}`,
      ).toEqual(expected[lines])
      expect(damaged).toBe(0)
    }
  })

  it('goes on after a torn end as if it had never been written', async () => {
    const made = await journal()
    await made.write([{ put: [job('a')] }])
    const good = await readFile(file)
    await writeFile(file, Buffer.concat([good, Buffer.from('{"gone":["a')]))
    await made.write([{ put: [job('b')] }])
    expect(await idsOf()).toEqual(['a', 'b'])
  })

  it('leaves out a line that was damaged in the middle, and says so', async () => {
    const made = await journal()
    await made.write([{ put: [job('a')] }])
    await made.write([{ put: [job('b')] }])
    await made.write([{ put: [job('c')] }])
    const text = await readFile(file, 'utf8')
    await writeFile(file, text.replace(/"id":"b"/, '"id":\0\0\0'))
    const found = await QueueJournal.read(file)
    expect(found.jobs.map(({ id }) => id)).toEqual(['a', 'c'])
    expect(found.damaged).toBe(1)
  })

  it('opens from its copy when the file is gone or is nothing of ours', async () => {
    const jobs = new Map([['a', job('a')]])
    const made = await journal(jobs)
    await made.rewrite()
    for (const damage of [() => writeFile(file, '\0\0\0\0'), () => rm(file)]) {
      await damage()
      expect(await idsOf()).toEqual(['a'])
    }
    await rm(`${file}.bak`)
    expect(await QueueJournal.read(file)).toMatchObject({ isThere: false, jobs: [] })
  })

  it('is written anew where it was deleted, with all that is known', async () => {
    const jobs = new Map([['a', job('a')]])
    const made = await journal(jobs)
    await rm(file)
    jobs.set('b', job('b'))
    await made.write([{ put: [job('b')] }])
    expect(await idsOf()).toEqual(['a', 'b'])
  })

  it('shares one write among many changes', async () => {
    const made = await journal()
    await Promise.all(Array.from({ length: 500 }, (_, i) => made.write([{ put: [job(String(i))] }])))
    expect((await idsOf()).length).toBe(500)
  })

  it('with ten thousand jobs writes a few hundred bytes a change, and all anew only when it has grown', async () => {
    const jobs = new Map(Array.from({ length: 10_000 }, (_, i) => [`job-${i}`, job(`job-${i}`)]))
    const made = await journal(jobs)
    const whole = (await readFile(file)).length
    expect(whole).toBeGreaterThan(3_000_000)
    for (let i = 0; i < 100; i++) await made.write([{ set: [state(`job-${i}`, { status: 'done' })] }])
    const grown = (await readFile(file)).length
    expect((grown - whole) / 100).toBeLessThan(400)
    expect((await QueueJournal.read(file)).jobs.filter(({ status }) => status === 'done')).toHaveLength(100)
  })

  it('becomes small again, without losing what is written meanwhile', async () => {
    const jobs = new Map<string, StoredJob>([['a', job('a')]])
    const made = await journal(jobs)
    let largest = 0
    for (let i = 0; i < 60; i++) {
      const some = Array.from({ length: 100 }, (_, j) => job(`${i}-${j}`))
      await made.write([{ put: some }])
      if (i % 2 === 1) jobs.set(`${i}`, job(`${i}`))
      await made.write([...(i % 2 === 1 ? [{ put: [job(`${i}`)] }] : []), { gone: some.map(({ id }) => id) }])
      largest = Math.max(largest, (await readFile(file)).length)
    }
    expect(largest).toBeLessThan(1_200_000)
    expect((await idsOf()).sort()).toEqual([...jobs.keys()].sort())
    expect((await readFile(file)).length).toBeLessThan(largest)
  })
})
