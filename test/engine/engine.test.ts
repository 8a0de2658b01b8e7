import { createHash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { EngineClient, forkEngine, type EngineSettings, type JobEvent } from '../../main/engine/client.ts'
import { connectDirect } from '../../main/engine/direct.ts'
import { openNetworks } from '../../main/engine/networks.ts'
import { readManifest } from '../../main/engine/model-folder.ts'
import type { EngineJob } from '../../main/engine/protocol.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import { recipeOf } from '../../main/export/metadata.ts'
import { readPng } from '../../main/export/png.ts'
import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// The engine over a tiny random model and the real ONNX Runtime: in this process, and in a child as the window has it.

const entry = fileURLToPath(new URL('../../main/engine/index.ts', import.meta.url))
const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))
let scratch: string
let model: string
let engine: EngineClient | undefined

beforeAll(async () => {
  scratch = await scratchFolder('engine')
  vi.stubEnv('VIGNETTE_HOME', scratch) // what tests of the device find is kept there
  model = await makeTinyModel(join(scratch, 'tiny'))
})
afterEach(async () => {
  await engine?.stop()
  engine = undefined
})
afterAll(() => rm(scratch, { recursive: true }))

function job(request: Partial<GenerateRequestInput>, id = 'a'): EngineJob {
  const checked = checkRequest({ prompt: 'a red barn', width: 64, height: 64, steps: 3, seed: 7, ...request })
  return { id, modelFolder: model, request: fillDefaults(checked, readManifest(model)) }
}
const direct = (settings: EngineSettings = {}) => (engine = connectDirect({ device: 'cpu', threads: 1, ...settings }))
const child = (settings: EngineSettings = {}) =>
  (engine = new EngineClient(() => forkEngine(entry, { execArgv: ['--import', loader] }), {
    device: 'cpu',
    threads: 1,
    ...settings,
  }))

async function all(client: EngineClient, of: EngineJob): Promise<JobEvent[]> {
  const events = []
  for await (const event of client.run(of)) events.push(event)
  return events
}
const only = <T extends JobEvent['type']>(events: JobEvent[], type: T) =>
  events.filter((event) => event.type === type) as Extract<JobEvent, { type: T }>[]
const last = (events: JobEvent[]) => events[events.length - 1]
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

