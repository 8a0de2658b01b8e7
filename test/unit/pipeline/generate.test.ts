import { beforeAll, describe, expect, test } from 'vitest'
import { generate, type GenerateOptions } from '../../../main/pipeline/generate.ts'
import type { RgbImage } from '../../../main/pipeline/image.ts'
import { createTextCache } from '../../../main/pipeline/text-cache.ts'
import { createTokenizer, type Tokenizer } from '../../../main/pipeline/tokenizer.ts'
import type { GenerateEvent, GenerateJob } from '../../../main/pipeline/types.ts'
import { VignetteError } from '../../../models/errors.ts'
import { readClipMerges } from '../../../models/tokenizer/load.ts'
import { samplerNames, scheduleNames } from '../../../preload/limits.ts'
import { gaussianNetworks, smallJob } from './gaussian-networks.ts'

let tokenizer: Tokenizer
beforeAll(async () => {
  tokenizer = createTokenizer(await readClipMerges())
})

async function run(
  job: GenerateJob,
  networks = gaussianNetworks(),
  options?: GenerateOptions,
): Promise<GenerateEvent[]> {
  const events: GenerateEvent[] = []
  for await (const event of generate(job, networks, tokenizer, options)) events.push(event)
  return events
}
const images = (events: GenerateEvent[]) => events.flatMap((event) => (event.type === 'image' ? [event.image] : []))
const notices = (events: GenerateEvent[]) => events.flatMap((event) => (event.type === 'notice' ? [event.message] : []))
const largestDifference = (a: RgbImage, b: RgbImage) =>
  a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i])), 0)
const flat = (value: number): RgbImage => ({ data: new Uint8Array(64 * 64 * 3).fill(value), width: 64, height: 64 })

test('reports its phases in order, every step, and one picture', async () => {
  const events = await run(smallJob())
  expect(events.flatMap((event) => (event.type === 'phase' ? [event.phase] : []))).toEqual([
    'encoding',
    'denoising',
    'decoding',
  ])
  expect(events.flatMap((event) => (event.type === 'step' ? [`${event.step}/${event.steps}`] : []))).toEqual(
    Array.from({ length: 8 }, (_, i) => `${i + 1}/8`),
  )
  const [image] = images(events)
  expect([image.width, image.height, image.data.length]).toEqual([64, 64, 64 * 64 * 3])
})

test('same job, same bytes; another seed, another picture', async () => {
  const [first] = images(await run(smallJob()))
  const [again] = images(await run(smallJob()))
  const [other] = images(await run(smallJob({ seed: 8 })))
  expect(largestDifference(again, first)).toBe(0)
  expect(largestDifference(first, other)).toBeGreaterThan(20)
})

test('pictures made in one batch equal those made alone', async () => {
  for (const sampler of ['euler_a', 'dpmpp_2m'] as const) {
    const job = smallJob({ sampler, guidanceScale: 4, guidanceRescale: 0.7 })
    const together = images(
      await run(job, gaussianNetworks(), { pictures: [7, 8, 4294967295].map((seed) => ({ seed })) }),
    )
    const alone: RgbImage[] = []
    for (const seed of [7, 8, 4294967295]) alone.push(...images(await run({ ...job, seed })))
    expect(together).toHaveLength(3)
    together.forEach((image, i) => expect(largestDifference(image, alone[i])).toBe(0))
  }
})

test('every sampler on every schedule makes a picture, with and without pure noise at the start', async () => {
  for (const zeroTerminalSnr of [false, true]) {
    const networks = () => gaussianNetworks({ predictionType: 'v_prediction', zeroTerminalSnr })
    for (const sampler of samplerNames) {
      for (const schedule of scheduleNames) {
        const made = images(await run(smallJob({ sampler, schedule, zeroTerminalSnr, steps: 6 }), networks()))
        expect(made, `${sampler} ${schedule}`).toHaveLength(1)
      }
    }
  }
})

test('both guidance passes in one batch or one after the other: the same picture', async () => {
  const job = smallJob({ guidanceScale: 5, negativePrompt: 'blurry', guidanceRescale: 0.5 })
  const [batched, split] = [gaussianNetworks(), gaussianNetworks()]
  const [first] = images(await run(job, batched))
  const [second] = images(await run(job, split, { batchGuidance: false }))
  expect(largestDifference(second, first)).toBe(0)
  expect(batched.calls.unet).toEqual({ runs: 8, largestBatch: 2 })
  expect(split.calls.unet).toEqual({ runs: 16, largestBatch: 1 })
})

