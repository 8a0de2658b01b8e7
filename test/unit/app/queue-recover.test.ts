import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { addEach, filled, JobsDesk, promptsOf, until } from './jobs-desk.ts'

let desk: JobsDesk
beforeEach(async () => {
  desk = await JobsDesk.make()
})
afterEach(() => desk.remove())

const started = (count: number) => until(() => desk.engine.started.length === count)
const steps = async (step: number) => {
  const jobId = desk.engine.current.id
  desk.engine.send({ type: 'step', jobId, index: 0, step, steps: 10 })
  await until(() => desk.shown.at(-1)?.step === step)
}
/** What the engine does beside the events: it keeps what is done of a job. */
async function keepCheckpoint(): Promise<string> {
  const file = desk.engine.current.checkpointFile!
  await mkdir(join(desk.folder, 'checkpoints'), { recursive: true })
  await writeFile(file, 'latents')
  return file
}
const checkpoints = () => readdir(join(desk.folder, 'checkpoints'))

describe('after the application went down', () => {
  it('comes back paused, in order, with the job that ran in front, and says what happened', async () => {
    const before = await desk.open()
    const [id] = await addEach(before, ['one', 'two', 'three'], { steps: 10 })
    await started(1)
    await keepCheckpoint()
    await steps(5)
    await expect.poll(async () => (await desk.onDisk()).jobs[0].step).toBe(5)
    const after = await desk.crash()
    expect(promptsOf(after)).toEqual(['one', 'two', 'three'])
    expect(after.state()).toMatchObject({
      isPaused: true,
      pausedBy: 'interrupted',
      interrupted: { waiting: 2, jobs: [{ id, step: 5, steps: 10 }] },
    })
    expect(after.list().find((job) => job.id === id)).toMatchObject({ resumesAt: 5 })
    expect(desk.engine.started).toEqual([])
    await after.resume()
    await started(1)
    expect(desk.engine.current).toMatchObject({ id, checkpointFile: join(desk.folder, 'checkpoints', id) })
    expect(after.state()).toEqual({ isPaused: false, isPausingAfterCurrent: false })
    desk.engine.send({ type: 'resumed', jobId: id, index: 0, step: 5, steps: 10 })
    await desk.finish()
    await expect.poll(checkpoints).not.toContain(id)
  })

  it('goes on by itself when the person wants that', async () => {
    desk.settings = { afterCrash: 'resume' }
    await addEach(await desk.open(), ['one', 'two'])
    await started(1)
    const after = await desk.crash()
    await started(1)
    expect(after.state()).toEqual({ isPaused: false, isPausingAfterCurrent: false })
  })

  it('is asked again at the next start while nobody has decided, and throws away only what can be brought back', async () => {
    await addEach(await desk.open(), ['one', 'two', 'three'])
    await started(1)
    const first = await desk.crash()
    await first.close()
    const second = await desk.crash()
    expect(second.state()).toMatchObject({ pausedBy: 'interrupted', interrupted: { waiting: 2 } })
    const { undoId, count } = await second.discard()
    expect([count, second.list(), second.state().isPaused]).toEqual([3, [], false])
    await second.pause('now')
    await second.undoClear(undoId)
    expect(promptsOf(second)).toEqual(['one', 'two', 'three'])
  })

  it('does not make again what was saved, or given up, just before', async () => {
    const before = await desk.open()
    const [saved] = await addEach(before, ['saved'])
    await started(1)
    desk.engine.sendImage() // and no word of the end
    await until(() => desk.images.length === 1)
    const second = await desk.crash()
    expect(second.list().map(({ id, status }) => [id, status])).toEqual([[saved, 'done']])
    const [given] = await addEach(second, ['given up'])
    await started(1)
    desk.engine.cancel = () => {} // it hears it, but goes down before it can say so
    await second.cancel([given])
    const third = await desk.crash()
    expect(third.list().map(({ status }) => status)).toEqual(['done', 'cancelled'])
    expect(desk.engine.started).toEqual([])
  })

  it('finds the picture of a job that went down while it was saved', async () => {
    desk.save = () => new Promise(() => {}) // it never comes back from the disk
    await addEach(await desk.open(), ['a', 'b'])
    await started(1)
    desk.engine.sendImage()
    await expect.poll(async () => (await desk.onDisk()).jobs[0].phase).toBe('saving')
    const asked: string[] = []
    const after = await desk.crash({ madeBy: ({ request }) => (asked.push(request.prompt), 'its picture') })
    expect(after.list()[0]).toMatchObject({ status: 'done', imageId: 'its picture' })
    expect(promptsOf(after)).toEqual(['b'])
    expect(asked).toEqual(['a'])
  })

  it('gives up on a job that took it down twice, but not on one that was left in good order', async () => {
    desk.settings = { afterCrash: 'resume' }
    await addEach(await desk.open(), ['a'])
    await started(1)
    await expect.poll(async () => (await desk.onDisk()).jobs[0].interruptions).toBe(1)
    const second = await desk.crash()
    await started(1)
    await second.close()
    const third = await desk.crash()
    await started(1)
    await expect.poll(async () => (await desk.onDisk()).jobs[0].interruptions).toBe(1)
    await desk.crash()
    await started(1)
    await expect.poll(async () => (await desk.onDisk()).jobs[0].interruptions).toBe(2)
    const last = await desk.crash()
    expect(last.list()[0]).toMatchObject({ status: 'failed', error: { code: 'engine-crashed' } })
    expect(desk.engine.started).toEqual([])
    expect(third.list()).toHaveLength(1)
  })

  it('at any byte of what was written last, loses no job that was taken in', async () => {
    const jobs = await desk.open()
    await addEach(jobs, ['one', 'two'])
    await started(1)
    const safe = (await readFile(desk.file)).length
    await desk.finish()
    await started(2)
    await jobs.move((await addEach(jobs, ['three'])).slice(), 'top')
    const whole = await readFile(desk.file)
    for (let length = safe; length <= whole.length; length += 41) {
      await writeFile(desk.file, whole.subarray(0, length))
      const found = await desk.onDisk()
      const prompts = found.jobs.map(({ request }) => request.prompt)
      expect(prompts.slice(0, 2), `cut at ${length}`).toEqual(['one', 'two'])
    }
    await writeFile(desk.file, whole.subarray(0, whole.length - 3))
    const after = await desk.crash()
    expect(promptsOf(after)).toEqual(['two', 'three'])
    expect(after.list()[0]).toMatchObject({ status: 'done', imageId: 'one-1' })
  })
})

