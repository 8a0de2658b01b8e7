import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { inspectAdapter, readAdapter } from '../../../models/adapters/read.ts'
import { modelShape, standardShape } from '../../../models/adapters/shape.ts'
import { writeSafetensors } from '../../../models/checkpoint/safetensors.ts'
import { clipL, openClipBigG } from '../../../models/clip.ts'
import type { Dtype } from '../../../models/graph/weights.ts'
import { sd15Unet, sdxlUnet } from '../../../models/unet.ts'

// What is said of files that are not simply right, and how names are read that mean more than one thing.

const tiny = { blockOutChannels: [32, 64, 64, 64], crossAttentionDim: 48 }
const tower = { ...clipL, hiddenSize: 48, intermediateSize: 96, layers: 2, heads: 4 }
const second = { ...openClipBigG, hiddenSize: 40, intermediateSize: 80, layers: 2, heads: 4, projectionDim: 40 }
const shape = modelShape('sd15', [
  { part: 'unet', config: { ...sd15Unet, ...tiny } },
  { part: 'text_encoder', config: tower },
])
const inpainting = modelShape('sd15', [{ part: 'unet', config: { ...sd15Unet, ...tiny, inChannels: 9 } }])
const xl = modelShape('sdxl', [
  { part: 'unet', config: { ...sdxlUnet, blockOutChannels: [32, 64, 64], crossAttentionDim: 88 } },
  { part: 'text_encoder', config: tower },
  { part: 'text_encoder_2', config: second },
])

let folder: string
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'vignette-verdicts-'))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let count = 0
type Content = { dims: readonly number[]; bytes?: Uint8Array; dtype?: Dtype }
async function fileOf(
  tensors: Record<string, readonly number[] | Content>,
  metadata: Record<string, string> = {},
  name = `adapter-${count++}.safetensors`,
): Promise<string> {
  const path = join(folder, name)
  mkdirSync(dirname(path), { recursive: true })
  const contentOf = (key: string): Content => {
    const value = tensors[key]
    return 'dims' in value ? value : { dims: value }
  }
  const planned = Object.keys(tensors).map((key) => {
    const { dims, dtype = 'F32' } = contentOf(key)
    return { name: key, dtype, shape: [...dims] }
  })
  const zeros = (dims: readonly number[]) => new Uint8Array(4 * dims.reduce((product, dim) => product * dim, 1))
  await writeSafetensors(path, planned, ({ name: key, shape: dims }) => [contentOf(key).bytes ?? zeros(dims)], metadata)
  return path
}

const number = (value: number): Content => ({ dims: [], bytes: new Uint8Array(Float32Array.of(value).buffer) })
const whole = (value: number): Content => ({
  dims: [],
  dtype: 'I64',
  bytes: new Uint8Array(BigInt64Array.of(BigInt(value)).buffer),
})
const lora = (module: string, inputs: number, outputs: number, r = 4) => ({
  [`${module}.lora_down.weight`]: [r, inputs],
  [`${module}.lora_up.weight`]: [outputs, r],
})
const q = 'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q' // [32, 32]
const site = q.replace('.to_q', '')