test('guidance is one batch up to 64 × 64 latent positions and two runs beyond, unless told otherwise', async () => {
  const run64 = async (changes: Partial<GenerateJob>, options?: GenerateOptions) => {
    const networks = gaussianNetworks()
    await run(smallJob({ guidanceScale: 5, steps: 1, ...changes }), networks, options)
    return networks.calls.unet
  }
  expect(await run64({ width: 512, height: 512 })).toEqual({ runs: 1, largestBatch: 2 })
  expect(await run64({ width: 520, height: 512 })).toEqual({ runs: 2, largestBatch: 1 })
  expect(await run64({ width: 520, height: 512 }, { batchGuidance: true })).toEqual({ runs: 1, largestBatch: 2 })
  // A batch takes as many rows as that.
  const pictures = [1, 2, 3].map((seed) => ({ seed }))
  expect(await run64({ width: 512, height: 512 }, { pictures })).toEqual({ runs: 3, largestBatch: 2 })
  expect(await run64({ width: 256, height: 256 }, { pictures })).toEqual({ runs: 1, largestBatch: 6 })
})

test('the second picture of a prompt runs no text encoder, whatever else is new', async () => {
  const networks = { ...gaussianNetworks({ family: 'sdxl' }), texts: createTextCache() }
  const job = smallJob({ guidanceScale: 5, negativePrompt: '(dull:1.2) colours' })
  const [first] = images(await run(job, networks))
  const counts = () => [networks.calls.text_encoder?.runs, networks.calls.text_encoder_2?.runs]
  expect(counts()).toEqual([2, 2])
  const [again] = images(await run(job, networks))
  await run({ ...job, seed: 9, width: 128, steps: 2, sampler: 'euler_a', guidanceScale: 2 }, networks)
  expect(counts()).toEqual([2, 2])
  expect(largestDifference(again, first)).toBe(0)
  // Another weight of a word is the same text to the encoder; another word is one more run.
  await run({ ...job, negativePrompt: '(dull:1.4) colours' }, networks)
  expect(counts()).toEqual([2, 2])
  await run({ ...job, prompt: 'a red barn at dawn' }, networks)
  expect(counts()).toEqual([3, 3])
})

test('another clip skip reads another block, and is read again', async () => {
  const networks = { ...gaussianNetworks(), texts: createTextCache() }
  for (const clipSkip of [1, 2, 1, 2]) await run(smallJob({ clipSkip }), networks)
  expect(networks.calls.text_encoder?.runs).toBe(2)
})

test('decoding that runs out of memory goes on once in smaller pieces, and says so', async () => {
  const limited = (pixels: number) => {
    const networks = gaussianNetworks()
    const released: number[] = []
    return {
      ...networks,
      released,
      release: async () => void released.push(1),
      async run(...[network, inputs, outputs]: Parameters<typeof networks.run>) {
        const [, , h, w] = inputs.latent_sample?.shape ?? []
        if (network === 'vae_decoder' && h * w * 64 > pixels) throw new VignetteError('out-of-memory', 'too much')
        return networks.run(network, inputs, outputs)
      },
    }
  }
  const job = smallJob({ width: 256, height: 256, steps: 1, init: { image: gradient(256, 256), strength: 0 } })
  const [whole] = images(await run(job))
  const small = limited(128 * 128)
  const events = await run(job, small)
  expect(notices(events).filter((text) => text.startsWith('Memory ran short'))).toHaveLength(1)
  expect(largestDifference(images(events)[0], whole)).toBeLessThanOrEqual(1)
  expect(small.released).toHaveLength(1)
  await expect(run(job, limited(100 * 100))).rejects.toMatchObject({ code: 'out-of-memory' })
})

test('guidance 1 is a single pass, and says that the negative prompt has no effect', async () => {
  const networks = gaussianNetworks()
  const events = await run(smallJob({ negativePrompt: 'blurry' }), networks)
  expect(networks.calls.unet).toEqual({ runs: 8, largestBatch: 1 })
  expect(notices(events)).toEqual(['The negative prompt has no effect at guidance 1.'])
})

