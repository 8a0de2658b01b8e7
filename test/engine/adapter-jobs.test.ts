import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { adapterInfos } from '../../main/engine/adapter-infos.ts'
import type { EngineClient } from '../../main/engine/client.ts'
import { connectDirect } from '../../main/engine/direct.ts'
import { runJob } from '../../main/engine/job.ts'
import { openNetworks } from '../../main/engine/networks.ts'
import { readManifest } from '../../main/engine/model-folder.ts'
import { fillFromAdapters } from '../../main/engine/presets.ts'
import type { BatchPicture } from '../../main/engine/protocol.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import { recipeOf } from '../../main/export/metadata.ts'
import type { ModelShape } from '../../models/adapters/types.ts'
import { VignetteError } from '../../models/errors.ts'
import { AdapterUse, type GenerateRequestInput } from '../../preload/contract/generate.ts'
import { shapeOf, writeEmbedding, writeFloats, writeGuidance, writeLora } from './tiny-adapters.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// Jobs with adapter files through a whole engine: what is applied, what the recipe says, and what must not change a byte.

let home: string
let model: string
let shape: ModelShape
let engine: EngineClient
const at = (name: string) => join(home, 'adapters', `${name}.safetensors`)

beforeAll(async () => {
  home = await scratchFolder('adapter-jobs')
  await mkdir(join(home, 'adapters'))
  model = await makeTinyModel(join(home, 'tiny'))
  shape = await shapeOf(model)
  await writeLora(at('ink'), shape, 1)
  await writeLora(at('wash'), shape, 2, { text: false, convs: true })
  await writeLora(at('lettering'), shape, 3, { rank: 8, notes: { title: 'Lettering', weight: 0.5 } })
  engine = connectDirect({ device: 'cpu', threads: 1 })
})
afterAll(async () => {
  await engine.stop()
  await rm(home, { recursive: true })
})

type Drawn = { images: Uint8Array[]; notices: string[] }

async function draw(changes: Partial<GenerateRequestInput> = {}, batch?: BatchPicture[]): Promise<Drawn> {
  const asked = checkRequest({
    ...{ prompt: 'a fox', width: 64, height: 64, steps: 3, seed: 7, guidanceScale: 3, preview: 'off' },
    ...changes,
  })
  const manifest = readManifest(model)
  const infos = await adapterInfos(
    model,
    asked.adapters.map(({ file }) => file),
  )
  const filled = fillFromAdapters(
    asked,
    manifest,
    asked.adapters.map(({ file }) => infos.get(file)!),
  )
  const request = fillDefaults(filled.request, manifest)
  const images: Uint8Array[] = []
  const notices = [...filled.notices]
  for await (const event of engine.run({ id: 'x', modelFolder: model, request, batch })) {
    if (event.type === 'image') images.push(event.png)
    if (event.type === 'notice') notices.push(event.message)
    if (event.type === 'failed') throw new VignetteError(event.error.code, event.error.message, event.error)
  }
  return { images, notices }
}
const one = async (changes: Partial<GenerateRequestInput> = {}) => (await draw(changes)).images[0]
const pixels = (png: Uint8Array) => sharp(png).removeAlpha().raw().toBuffer()
async function largest(a: Uint8Array, b: Uint8Array): Promise<number> {
  const [x, y] = [await pixels(a), await pixels(b)]
  return x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i])), 0)
}