describe('names that mean more than one module', () => {
  it('a fused projection is its parts, by their rows', async () => {
    const { parts, info } = await readAdapter(await fileOf(lora(`unet.${site}.to_qkv`, 32, 96)), shape)
    expect(parts.map(({ path, rows }) => [path, rows])).toEqual([
      [`${site}.to_q`, [0, 32]],
      [`${site}.to_k`, [32, 64]],
      [`${site}.to_v`, [64, 96]],
    ])
    expect(info).toMatchObject({ matched: 2, total: 2, verdict: { fit: 'fits' } })
    const other = site.replace('attn1', 'attn2')
    const text = await readAdapter(await fileOf(lora(`lora_unet_${other.replaceAll('.', '_')}_to_kv`, 48, 64)), shape)
    expect(text.parts.map(({ path, rows }) => [path, rows])).toEqual([
      [`${other}.to_k`, [0, 32]],
      [`${other}.to_v`, [32, 64]],
    ])
    const wrong = await inspectAdapter(await fileOf(lora(`unet.${site}.to_qkv`, 32, 64)), shape)
    expect(wrong.verdict.fit).toBe('wrong-family')
  })

  it('text encoders that share their names are told apart by size', async () => {
    const name = 'base_model.model.text_model.encoder.layers.1.mlp.fc1'
    const first = await readAdapter(await fileOf(lora(name, 48, 96)), xl)
    const other = await readAdapter(await fileOf(lora(name, 40, 80)), xl)
    expect(first.parts.map(({ target }) => target)).toEqual(['text_encoder'])
    expect(other.parts.map(({ target }) => target)).toEqual(['text_encoder_2'])
  })

  it('the same module under two names counts once, and that is said', async () => {
    const file = await fileOf({
      ...lora('lora_unet_mid_block_attentions_0_proj_in', 64, 64),
      ...lora('lora_unet_middle_block_1_proj_in', 64, 64),
    })
    const { parts, info, ignored } = await readAdapter(file, xl)
    expect(parts).toHaveLength(1)
    expect(ignored).toHaveLength(2)
    expect(info.verdict).toMatchObject({ fit: 'partly', message: expect.stringContaining('two names') as string })
  })

  it('a change of the first convolution goes with an inpainting model', async () => {
    const file = await fileOf({
      'unet.conv_in.lora_A.weight': [4, 4, 3, 3],
      'unet.conv_in.lora_B.weight': [32, 4, 1, 1],
    })
    expect((await inspectAdapter(file, inpainting)).verdict.fit).toBe('fits')
    expect((await inspectAdapter(file, shape)).verdict.fit).toBe('fits')
    const wider = { 'unet.conv_in.lora_A.weight': [4, 9, 3, 3], 'unet.conv_in.lora_B.weight': [32, 4, 1, 1] }
    expect((await inspectAdapter(await fileOf(wider), shape)).verdict.fit).toBe('wrong-family')
  })

  it('whole changes and weights beside factors are not lost sight of', async () => {
    const file = await fileOf({ ...lora(q, 32, 32), [`${q}.diff`]: [32, 32], [`${q}.weight`]: [32, 32] })
    const { parts, ignored } = await readAdapter(file, shape)
    expect(parts.map(({ kind, path }) => [kind, path])).toEqual([
      ['lora', q],
      ['diff', q],
    ])
    expect(ignored).toEqual([`${q}.weight`])
  })
})

describe('strengths in the file', () => {
  const withAlpha = (alpha: Content) => fileOf({ ...lora(q, 32, 32), [`${q}.alpha`]: alpha })

  it('of zero are said, of no number refused', async () => {
    const zero = await inspectAdapter(await withAlpha(number(0)), shape)
    expect(zero.verdict.fit).toBe('fits')
    expect(zero.notices.join()).toMatch(/zero, so it changes nothing/)
    expect((await inspectAdapter(await withAlpha(number(4)), shape)).notices).toEqual([])
    const broken = await withAlpha(number(NaN))
    expect((await inspectAdapter(broken, shape)).verdict).toMatchObject({ fit: 'refused' })
    await expect(readAdapter(broken, shape)).rejects.toMatchObject({ code: 'file-unreadable' })
  })

  it('may be whole numbers', async () => {
    const { parts } = await readAdapter(await withAlpha(whole(2)), shape)
    expect(parts[0].scale).toEqual({ from: 'metadata', value: 0.5 })
  })

  it('twice are said', async () => {
    const file = await fileOf({ ...lora(q, 32, 32), [`${q}.alpha`]: number(4), [`${q}.scale`]: number(1) })
    expect((await inspectAdapter(file, shape)).notices.join()).toMatch(/alpha and scale/)
  })
})

