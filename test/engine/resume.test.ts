import { createHash } from 'node:crypto'
import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  EngineClient,
  forkEngine,
  type EngineModel,
  type EngineSettings,
  type JobEvent,
} from '../../main/engine/client.ts'
import { connectDirect } from '../../main/engine/direct.ts'
import { readManifest } from '../../main/engine/model-folder.ts'
import type { EngineJob } from '../../main/engine/protocol.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import { shapeOf, writeGuidance, writeLora } from './tiny-adapters.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// Pictures that are interrupted and gone on with, and an engine that is changed while it lives: tiny networks, real runtime.

const entry = fileURLToPath(new URL('../../main/engine/index.ts', import.meta.url))
const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))
let home: string
let model: string
let direct: EngineClient
let child: EngineClient | undefined
const at = (name: string) => join(home, name)

beforeAll(async () => {
  home = await scratchFolder('resume')
  vi.stubEnv('VIGNETTE_HOME', home)
  model = await makeTinyModel(at('tiny'))
  const shape = await shapeOf(model)
  await writeLora(at('ink.safetensors'), shape, 1)
  await writeGuidance(at('guidance.safetensors'), shape, 2)
  const noise = Buffer.from(Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 37) % 256))
  await sharp(noise, { raw: { width: 64, height: 64, channels: 3 } })
    .png()
    .toFile(at('init.png'))
  const left = { create: { width: 32, height: 64, channels: 3, background: '#ffffff' } } as const
  await sharp(left).extend({ right: 32, background: '#000000' }).png().toFile(at('mask.png'))
  direct = connectDirect({ device: 'cpu', threads: 1 })
})
afterEach(async () => {
  await child?.stop()
  child = undefined
  vi.unstubAllEnvs()
  vi.stubEnv('VIGNETTE_HOME', home)
})
afterAll(async () => {
  await direct.stop()
  await rm(home, { recursive: true })
})

function job(request: Partial<GenerateRequestInput> = {}, extra: Partial<EngineJob> = {}): EngineJob {
  const size = { width: 64, height: 64, steps: 6, seed: 7, guidanceScale: 3 }
  const checked = checkRequest({ prompt: 'a red barn', ...size, ...request })
  return { id: 'a', modelFolder: model, request: fillDefaults(checked, readManifest(model)), ...extra }
}
const fork = (settings: EngineSettings = {}, env: NodeJS.ProcessEnv = {}) =>
  (child = new EngineClient(
    () => forkEngine(entry, { execArgv: ['--import', loader], env: { ...process.env, ...env } }),
    { device: 'cpu', threads: 1, ...settings },
  ))

async function all(client: EngineClient, of: EngineJob, onEvent: (event: JobEvent) => void = () => {}) {
  const events: JobEvent[] = []
  for await (const event of client.run(of)) {
    events.push(event)
    onEvent(event)
  }
  return events
}
const pictureOf = (events: JobEvent[]) => {
  const image = events.find((event) => event.type === 'image')
  if (!image) throw new Error(`no picture: ${JSON.stringify(events[events.length - 1])}`)
  return createHash('sha256').update(image.png).digest('hex')
}
const steps = (events: JobEvent[]) =>
  events.flatMap((event) => ('step' in event ? [`${event.type} ${event.step}`] : []))

/** Cancels after `step`, then runs the same job again. */
async function interruptAndResume(of: EngineJob, step: number) {
  const first = await all(direct, of, (event) => {
    if (event.type === 'step' && event.step === step) direct.cancel('a')
  })
  expect(first[first.length - 1].type).toBe('cancelled')
  return all(direct, of)
}

describe('a job with a checkpoint', () => {
  test.each([
    ['noise between steps', { sampler: 'euler_a' }],
    ['several orders', { sampler: 'dpmpp_3m_sde', preview: 'fast' }],
    ['two evaluations a step', { sampler: 'heun' }],
    ['a start picture and a mask', { init: true, sampler: 'unipc' }],
    ['an adapter on some of the steps', { ink: true, sampler: 'dpmpp_2m' }],
    ['a guidance adapter', { guidance: true, sampler: 'euler' }],
  ] as const)('that was paused goes on to the same file, with %s', async (name, options) => {
    const { init, ink, guidance, ...rest } = { init: false, ink: false, guidance: false, ...options }
    const use = (file: string, more = {}) => ({ file: at(`${file}.safetensors`), weight: 1, ...more })
    const request: Partial<GenerateRequestInput> = {
      ...rest,
      ...(init ? { initImage: at('init.png'), maskImage: at('mask.png'), strength: 0.9 } : {}),
      ...(ink ? { adapters: [use('ink', { start: 0.2, end: 0.8, ramp: 'ease-out' })] } : {}),
      ...(guidance ? { adapters: [use('guidance')] } : {}),
    }
    const whole = pictureOf(await all(direct, job(request)))
    const checkpointFile = at(`${name}.part`)
    const resumed = await interruptAndResume(job(request, { checkpointFile }), 3)
    expect(steps(resumed)[0]).toMatch(/^resumed [34]$/)
    expect(pictureOf(resumed)).toBe(whole)
    // It stays until whoever has the picture removes it, and does then give it at once.
    const again = await all(direct, job(request, { checkpointFile }))
    expect(steps(again).every((step) => step.startsWith('resumed'))).toBe(true)
    expect(pictureOf(again)).toBe(whole)
  })

  test('ignores that of any other job', async () => {
    const checkpointFile = at('other.part')
    await interruptAndResume(job({}, { checkpointFile }), 3)
    for (const other of [{ prompt: 'a mill' }, { seed: 8 }, { guidanceScale: 4 }, { sampler: 'ddim' as const }]) {
      const events = await all(direct, job(other, { checkpointFile }))
      expect(steps(events)).toHaveLength(6)
      expect(pictureOf(events)).toBe(pictureOf(await all(direct, job(other))))
    }
  })

  test('begins again where steps are guessed', async () => {
    const of = job({ speed: 'faster' }, { checkpointFile: at('faster.part') })
    const events = await interruptAndResume(of, 3)
    expect(steps(events)[0]).toBe('step 1')
    await expect(stat(at('faster.part'))).rejects.toThrow()
  })

  test('goes on after the engine was killed, which happens once', async () => {
    const client = fork({}, { VIGNETTE_E2E: '1', VIGNETTE_FAIL: 'kill@4' })
    const of = job({}, { checkpointFile: at('killed.part'), checkpointEveryMs: 0 })
    const first = await all(client, of)
    expect(steps(first)).toEqual(['step 1', 'step 2', 'step 3', 'step 4'])
    expect(first[first.length - 1]).toMatchObject({ type: 'failed', error: { code: 'engine-crashed' } })
    const second = await all(client, of)
    expect(steps(second)).toEqual(['resumed 4', 'step 5', 'step 6'])
    expect(pictureOf(second)).toBe(pictureOf(await all(direct, job())))
  })
})

