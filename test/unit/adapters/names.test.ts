import { describe, expect, it } from 'vitest'
import { blocksPerLevel, unetNameFromLdm } from '../../../models/checkpoint/names/unet-ldm.ts'
import { aliasTable, ldmName, plainModule, safeloraModules } from '../../../models/adapters/names.ts'
import { standardShape } from '../../../models/adapters/shape.ts'
import { splitName } from '../../../models/adapters/suffixes.ts'

describe('names of modules', () => {
  it.each(['sd15', 'sd2', 'sdxl'] as const)('LDM names of %s are the inverse of the importer’s', (family) => {
    const paths = [...standardShape(family).layers.unet!.keys()]
    const hasAttention = (prefix: string) => paths.some((path) => path.startsWith(`${prefix}.`))
    const perLevel = 3
    const names = paths.map((path) => ldmName(path, perLevel, hasAttention)!)
    expect(names.every((name) => name !== undefined)).toBe(true)
    expect(blocksPerLevel(names.map((name) => `${name}.weight`))).toBe(perLevel)
    expect(names.map((name) => unetNameFromLdm(`${name}.weight`, perLevel))).toEqual(
      paths.map((path) => `${path}.weight`),
    )
  })

  it.each([
    [
      'sd15',
      'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q',
      'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q',
    ],
    [
      'sd15',
      'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0',
      'mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0',
    ],
    ['sd15', 'lora_te_text_model_encoder_layers_11_self_attn_q_proj', 'text_model.encoder.layers.11.self_attn.q_proj'],
    [
      'sdxl',
      'lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q',
      'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q',
    ],
    ['sdxl', 'lora_unet_middle_block_1_proj_in', 'mid_block.attentions.0.proj_in'],
    ['sdxl', 'lora_unet_input_blocks_3_0_op', 'down_blocks.0.downsamplers.0.conv'],
    ['sdxl', 'lora_unet_output_blocks_2_2_conv', 'up_blocks.0.upsamplers.0.conv'],
    ['sdxl', 'lora_unet_label_emb_0_0', 'add_embedding.linear_1'],
    ['sdxl', 'lora_te2_text_model_encoder_layers_31_mlp_fc1', 'text_model.encoder.layers.31.mlp.fc1'],
    ['sdxl', 'diffusion_model.output_blocks.5.0.in_layers.2', 'up_blocks.1.resnets.2.conv1'],
    [
      'sd2',
      'base_model.model.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj',
      'up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj',
    ],
  ] as const)('%s: %s', (family, name, path) => {
    expect(aliasTable(standardShape(family)).get(name)?.path).toBe(path)
  })

  it('reads processors of old diffusers files as their modules', () => {
    const { module, ending } = splitName(
      'down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight',
    )!
    expect(ending).toBe('up')
    expect(plainModule(module)).toBe('down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0')
  })

  it('counts the modules of a cloneofsimo file', () => {
    const { unet, text_encoder: text } = safeloraModules(standardShape('sd15'))
    expect([unet.length, text.length]).toEqual([144, 48])
    // Down, up, and the middle last; k, v, q, out in the text tower.
    expect(unet[0]).toBe('down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q')
    expect(unet[54]).toBe('up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q')
    expect(unet[143]).toBe('mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0')
    expect(text.slice(0, 4).map((path) => path.split('.').at(-1))).toEqual(['k_proj', 'v_proj', 'q_proj', 'out_proj'])
  })

  it.each([
    ['a.lora_A.default_0.weight', 'a', 'down'],
    ['a.lora_B.weight', 'a', 'up'],
    ['a.lora_B.bias', 'a', 'up_bias'],
    ['a.lora_magnitude_vector.default.weight', 'a', 'magnitude'],
    ['a.to_q.lora_linear_layer.down.weight', 'a.to_q', 'down'],
    ['a.hada_w2_b', 'a', 'hada_w2_b'],
    ['a.w_norm', 'a', 'diff'],
    ['a.diff_b', 'a', 'diff_b'],
    ['a.query_norm.scale', 'a.query_norm', 'scale'],
    ['emb_params', undefined, undefined],
  ])('%s ends as it should', (name, module, ending) => {
    expect(splitName(name)?.module).toBe(module)
    expect(splitName(name)?.ending).toBe(ending)
  })
})