describe('after leaving in good order', () => {
  it('is as it was: the running job goes on by itself, from where it was', async () => {
    const before = await desk.open()
    const [id] = await addEach(before, ['one', 'two'], { steps: 10 })
    await started(1)
    await keepCheckpoint()
    await steps(3)
    await before.close()
    const after = await desk.crash()
    await started(1)
    expect(desk.engine.current.id).toBe(id)
    expect(after.state().isPaused).toBe(false)
    expect(desk.shown.find((job) => job.id === id)).toMatchObject({ status: 'running', step: 3, resumesAt: 3 })
  })

  it('stays paused when it was, and holds what was held', async () => {
    const before = await desk.open()
    await before.pause('now')
    const [a] = await addEach(before, ['a', 'b'])
    await before.hold([a], true)
    await before.close()
    const after = await desk.crash()
    expect(after.state()).toMatchObject({ isPaused: true, pausedBy: 'person' })
    expect(after.list()[0].isHeld).toBe(true)
    expect(desk.engine.started).toEqual([])
  })

  it('forgets a time to stop that has passed, and checkpoints of jobs that are gone', async () => {
    const before = await desk.open()
    await before.stopAt(desk.time + 10)
    await mkdir(join(desk.folder, 'checkpoints'), { recursive: true })
    await writeFile(join(desk.folder, 'checkpoints', 'nobody'), '')
    await before.close()
    desk.time += 1000
    const after = await desk.crash()
    expect(after.state().stopAt).toBeUndefined()
    await expect.poll(checkpoints).toEqual([])
  })

  it('waits for the running step, but not for ever', async () => {
    const before = await desk.open()
    await before.add([{ request: filled('a') }])
    await started(1)
    desk.engine.cancel = () => {} // never heard
    const began = performance.now()
    await before.close()
    expect(performance.now() - began).toBeLessThan(5000)
    expect(await desk.onDisk()).toMatchObject({ wasClosed: true, jobs: [{ status: 'waiting' }] })
  })
})