describe('verdicts', () => {
  it('text of another width is another family, though most layers fit', async () => {
    const other = site.replace('attn1', 'attn2')
    const file = await fileOf({
      ...lora(q, 32, 32),
      ...lora(`${site}.to_v`, 32, 32),
      ...lora(`${other}.to_k`, 1024, 32),
      ...lora(`${other}.to_q`, 32, 32),
    })
    expect((await inspectAdapter(file, shape)).verdict).toMatchObject({
      fit: 'wrong-family',
      message: expect.stringMatching(/Stable Diffusion 2\.x.*Stable Diffusion 1\.x/) as string,
    })
  })

  it('of the same family in another size', async () => {
    const file = await fileOf(lora(`${site.replace('attn1', 'attn2')}.to_k`, 768, 320))
    expect((await inspectAdapter(file, shape)).verdict).toMatchObject({
      fit: 'wrong-family',
      message: expect.stringContaining('another size') as string,
    })
    expect((await inspectAdapter(file)).verdict.fit).toBe('fits')
  })

  it('without a model a size of its own is no fault', async () => {
    const file = await fileOf({ ...lora(q, 32, 32), ...lora(`${site.replace('attn1', 'attn2')}.to_k`, 48, 32) })
    const { parts, info } = await readAdapter(file)
    expect(parts).toHaveLength(2)
    expect(info).toMatchObject({
      matched: 4,
      total: 4,
      familyName: expect.stringContaining('size of its own') as string,
    })
    expect(info.family).toBeUndefined()
  })

  it.each([
    ['BOFT', { [`${q}.boft_R`]: [1, 4, 8, 8], [`${q}.boft_s`]: [32, 1] }],
    ['VeRA', { [`base_model.model.${q}.vera_lambda_b`]: [32], [`base_model.model.${q}.vera_lambda_d`]: [4] }],
    ['Custom Diffusion', { [`${site}.processor.to_k_custom_diffusion.weight`]: [32, 48] }],
    ['FourierFT', { [`base_model.model.${q}.fourierft_spectrum`]: [10] }],
    ['AnimateDiff', lora('down_blocks.0.motion_modules.0.temporal_transformer.proj_in', 32, 32)],
    [
      'stored as I8',
      Object.fromEntries(
        Object.entries(lora(q, 32, 32)).map(([name, dims]) => [
          name,
          { dims, dtype: 'I8' as const, bytes: new Uint8Array(128) },
        ]),
      ),
    ],
  ])('name what Vignette cannot use: %s', async (what, tensors) => {
    const { verdict } = await inspectAdapter(await fileOf(tensors), shape)
    expect(verdict).toMatchObject({ fit: 'unsupported', message: expect.stringContaining(what) as string })
  })

  it.each([
    ['FLUX.1', 'lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight', [4, 3072]],
    ['FLUX.1', 'double_blocks.0.processor.qkv_lora1.down.weight', [4, 3072]],
    ['FLUX.1', 'single_blocks.0.linear1.lora_A.weight', [4, 3072]],
    ['FLUX.1', 'base_model.model.double_blocks.0.img_mod.lin.lora_A.weight', [4, 3072]],
    ['FLUX.1', 'transformer.transformer_blocks.0.ff_context.net.2.lora_A.weight', [4, 12288]],
    ['FLUX.1', 'lora_transformer_single_transformer_blocks_0_attn_to_q.lora_down.weight', [4, 3072]],
    ['FLUX.1', 'transformer.double_blocks.0.img_attn.qkv.0.lora_down.weight', [4, 3072]],
    ['FLUX.2', 'transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight', [4, 6144]],
    ['HunyuanVideo', 'diffusion_model.txt_in.individual_token_refiner.blocks.0.lora_A.weight', [4, 3072]],
    ['Stable Diffusion 3', 'transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight', [4, 1536]],
    ['Stable Cascade', 'lora_prior_unet_down_blocks_0_2_attention_to_q.lora_down.weight', [4, 2048]],
    ['Z-Image', 'diffusion_model.layers.0.feed_forward.w1.lora_A.weight', [4, 3840]],
  ] as const)('name families that Vignette has not: %s by %s', async (family, name, dims) => {
    const other = name.replace('lora_A', 'lora_B').replace('lora_down', 'lora_up').replace('.down.', '.up.')
    const file = await fileOf({ [name]: dims, [other]: [dims[1], dims[0]] })
    for (const model of [undefined, shape]) {
      const { verdict } = await inspectAdapter(file, model)
      expect(verdict).toMatchObject({ fit: 'wrong-family', message: expect.stringContaining(family) as string })
    }
  })

  it('adapters of language models are not taken for those of text encoders', async () => {
    const file = await fileOf(lora('base_model.model.model.layers.0.self_attn.q_proj', 1024, 1024))
    const info = await inspectAdapter(file)
    expect(info).toMatchObject({ kinds: ['LoRA'], verdict: { fit: 'unsupported' } })
    expect(info.family).toBeUndefined()
  })

  it('halves of an adapter', async () => {
    const file = await fileOf({ [`${q}.lora_down.weight`]: [4, 32] })
    expect((await inspectAdapter(file, shape)).verdict).toMatchObject({
      fit: 'refused',
      message: expect.stringContaining('not whole') as string,
    })
    const empty = { [`${q}.lora_down.weight`]: [0, 32], [`${q}.lora_up.weight`]: [32, 0] }
    expect((await inspectAdapter(await fileOf(empty), shape)).verdict.fit).toBe('wrong-family')
  })

  it.each([
    ['a whole model', { 'first_stage_model.decoder.conv_in.weight': [4, 4] }],
    [
      'the UNet of a diffusers folder',
      { 'conv_in.weight': [1], 'down_blocks.0.resnets.0.conv1.weight': [1], 'up_blocks.0.x.weight': [1] },
    ],
    ['a VAE', { 'decoder.conv_in.weight': [4, 4], 'decoder.mid.block_1.conv1.weight': [4, 4] }],
    ['a ControlNet', { lora_controlnet: [1], 'input_blocks.1.0.in_layers.2.up': [4, 4] }],
    ['holds nothing', {}],
  ])('other things by their names: %s', async (what, tensors) => {
    const { verdict } = await inspectAdapter(await fileOf(tensors), shape)
    expect(verdict).toMatchObject({ fit: 'refused', message: expect.stringContaining(what) as string })
  })

  it('a family that the notes only claim is told, and the sizes decide', async () => {
    const file = await fileOf(lora(`${site.replace('attn1', 'attn2')}.to_k`, 768, 320), {
      ss_base_model_version: 'sdxl_base_v1-0',
    })
    const { family, notices } = await inspectAdapter(file)
    expect(family).toBe('sd15')
    expect(notices.join()).toMatch(/says that it was made for Stable Diffusion XL/)
  })
})

