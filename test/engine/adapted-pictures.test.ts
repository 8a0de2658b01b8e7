import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ensureFastForm } from '../../main/engine/fast-form.ts'
import { openNetworks, type OpenNetworks } from '../../main/engine/networks.ts'
import { quantizeModel } from '../../main/engine/quantize-model.ts'
import type { AppliedAdapter, LoadedAdapter } from '../../main/pipeline/adapter-types.ts'
import { generate, type GenerateOptions } from '../../main/pipeline/generate.ts'
import type { RgbImage } from '../../main/pipeline/image.ts'
import { createSlots } from '../../main/pipeline/slots.ts'
import { createTokenizer, type Tokenizer } from '../../main/pipeline/tokenizer.ts'
import type { GenerateJob, PictureChoice } from '../../main/pipeline/types.ts'
import type { SlotPlace } from '../../models/build.ts'
import type { SlotGroup } from '../../models/graph/graph.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { apply, loraOf } from '../unit/pipeline/fake-adapters.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// Pictures with adapters through real networks: what must not matter, does not, and a batch is the pictures made alone.

const groups: ReadonlySet<SlotGroup> = new Set(['attention', 'mlp', 'time', 'conv'])
let home: string
let tokenizer: Tokenizer
let networks: OpenNetworks

beforeAll(async () => {
  home = await scratchFolder('adapted-pictures')
  tokenizer = createTokenizer(await readClipMerges())
  networks = openNetworks(await makeTinyModel(join(home, 'tiny')), { threads: 1 })
})
afterAll(async () => {
  await networks.release()
  await rm(home, { recursive: true })
})

const job: GenerateJob = {
  // Without weights of words: they keep the mean of a text's numbers, which in a random network is 0 but for rounding.
  prompt: 'a fox in a yellow raincoat',
  negativePrompt: 'rain',
  width: 64,
  height: 64,
  steps: 4,
  seed: 5,
  sampler: 'dpmpp_2m',
  schedule: 'karras',
  guidanceScale: 4,
  guidanceRescale: 0,
  clipSkip: 1,
  zeroTerminalSnr: false,
  preview: 'off',
}

/** Opens unet and text encoder with slots, for rows of one or of many weights. */
async function slotsOf(open: OpenNetworks, isMixed: boolean): Promise<GenerateOptions['slots']> {
  const places = await open.use('unet', { slots: groups, mixed: isMixed })
  const texts = await open.use('text_encoder', { slots: groups })
  return { unet: createSlots('unet', places, { isMixed }), text_encoder: createSlots('text_encoder', texts) }
}

async function draw(
  adapters: AppliedAdapter[],
  changes: Partial<GenerateJob> = {},
  pictures?: PictureChoice[],
  open = networks,
): Promise<RgbImage[]> {
  const isMixed = pictures !== undefined && !open.singleRows
  const slots = await slotsOf(open, isMixed)
  const images: RgbImage[] = []
  for await (const event of generate({ ...job, ...changes, adapters }, open, tokenizer, { pictures, slots })) {
    if (event.type === 'image') images.push(event.image)
  }
  return images
}

/** Random factors on every layer of both networks, small enough to leave a picture and large enough to show. */
async function adapterOf(name: string, open = networks): Promise<LoadedAdapter> {
  const [unet, text] = [await open.slots('unet'), await open.slots('text_encoder')]
  const ranks = (places: SlotPlace[], every: number) =>
    Object.fromEntries(places.flatMap(({ path }, i) => (i % every === 0 ? [[path, 1 + (i % 3)]] : [])))
  const scaled = (adapter: LoadedAdapter) => {
    for (const layers of Object.values(adapter.layers)) {
      for (const { up, down } of layers.values()) {
        for (const factor of [up, down]) factor.data.forEach((value, i) => (factor.data[i] = value * 0.5))
      }
    }
    return adapter.layers
  }
  const layers = {
    ...scaled(loraOf(`${name} u`, unet, ranks(unet, name.length % 3 || 3))),
    ...scaled(loraOf(`${name} t`, text, ranks(text, 2), 'text_encoder')),
  }
  return { name, sha256: name, layers }
}

const largest = (a: RgbImage, b: RgbImage) =>
  a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i])), 0)