describe('a job', () => {
  test('tells its phases and steps in order and ends with a picture that carries its recipe', async () => {
    const events = await all(direct(), job({}))
    expect(events.map((event) => (event.type === 'phase' ? event.phase : event.type))).toEqual([
      'loading',
      'encoding',
      'denoising',
      'step',
      'step',
      'step',
      'decoding',
      'saving',
      'image',
      'finished',
    ])
    expect(only(events, 'step').map(({ step, steps }) => `${step}/${steps}`)).toEqual(['1/3', '2/3', '3/3'])
    const [image] = only(events, 'image')
    expect(readPng(image.png)).toMatchObject({ width: 64, height: 64 })
    const recipe = recipeOf(image.png)!
    expect(recipe.request).toMatchObject({ prompt: 'a red barn', seed: 7, steps: 3, width: 64 })
    expect(recipe.model.sha256).toBe(readManifest(model).source.sha256)
    const pixels = await sharp(image.png).raw().toBuffer()
    expect(recipe.pixelSha256).toBe(sha256(pixels))
    expect(new Set(pixels).size).toBeGreaterThan(20) // a picture, not one colour
  })

  test('gives the same bytes for the same seed, other pixels for another, on any engine', async () => {
    const first = only(await all(direct(), job({})), 'image')[0]
    const again = only(await all(direct(), job({}, 'b')), 'image')[0]
    const other = only(await all(direct(), job({ seed: 8 })), 'image')[0]
    const elsewhere = only(await all(child({ threads: 2 }), job({})), 'image')[0]
    expect(sha256(again.png)).toBe(sha256(first.png))
    expect(sha256(elsewhere.png)).toBe(sha256(first.png))
    expect(recipeOf(other.png)!.pixelSha256).not.toBe(recipeOf(first.png)!.pixelSha256)
  })

  test('of several pictures makes each as if it were alone, with the next seed', async () => {
    const images = only(await all(direct(), job({ count: 3, seed: 4294967295 })), 'image')
    expect(images.map(({ index, seed }) => [index, seed])).toEqual([
      [0, 4294967295],
      [1, 0],
      [2, 1],
    ])
    const [alone] = only(await all(direct(), job({ seed: 1 })), 'image')
    expect(sha256(images[2].png)).toBe(sha256(alone.png))
  })

  test('shows unfinished pictures, at most four a second', async () => {
    const startedAt = performance.now()
    const steps = only(await all(direct(), job({ steps: 60, preview: 'fast' })), 'step')
    const previews = steps.filter(({ previewPng }) => previewPng)
    const seconds = (performance.now() - startedAt) / 1000
    expect(previews.length).toBeGreaterThan(0)
    expect(previews.length).toBeLessThanOrEqual(Math.ceil(seconds * 4) + 1)
    expect(readPng(previews[0].previewPng!)).toMatchObject({ width: 8, height: 8 })
    expect(only(await all(direct(), job({ preview: 'off' })), 'step').some(({ previewPng }) => previewPng)).toBe(false)
  })

  test('starts from a picture of any size and turn, changes it more with strength, and only where the mask is white', async () => {
    // 96 × 48, marked by EXIF as lying on its side: upright it is 48 × 96.
    const init = join(scratch, 'init.jpg')
    const mask = join(scratch, 'mask.png')
    await sharp({ create: { width: 96, height: 48, channels: 3, background: '#3070b0' } })
      .withMetadata({ orientation: 6 })
      .jpeg()
      .toFile(init)
    const half = await sharp({ create: { width: 32, height: 64, channels: 3, background: '#ffffff' } })
      .png()
      .toBuffer()
    await sharp({ create: { width: 64, height: 64, channels: 3, background: '#000000' } })
      .composite([{ input: half, left: 32, top: 0 }])
      .png()
      .toFile(mask)

    const draw = async (request: Partial<GenerateRequestInput>) => {
      const [image] = only(await all(direct(), job({ initImage: init, steps: 4, ...request })), 'image')
      return { recipe: recipeOf(image.png)!, pixels: await sharp(image.png).raw().toBuffer() }
    }
    const plain = await draw({ strength: 0.5 })
    expect(plain.recipe.pictures?.init?.name).toBe('init.jpg')
    expect((await draw({ strength: 1 })).recipe.pixelSha256).not.toBe(plain.recipe.pixelSha256)

    const masked = await draw({ strength: 0.5, maskImage: mask })
    const at = (x: number, y: number) => [...masked.pixels.subarray((y * 64 + x) * 3, (y * 64 + x) * 3 + 3)]
    for (const [x, y] of [
      [2, 2],
      [8, 60],
      [12, 30],
    ]) {
      at(x, y).forEach((value, channel) => expect(Math.abs(value - [0x30, 0x70, 0xb0][channel])).toBeLessThan(4))
    }
    expect(masked.recipe.pictures?.mask?.name).toBe('mask.png')
  })

  test.each([
    ['no such file', 'file-unreadable', { initImage: '/nowhere/cat.png' }],
    ['a text for a picture', 'file-unreadable', { initImage: fileURLToPath(import.meta.url) }],
  ])('fails in words with %s and leaves the engine usable', async (_, code, request) => {
    const client = direct()
    expect(last(await all(client, job(request)))).toMatchObject({
      type: 'failed',
      error: { code, hint: expect.any(String) },
    })
    expect(last(await all(client, job({ steps: 1 })))).toMatchObject({ type: 'finished' })
  })

  test('that needs more memory than allowed fails with the numbers', async () => {
    const event = last(await all(direct({ memoryBudgetBytes: 1e6 }), job({})))
    expect(event).toMatchObject({
      type: 'failed',
      error: { code: 'out-of-memory', message: expect.stringMatching(/MB.*1 MB/) },
    })
  })
})

describe('an engine in a child process', () => {
  test('that is killed fails the job with engine-crashed, and the next job works', async () => {
    const client = child()
    const events = []
    for await (const event of client.run(job({ steps: 100, count: 5 }))) {
      events.push(event)
      if (event.type === 'step' && event.step === 2) client.kill()
    }
    expect(last(events)).toMatchObject({
      type: 'failed',
      error: { code: 'engine-crashed', message: expect.stringContaining('picture 1') },
    })
    expect(last(await all(client, job({}, 'b')))).toEqual({ type: 'finished', jobId: 'b' })
  })

  test('stops a cancelled job within a step and takes the next', async () => {
    const client = child()
    let stepsAfter = 0
    let isAsked = false
    const events = []
    for await (const event of client.run(job({ steps: 100 }))) {
      events.push(event)
      if (isAsked && event.type === 'step') stepsAfter++
      if (event.type === 'step' && event.step === 2) {
        client.cancel('a')
        isAsked = true
      }
    }
    expect(last(events)).toEqual({ type: 'cancelled', jobId: 'a' })
    // The step that ran, and one that may have been on its way.
    expect(stepsAfter).toBeLessThanOrEqual(2)
    expect(only(events, 'image')).toEqual([])
    expect(last(await all(client, job({}, 'b')))).toEqual({ type: 'finished', jobId: 'b' })
  })

  test('cancels when nobody listens any more, and refuses a second job at the same time', async () => {
    const client = child()
    for await (const event of client.run(job({ steps: 100 }))) {
      if (event.type !== 'step') continue
      await expect(client.run(job({}, 'b')).next()).rejects.toThrow('while a was running')
      break
    }
    expect(last(await all(client, job({}, 'c')))).toEqual({ type: 'finished', jobId: 'c' })
  })

  test('that does not answer a cancel in time is killed, and the job counts as cancelled', async () => {
    const client = child({ cancelGraceMs: 0 })
    const events = []
    for await (const event of client.run(job({ steps: 100, width: 256, height: 256 }))) {
      events.push(event)
      if (event.type === 'step') client.cancel('a')
    }
    expect(last(events)).toEqual({ type: 'cancelled', jobId: 'a' })
    expect(last(await all(client, job({}, 'b')))).toEqual({ type: 'finished', jobId: 'b' })
  })

  test('reports its device', async () => {
    expect(await child().device()).toMatchObject({ provider: 'cpu', reason: expect.any(String) })
  })

  test('whose program is not there fails the job instead of waiting for ever', async () => {
    engine = new EngineClient(() => forkEngine(join(scratch, 'nothing.mjs')), { device: 'cpu' })
    expect(last(await all(engine, job({})))).toMatchObject({ type: 'failed', error: { code: 'engine-crashed' } })
  })
})

