import { describe, expect, it } from 'vitest'
import { exifTexts, xmpTexts } from '../../../main/export/exif.ts'
import { recallFrom } from '../../../main/export/recall.ts'

const read = (texts: Record<string, string>) => recallFrom(new Map(Object.entries(texts)))!

describe('A1111 text', () => {
  const text = [
    'a lighthouse <lora:ink:0.7> at dusk',
    'Negative prompt: fog, rain',
    'Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 1234, Size: 512x768, Model hash: 31e35c80fc, Model: paper, Clip skip: 2, Hires upscale: 1.5, Lora hashes: "ink: aabbccddeeff", Version: v1.9.4',
  ].join('\n')

  it('becomes the fields of the form, adapters and a model', () => {
    const recipe = read({ parameters: text })
    expect(recipe.origin).toBe('AUTOMATIC1111 v1.9.4')
    expect(recipe.request).toEqual({
      prompt: 'a lighthouse at dusk',
      negativePrompt: 'fog, rain',
      seed: 1234,
      steps: 25,
      guidanceScale: 6.5,
      clipSkip: 2,
      width: 512,
      height: 768,
      sampler: 'dpmpp_2m',
      schedule: 'karras',
    })
    expect(recipe.model).toEqual({ name: 'paper', sha256: '31e35c80fc' })
    expect(recipe.adapters).toMatchObject([{ name: 'ink', weight: 0.7, sha256: 'aabbccddeeff' }])
  })

  it('shows what has no place here as it was written', () => {
    expect(read({ parameters: text }).raw).toEqual([{ key: 'Hires upscale', value: '1.5' }])
  })

  it('says which values cannot be set, and keeps them', () => {
    const strange = text.replace('DPM++ 2M Karras', 'DPM adaptive').replace('Seed: 1234', 'Seed: 98765432100')
    const { request, raw, notices } = read({ parameters: strange })
    expect(request).not.toHaveProperty('sampler')
    expect(request).not.toHaveProperty('seed')
    expect(raw).toContainEqual({ key: 'Sampler', value: 'DPM adaptive' })
    expect(notices?.join(' ')).toMatch(/DPM adaptive.*|98765432100/)
  })
})

