import { performance } from 'node:perf_hooks'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { answer, type Handlers } from '../../../main/app/answer.ts'
import { jobHandlers } from '../../../main/app/handlers/jobs.ts'
import type { InstalledModel } from '../../../main/app/installed-models.ts'
import type { Jobs } from '../../../main/app/jobs.ts'
import { Pace } from '../../../main/app/pace.ts'
import { PromptLists } from '../../../main/app/prompt-lists.ts'
import { Prompts } from '../../../main/app/prompts.ts'
import type { ModelManifest } from '../../../models/manifest.ts'
import { JobsDesk } from './jobs-desk.ts'

const manifest = {
  nativeSize: { width: 128, height: 128 },
  defaults: { steps: 20, guidanceScale: 5, sampler: 'euler', schedule: 'normal' },
} as ModelManifest

let desk: JobsDesk
let jobs: Jobs
let handlers: Handlers
let asked: string[]
beforeEach(async () => {
  desk = await JobsDesk.make()
  jobs = await desk.open()
  await jobs.pause('now')
  asked = []
  handlers = jobHandlers({
    jobs,
    pace: new Pace(),
    prompts: new Prompts({ lists: new PromptLists(desk.folder), reader: { measure: async () => [] } }),
    models: { find: async (id) => (asked.push(id), { folder: '', manifest } as InstalledModel) },
    adapters: { infosOf: async (files) => (asked.push(...files), []) },
  }) as Handlers
})
afterEach(() => desk.remove())

describe('asking for pictures', () => {
  it('makes a job of each, with consecutive seeds and the defaults of the model, as one batch', async () => {
    const reply = await answer(handlers, 'jobs:add', {
      requests: [
        { prompt: 'a {red|blue} barn', seed: 4294967295, count: 3 },
        { prompt: 'b', width: 64, height: 64, steps: 3 },
      ],
    })
    expect(reply.ok).toBe(true)
    const all = jobs.list()
    expect(all.map(({ request: { seed, count, width, steps } }) => [seed, count, width, steps])).toEqual([
      [4294967295, 1, 128, 20],
      [0, 1, 128, 20],
      [1, 1, 128, 20],
      [expect.any(Number), 1, 64, 3],
    ])
    expect(new Set(all.map(({ batchId }) => batchId)).size).toBe(1)
    for (const { request } of all.slice(0, 3)) {
      expect(request.prompt).toMatch(/^a (red|blue) barn$/)
      expect(request.promptTemplate).toBe('a {red|blue} barn')
    }
  })

  it('refuses what is wrong in any of them, and takes none', async () => {
    const reply = await answer(handlers, 'jobs:add', { requests: [{ prompt: 'good' }, { prompt: '  ' }] })
    expect(reply).toMatchObject({ ok: false, error: { code: 'bad-request' } })
    const many = Array.from({ length: 1000 }, () => ({ prompt: 'a', count: 64 }))
    expect(await answer(handlers, 'jobs:add', { requests: many })).toMatchObject({
      ok: false,
      error: { code: 'bad-request', hint: expect.stringContaining('10,000') },
    })
    expect(jobs.list()).toEqual([])
  })

  it('a thousand at once look the model up once, are back within a second, and do not hold the window up', async () => {
    let longest = 0
    let last = performance.now()
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
    }, 1)
    const requests = Array.from({ length: 1000 }, (_, i) => ({
      prompt: `page ${i} of a book about a fox who learns to read by the light of the moon, watercolour and ink`,
      seed: i,
    }))
    const began = performance.now()
    const reply = await answer(handlers, 'jobs:add', { requests })
    const took = performance.now() - began
    clearInterval(timer)
    expect(reply.ok && reply.value.jobIds.length).toBe(1000)
    expect(took).toBeLessThan(1000)
    expect(longest).toBeLessThan(200) // 18 ms when nothing else runs
    expect(asked.filter((id) => id === 'starter')).toHaveLength(1)
  })

  it('knows how long and how large, once one like it was made', async () => {
    const request = { prompt: 'a', count: 3 }
    const first = await answer(handlers, 'jobs:estimate', { request })
    expect(first).toEqual({ ok: true, value: { bytes: 3 * 1.4 * 128 * 128 } })
  })
})
