import { describe, expect, it } from 'vitest'
import { blockWeights } from '../../../models/adapters/blocks.ts'
import { standardShape } from '../../../models/adapters/shape.ts'

const sd15 = standardShape('sd15')
const sdxl = standardShape('sdxl')
/** 0, 1/100, 2/100, …: every weight says which number of the list it was. */
const counting = (count: number) => Array.from({ length: count }, (_, i) => i / 100)

describe('weights by blocks', () => {
  it.each([
    ['text_encoder', 'text_model.encoder.layers.0.mlp.fc1', 0],
    ['unet', 'down_blocks.0.attentions.0.proj_in', 1],
    ['unet', 'down_blocks.0.attentions.1.proj_in', 2],
    ['unet', 'down_blocks.2.attentions.1.transformer_blocks.0.attn1.to_q', 6],
    ['unet', 'mid_block.attentions.0.proj_in', 7],
    ['unet', 'up_blocks.1.attentions.0.proj_in', 8],
    ['unet', 'up_blocks.3.attentions.2.proj_in', 16],
    // In no block of this list.
    ['unet', 'conv_in', 100],
    ['unet', 'down_blocks.0.downsamplers.0.conv', 100],
    ['unet', 'time_embedding.linear_1', 100],
  ] as const)('17 numbers: %s %s', (target, path, index) => {
    expect(blockWeights(counting(17), sd15)(target, path)).toBe(index / 100)
  })

  it.each([
    ['conv_in', 1],
    ['down_blocks.0.resnets.0.conv1', 2],
    ['down_blocks.0.downsamplers.0.conv', 4],
    ['down_blocks.3.resnets.1.conv1', 12],
    ['mid_block.resnets.1.conv1', 13],
    ['up_blocks.0.resnets.0.conv1', 14],
    ['up_blocks.3.resnets.2.conv1', 25],
  ])('26 numbers: %s', (path, index) => {
    expect(blockWeights(counting(26).join(', '), sd15)('unet', path)).toBe(index / 100)
  })

  // kohya: 1 + 3·level + place on the way down, 12 in the middle, 13 + 3·level + place on the way up.
  it.each([
    ['down_blocks.1.resnets.1.conv1', 1 + 3 + 1],
    ['down_blocks.1.downsamplers.0.conv', 1 + 3 + 2],
    ['mid_block.attentions.0.proj_in', 12],
    ['up_blocks.2.attentions.1.proj_in', 13 + 6 + 1],
    ['up_blocks.2.upsamplers.0.conv', 13 + 6 + 2],
  ])('25 numbers: %s', (path, index) => {
    expect(blockWeights(counting(25), sd15)('unet', path)).toBe(index / 100)
    expect(blockWeights(counting(25), sd15)('text_encoder', 'text_model.encoder.layers.0.mlp.fc1')).toBe(1)
  })

  it.each([
    [12, 'down_blocks.1.attentions.0.proj_in', 1],
    [12, 'down_blocks.2.attentions.1.proj_in', 4],
    [12, 'up_blocks.0.attentions.0.proj_in', 6],
    [12, 'up_blocks.1.attentions.2.proj_in', 11],
    [20, 'conv_in', 1],
    [20, 'up_blocks.2.resnets.2.conv1', 19],
    [23, 'add_embedding.linear_1', 0],
    [23, 'conv_in', 1],
    [23, 'mid_block.attentions.0.proj_in', 11],
    [23, 'up_blocks.0.resnets.0.conv1', 13],
    [23, 'conv_out', 22],
  ])('%i numbers for XL: %s', (count, path, index) => {
    expect(blockWeights(counting(count), sdxl)('unet', path)).toBe(index / 100)
  })

  it('says how many numbers there should be', () => {
    expect(() => blockWeights('1,2,3', sd15)).toThrow(/17, 25 or 26 numbers/)
    expect(() => blockWeights(counting(17), sdxl)).toThrow(/12, 20 or 23 numbers/)
    expect(() => blockWeights('R' + ',1'.repeat(16), sd15)).toThrow(/got "R,1/)
    expect(() => blockWeights('1' + ',9'.repeat(16), sd15)).toThrow(/−4 to 4/)
  })
})