describe('ComfyUI graphs', () => {
  const graph = {
    '3': {
      class_type: 'KSampler',
      inputs: {
        ...{ seed: 42, steps: 20, cfg: 7.5, sampler_name: 'euler_ancestral', scheduler: 'karras', denoise: 1 },
        ...{ model: ['10', 0], positive: ['6', 0], negative: ['7', 0], latent_image: ['5', 0] },
      },
    },
    '4': { class_type: 'CheckpointLoaderSimple', inputs: { ckpt_name: 'art/paper.safetensors' } },
    '5': { class_type: 'EmptyLatentImage', inputs: { width: 640, height: 448, batch_size: 1 } },
    '6': { class_type: 'CLIPTextEncode', inputs: { text: ['12', 0], clip: ['10', 1] } },
    '7': { class_type: 'CLIPTextEncode', inputs: { text: 'blurry', clip: ['10', 1] } },
    '8': { class_type: 'VAEDecode', inputs: { samples: ['20', 0], vae: ['4', 2] } },
    '9': { class_type: 'SaveImage', inputs: { images: ['8', 0], filename_prefix: 'x' } },
    '10': {
      class_type: 'LoraLoader',
      inputs: {
        lora_name: 'ink.safetensors',
        strength_model: 0.6,
        strength_clip: 0.5,
        model: ['4', 0],
        clip: ['4', 1],
      },
    },
    '12': { class_type: 'PrimitiveString', inputs: { value: 'a paper boat' } },
    // A second pass over the first one's picture.
    '20': {
      class_type: 'KSampler',
      inputs: {
        ...{ seed: 99, steps: 8, cfg: 5, sampler_name: 'euler', scheduler: 'normal', denoise: 0.4 },
        ...{ model: ['10', 0], positive: ['6', 0], negative: ['7', 0], latent_image: ['21', 0] },
      },
    },
    '21': { class_type: 'LatentUpscaleBy', inputs: { samples: ['3', 0], scale_by: 1.5 } },
  }

  it('are walked from the saved picture back to the first sampler', () => {
    const { origin, request, model, adapters } = read({ prompt: JSON.stringify(graph) })
    expect(origin).toBe('ComfyUI')
    expect(request).toEqual({
      prompt: 'a paper boat',
      negativePrompt: 'blurry',
      seed: 42,
      steps: 20,
      guidanceScale: 7.5,
      width: 640,
      height: 448,
      sampler: 'euler_a',
      schedule: 'karras',
    })
    expect(model).toEqual({ name: 'paper' })
    expect(adapters).toMatchObject([{ name: 'ink', weight: 0.6, textWeight: 0.5 }])
  })

  it('are read when sampler, noise and guidance are nodes of their own', () => {
    const custom = {
      '1': {
        class_type: 'SamplerCustomAdvanced',
        inputs: {
          ...{ noise: ['2', 0], guider: ['3', 0], sampler: ['4', 0], sigmas: ['5', 0], latent_image: ['6', 0] },
        },
      },
      '2': { class_type: 'RandomNoise', inputs: { noise_seed: 5 } },
      '3': { class_type: 'BasicGuider', inputs: { model: ['7', 0], conditioning: ['8', 0] } },
      '4': { class_type: 'KSamplerSelect', inputs: { sampler_name: 'heun' } },
      '5': { class_type: 'BasicScheduler', inputs: { scheduler: 'simple', steps: 12, denoise: 1 } },
      '6': { class_type: 'EmptySD3LatentImage', inputs: { width: 1024, height: 512 } },
      '7': { class_type: 'UNETLoader', inputs: { unet_name: 'flow.safetensors' } },
      '8': { class_type: 'CLIPTextEncode', inputs: { text: 'kites' } },
    }
    expect(read({ prompt: JSON.stringify(custom) })).toMatchObject({
      request: { prompt: 'kites', seed: 5, steps: 12, width: 1024, height: 512, sampler: 'heun', schedule: 'simple' },
      model: { name: 'flow' },
    })
  })

  it('are read from the drawing alone', () => {
    const workflow = {
      nodes: [
        {
          ...{ id: 3, type: 'KSampler', widgets_values: [77, 'fixed', 9, 4, 'euler', 'normal', 1] },
          inputs: [
            { name: 'positive', link: 1 },
            { name: 'latent_image', link: 2 },
          ],
        },
        { id: 6, type: 'CLIPTextEncode', widgets_values: ['a bear'], inputs: [] },
        { id: 5, type: 'EmptyLatentImage', widgets_values: [256, 320, 1] },
      ],
      links: [
        [1, 6, 0, 3, 1, 'CONDITIONING'],
        [2, 5, 0, 3, 3, 'LATENT'],
      ],
    }
    expect(read({ workflow: JSON.stringify(workflow) }).request).toMatchObject({
      ...{ prompt: 'a bear', seed: 77, steps: 9, guidanceScale: 4, width: 256, height: 320 },
    })
  })

  it('that go in circles, are huge or are no graph at all come to an end', () => {
    const circle = {
      '1': { class_type: 'KSampler', inputs: { seed: 1, positive: ['2', 0], latent_image: ['3', 0], model: ['4', 0] } },
      '2': { class_type: 'ConditioningCombine', inputs: { conditioning_1: ['2', 0], conditioning_2: ['2', 0] } },
      '3': { class_type: 'VAEEncode', inputs: { pixels: ['3', 0], samples: ['1', 0] } },
      '4': { class_type: 'LoraLoader', inputs: { lora_name: 'x', model: ['4', 0] } },
    }
    expect(read({ prompt: JSON.stringify(circle) }).request).toMatchObject({ seed: 1 })
    const many = Object.fromEntries(Array.from({ length: 6000 }, (_, i) => [i, { class_type: 'X', inputs: {} }]))
    expect(read({ prompt: JSON.stringify(many) }).notices).toEqual(['The recipe in this file could not be understood.'])
    for (const odd of ['{"1":null}', '[1,2]', '{"1":{"class_type":"KSampler","inputs":[]}}', `${'['.repeat(100_000)}`])
      expect(read({ prompt: odd }).raw?.[0].key).toBe('prompt')
  })
})

describe('recipes as JSON', () => {
  it('of Fooocus', () => {
    const parameters = JSON.stringify({
      ...{ prompt: 'an owl', negative_prompt: '', steps: 30, resolution: '(832, 1216)', guidance_scale: 4.0 },
      ...{ seed: '123', sampler: 'dpmpp_2m_sde_gpu', scheduler: 'karras', base_model: 'jugger.safetensors' },
      ...{ base_model_hash: 'aeb7e9e689', loras: [['offset.safetensors', 0.1, '4852686128']], version: 'Fooocus v2.5' },
      sharpness: 2,
    })
    expect(read({ parameters })).toMatchObject({
      origin: 'Fooocus v2.5',
      request: {
        ...{ prompt: 'an owl', steps: 30, width: 832, height: 1216, guidanceScale: 4, seed: 123 },
        ...{ sampler: 'dpmpp_2m_sde', schedule: 'karras' },
      },
      model: { name: 'jugger', sha256: 'aeb7e9e689' },
      adapters: [{ name: 'offset', weight: 0.1, sha256: '4852686128' }],
      raw: expect.arrayContaining([{ key: 'sharpness', value: '2' }]),
    })
  })

  it('of InvokeAI', () => {
    const metadata = {
      ...{ app_version: '5.0', positive_prompt: 'kites', negative_prompt: 'rain', width: 512, height: 512, seed: 9 },
      ...{ cfg_scale: 7, steps: 10, scheduler: 'euler_a', model: { name: 'dream', hash: 'blake3:abc' } },
      loras: [{ model: { name: 'ink', hash: 'sha256:0011223344556677' }, weight: 0.4 }],
    }
    expect(read({ invokeai_metadata: JSON.stringify(metadata) })).toMatchObject({
      origin: 'InvokeAI',
      request: { prompt: 'kites', negativePrompt: 'rain', seed: 9, steps: 10, guidanceScale: 7, sampler: 'euler_a' },
      model: { name: 'dream' },
      adapters: [{ name: 'ink', weight: 0.4, sha256: '0011223344556677' }],
    })
  })

  it('of SwarmUI and NovelAI', () => {
    const swarm = {
      sui_image_params: {
        prompt: 'fox',
        seed: 3,
        cfgscale: 5,
        width: 512,
        height: 640,
        loras: ['a'],
        loraweights: ['0.5'],
      },
    }
    expect(read({ parameters: JSON.stringify(swarm) })).toMatchObject({
      origin: 'SwarmUI',
      request: { prompt: 'fox', seed: 3, guidanceScale: 5, height: 640 },
      adapters: [{ name: 'a', weight: 0.5 }],
    })
    const novel = { prompt: 'hare', uc: 'text', seed: 8, steps: 28, scale: 5, sampler: 'k_euler_ancestral' }
    expect(read({ Software: 'NovelAI', Comment: JSON.stringify(novel) })).toMatchObject({
      origin: 'NovelAI',
      request: { prompt: 'hare', negativePrompt: 'text', seed: 8, steps: 28, sampler: 'euler_a' },
    })
  })

  it('that are hostile are cut down and change nothing else', () => {
    const hostile = JSON.stringify({ prompt: 'x', seed: 1, __proto__: { polluted: 1 }, big: 'y'.repeat(1_000_000) })
    const { raw } = read({ parameters: hostile.replace('"seed"', '"__proto__":{"polluted":1},"seed"') })
    expect(raw!.find(({ key }) => key === 'big')!.value).toHaveLength(20_000)
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })
})

