import type { ConfigJson } from './config-json.ts'
import { readConfig } from './config-json.ts'

/** TAESD, a distilled autoencoder for quick decodes, by the fields of diffusers' AutoencoderTiny. */
export type TinyVaeConfig = {
  inChannels: number
  outChannels: number
  latentChannels: number
  /** From the image inwards; every level but the first halves the size. */
  encoderBlockOutChannels: number[]
  /** From the latents outwards; every level but the last doubles the size. */
  decoderBlockOutChannels: number[]
  numEncoderBlocks: number[]
  numDecoderBlocks: number[]
}

/** Reads diffusers' config.json of an AutoencoderTiny; other kinds throw `checkpoint-unsupported`. */
export function tinyVaeConfigFrom(json: ConfigJson): TinyVaeConfig {
  const config = readConfig('tiny VAE', json)
  config.require('act_fn', 'relu')
  config.require('upsample_fn', 'nearest')
  config.require('upsampling_scaling_factor', 2)
  return {
    inChannels: config.number('in_channels', 3),
    outChannels: config.number('out_channels', 3),
    latentChannels: config.number('latent_channels', 4),
    encoderBlockOutChannels: config.numbers('encoder_block_out_channels'),
    decoderBlockOutChannels: config.numbers('decoder_block_out_channels'),
    numEncoderBlocks: config.numbers('num_encoder_blocks'),
    numDecoderBlocks: config.numbers('num_decoder_blocks'),
  }
}

/** TAESD and TAESDXL. */
export const taesd: TinyVaeConfig = {
  inChannels: 3,
  outChannels: 3,
  latentChannels: 4,
  encoderBlockOutChannels: [64, 64, 64, 64],
  decoderBlockOutChannels: [64, 64, 64, 64],
  numEncoderBlocks: [1, 3, 3, 3],
  numDecoderBlocks: [3, 3, 3, 1],
}
