import type { ConfigJson } from './config-json.ts'
import { readConfig } from './config-json.ts'

/** An AutoencoderKL, by the fields of diffusers' config.json. Lists run from the image inwards. */
export type VaeConfig = {
  inChannels: number
  outChannels: number
  latentChannels: number
  blockOutChannels: number[]
  /** Resnets per encoder level; one more per decoder level. */
  layersPerBlock: number
  normNumGroups: number
  /** 1 × 1 convolutions on the latent side (SD, SDXL); newer autoencoders have none. */
  useQuantConv: boolean
  usePostQuantConv: boolean
  midBlockAddAttention: boolean
  /** latents = (mean − shift) · scale. Not part of the graph; for the manifest. */
  scalingFactor: number
  shiftFactor: number
}

/** Reads diffusers' config.json of an AutoencoderKL; other kinds throw `checkpoint-unsupported`. */
export function vaeConfigFrom(json: ConfigJson): VaeConfig {
  const config = readConfig('VAE', json)
  config.require('act_fn', 'silu')
  const blockOutChannels = config.numbers('block_out_channels')
  for (const [field, type] of [['down_block_types', 'DownEncoderBlock2D'], ['up_block_types', 'UpDecoderBlock2D']] as const) {
    const types = config.strings(field, blockOutChannels.map(() => type))
    if (types.some((item) => item !== type)) throw config.unsupported(field, type)
  }
  return {
    inChannels: config.number('in_channels', 3),
    outChannels: config.number('out_channels', 3),
    latentChannels: config.number('latent_channels', 4),
    blockOutChannels,
    layersPerBlock: config.number('layers_per_block', 1),
    normNumGroups: config.number('norm_num_groups', 32),
    useQuantConv: config.boolean('use_quant_conv', true),
    usePostQuantConv: config.boolean('use_post_quant_conv', true),
    midBlockAddAttention: config.boolean('mid_block_add_attention', true),
    scalingFactor: config.number('scaling_factor', 0.18215),
    shiftFactor: config.number('shift_factor', 0),
  }
}

/** The autoencoder of SD 1.x and 2.x: 8 × 8 pixels per latent. */
export const sdVae: VaeConfig = {
  inChannels: 3,
  outChannels: 3,
  latentChannels: 4,
  blockOutChannels: [128, 256, 512, 512],
  layersPerBlock: 2,
  normNumGroups: 32,
  useQuantConv: true,
  usePostQuantConv: true,
  midBlockAddAttention: true,
  scalingFactor: 0.18215,
  shiftFactor: 0,
}

/** SDXL's: the same network, trained anew. */
export const sdxlVae: VaeConfig = { ...sdVae, scalingFactor: 0.13025 }
