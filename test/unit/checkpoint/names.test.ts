import { describe, expect, it } from 'vitest'
import { clipParts } from '../../../models/checkpoint/names/clip.ts'
import { unetNameFromLdm } from '../../../models/checkpoint/names/unet-ldm.ts'
import { vaeNameFromLdm } from '../../../models/checkpoint/names/vae-ldm.ts'
import { diffusionTensors, vaeTensors } from '../../../models/checkpoint/prefixes.ts'
import { splitSingleFile } from '../../../models/checkpoint/single-file.ts'
import { ldmConfigs, ldmTensors } from '../../../scripts/ldm-layout.ts'

const stored = (file: string) => ({ file, offset: 0, length: 6, dtype: 'F16' as const, shape: [3] })
const file = (names: string[]) => ({
  path: 'x',
  bytes: 0,
  metadata: new Map<string, string>(),
  tensors: new Map(names.map((name) => [name, stored(name)])),
})

describe('UNet names', () => {
  it('are split at dots: block 1 is not block 10', () => {
    expect(unetNameFromLdm('input_blocks.1.0.in_layers.0.weight', 3)).toBe('down_blocks.0.resnets.0.norm1.weight')
    expect(unetNameFromLdm('input_blocks.10.0.in_layers.0.weight', 3)).toBe('down_blocks.3.resnets.0.norm1.weight')
  })
  it('have the upsampler in the second or third place', () => {
    expect(unetNameFromLdm('output_blocks.2.1.conv.bias', 3)).toBe('up_blocks.0.upsamplers.0.conv.bias')
    expect(unetNameFromLdm('output_blocks.5.2.conv.bias', 3)).toBe('up_blocks.1.upsamplers.0.conv.bias')
  })
  it('without a counterpart are left out', () => {
    for (const name of [
      'input_blocks.1.0.in_layers.7.weight',
      'output_blocks.x.0.in_layers.0.weight',
      'middle_block.3.norm.weight',
      'input_blocks.0.1.x.weight',
      'label_emb.weight',
      'weight',
    ]) {
      expect(unetNameFromLdm(name, 3), name).toBeUndefined()
    }
  })
  it.each([
    ['sd15', 686],
    ['sd2', 686],
    ['sdxl', 1680],
  ] as const)('of %s are %i, each once', async (family, count) => {
    const { unet } = await splitSingleFile(file(ldmTensors(ldmConfigs[family]).map(({ name }) => name)), family)
    expect(unet?.size).toBe(count)
  })
})

describe('VAE names', () => {
  it('count decoder levels from the other end', () => {
    expect(vaeNameFromLdm('decoder.up.0.block.1.nin_shortcut.weight', 4)).toBe(
      'decoder.up_blocks.3.resnets.1.conv_shortcut.weight',
    )
    expect(vaeNameFromLdm('encoder.down.0.block.1.conv1.weight', 4)).toBe(
      'encoder.down_blocks.0.resnets.1.conv1.weight',
    )
    expect(vaeNameFromLdm('decoder.up.3.upsample.conv.bias', 4)).toBe('decoder.up_blocks.0.upsamplers.0.conv.bias')
  })
  it('of older diffusers versions and odd exports are known', () => {
    expect(vaeNameFromLdm('encoder.mid_block.attentions.0.query.weight', 0)).toBe(
      'encoder.mid_block.attentions.0.to_q.weight',
    )
    expect(vaeNameFromLdm('decoder.mid_block.attentions.0.proj_attn.bias', 0)).toBe(
      'decoder.mid_block.attentions.0.to_out.0.bias',
    )
    expect(vaeNameFromLdm('decoder.post_quant_conv.weight', 4)).toBe('post_quant_conv.weight')
    expect(vaeNameFromLdm('decoder.up_blocks.0.resnets.0.norm1.weight', 0)).toBe(
      'decoder.up_blocks.0.resnets.0.norm1.weight',
    )
    expect(vaeNameFromLdm('loss.logvar', 4)).toBeUndefined()
  })
})

describe('text tower names', () => {
  it('of old exports and new transformers get "text_model." back', () => {
    expect(clipParts('embeddings.token_embedding.weight')).toEqual([
      { name: 'text_model.embeddings.token_embedding.weight' },
    ])
    expect(clipParts('text_model.final_layer_norm.bias')).toEqual([{ name: 'text_model.final_layer_norm.bias' }])
  })
  it('joined projections are cut into q, k, v', () => {
    const wanted = ['q', 'k', 'v'].map((part, third) => ({
      name: `text_model.encoder.layers.7.self_attn.${part}_proj.bias`,
      third,
    }))
    expect(clipParts('transformer.resblocks.7.attn.in_proj_bias')).toEqual(wanted)
    expect(clipParts('text_model.encoder.layers.7.self_attn.in_proj.bias')).toEqual(wanted)
  })
  it('only the bare projection is turned', () => {
    expect(clipParts('text_projection')).toEqual([{ name: 'text_projection.weight', transpose: true }])
    expect(clipParts('text_projection.weight')).toEqual([{ name: 'text_projection.weight' }])
  })
  it('what the app has no use for is dropped', () => {
    for (const name of [
      'text_model.embeddings.position_ids',
      'logit_scale',
      'visual.proj',
      'vision_model.encoder.layers.0.mlp.fc1.weight',
    ])
      expect(clipParts(name), name).toEqual([])
  })
})

describe('prefixes', () => {
  it('may be mixed; where a name comes twice the one of the larger group wins', () => {
    const { tensors } = file([
      'model.diffusion_model.time_embed.0.weight',
      'model.diffusion_model.out.0.weight',
      'time_embed.0.weight',
      'input_blocks.0.0.weight',
      'diffusion_model.out.2.weight',
    ])
    const found = diffusionTensors(tensors)
    expect(found.get('time_embed.0.weight')?.origin).toBe('model.diffusion_model.time_embed.0.weight')
    expect(found.get('input_blocks.0.0.weight')?.origin).toBe('input_blocks.0.0.weight')
    expect(found.get('out.2.weight')?.origin).toBe('diffusion_model.out.2.weight')
  })
  it('of a VAE that was added later are found beside the network', () => {
    const { tensors } = file([
      'vae.decoder.conv_in.weight',
      'vae.quant_conv.bias',
      'first_stage_model.decoder.conv_in.weight',
    ])
    expect(vaeTensors(tensors).get('decoder.conv_in.weight')?.origin).toBe('vae.decoder.conv_in.weight')
  })
  it('of averages are never taken for the network', () => {
    expect(diffusionTensors(file(['model_ema.diffusion_modelout0weight', 'model_ema.decay']).tensors).size).toBe(0)
  })
})