describe('openNetworks', () => {
  const ids = {
    input_ids: { data: new BigInt64Array(77), shape: [1, 77] },
    eos_index: { data: BigInt64Array.of(5n), shape: [1] },
  }
  const latents = { latent_sample: { data: new Float32Array(4 * 8 * 8), shape: [1, 4, 8, 8] } }

  test('loads on first use, hands out only what is asked for, and unloads', async () => {
    const networks = openNetworks(model, { threads: 1 })
    expect(networks.loaded()).toEqual([])
    const found = await networks.run('text_encoder', ids, ['pooled'])
    expect(Object.keys(found)).toEqual(['pooled'])
    expect(found.pooled.shape).toEqual([1, 64])
    expect(networks.loaded()).toEqual(['text_encoder'])
    await networks.release()
    expect(networks.loaded()).toEqual([])
  })

  test('unloads what was used longest ago, or put to rest, to stay in its budget', async () => {
    // Text encoder 13 MB, VAE decoder about 3 MB, encoder about 1.5 MB once loaded.
    const networks = openNetworks(model, { threads: 1, budgetBytes: 17e6 })
    const picture = { sample: { data: new Float32Array(3 * 64 * 64), shape: [1, 3, 64, 64] } }
    await networks.run('text_encoder', ids)
    await networks.run('vae_decoder', latents)
    expect(networks.loaded()).toEqual(['text_encoder', 'vae_decoder'])
    await networks.run('text_encoder', ids)
    expect(networks.loaded()).toEqual(['vae_decoder', 'text_encoder'])
    await networks.rest!('text_encoder')
    expect(networks.loaded()).toEqual(['text_encoder', 'vae_decoder'])
    await networks.run('unet', {
      sample: { data: new Float32Array(4 * 8 * 8), shape: [1, 4, 8, 8] },
      timestep: { data: Float32Array.of(1), shape: [1] },
      encoder_hidden_states: { data: new Float32Array(77 * 64), shape: [1, 77, 64] },
    })
    expect(networks.loaded()).toEqual(['vae_decoder', 'unet'])
    await networks.run('vae_encoder', picture)
    expect(networks.loaded()).toContain('vae_encoder')
    await networks.release()
  })

  // Node 19.6 and later know the limit of a container.
  test.runIf(process.constrainedMemory)(
    'before decoding makes room where little memory is free, or fails in words',
    async () => {
      const networks = openNetworks(model, { threads: 1, budgetBytes: 1e9 })
      const free = (bytes: number) =>
        vi.spyOn(process, 'constrainedMemory').mockImplementation(() => process.memoryUsage.rss() + bytes)
      try {
        await networks.run('text_encoder', ids)
        free(1e9)
        await networks.run('vae_decoder', latents) // 64 × 64 pixels: 16 MB
        expect(networks.loaded()).toEqual(['text_encoder', 'vae_decoder'])
        free(15e6)
        await networks.run('vae_decoder', latents)
        expect(networks.loaded()).toEqual(['vae_decoder'])
        free(200e6)
        const large = { latent_sample: { data: new Float32Array(4 * 64 * 64), shape: [1, 4, 64, 64] } }
        await expect(networks.run('vae_decoder', large)).rejects.toMatchObject({
          code: 'out-of-memory',
          message: expect.stringMatching(/picture decoder.* needs about 1\.0 GB; \d+ MB are free/),
        })
      } finally {
        vi.restoreAllMocks()
        await networks.release()
      }
    },
  )

  test('refuses a folder without a model, a damaged description and a missing graph', async () => {
    expect(() => openNetworks(scratch)).toThrow(expect.objectContaining({ code: 'model-missing' }))
    const { cp, writeFile, unlink } = await import('node:fs/promises')
    const broken = join(scratch, 'broken')
    await cp(model, broken, { recursive: true })
    await unlink(join(broken, 'vae_decoder.onnx'))
    await expect(openNetworks(broken).run('vae_decoder', latents)).rejects.toMatchObject({ code: 'model-missing' })
    await writeFile(join(broken, 'model.json'), '{"version":1')
    expect(() => openNetworks(broken)).toThrow(expect.objectContaining({ code: 'file-unreadable' }))
  })
})
