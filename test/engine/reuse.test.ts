import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runJob } from '../../main/engine/job.ts'
import { openNetworks, type OpenNetworks } from '../../main/engine/networks.ts'
import { recipeOf } from '../../main/export/metadata.ts'
import { generate } from '../../main/pipeline/generate.ts'
import type { FloatTensor, IdTensor } from '../../main/pipeline/tensor.ts'
import { tensor } from '../../main/pipeline/tensor.ts'
import { createTokenizer, type Tokenizer } from '../../main/pipeline/tokenizer.ts'
import type { GenerateJob, Networks } from '../../main/pipeline/types.ts'
import { buildNetworks } from '../../models/build.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { installStarter } from '../../models/starter/install.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { GenerateRequest } from '../../preload/contract/generate.ts'
import type { SpeedName } from '../../preload/limits.ts'

// What the speeds do to pictures of the model that comes with Vignette, on the processor.

let home: string
let networks: OpenNetworks
let tokenizer: Tokenizer
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'vignette-reuse-'))
  networks = openNetworks(await installStarter(home), { threads: 1 })
  tokenizer = createTokenizer(await readClipMerges())
}, 60_000)
afterAll(async () => {
  await networks.release()
  rmSync(home, { recursive: true, force: true })
})

const job = (more: Partial<GenerateJob> = {}): GenerateJob => ({
  prompt: 'a cute owl in a green meadow, rain, storybook style',
  negativePrompt: '',
  width: 256,
  height: 256,
  steps: 20,
  seed: 7,
  sampler: 'dpmpp_2m',
  schedule: 'trailing',
  guidanceScale: 4,
  guidanceRescale: 0,
  clipSkip: 1,
  zeroTerminalSnr: false,
  preview: 'off',
  ...more,
})

async function draw(wish: GenerateJob, over: Partial<Networks> = {}) {
  const runs = { unet: 0, unet_shallow: 0 }
  const counting: Networks = {
    manifest: networks.manifest,
    has: (name) => networks.has(name),
    run(name, inputs, outputs) {
      if (name === 'unet' || name === 'unet_shallow') runs[name]++
      return networks.run(name, inputs, outputs)
    },
    ...over,
  }
  const notices: string[] = []
  let data = new Uint8Array()
  for await (const event of generate(wish, counting, tokenizer)) {
    if (event.type === 'image') data = new Uint8Array(event.image.data)
    if (event.type === 'notice') notices.push(event.message)
  }
  return { data, runs, notices }
}

function psnr(a: Uint8Array, b: Uint8Array): number {
  const error = a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length
  return 10 * Math.log10(255 ** 2 / error)
}

describe('speeds', () => {
  test('faster gives nearly the same picture, fastest roughly, with fewer whole runs', async () => {
    const exact = await draw(job())
    expect(exact.runs).toEqual({ unet: 20, unet_shallow: 0 })
    const floors = { faster: { psnr: 36, whole: 13 }, fastest: { psnr: 28, whole: 10 } }
    for (const speed of ['faster', 'fastest'] as const) {
      const { data, runs, notices } = await draw(job({ speed }))
      expect(notices).toEqual([])
      expect(runs.unet + runs.unet_shallow).toBe(20)
      expect(runs.unet, speed).toBeLessThanOrEqual(floors[speed].whole)
      expect(psnr(data, exact.data), speed).toBeGreaterThan(floors[speed].psnr)
    }
  }, 60_000)

  // Fresh noise in every step changes the features by more than `faster` lets pass.
  test.each([
    ['euler', 'faster', 33],
    ['heun', 'faster', 33],
    ['unipc', 'faster', 33],
    ['euler_a', 'fastest', 26],
    ['dpmpp_2m_sde', 'fastest', 22],
  ] as const)(
    'with %s, %s stays near the exact picture',
    async (sampler, speed, least) => {
      const exact = await draw(job({ sampler }))
      const quick = await draw(job({ sampler, speed }))
      expect(quick.runs.unet).toBeLessThan(0.8 * exact.runs.unet)
      expect(psnr(quick.data, exact.data)).toBeGreaterThan(least)
    },
    60_000,
  )

  test('guidance rows one at a time: the same decisions and the same picture', async () => {
    const together = await draw(job({ speed: 'faster', steps: 12 }))
    const apart = await draw(job({ speed: 'faster', steps: 12 }), { singleRows: true })
    expect(apart.runs.unet_shallow).toBeGreaterThan(0)
    expect(apart.runs.unet).toBeLessThanOrEqual(2 * together.runs.unet + 4)
    expect(psnr(apart.data, together.data)).toBeGreaterThan(32)
  }, 60_000)

  test('a model without the outer layers as a network of their own is drawn exactly, and says so', async () => {
    const old: Partial<Networks> = { has: (name) => name !== 'unet_shallow' && networks.has(name) }
    const { runs, notices } = await draw(job({ speed: 'faster', steps: 6 }), old)
    expect(runs).toEqual({ unet: 6, unet_shallow: 0 })
    expect(notices).toHaveLength(1)
  })
})