describe('Exif and XMP', () => {
  /** TIFF with one directory, little- or big-endian, of texts by tag. */
  function tiff(isLittle: boolean, fields: [tag: number, type: number, bytes: Buffer][]): Buffer {
    const head = Buffer.alloc(8 + 2 + 12 * fields.length + 4)
    const u16 = (value: number, at: number) =>
      isLittle ? head.writeUInt16LE(value, at) : head.writeUInt16BE(value, at)
    const u32 = (value: number, at: number) =>
      isLittle ? head.writeUInt32LE(value, at) : head.writeUInt32BE(value, at)
    head.write(isLittle ? 'II' : 'MM', 0, 'latin1')
    u16(42, 2)
    u32(8, 4)
    u16(fields.length, 8)
    let at = head.length
    fields.forEach(([tag, type, bytes], i) => {
      const entry = 10 + 12 * i
      u16(tag, entry)
      u16(type, entry + 2)
      u32(bytes.length, entry + 4)
      u32(at, entry + 8)
      at += bytes.length
    })
    return Buffer.concat([head, ...fields.map(([, , bytes]) => bytes)])
  }
  const text = 'a boat\nSteps: 5, Sampler: Euler, CFG scale: 4, Seed: 6, Size: 64x64'

  it('give the comment, in either byte order', () => {
    const wide = Buffer.from(text, 'utf16le')
    for (const [isLittle, body] of [
      [true, wide],
      [false, Buffer.from(wide).swap16()],
    ] as const) {
      const comment = Buffer.concat([Buffer.from('UNICODE\0', 'latin1'), body])
      const exif = Buffer.concat([Buffer.from('Exif\0\0', 'latin1'), tiff(isLittle, [[0x9286, 7, comment]])])
      expect(exifTexts(exif).get('parameters')).toBe(text)
    }
    const ascii = Buffer.concat([Buffer.from('ASCII\0\0\0', 'latin1'), Buffer.from(text)])
    expect(exifTexts(tiff(true, [[0x9286, 7, ascii]])).get('parameters')).toBe(text)
  })

  it("give ComfyUI's graph in the fields of a camera", () => {
    const fields: [number, number, Buffer][] = [
      [0x010f, 2, Buffer.from('workflow:{"nodes":[]}\0')],
      [0x0110, 2, Buffer.from('prompt:{"1":{}}\0')],
    ]
    expect([...exifTexts(tiff(false, fields))]).toEqual([
      ['workflow', '{"nodes":[]}'],
      ['prompt', '{"1":{}}'],
    ])
  })

  it('that are cut off or made up give nothing', () => {
    const whole = tiff(true, [[0x9286, 7, Buffer.from('ASCII\0\0\0hello')]])
    for (let length = 0; length < whole.length; length++) expect(exifTexts(whole.subarray(0, length)).size).toBe(0)
    const loop = tiff(true, [[0x8769, 4, Buffer.alloc(4)]])
    loop.writeUInt32LE(8, 18) // the Exif directory is the first one again
    expect(exifTexts(loop).size).toBe(0)
  })

  it('give a comment in XMP', () => {
    const xmp = `<rdf:Description><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">a &lt;boat&gt;&#10;Steps: 1</rdf:li></rdf:Alt></exif:UserComment></rdf:Description>`
    expect(xmpTexts(xmp).get('parameters')).toBe('a <boat>\nSteps: 1')
  })
})
