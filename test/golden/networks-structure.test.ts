import { describe, expect, it } from 'vitest'
import { buildNetworks, networksOf, requiredTensors } from '../../models/build.ts'
import { clipL, openClipBigG, openClipH } from '../../models/clip.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import { taesd } from '../../models/tiny-vae.ts'
import { sd15Unet, sd2Unet, sdxlUnet, unetConfigFrom } from '../../models/unet.ts'
import { sdVae } from '../../models/vae.ts'

const parameters = (shapes: Map<string, number[]>) =>
  [...shapes.values()].reduce((sum, shape) => sum + shape.reduce((product, size) => product * size, 1), 0)

describe('full-size networks', () => {
  // Numbers of tensors and of parameters of the published models.
  it.each([
    ['UNet of SD 1.x', requiredTensors('unet', sd15Unet), 686, 859_520_964],
    ['UNet of SD 2.x', requiredTensors('unet', sd2Unet), 686, 865_910_724],
    ['UNet of SDXL', requiredTensors('unet', sdxlUnet), 1680, 2_567_463_684],
    ['VAE of SD', requiredTensors('vae', sdVae), 248, 83_653_863],
    ['CLIP-L', requiredTensors('text_encoder', clipL), 196, 123_060_480],
    ['OpenCLIP-H without its last block', requiredTensors('text_encoder', openClipH), 372, 340_387_840],
    ['OpenCLIP-bigG', requiredTensors('text_encoder_2', openClipBigG), 517, 694_659_840],
    ['TAESD', requiredTensors('tiny_vae', taesd), 134, 2_445_063],
  ])('%s has the tensors of the published model', (_, shapes, tensors, size) => {
    expect(shapes.size).toBe(tensors)
    expect(parameters(shapes)).toBe(size)
  })

  it('VAEs without quant convs need four tensors less', () => {
    expect(requiredTensors('vae', { ...sdVae, useQuantConv: false, usePostQuantConv: false }).size).toBe(244)
  })
})

describe('building', () => {
  const table = (change: (name: string, shape: number[]) => Partial<StoredTensor> = () => ({})) =>
    new Map(
      [...requiredTensors('unet', sd15Unet)].map(([name, shape]) => [
        name,
        { file: 'unet.bin', offset: 0, length: 0, dtype: 'F32' as const, shape, ...change(name, shape) },
      ]),
    )
  const build = (tensors: Map<string, StoredTensor>) =>
    buildNetworks([{ part: 'unet', config: sd15Unet, tensors }], { dialect: 'cpu' })

  it('gives one small graph per network and reads no weights', () => {
    const built = build(table())
    expect(built.map(({ name }) => name)).toEqual(networksOf('unet'))
    expect(built[0].onnx.length).toBeLessThan(500_000)
  })

  it('takes a 1 × 1 convolution that is kept as a matrix', () => {
    const squeezed = table((_, shape) => ({ shape: shape.length === 4 && shape[2] === 1 ? shape.slice(0, 2) : shape }))
    expect(Buffer.from(build(squeezed)[0].onnx).equals(build(table())[0].onnx)).toBe(true)
  })

  it('names the tensor whose shape is wrong, with both shapes', () => {
    const wrong = 'down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight'
    const tensors = table((name) => (name === wrong ? { shape: [640, 1024] } : {}))
    expect(() => build(tensors)).toThrow(`${wrong}: expected [640, 768], the file has [640, 1024]`)
  })

  it('names a tensor that is missing', () => {
    const tensors = table()
    tensors.delete('mid_block.resnets.1.conv2.bias')
    expect(() => build(tensors)).toThrow('mid_block.resnets.1.conv2.bias: no such tensor')
  })

  it('refuses a UNet of another kind with the field and its value', () => {
    const json = { block_out_channels: [32], act_fn: 'gelu' }
    expect(() => unetConfigFrom(json)).toThrow(
      'The configuration of the UNet has act_fn = "gelu", where "silu" was expected.',
    )
  })
})