test('a folder of an earlier version gets its outer layers when they are first wanted; the recipe names the speed', async () => {
  const folder = join(home, 'old')
  cpSync(join(home, 'starter'), folder, { recursive: true })
  const manifest = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8')) as { networks: string[] }
  manifest.networks = manifest.networks.filter((name) => name !== 'unet_shallow')
  writeFileSync(join(folder, 'model.json'), JSON.stringify(manifest))
  rmSync(join(folder, 'unet_shallow.onnx'))
  const [unet] = buildNetworks(
    (await readParts(folder)).filter(({ part }) => part === 'unet'),
    { dialect: 'cpu' },
  )
  writeFileSync(join(folder, 'unet.onnx'), unet.onnx)

  const old = openNetworks(folder, { threads: 1 })
  expect(old.has('unet_shallow')).toBe(false)
  const { prompt, width, height, steps, seed, sampler, schedule, guidanceScale } = job({ steps: 8 })
  const given = {
    prompt,
    width,
    height,
    steps,
    seed,
    sampler,
    schedule,
    guidanceScale,
    speed: 'fastest',
    preview: 'off',
  }
  const request = GenerateRequest.parse(given) as Parameters<typeof runJob>[0]['request']
  const events = []
  for await (const event of runJob({ id: 'old', modelFolder: folder, request }, old)) events.push(event)
  expect(events.filter(({ type }) => type === 'notice')).toEqual([])
  expect(old.loaded()).toContain('unet_shallow')
  const image = events.find((event) => event.type === 'image')
  expect(recipeOf(image!.png)?.request.speed).toBe('fastest')
  await old.release()
}, 60_000)

describe('thinned keys', () => {
  const inputs = (side: number, stride?: bigint): Record<string, FloatTensor | IdTensor> => ({
    sample: tensor(
      Float32Array.from({ length: 8 * side * side }, (_, i) => Math.sin(i * 1.3 + (i % 17))),
      [1, 8, side, side],
    ),
    timestep: tensor(new Float32Array([400]), [1]),
    encoder_hidden_states: tensor(
      Float32Array.from({ length: 77 * 128 }, (_, i) => Math.cos(i)),
      [1, 77, 128],
    ),
    ...(stride ? { key_stride: { data: BigInt64Array.of(stride), shape: [1] } } : {}),
  })
  const predict = async (side: number, stride?: bigint) =>
    (await networks.run('unet', inputs(side, stride), ['out_sample'])).out_sample.data

  test('stride 1 is what a run without the input does; stride 2 is near it, odd sides included', async () => {
    for (const side of [16, 15]) {
      const plain = await predict(side)
      expect(await predict(side, 1n)).toEqual(plain)
      const thinned = await predict(side, 2n)
      const [error, size] = plain.reduce(([e, s], v, i) => [e + (v - thinned[i]) ** 2, s + v * v], [0, 0])
      expect(Math.sqrt(error / size)).toBeGreaterThan(1e-4)
      expect(Math.sqrt(error / size)).toBeLessThan(0.2)
    }
  })

  test.each<[SpeedName, number, boolean]>([
    ['exact', 1024, false],
    ['faster', 1024, false],
    ['fastest', 1024, true],
    ['fastest', 768, false],
  ])(
    '%s at %i pixels a side: %s',
    async (speed, side, thinned) => {
      let asked = false
      const over: Partial<Networks> = {
        run(name, given, outputs) {
          if (name === 'unet') asked = 'key_stride' in given
          return networks.run(name, given, outputs)
        },
      }
      const wish = job({ speed, width: side, height: side, steps: 1, guidanceScale: 1 })
      for await (const event of generate(wish, { ...networks, ...over }, tokenizer)) if (event.type === 'step') break
      expect(asked).toBe(thinned)
    },
    60_000,
  )
})