describe('what must not matter', () => {
  test('order does not, two halves are one, and weights that add up to nothing leave nothing', async () => {
    const [ink, wash] = [await adapterOf('ink'), await adapterOf('wash')]
    const [both] = await draw([apply(ink, { weight: 0.7 }), apply(wash, { weight: -0.4, textWeight: 0.3 })])
    const [plain] = await draw([])
    expect(largest(both, plain)).toBeGreaterThan(8)
    const [other] = await draw([apply(wash, { weight: -0.4, textWeight: 0.3 }), apply(ink, { weight: 0.7 })])
    expect(other.data).toEqual(both.data)
    const half = apply(ink, { weight: 0.35, textWeight: 0.5 })
    const [halves] = await draw([half, apply(wash, { weight: -0.4, textWeight: 0.3 }), half])
    expect(halves.data).toEqual(both.data)
    const [cancelled] = await draw([apply(ink, { weight: 0.6 }), apply(ink, { weight: -0.6, textWeight: -1 })])
    expect(cancelled.data).toEqual(plain.data)
  })

  test('the same numbers under two names are twice the weight', async () => {
    const ink = await adapterOf('ink')
    const copy = { ...ink, sha256: 'ink again' }
    const [twice] = await draw([
      apply(ink, { weight: 0.3, textWeight: 0.2 }),
      apply(copy, { weight: 0.3, textWeight: 0.2 }),
    ])
    const [once] = await draw([apply(ink, { weight: 0.6, textWeight: 0.4 })])
    expect(largest(twice, once)).toBeLessThanOrEqual(1)
  })

  test('a network with idle slots draws as the one without any', async () => {
    const [idle] = await draw([])
    await networks.use('unet')
    await networks.use('text_encoder')
    const images: RgbImage[] = []
    for await (const event of generate(job, networks, tokenizer)) if (event.type === 'image') images.push(event.image)
    expect(largest(idle, images[0])).toBeLessThanOrEqual(1)
  })
})

test('two adapters in turns are each alone in its part of the steps', async () => {
  const [slow, fast] = [await adapterOf('slow'), await adapterOf('fast')]
  const [pair] = await draw([apply(slow, { end: 0.5, textWeight: 0 }), apply(fast, { start: 0.5, textWeight: 0 })])
  const [onlySlow] = await draw([apply(slow, { textWeight: 0 })])
  const [onlyFast] = await draw([apply(fast, { textWeight: 0 })])
  expect(largest(pair, onlySlow)).toBeGreaterThan(4)
  expect(largest(pair, onlyFast)).toBeGreaterThan(4)
  const [same] = await draw([apply(slow, { end: 0.5, textWeight: 0 }), apply(slow, { start: 0.5, textWeight: 0 })])
  expect(same.data).toEqual(onlySlow.data)
})

describe('a batch in which every picture has its own adapters', () => {
  const choices = async (open = networks): Promise<PictureChoice[]> => {
    const [ink, wash] = [await adapterOf('ink', open), await adapterOf('wash', open)]
    return [
      { adapters: [apply(ink, { weight: 0.8 })] },
      {
        prompt: 'a red barn',
        seed: 11,
        adapters: [apply(wash, { weight: 0.5, start: 0.5 }), apply(ink, { weight: -0.3 })],
      },
      { prompt: 'a cat, '.repeat(30), negativePrompt: '', seed: 12, guidanceScale: 7, adapters: [] },
      { prompt: 'a lighthouse', guidanceScale: 1, negativePrompt: '', adapters: [apply(wash, { ramp: 'ease-out' })] },
    ]
  }

  test('is the pictures made one by one', async () => {
    const pictures = await choices()
    for (const changes of [{}, { sampler: 'heun', guidanceRescale: 0.5, steps: 3 }] as const) {
      const together = await draw([], changes, pictures)
      expect(together).toHaveLength(4)
      for (const [i, { adapters = [], ...choice }] of pictures.entries()) {
        const [alone] = await draw([...adapters], { ...changes, ...choice })
        expect(largest(together[i], alone), `picture ${i + 1}`).toBeLessThanOrEqual(1)
        if (i > 0) expect(largest(together[i], together[0])).toBeGreaterThan(20)
      }
    }
  })

  test('is the pictures made one by one, to the byte, where networks take one row at a time', async () => {
    const folder = join(home, 'int4')
    await quantizeModel(join(home, 'tiny'), folder, { calibration: false, threads: 1 })
    await ensureFastForm(folder, { threads: 1 })
    const open = openNetworks(folder, { mode: 'fast', threads: 1 })
    try {
      const pictures = await choices(open)
      const together = await draw([], {}, pictures, open)
      for (const [i, { adapters = [], ...choice }] of pictures.entries()) {
        const [alone] = await draw([...adapters], choice, undefined, open)
        expect(together[i].data).toEqual(alone.data)
      }
    } finally {
      await open.release()
    }
  })
})