describe('embeddings', () => {
  it('go with the family of their width', async () => {
    const [one, two] = [standardShape('sd15'), standardShape('sd2')]
    const file = await fileOf({ emb_params: [2, 1024] }, {}, 'dusk.safetensors')
    expect(await inspectAdapter(file)).toMatchObject({ family: 'sd2', verdict: { fit: 'fits' } })
    expect((await inspectAdapter(file, two)).verdict.message).toContain('"dusk"')
    expect((await inspectAdapter(file, one)).verdict).toMatchObject({
      fit: 'wrong-family',
      message: expect.stringMatching(/2\.x.*1\.x/) as string,
    })
  })

  it('for XL need both halves', async () => {
    const sdxl = standardShape('sdxl')
    const half = await inspectAdapter(await fileOf({ clip_g: [2, 1280] }), sdxl)
    expect(half.verdict).toMatchObject({ fit: 'refused', message: expect.stringContaining('half') as string })
    const old = await inspectAdapter(await fileOf({ emb_params: [2, 768] }), sdxl)
    expect(old.verdict.fit).toBe('wrong-family')
  })

  it('of several vectors come in their order', async () => {
    const names = Object.fromEntries(['<a>_10', '<a>_2', '<a>', '<a>_1'].map((name) => [name, [768]]))
    const { embeddings } = await readAdapter(await fileOf(names), standardShape('sd15'))
    expect(embeddings.map(({ token }) => token)).toEqual(['<a>', '<a>', '<a>', '<a>'])
  })

  it('in pictures are left there', async () => {
    const path = join(folder, 'word.png')
    writeFileSync(path, Buffer.from('\x89PNG\r\n\x1a\n\0\0\0\rIHDR sd-ti-embedding', 'latin1'))
    expect((await inspectAdapter(path)).verdict).toMatchObject({
      fit: 'refused',
      message: expect.stringContaining('packed into it') as string,
    })
  })
})

describe('files with names that say nothing', () => {
  it('are called like their folder', async () => {
    const file = await fileOf(lora(`unet.${q}`, 32, 32), {}, 'Ink drawings/pytorch_lora_weights.safetensors')
    expect((await inspectAdapter(file, shape)).name).toBe('Ink drawings')
    expect((await inspectAdapter(dirname(file), shape)).verdict.fit).toBe('fits')
    expect((await inspectAdapter(folder, shape)).verdict.message).toContain('without an adapter')
  })
})