describe('a job with adapters', () => {
  test('changes the picture, names them in its recipe by content, and leaves no path in the file', async () => {
    const plain = await one()
    const adapters = [{ file: at('ink'), weight: 0.7, end: 0.7, ramp: 'ease-out' as const }, { file: at('lettering') }]
    const { images, notices } = await draw({ adapters })
    expect(notices).toEqual([])
    expect(await largest(images[0], plain)).toBeGreaterThan(8)
    const recipe = recipeOf(images[0])
    expect(recipe?.adapters).toMatchObject([
      { name: 'ink.safetensors', weight: 0.7, textWeight: 0.7, start: 0, end: 0.7, ramp: 'ease-out' },
      { name: 'lettering.safetensors', weight: 0.5, textWeight: 0.5, start: 0, end: 1, ramp: 'flat' },
    ])
    for (const { sha256, matched, total } of recipe!.adapters!) {
      expect(sha256).toMatch(/^[0-9a-f]{64}$/)
      expect(matched).toBe(total)
    }
    expect(Buffer.from(images[0]).includes(home)).toBe(false)
    expect(Buffer.from(images[0]).includes('<lora:ink:0.7> <lora:lettering:0.5>')).toBe(true)
    expect(await one({ adapters })).toEqual(images[0])
  })

  test('without weight, or acting at no step, is the job without them, to the byte', async () => {
    const plain = await one()
    expect(await one({ adapters: [{ file: at('ink'), weight: 0 }] })).toEqual(plain)
    expect(await one({ adapters: [{ file: at('ink'), start: 0.4, end: 0.45 }] })).toEqual(plain)
    // And is so again after others had the networks changed.
    expect(await one({ adapters: [{ file: at('wash') }] })).not.toEqual(plain)
    expect(await one()).toEqual(plain)
  })

  test('gives the same picture whatever their order, and the same for twice half', async () => {
    const [ink, wash] = [
      { file: at('ink'), weight: 0.6 },
      { file: at('wash'), weight: 0.4 },
    ]
    const first = await one({ adapters: [ink, wash] })
    expect(await largest(await one({ adapters: [wash, ink] }), first)).toBe(0)
    const half = { file: at('ink'), weight: 0.3 }
    expect(await largest(await one({ adapters: [half, wash, half] }), first)).toBe(0)
  })

  test('of several pictures makes each as if it were alone, and starts from a picture', async () => {
    const adapters = [{ file: at('ink'), start: 0.34 }]
    const { images } = await draw({ adapters, count: 2 })
    expect(images[1]).toEqual(await one({ adapters, seed: 8 }))
  })

  test('is refused for what is no adapter, one for another model, and one that is not there', async () => {
    const k = 2048
    const data = new Float32Array(4 * k)
    const xl = 'lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k'
    await writeFloats(at('xl'), {
      [`${xl}.lora_down.weight`]: { shape: [4, k], data },
      [`${xl}.lora_up.weight`]: { shape: [640, 4], data: new Float32Array(2560) },
    })
    await expect(draw({ adapters: [{ file: at('xl') }] })).rejects.toMatchObject({ code: 'adapter-mismatch' })
    await writeFloats(at('odd'), { weights: { shape: [2], data: new Float32Array(2) } })
    await expect(draw({ adapters: [{ file: at('odd') }] })).rejects.toBeInstanceOf(VignetteError)
    // Gone between the question and the drawing.
    const request = fillDefaults(checkRequest({ prompt: 'a', adapters: [{ file: at('gone') }] }), readManifest(model))
    const events = []
    for await (const event of engine.run({ id: 'y', modelFolder: model, request })) events.push(event)
    expect(events.at(-1)).toMatchObject({ type: 'failed', error: { code: 'file-unreadable' } })
  })

  test('draws at the noise levels of an adapter for few steps, and the recipe makes it again', async () => {
    const more = {
      ...{ vignette_role: 'speed', vignette_steps: '4', vignette_timesteps: '[999, 759, 499, 259]' },
      ...{ vignette_sampler: 'lcm', vignette_guidance_scale: '1' },
    }
    await writeLora(at('few'), shape, 5, { size: 0.1, notes: { role: 'speed', more } })
    const asked = { adapters: [{ file: at('few') }], steps: undefined, guidanceScale: undefined }
    const { images, notices } = await draw(asked)
    expect(notices.join()).toContain('sampler lcm, 4 steps')
    const recipe = recipeOf(images[0])!
    expect(recipe.request).toMatchObject({
      sampler: 'lcm',
      steps: 4,
      guidanceScale: 1,
      timesteps: [999, 759, 499, 259],
    })
    const again = await draw({ ...recipe.request, adapters: [{ file: at('few') }] })
    expect(again.images[0]).toEqual(images[0])
    expect(again.notices).toEqual([])
  })
})

test('a slow and a fast adapter draw one after the other at the noise levels of both', async () => {
  const half = (name: string, seed: number, role: 'speed-slow' | 'speed-fast', active: string) => {
    const more = {
      ...{ vignette_steps: '5', vignette_timesteps: '[999, 940, 860, 560, 180]', vignette_active_steps: active },
      ...{ vignette_sampler: 'euler', vignette_guidance_scale: '3' },
    }
    return writeLora(at(name), shape, seed, { text: false, size: 3, notes: { role, more } })
  }
  await half('slow', 7, 'speed-slow', '[0, 3]')
  await half('fast', 8, 'speed-fast', '[3, 5]')
  const open = { steps: undefined, guidanceScale: undefined }
  const { images, notices } = await draw({ ...open, adapters: [{ file: at('fast') }, { file: at('slow') }] })
  expect(notices).toEqual(['"slow" and "fast" set sampler euler, 5 steps, noise levels of their own, guidance 3.'])
  const recipe = recipeOf(images[0])!
  expect(recipe.request).toMatchObject({ sampler: 'euler', timesteps: [999, 940, 860, 560, 180], guidanceScale: 3 })
  expect(recipe.adapters).toMatchObject([
    { name: 'fast.safetensors', weight: 1, start: 0.6, end: 1 },
    { name: 'slow.safetensors', weight: 1, start: 0, end: 0.6 },
  ])
  // The same by hand, with files that declare nothing.
  await writeLora(at('early'), shape, 7, { text: false, size: 3 })
  await writeLora(at('late'), shape, 8, { text: false, size: 3 })
  const byHand = await one({
    ...{ sampler: 'euler', timesteps: [999, 940, 860, 560, 180], steps: undefined, guidanceScale: 3 },
    adapters: [
      { file: at('early'), weight: 1, end: 0.6 },
      { file: at('late'), weight: 1, start: 0.6 },
    ],
  })
  expect(await largest(images[0], byHand)).toBe(0)
  const alone = await draw({ ...open, adapters: [{ file: at('slow') }] })
  expect(alone.notices[0]).toContain('one of a pair')
  expect(await largest(alone.images[0], byHand)).toBeGreaterThan(4)
})