test('says when pure noise at the start cannot be had', async () => {
  const velocity = () => gaussianNetworks({ predictionType: 'v_prediction', zeroTerminalSnr: true })
  expect(notices(await run(smallJob({ zeroTerminalSnr: true })))).toHaveLength(1)
  expect(notices(await run(smallJob({ zeroTerminalSnr: true, schedule: 'ddim_uniform' }), velocity()))).toHaveLength(1)
  expect(notices(await run(smallJob({ zeroTerminalSnr: true, schedule: 'trailing' }), velocity()))).toEqual([])
  expect(notices(await run(smallJob({ zeroTerminalSnr: true, schedule: 'karras' }), velocity()))).toEqual([])
})

test('guidance moves the picture away from the negative prompt', async () => {
  const mean = (image: RgbImage) => image.data.reduce((sum, value) => sum + value, 0) / image.data.length
  const at = async (guidanceScale: number, negativePrompt: string) =>
    mean(images(await run(smallJob({ guidanceScale, negativePrompt, steps: 20 })))[0])
  const plain = await at(1, '')
  const negative = mean(images(await run(smallJob({ prompt: 'wine', steps: 20 })))[0])
  const guided = await at(2, 'wine')
  expect(Math.sign(guided - plain)).toBe(Math.sign(plain - negative))
})

test('stops within the step in which the consumer stops', async () => {
  const networks = gaussianNetworks()
  for await (const event of generate(smallJob({ steps: 50 }), networks, tokenizer)) {
    if (event.type === 'step' && event.step === 3) break
  }
  expect(networks.calls.unet?.runs).toBe(3)
  expect(networks.calls.vae_decoder).toBeUndefined()
})

test('previews come with the steps when asked for, one pixel a latent position', async () => {
  const previews = (events: GenerateEvent[]) =>
    events.flatMap((event) => (event.type === 'step' ? [event.preview] : []))
  expect(previews(await run(smallJob())).every((image) => image === undefined)).toBe(true)
  const shown = previews(await run(smallJob({ preview: 'fast' })))
  expect(shown.map((image) => image && [image.width, image.height])).toEqual(Array(8).fill([8, 8]))
})

test('a size the model cannot draw is refused with the nearest sizes', async () => {
  await expect(run(smallJob({ width: 72 }), gaussianNetworks({ spatialFactor: 16 }))).rejects.toMatchObject({
    code: 'bad-request',
    hint: 'Try 64 or 80.',
  })
})

describe('with a start picture', () => {
  test('strength decides how many steps run', async () => {
    for (const [strength, runs] of [
      [0.5, 4],
      [0.3, 2],
      [1, 8],
    ]) {
      const networks = gaussianNetworks()
      await run(smallJob({ init: { image: flat(90), strength } }), networks)
      expect(networks.calls.unet?.runs).toBe(runs)
    }
  })

  test('strength 0 leaves the picture, and says so', async () => {
    const events = await run(smallJob({ init: { image: flat(90), strength: 0 } }))
    expect(notices(events)).toHaveLength(1)
    expect(largestDifference(images(events)[0], flat(90))).toBeLessThanOrEqual(1)
  })

  test('nothing outside the mask changes, everything inside may', async () => {
    const mask = Uint8Array.from({ length: 64 * 64 }, (_, i) => (i % 64 >= 21 && i < 64 * 40 ? 255 : 0))
    for (const sampler of samplerNames) {
      const [image] = images(await run(smallJob({ sampler, init: { image: flat(90), strength: 1 }, mask })))
      const inside = image.data.filter((_, i) => mask[Math.floor(i / 3)] === 255)
      expect(image.data.every((value, i) => mask[Math.floor(i / 3)] === 255 || value === 90)).toBe(true)
      expect(inside.filter((value) => value === 90).length / inside.length).toBeLessThan(0.2)
    }
  })
})

test('tiles give the same picture where the network is local', async () => {
  const job = smallJob({ width: 768, height: 512, steps: 1, init: { image: gradient(768, 512), strength: 0 } })
  const [whole, tiled] = [gaussianNetworks({ spatialFactor: 16 }), gaussianNetworks({ spatialFactor: 16 })]
  const [expected] = images(await run(job, whole, { tileAbovePixels: 1e9 }))
  const [actual] = images(await run(job, tiled, { tileAbovePixels: 512 * 512 }))
  expect(largestDifference(actual, expected)).toBeLessThanOrEqual(1)
  expect(whole.calls.vae_decoder?.runs).toBe(1)
  expect(tiled.calls.vae_decoder?.runs).toBe(2)
  expect(tiled.calls.vae_encoder?.runs).toBe(2)
})

function gradient(width: number, height: number): RgbImage {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => (Math.floor(i / 3) % width) / 8 + (i % 3) * 20)
  return { data, width, height }
}
