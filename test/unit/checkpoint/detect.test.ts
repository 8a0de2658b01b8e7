import { describe, expect, it } from 'vitest'
import { detectFamily } from '../../../models/checkpoint/detect.ts'
import type { LdmTensor } from '../../../scripts/ldm-layout.ts'
import { ldmConfigs, ldmTensors, tinyLdmConfigs } from '../../../scripts/ldm-layout.ts'

const table = (tensors: LdmTensor[]) =>
  new Map(tensors.map(({ name, shape }) => [name, { file: 'x', offset: 0, length: 0, dtype: 'F16' as const, shape }]))
const names = (...list: string[]): LdmTensor[] => list.map((name) => ({ name, shape: [8, 8] }))
const verdict = (tensors: LdmTensor[]) => {
  try {
    return detectFamily(table(tensors), 'x.safetensors')
  } catch (error) {
    const { code, message } = error as { code: string; message: string }
    return `${code}: ${message}`
  }
}
const sd15 = ldmTensors(ldmConfigs.sd15)
const sdxl = ldmTensors(ldmConfigs.sdxl)
const P = 'model.diffusion_model.'
const reshape = (tensors: LdmTensor[], name: string, shape: number[]) =>
  tensors.map((tensor) => (tensor.name === P + name ? { ...tensor, shape } : tensor))
const without = (tensors: LdmTensor[], part: string) => tensors.filter(({ name }) => !name.includes(part))

describe('families that work', () => {
  it.each(['sd15', 'sd2', 'sdxl'] as const)('%s, at full size, tiny, and as a bare network of full size', (family) => {
    expect(verdict(ldmTensors(ldmConfigs[family]))).toBe(family)
    expect(verdict(ldmTensors(tinyLdmConfigs[family]))).toBe(family)
    const net = ldmTensors(ldmConfigs[family]).filter(({ name }) => name.startsWith(P))
    for (const prefix of ['diffusion_model.', 'net.', '']) {
      expect(verdict(net.map(({ name, shape }) => ({ name: prefix + name.slice(P.length), shape })))).toBe(family)
    }
  })
  it('averages (EMA) beside the live weights change nothing', () => {
    const ema = sdxl
      .filter(({ name }) => name.startsWith(P))
      .map(({ name, shape }) => ({ name: `model_ema.${name.slice(6).replaceAll('.', '')}`, shape }))
    expect(verdict([...ema, ...sdxl])).toBe('sdxl')
  })
  it('a network of no published width and without a text tower is not taken for any of them', () => {
    expect(verdict(ldmTensors(tinyLdmConfigs.sd15).filter(({ name }) => name.startsWith(P)))).toMatch(
      /^checkpoint-unknown: .*no layout/,
    )
  })
})

describe('relatives that do not work are named', () => {
  it.each([
    ['inpainting', reshape(sd15, 'input_blocks.0.0.weight', [320, 9, 3, 3])],
    ['inpainting', reshape(sdxl, 'input_blocks.0.0.weight', [320, 9, 3, 3])],
    ['InstructPix2Pix', reshape(sd15, 'input_blocks.0.0.weight', [320, 8, 3, 3])],
    ['depth', reshape(ldmTensors(ldmConfigs.sd2), 'input_blocks.0.0.weight', [320, 5, 3, 3])],
    ['Stable Diffusion 2 Depth', [...ldmTensors(ldmConfigs.sd2), ...names('depth_model.model.x')]],
    ['unCLIP', [...ldmTensors(ldmConfigs.sd2), { name: `${P}label_emb.0.0.weight`, shape: [1280, 1536] }]],
    [
      'refiner',
      sdxl
        .filter(({ name }) => !name.startsWith('conditioner.'))
        .concat(names('conditioner.embedders.0.model.ln_final.weight')),
    ],
    ['x4 upscaler', [...sd15, ...names(`${P}label_emb.weight`)]],
    ['Stable Video Diffusion', [...sd15, ...names(`${P}input_blocks.8.0.time_mixer.mix_factor`)]],
    ['SSD-1B', without(sdxl, 'middle_block.1.')],
    ['SDXS', without(sd15, 'middle_block.1.')],
    ['Playground', [...sdxl, ...names('edm_mean', 'edm_std')]],
    ['CosXL', [...sdxl, ...names('edm_vpred.sigma_max')]],
    ['Stable Diffusion 3', names(`${P}joint_blocks.0.context_block.adaLN_modulation.1.bias`)],
    [
      '3.5 Large',
      names(`${P}joint_blocks.0.context_block.adaLN_modulation.1.bias`, `${P}joint_blocks.37.x_block.mlp.fc1.weight`),
    ],
    ['FLUX.1 dev', names('double_blocks.0.img_attn.norm.key_norm.scale', 'guidance_in.in_layer.bias')],
    ['FLUX.1 schnell', names(`${P}double_blocks.0.img_attn.norm.key_norm.scale`)],
    [
      'FLUX.1 Fill',
      [...names('double_blocks.0.img_attn.norm.key_norm.scale'), { name: 'img_in.weight', shape: [3072, 384] }],
    ],
    ['FLUX.2', names('double_stream_modulation_img.lin.weight', 'double_blocks.0.img_attn.norm.key_norm.scale')],
    ['Chroma', names('distilled_guidance_layer.in_proj.bias', 'double_blocks.0.img_attn.norm.key_norm.scale')],
    [
      'HunyuanVideo',
      names('double_blocks.0.img_attn.norm.key_norm.scale', 'txt_in.individual_token_refiner.blocks.0.x'),
    ],
    ['Qwen-Image', names('transformer_blocks.0.img_mod.1.weight')],
    ['Z-Image', names('layers.0.adaLN_modulation.0.weight', 'cap_embedder.0.weight')],
    ['Lumina', names('layers.0.adaLN_modulation.1.weight', 'cap_embedder.0.weight')],
    ['SANA', names('blocks.0.cross_attn.q_linear.weight', 'blocks.0.mlp.inverted_conv.conv.weight')],
    ['PixArt', names('blocks.0.cross_attn.q_linear.weight', 'blocks.0.mlp.fc1.weight')],
    ['AuraFlow', names('double_layers.0.attn.w1q.weight')],
    ['HunyuanDiT', names('mlp_t5.0.weight')],
    ['Wan', names(`${P}head.modulation`)],
  ])('%s', (word, tensors) => {
    expect(verdict(tensors)).toMatch(/^checkpoint-unsupported: x.safetensors is .*cannot run yet\.$/)
    expect(verdict(tensors)).toContain(word)
  })
})