describe('words of an embedding', () => {
  test('change the picture where they are in the prompt, and only there', async () => {
    const file = await writeEmbedding(join(home, 'adapters'), 'fable', shape, 3)
    const adapters = [{ file }]
    const plain = await one({ prompt: 'a fable fox' })
    const { images, notices } = await draw({ prompt: 'a fable fox', adapters })
    expect(notices).toEqual([])
    expect(await largest(images[0], plain)).toBeGreaterThan(2)
    expect(recipeOf(images[0])?.adapters).toMatchObject([{ name: 'fable.safetensors', isEmbedding: true }])
    const idle = await draw({ adapters })
    expect(idle.notices).toEqual(['"fable" is in neither prompt, so what it stands for has no effect.'])
    expect(await largest(idle.images[0], await one())).toBeLessThanOrEqual(1)
  })
})

describe('weights that are no product', () => {
  test('are applied, add to others, and are gone afterwards', async () => {
    const plain = await one()
    const norm = [...shape.layers.unet!.keys()].filter((path) => path.endsWith('norm1'))
    const tensors = Object.fromEntries(
      norm.flatMap((path, i) => {
        const n = shape.layers.unet!.get(path)!.weight[0]
        const name = `lora_unet_${path.replaceAll('.', '_')}`
        const data = Float32Array.from({ length: n }, (_, j) => Math.sin(i + j))
        return [
          [`${name}.w_norm`, { shape: [n], data }],
          [`${name}.b_norm`, { shape: [n], data }],
        ]
      }),
    )
    await writeFloats(at('norms'), tensors)
    const adapters = [{ file: at('norms'), weight: 0.8 }]
    const changed = await one({ adapters })
    expect(await largest(changed, plain)).toBeGreaterThan(8)
    expect(await one({ adapters })).toEqual(changed)
    const both = await one({ adapters: [...adapters, { file: at('ink') }] })
    expect(await largest(both, changed)).toBeGreaterThan(4)
    expect(await one({ adapters })).toEqual(changed)
    expect(await one()).toEqual(plain)
  })
})

describe('a guidance adapter', () => {
  test('that was not trained yet draws as without guidance, in one evaluation a step', async () => {
    await writeGuidance(at('zero'), shape, 0)
    const { images, notices } = await draw({ adapters: [{ file: at('zero') }], guidanceScale: 4 })
    expect(notices).toEqual([])
    expect(await largest(images[0], await one({ guidanceScale: 1 }))).toBeLessThanOrEqual(1)
    expect(recipeOf(images[0])?.adapters).toMatchObject([{ name: 'zero.safetensors', isGuidance: true }])
  })

  test('follows the scale within its range, beside other adapters', async () => {
    await writeGuidance(at('agd'), shape, 4)
    const at4 = await draw({ adapters: [{ file: at('agd') }], guidanceScale: 4 })
    const at8 = await draw({ adapters: [{ file: at('agd') }], guidanceScale: 8 })
    const at12 = await draw({ adapters: [{ file: at('agd') }], guidanceScale: 12, negativePrompt: 'rain' })
    expect(await largest(at4.images[0], at8.images[0])).toBeGreaterThan(1)
    expect(await largest(at12.images[0], at8.images[0])).toBe(0)
    expect(at12.notices).toHaveLength(2)
    const both = await one({ adapters: [{ file: at('agd') }, { file: at('ink') }], guidanceScale: 4 })
    expect(await largest(both, at4.images[0])).toBeGreaterThan(4)
    await expect(draw({ adapters: [{ file: at('agd') }, { file: at('zero') }] })).rejects.toMatchObject({
      code: 'bad-request',
    })
  })
})

