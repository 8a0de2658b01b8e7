import { attentionBlock, downsample, resnetBlock, upsampleBlock } from './blocks.ts'
import type { ConfigJson } from './config-json.ts'
import { readConfig } from './config-json.ts'
import type { GraphOptions, Value } from './graph/graph.ts'
import { Graph, knownDim } from './graph/graph.ts'
import { add, cast, clip, slice } from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'
import { conv2d, groupNorm, pixelsToRows, rowsToPixels, silu } from './layers.ts'

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
  for (const [field, type] of [
    ['down_block_types', 'DownEncoderBlock2D'],
    ['up_block_types', 'UpDecoderBlock2D'],
  ] as const) {
    const types = config.strings(
      field,
      blockOutChannels.map(() => type),
    )
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

const epsilon = 1e-6 // of every norm in an AutoencoderKL

/** Image [n, 3, f·h, f·w] in −1…1 -> mean and log-variance of the latents [n, c, h, w], before scaling. */
export function buildVaeEncoder(w: Weights, config: VaeConfig, options: GraphOptions): Graph {
  const graph = new Graph('vae_encoder', options)
  const { blockOutChannels, latentChannels, normNumGroups: groups } = config
  const encoder = w.at('encoder')
  const image = graph.input('sample', 'f32', ['n', config.inChannels, 'height', 'width'])

  let x = conv2d(encoder.at('conv_in'), cast(image, graph.computeType), { out: blockOutChannels[0], kernel: 3 })
  blockOutChannels.forEach((channels, level) => {
    const block = encoder.at('down_blocks', level)
    for (let layer = 0; layer < config.layersPerBlock; layer++) {
      x = resnetBlock(block.at('resnets', layer), x, undefined, channels, { groups, epsilon })
    }
    if (level < blockOutChannels.length - 1) x = downsample(block.at('downsamplers', 0), x, 'right-below')
  })
  x = midBlock(encoder.at('mid_block'), x, config)
  x = silu(groupNorm(encoder.at('conv_norm_out'), x, groups, epsilon))
  x = conv2d(encoder.at('conv_out'), x, { out: 2 * latentChannels, kernel: 3 })
  if (config.useQuantConv) x = conv2d(w.at('quant_conv'), x, { out: 2 * latentChannels, kernel: 1 })

  const moments = cast(x, 'f32')
  const shape = ['n', latentChannels, 'h', 'w']
  graph.output('latent_mean', slice(moments, 1, 0, latentChannels), shape)
  graph.output('latent_logvar', clip(slice(moments, 1, latentChannels, 2 * latentChannels), -30, 20), shape)
  return graph
}

/** Latents [n, c, h, w], already divided by their scale -> image [n, 3, f·h, f·w], about −1…1 and not clamped. */
export function buildVaeDecoder(w: Weights, config: VaeConfig, options: GraphOptions): Graph {
  const graph = new Graph('vae_decoder', options)
  const { latentChannels, normNumGroups: groups } = config
  const decoder = w.at('decoder')
  const levels = [...config.blockOutChannels].reverse()
  const latents = graph.input('latent_sample', 'f32', ['n', latentChannels, 'h', 'w'])

  let x = cast(latents, graph.computeType)
  if (config.usePostQuantConv) x = conv2d(w.at('post_quant_conv'), x, { out: latentChannels, kernel: 1 })
  x = conv2d(decoder.at('conv_in'), x, { out: levels[0], kernel: 3 })
  x = midBlock(decoder.at('mid_block'), x, config)
  levels.forEach((channels, level) => {
    const block = decoder.at('up_blocks', level)
    for (let layer = 0; layer <= config.layersPerBlock; layer++) {
      x = resnetBlock(block.at('resnets', layer), x, undefined, channels, { groups, epsilon })
    }
    if (level < levels.length - 1) x = upsampleBlock(block.at('upsamplers', 0), x)
  })
  x = silu(groupNorm(decoder.at('conv_norm_out'), x, groups, epsilon))
  x = conv2d(decoder.at('conv_out'), x, { out: config.outChannels, kernel: 3 })
  graph.output('sample', cast(x, 'f32'), ['n', config.outChannels, 'height', 'width'])
  return graph
}

/** Resnet, self-attention of one head over all pixels, resnet. */
function midBlock(w: Weights, x: Value, config: VaeConfig): Value {
  const norm = { groups: config.normNumGroups, epsilon }
  const channels = knownDim(w.path, x, 1)
  x = resnetBlock(w.at('resnets', 0), x, undefined, channels, norm)
  if (config.midBlockAddAttention) {
    const at = w.at('attentions', 0)
    const rows = pixelsToRows(groupNorm(at.at('group_norm'), x, norm.groups, norm.epsilon))
    const mixed = attentionBlock(at, rows, rows, { heads: 1, sample: x, qkvBias: true })
    x = add(rowsToPixels(mixed, x), x)
  }
  return resnetBlock(w.at('resnets', 1), x, undefined, channels, norm)
}