test('memory runs out on purpose once, with the words of a real failure, and only under test', async () => {
  vi.stubEnv('VIGNETTE_FAIL', 'memory@3')
  vi.stubEnv('VIGNETTE_FAIL_MARK', at('memory-mark'))
  expect(steps(await all(direct, job()))).toHaveLength(6)
  vi.stubEnv('VIGNETTE_E2E', '1')
  const events = await all(direct, job())
  expect(steps(events)).toEqual(['step 1', 'step 2'])
  expect(events[events.length - 1]).toMatchObject({
    type: 'failed',
    error: { code: 'out-of-memory', message: expect.stringMatching(/drawing network needs 2.0 GB more; .* are free/) },
  })
  expect(steps(await all(direct, job()))).toHaveLength(6)
})

test('a small picture comes with the large one when it is wanted', async () => {
  const [image] = (await all(direct, job({ width: 640, height: 512, steps: 1 }, { makesThumb: true }))).flatMap(
    (event) => (event.type === 'image' ? [event] : []),
  )
  expect(await sharp(image.thumb).metadata()).toMatchObject({ format: 'webp', width: 480, height: 384 })
  const [plain] = (await all(direct, job({ steps: 1 }))).flatMap((event) => (event.type === 'image' ? [event] : []))
  expect(plain.thumb).toBeUndefined()
})

describe('an engine that is changed', () => {
  const watch = (client: EngineClient) => {
    const seen: string[] = []
    client.onModel((of: EngineModel | undefined) => seen.push(of?.state ?? 'none'))
    return seen
  }

  test('gives the model back when told to, and after a while without a job', async () => {
    const client = fork()
    const seen = watch(client)
    await all(client, job({ steps: 1 }))
    client.unload()
    const again = await all(client, job({ steps: 1 }))
    expect(again[0]).toMatchObject({ type: 'phase', phase: 'loading' })
    expect(seen).toEqual(['loading', 'ready', 'none', 'loading', 'ready'])
    await client.configure({ keepModelMs: 1 })
    await vi.waitFor(() => expect(seen.at(-1)).toBe('none'))
    expect((await all(client, job({ steps: 1 })))[0]).toMatchObject({ phase: 'loading' })
  })

  test('takes new settings between two jobs, and never in one', async () => {
    const client = fork()
    const seen = watch(client)
    const pids = new Set<number>()
    const pidOf = () => pids.add(Number(client.pid))
    const first = await all(client, job(), (event) => {
      if (event.type !== 'step') return
      pidOf()
      if (event.step === 2) void client.configure({ memoryBudgetBytes: 1e6 })
    })
    expect(first[first.length - 1].type).toBe('finished')
    expect(pids.size).toBe(1)
    const tooSmall = await all(client, job())
    expect(tooSmall[tooSmall.length - 1]).toMatchObject({ type: 'failed', error: { code: 'out-of-memory' } })
    await client.configure({ memoryBudgetBytes: 1e9 })
    expect(client.pid).toBeUndefined()
    expect(pictureOf(await all(client, job()))).toBe(pictureOf(first))
    expect(seen).toEqual(['loading', 'ready', 'none', 'loading', 'ready', 'none', 'loading', 'ready'])
  })

  test('answers a cancel that comes while it starts anew', async () => {
    const client = fork()
    await all(client, job({ steps: 1 }))
    const running = client.run(job())
    void client.configure({ threads: 2 })
    const first = running.next()
    client.cancel('a')
    expect((await first).value).toEqual({ type: 'cancelled', jobId: 'a' })
    expect(pictureOf(await all(client, job()))).toBeDefined()
  })
})
