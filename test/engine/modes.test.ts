import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { psnr } from '../../main/cli/picture-distance.ts'
import type { EngineClient, EngineSettings, JobEvent } from '../../main/engine/client.ts'
import { connectDirect } from '../../main/engine/direct.ts'
import { ensureFastForm } from '../../main/engine/fast-form.ts'
import { readManifest } from '../../main/engine/model-folder.ts'
import { openNetworks } from '../../main/engine/networks.ts'
import { quantizeModel } from '../../main/engine/quantize-model.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import { recipeOf } from '../../main/export/metadata.ts'
import { createDenoiser } from '../../main/pipeline/denoiser.ts'
import { noiseLevels } from '../../main/pipeline/sigmas.ts'
import { softwareVulkan } from '../../scripts/software-vulkan.ts'
import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// One tiny 4-bit model in each of the ways it can run.

const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))
const vulkan = softwareVulkan()
let scratch: string
let model: string

beforeAll(async () => {
  scratch = await scratchFolder('modes')
  vi.stubEnv('VIGNETTE_HOME', scratch)
  Object.entries(vulkan.variables ?? {}).forEach(([name, value]) => vi.stubEnv(name, value))
  // The self-test's child inherits these, so that it understands TypeScript.
  process.execArgv.push('--import', loader)
  const source = await makeTinyModel(join(scratch, 'source'))
  model = join(scratch, 'models', 'tiny')
  await quantizeModel(source, model, { calibration: false, threads: 1 })
})
afterAll(() => rm(scratch, { recursive: true }))

const copyOf = async (name: string) => {
  const target = join(scratch, name)
  await cp(model, target, { recursive: true, filter: (path) => !path.endsWith('/fast') })
  return target
}

// Engines stay for the next test: loading a quantised network takes longer than all that is drawn with it here.
const engines = new Map<string, EngineClient>()
const stopAll = async () => {
  for (const engine of engines.values()) await engine.stop()
  engines.clear()
}
afterAll(stopAll)

async function draw(settings: EngineSettings, request: Partial<GenerateRequestInput> = {}, folder = model) {
  const key = JSON.stringify([settings, folder])
  const engine = engines.get(key) ?? connectDirect({ device: 'cpu', threads: 1, ...settings })
  engines.set(key, engine)
  const checked = checkRequest({ prompt: 'a red barn', width: 64, height: 64, steps: 2, seed: 7, ...request })
  const job = { id: 'a', modelFolder: folder, request: fillDefaults(checked, readManifest(folder)) }
  const events: JobEvent[] = []
  for await (const event of engine.run(job)) events.push(event)
  const images = events.flatMap((event) => (event.type === 'image' ? [event.png] : []))
  const notices = events.flatMap((event) => (event.type === 'notice' ? [event.message] : []))
  return { events, images, notices, last: events[events.length - 1] }
}
const pixels = async (png: Uint8Array) => ({
  data: new Uint8Array(await sharp(png).raw().toBuffer()),
  width: 64,
  height: 64,
})
const picture = async (settings: EngineSettings, request: Partial<GenerateRequestInput> = {}, folder = model) => {
  const { images, last } = await draw(settings, request, folder)
  expect(last).toEqual({ type: 'finished', jobId: 'a' })
  return { ...recipeOf(images[0])!, pixels: await pixels(images[0]) }
}

test('both modes of the processor draw the same picture within the rounding of bytes, and say which it was', async () => {
  const [fast, low] = [await picture({ mode: 'fast' }), await picture({ mode: 'low-memory' })]
  expect(fast.engine).toMatchObject({ provider: 'cpu', mode: 'fast' })
  expect(low.engine).toMatchObject({ provider: 'cpu', mode: 'low-memory' })
  expect(new Set(low.pixels.data).size).toBeGreaterThan(20) // a picture, not one colour
  // A trained network is closer: its activations have no such outliers.
  expect(psnr(fast.pixels, low.pixels)).toBeGreaterThan(27)
  expect(fast.pixelSha256).not.toBe(low.pixelSha256)
})

test.skipIf(!vulkan.variables)('the graphics card draws what the low-memory mode draws', async () => {
  const low = await picture({ mode: 'low-memory' })
  const card = await picture({ device: 'gpu' })
  expect(card.engine).toEqual({ ...low.engine, provider: 'webgpu', mode: undefined })
  expect(psnr(card.pixels, low.pixels)).toBeGreaterThan(60)
})