describe('files that are no models say what they look like', () => {
  const lora = (down: string, up: string) =>
    [0, 1, 2, 3].flatMap((i) =>
      names(
        `lora_unet_down_blocks_${i}_x${down}`,
        `lora_unet_down_blocks_${i}_x${up}`,
        `lora_unet_down_blocks_${i}_x.alpha`,
      ),
    )
  it.each([
    ['adapter', lora('.lora_down.weight', '.lora_up.weight')],
    ['adapter', names('unet.down_blocks.0.attn1.to_q.lora_A.weight', 'unet.down_blocks.0.attn1.to_q.lora_B.weight')],
    ['adapter', names('transformer.x.lora_A.default.weight', 'transformer.x.lora_B.default.weight')],
    [
      'adapter',
      names('mid_block.attn1.processor.to_q_lora.down.weight', 'mid_block.attn1.processor.to_q_lora.up.weight'),
    ],
    ['adapter', names('<s1>', 'unet:0:up', 'unet:0:down', 'text_encoder:0:up', 'text_encoder:0:down')],
    ['adapter', names('lora_te_x.hada_w1_a', 'lora_te_x.hada_w1_b', 'lora_te_x.hada_w2_a', 'lora_te_x.hada_w2_b')],
    ['adapter', names('lycoris_x.lokr_w1', 'lycoris_x.lokr_w2_a', 'lycoris_x.lokr_w2_b', 'lycoris_x.alpha')],
    [
      'adapter',
      names(
        'diffusion_model.input_blocks.1.1.proj_in.lora_A.weight',
        'diffusion_model.input_blocks.1.1.proj_in.lora_B.weight',
      ),
    ],
    ['ControlNet', names('control_model.time_embed.0.weight')],
    ['ControlNet', names('input_blocks.0.0.weight', 'input_hint_block.0.weight')],
    ['ControlNet', names('controlnet_cond_embedding.conv_in.weight', 'conv_in.weight')],
    ['IP-Adapter', names('ip_adapter.1.to_k_ip.weight', 'image_proj.proj.weight')],
    ['motion module', names('down_blocks.0.motion_modules.0.temporal_transformer.norm.weight')],
    ['embedding', names('emb_params')],
    ['embedding', names('clip_l', 'clip_g')],
    ['embedding', [{ name: '<cat-toy>', shape: [1, 768] }]],
    ['UNet of a diffusers folder', names('conv_in.weight', 'down_blocks.0.x', 'up_blocks.0.x')],
    ['VAE', names('first_stage_model.decoder.conv_in.weight', 'first_stage_model.encoder.conv_in.weight')],
    ['VAE', names('decoder.up.0.block.0.conv1.weight', 'encoder.down.0.block.0.conv1.weight')],
    ['VAE', names('decoder.up_blocks.0.resnets.0.conv1.weight')],
    ['preview decoder', names('decoder.layers.0.weight', 'decoder.layers.2.conv.0.weight')],
    ['text encoder', names('text_model.embeddings.token_embedding.weight', 'text_model.final_layer_norm.weight')],
    ['upscaler', names('conv_first.weight', 'body.0.rdb1.conv1.weight')],
  ])('%s', (word, tensors) => {
    expect(verdict(tensors)).toMatch(/^checkpoint-unknown: x.safetensors looks like /)
    expect(verdict(tensors)).toContain(word)
  })
  it('what nobody knows stays unknown', () => {
    expect(verdict(names('foo.bar', 'baz'))).toMatch(/^checkpoint-unknown: .*no layout/)
    expect(verdict([])).toMatch(/^checkpoint-unknown/)
  })
})