describe('a batch of pictures that differ', () => {
  test('is the pictures made alone, each with its own recipe', async () => {
    const batch: BatchPicture[] = [
      { prompt: 'a red barn', adapters: [{ file: at('ink'), weight: 0.8, start: 0, end: 1, ramp: 'flat' }] },
      { seed: 21, guidanceScale: 5, negativePrompt: 'rain', adapters: [] },
      { adapters: [{ file: at('wash'), weight: 0.6, start: 0.5, end: 1, ramp: 'flat' }] },
    ]
    const { images } = await draw({}, batch)
    expect(images).toHaveLength(3)
    for (const [i, { adapters, ...picture }] of batch.entries()) {
      const seed = picture.seed ?? 7 + i
      const alone = await one({ ...picture, seed, adapters })
      expect(await largest(images[i], alone), `picture ${i + 1}`).toBeLessThanOrEqual(1)
      const [recipe, expected] = [recipeOf(images[i])!, recipeOf(alone)!]
      expect(recipe.engine.batch).toBe(3)
      expect(recipe.request).toEqual(expected.request)
      expect(recipe.adapters).toEqual(expected.adapters)
    }
    expect(await largest(images[0], images[2])).toBeGreaterThan(20)
  })
})

test('a batch that was interrupted goes on with the pictures that are missing', async () => {
  const networks = openNetworks(model, { threads: 1 })
  const request = fillDefaults(
    checkRequest({ prompt: 'a fox', width: 64, height: 64, steps: 2, seed: 7, preview: 'off' }),
    readManifest(model),
  )
  const batch = ['ink', 'wash', 'lettering'].map((name) => ({
    adapters: [AdapterUse.parse({ file: at(name), weight: 0.5 })],
  }))
  const made = async (firstIndex: number) => {
    const images = new Map<number, Uint8Array>()
    for await (const event of runJob({ id: 'b', modelFolder: model, request, batch }, networks, firstIndex)) {
      if (event.type === 'image') images.set(event.index, event.png)
    }
    return images
  }
  const [all, rest] = [await made(0), await made(1)]
  expect([[...all.keys()], [...rest.keys()], [...(await made(3)).keys()]]).toEqual([[0, 1, 2], [1, 2], []])
  for (const index of [1, 2]) {
    expect(await largest(rest.get(index)!, all.get(index)!)).toBeLessThanOrEqual(1)
    expect(recipeOf(rest.get(index)!)?.adapters).toEqual(recipeOf(all.get(index)!)?.adapters)
    expect(recipeOf(rest.get(index)!)?.request.seed).toBe(7 + index)
  }
  await networks.release()
})

describe('a model with two text encoders', () => {
  test('has both changed, and a batch of it is the pictures made alone', async () => {
    const xl = await makeTinyModel(join(home, 'tiny-xl'), 'sdxl')
    const xlShape = await shapeOf(xl)
    await writeLora(at('both'), xlShape, 11, { size: 1 })
    await writeLora(at('drawing'), xlShape, 12, { text: false, convs: true })
    const wish = { prompt: 'a fox', width: 64, height: 64, steps: 2, seed: 7, guidanceScale: 3, preview: 'off' }
    const drawXl = async (changes: Partial<GenerateRequestInput>, batch?: BatchPicture[]) => {
      const request = fillDefaults(checkRequest({ ...wish, ...changes }), readManifest(xl))
      const images: Uint8Array[] = []
      for await (const event of engine.run({ id: 'xl', modelFolder: xl, request, batch })) {
        if (event.type === 'image') images.push(event.png)
        if (event.type === 'failed') throw new VignetteError(event.error.code, event.error.message, event.error)
      }
      return images
    }
    const use = (name: string, weight: number, textWeight = weight) =>
      AdapterUse.parse({ file: at(name), weight, textWeight })
    const [plain] = await drawXl({})
    const [onText] = await drawXl({ adapters: [use('both', 0, 1)] })
    expect(await largest(onText, plain)).toBeGreaterThan(2)
    expect(recipeOf(onText)?.adapters).toMatchObject([{ weight: 0, textWeight: 1 }])
    const batch = [
      { adapters: [use('both', 0.7)] },
      { prompt: 'a barn', negativePrompt: 'rain', adapters: [use('drawing', 0.5), use('both', 0.2, 0)] },
      { seed: 3, guidanceScale: 1, adapters: [] },
    ]
    const together = await drawXl({}, batch)
    for (const [i, picture] of batch.entries()) {
      const [alone] = await drawXl({ seed: 7 + i, ...picture })
      expect(await largest(together[i], alone), `picture ${i + 1}`).toBeLessThanOrEqual(1)
    }
  })
})