describe('the fast mode', () => {
  test('gives a picture of a series, guided or not, to the byte as alone', async () => {
    for (const guidanceScale of [1, 5]) {
      const series = await draw({ mode: 'fast' }, { count: 2, guidanceScale })
      const alone = await draw({ mode: 'fast' }, { seed: 8, guidanceScale })
      const sha256 = (png: Uint8Array) => createHash('sha256').update(png).digest('hex')
      expect(sha256(series.images[1])).toBe(sha256(alone.images[0]))
    }
  })

  test('is independent of its neighbours in a batch, which are run one by one', async () => {
    await ensureFastForm(model, { threads: 1 })
    const networks = openNetworks(model, { mode: 'fast', threads: 1 })
    const size = 4 * 8 * 8
    const x = Float32Array.from({ length: 2 * size }, (_, i) => (i < size ? 1 : 20) * Math.sin(i * 12.9898))
    const context = (sign: number) => ({
      data: Float32Array.from({ length: 77 * 64 }, (_, i) => sign * Math.cos(i)),
      shape: [77, 64],
    })
    const rows = (n: number) =>
      [true, false].flatMap((isNegative) =>
        Array.from({ length: n }, (_, picture) => ({ picture, isNegative, context: context(isNegative ? -1 : 1) })),
      )
    const denoise = (n: number) =>
      createDenoiser(networks, {
        levels: noiseLevels(networks.manifest.schedule),
        conditioning: { rows: rows(n), notices: [] },
        shape: [n, 4, 8, 8],
        ...{ guidanceScales: Array<number>(n).fill(5), guidanceRescale: 0, rowsPerRun: 4 },
      })
    const alone = await denoise(1)(x.slice(0, size), 3)
    expect((await denoise(2)(x, 3)).slice(0, size)).toEqual(alone)
    await networks.release()
  })

  test('has its form made once, and again when that is damaged', async () => {
    const folder = await copyOf('prepared')
    const files = () => readdirSync(join(folder, 'fast')).sort()
    const sha256 = (name: string) =>
      createHash('sha256')
        .update(readFileSync(join(folder, 'fast', name)))
        .digest('hex')
    let made = 0
    const ensure = () => ensureFastForm(folder, { threads: 1, onMaking: () => made++ })
    await ensure()
    expect(files()).toEqual(['unet.onnx', 'unet.safetensors', 'unet_shallow.onnx'])
    const first = files().map(sha256)
    await ensure()
    expect(made).toBe(1)
    for (const name of files()) writeFileSync(join(folder, 'fast', name), 'damaged')
    // What a process left that was killed while it wrote.
    const leftover = join(folder, 'fast', '.unet.safetensors.0a1b2c3d.tmp')
    writeFileSync(leftover, 'half')
    utimesSync(leftover, 1, 1)
    await ensure()
    expect(made).toBe(2)
    expect(files().map(sha256)).toEqual(first)
  })

  test('stops being made when the job is cancelled', async () => {
    const folder = await copyOf('cancelled')
    const engine = connectDirect({ device: 'cpu', threads: 1, mode: 'fast' })
    const request = fillDefaults(checkRequest({ prompt: 'a barn', width: 64, height: 64 }), readManifest(folder))
    const events: JobEvent[] = []
    for await (const event of engine.run({ id: 'a', modelFolder: folder, request })) {
      if (event.type === 'phase') engine.cancel('a')
      events.push(event)
    }
    await engine.stop()
    expect(events).toEqual([
      { type: 'phase', jobId: 'a', index: 0, phase: 'loading' },
      { type: 'cancelled', jobId: 'a' },
    ])
    expect(readdirSync(join(folder, 'fast'))).toEqual([])
  })

  test('gives way to the low-memory mode where its form cannot be written, and says so', async () => {
    const folder = await copyOf('blocked')
    writeFileSync(join(folder, 'fast'), 'a file where the folder should be')
    const { notices, images, last } = await draw({ mode: 'fast' }, {}, folder)
    expect(last).toMatchObject({ type: 'finished' })
    expect(notices).toEqual([expect.stringContaining('the low-memory mode draws')])
    expect(recipeOf(images[0])!.engine.mode).toBe('low-memory')
  })

  test('is refused on a processor that gets it wrong', async () => {
    const report = { verdict: 'low-memory', usable: ['low-memory'], reason: 'large products of bytes overflow' }
    const { openModel } = await import('../../main/engine/open-model.ts')
    const device = { provider: 'cpu', name: 'Old', reason: '' } as const
    const fourBitOnCpu = async () => report as never
    await expect(openModel(model, device, { mode: 'fast' }, { fourBitOnCpu })).rejects.toMatchObject({
      code: 'bad-request',
      message: expect.stringContaining('overflow'),
    })
    const { networks, notices } = await openModel(model, device, {}, { fourBitOnCpu })
    expect([networks.mode, notices]).toEqual(['low-memory', []])
  })
})

test('left to itself the engine takes what the self-test found, and reports it', async () => {
  const engine = connectDirect({ device: 'cpu', threads: 1 })
  const { fourBit } = await engine.device()
  await engine.stop()
  expect(fourBit).toMatchObject({ verdict: expect.stringMatching(/^(fast|low-memory)$/), reason: expect.any(String) })
  expect((await picture({})).engine.mode).toBe(fourBit!.verdict)
  expect(existsSync(join(scratch, 'self-test.json'))).toBe(true)
})

test('npm run generate draws in the mode asked for, tells the verdict, and refuses what there is not', () => {
  const script = fileURLToPath(new URL('../../main/cli/generate.ts', import.meta.url))
  const generate = (...args: string[]) => {
    const words = ['--import', loader, script, 'a barn', '--model', 'tiny', ...args]
    return spawnSync(process.execPath, words, { cwd: scratch, encoding: 'utf8' })
  }
  const drawing = ['--size', '64x64', '--steps', '1', '--device', 'cpu', '--out', 'barn.png']
  const drawn = generate(...drawing, '--mode', 'low-memory', '--verbose')
  expect(drawn).toMatchObject({ status: 0 })
  expect(drawn.stdout).toMatch(/4-bit models: in (fast|low-memory) mode \(.+\)/)
  expect(drawn.stdout).toMatch(/Done in .+ in low-memory mode\./)
  expect(generate('--mode', 'turbo')).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/There is no mode "turbo"\.[^]*Choose one of: fast, low-memory\./),
  })
  expect(generate('--device', 'tpu')).toMatchObject({
    status: 2,
    stderr: expect.stringMatching(/There is no device "tpu"\.[^]*Choose one of: auto, cpu, gpu\./),
  })
})
