import { downsample, resnetBlock, sinusoids, timestepEmbedding, transformer2d, upsampleBlock } from './blocks.ts'
import type { ConfigJson } from './config-json.ts'
import { readConfig } from './config-json.ts'
import type { GraphOptions, Value } from './graph/graph.ts'
import { Graph, knownDim } from './graph/graph.ts'
import { add, cast, concat, reshape } from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'
import { guidanceTokens } from './guidance.ts'
import { channelAxis, concatChannels, conv2d, groupNorm, pictureFromNchw, pictureToNchw, silu } from './layers.ts'

/** A UNet2DConditionModel of SD 1.x, 2.x or SDXL, by the fields of diffusers' config.json. Lists run from the outer level in. */
export type UnetConfig = {
  inChannels: number
  outChannels: number
  blockOutChannels: number[]
  /** Resnets per level on the way down; one more on the way up. */
  layersPerBlock: number
  /** Transformer blocks after each resnet of a level; 0 where the level has no attention. The way up mirrors them. */
  transformerLayers: number[]
  /** Transformer blocks in the middle; 0 for a middle without attention, absent for a net without a middle block. */
  midTransformerLayers?: number
  /** Attention heads per level; the middle has the last level's. The config file calls this `attention_head_dim`. */
  heads: number[]
  crossAttentionDim: number
  /** proj_in and proj_out of the transformers are Linear layers (SD 2, SDXL) instead of 1 × 1 convolutions. */
  useLinearProjection: boolean
  normNumGroups: number
  normEps: number
  /** SDXL: width of each embedded size number and of the joined vector, [pooled text ‖ 6 sizes]. */
  addition?: { timeEmbedDim: number; inputDim: number }
}

/** Reads diffusers' config.json of a UNet; a kind of network that is not built here throws `checkpoint-unsupported`. */
export function unetConfigFrom(json: ConfigJson): UnetConfig {
  const config = readConfig('UNet', json)
  config.require('act_fn', 'silu')
  config.require('flip_sin_to_cos', true)
  config.require('freq_shift', 0)
  config.require('class_embed_type', null)
  config.require('resnet_time_scale_shift', 'default')
  config.require('time_embedding_type', 'positional')
  config.require('dual_cross_attention', false)
  config.require('conv_in_kernel', 3)
  config.require('conv_out_kernel', 3)
  config.require('center_input_sample', false)
  config.require('encoder_hid_dim', null)
  config.require('only_cross_attention', false)
  config.require('mid_block_scale_factor', 1)
  config.require('downsample_padding', 1)
  config.require('time_cond_proj_dim', null)

  config.require('attention_type', 'default')

  const blockOutChannels = config.numbers('block_out_channels')
  const levels = blockOutChannels.length
  const types = config.strings('down_block_types')
  const upTypes = config.strings('up_block_types')
  const known = ['CrossAttnDownBlock2D', 'DownBlock2D']
  const mirrored = types.map((type) => type.replace('Down', 'Up')).reverse()
  if (types.length !== levels || !types.every((type) => known.includes(type)))
    throw config.unsupported('down_block_types', known.join(' or '))
  if (mirrored.join() !== upTypes.join()) throw config.unsupported('up_block_types', mirrored.join(', '))

  // `num_attention_heads` came later and wins where it is set.
  const heads = config.perLevel(
    config.has('num_attention_heads') ? 'num_attention_heads' : 'attention_head_dim',
    levels,
    8,
  )
  const depths = config.perLevel('transformer_layers_per_block', levels, 1)
  // A null middle block (small distilled nets) differs from an absent field, which means the usual one.
  const mid =
    json.mid_block_type === null ? 'none' : config.oneOf('mid_block_type', middleTypes, 'UNetMidBlock2DCrossAttn')
  const isSdxl = config.oneOf('addition_embed_type', ['none', 'text_time'] as const, 'none') === 'text_time'
  return {
    inChannels: config.number('in_channels', 4),
    outChannels: config.number('out_channels', 4),
    blockOutChannels,
    layersPerBlock: config.number('layers_per_block', 2),
    transformerLayers: depths.map((depth, level) => (types[level] === 'CrossAttnDownBlock2D' ? depth : 0)),
    ...(mid === 'none' ? {} : { midTransformerLayers: mid === 'UNetMidBlock2D' ? 0 : depths[levels - 1] }),
    heads,
    crossAttentionDim: config.number('cross_attention_dim'),
    useLinearProjection: config.boolean('use_linear_projection', false),
    normNumGroups: config.number('norm_num_groups', 32),
    normEps: config.number('norm_eps', 1e-5),
    ...(isSdxl
      ? {
          addition: {
            timeEmbedDim: config.number('addition_time_embed_dim'),
            inputDim: config.number('projection_class_embeddings_input_dim'),
          },
        }
      : {}),
  }
}

const middleTypes = ['UNetMidBlock2DCrossAttn', 'UNetMidBlock2D'] as const

/** SD 1.x. */
export const sd15Unet: UnetConfig = {
  inChannels: 4,
  outChannels: 4,
  blockOutChannels: [320, 640, 1280, 1280],
  layersPerBlock: 2,
  transformerLayers: [1, 1, 1, 0],
  midTransformerLayers: 1,
  heads: [8, 8, 8, 8],
  crossAttentionDim: 768,
  useLinearProjection: false,
  normNumGroups: 32,
  normEps: 1e-5,
}

/** SD 2.x: heads of 64 channels, Linear projections, OpenCLIP-H text. */
export const sd2Unet: UnetConfig = {
  ...sd15Unet,
  heads: [5, 10, 20, 20],
  crossAttentionDim: 1024,
  useLinearProjection: true,
}

/** SDXL base: three levels, deep transformers in the inner two, size conditioning. */
export const sdxlUnet: UnetConfig = {
  ...sd2Unet,
  blockOutChannels: [320, 640, 1280],
  transformerLayers: [0, 2, 10],
  midTransformerLayers: 10,
  heads: [5, 10, 20],
  crossAttentionDim: 2048,
  addition: { timeEmbedDim: 256, inputDim: 2816 },
}

/**
 * How many of the last layers of the way up the shallow network keeps, with as many skips from the way down; its other
 * input is what the whole network hands to the first of them. At 512 × 512 one, two or three cost 0.10, 0.27 or 0.45 of
 * the whole UNet of SD 1.x. DeepCache (Ma et al. 2024) keeps two; for the same time one with more whole runs in between
 * came 1 to 3 dB nearer to the exact picture (see main/pipeline/reuse.ts).
 */
export const shallowLayers = 1

export type UnetBuild = {
  /** The network `unet_shallow`: the outermost layers only, and `deep` of an earlier run in place of all below. */
  shallow?: boolean
  /** Another cut than `shallowLayers`, 1 to layersPerBlock + 1; for measurements. */
  kept?: number
}

/**
 * The denoising network: noisy latents, timestep and text -> noise (or v). Inputs and outputs are listed in
 * `manifest.ts`; sizes of batch, latents and text are free, odd latents included. Follows diffusers'
 * UNet2DConditionModel, whose names the weights have.
 */
export function buildUnet(
  w: Weights,
  config: UnetConfig,
  options: GraphOptions,
  { shallow = false, kept = shallowLayers }: UnetBuild = {},
): Graph {
  const graph = new Graph(shallow ? 'unet_shallow' : 'unet', options)
  const { blockOutChannels, layersPerBlock, transformerLayers, heads, normNumGroups: groups, normEps: epsilon } = config
  const levels = blockOutChannels.length
  const sample = graph.input('sample', 'f32', ['n', config.inChannels, 'h', 'w'])
  const timestep = graph.input('timestep', 'f32', ['n'])
  const hidden = graph.input('encoder_hidden_states', 'f32', ['n', 't', config.crossAttentionDim])

  const words = reshape(cast(hidden, graph.computeType), [-1, config.crossAttentionDim])
  const context = { ...words, shape: ['n·t', config.crossAttentionDim] }
  const embedded = timeEmbedding(w, config, timestep) // [n, 4 · c]
  const temb = silu(embedded) // every resnet takes the SiLU of it
  const guidance = options.guidance && guidanceTokens(graph, embedded, context, sample, options.guidance.width)

  // Attention at the outermost level that has any takes most of the time of large pictures.
  const outer = transformerLayers.findIndex((depth) => depth > 0)
  const isUsed = options.keyStride && outer >= 0 && !(shallow && outer > 0)
  const keyStride = isUsed ? graph.input('key_stride', 'i64', [1]) : undefined

  const layer = (block: Weights, index: number, level: number, x: Value) => {
    const h = resnetBlock(block.at('resnets', index), x, temb, blockOutChannels[level], { groups, epsilon })
    return transformerLayers[level] > 0 ? transform(block.at('attentions', index), h, level) : h
  }
  const transform = (at: Weights, x: Value, level: number, depth = transformerLayers[level]) =>
    transformer2d(at, x, context, {
      heads: heads[level],
      depth,
      groups,
      linearProjection: config.useLinearProjection,
      keyStride: level === outer ? keyStride : undefined,
      guidance,
    })

  const noisy = pictureFromNchw(cast(sample, graph.computeType))
  let x = conv2d(w.at('conv_in'), noisy, { out: blockOutChannels[0], kernel: 3 })
  const skips = [x]
  for (let level = 0; level < levels; level++) {
    const block = w.at('down_blocks', level)
    for (let index = 0; index < layersPerBlock && !(shallow && skips.length === kept); index++) {
      x = layer(block, index, level, x)
      skips.push(x)
    }
    if (shallow || level === levels - 1) break
    x = downsample(block.at('downsamplers', 0), x, 'even')
    skips.push(x)
  }

  if (config.midTransformerLayers !== undefined && !shallow) {
    const mid = w.at('mid_block')
    const inner = levels - 1
    x = resnetBlock(mid.at('resnets', 0), x, temb, blockOutChannels[inner], { groups, epsilon })
    if (config.midTransformerLayers > 0) x = transform(mid.at('attentions', 0), x, inner, config.midTransformerLayers)
    x = resnetBlock(mid.at('resnets', 1), x, temb, blockOutChannels[inner], { groups, epsilon })
  }

  let deep: Value | undefined
  for (let step = shallow ? levels - 1 : 0; step < levels; step++) {
    const level = levels - 1 - step // up_blocks count in order of execution, from the inside out
    const block = w.at('up_blocks', step)
    const cut = level === 0 ? layersPerBlock + 1 - kept : undefined // the layer that takes the deep feature
    for (let index = shallow ? cut! : 0; index <= layersPerBlock; index++) {
      if (index === cut && shallow) x = deepInput(graph, config, cut)
      else if (index === cut) deep = x
      x = layer(block, index, level, concatChannels([x, skips.pop()!]))
    }
    if (level > 0) x = upsampleBlock(block.at('upsamplers', 0), x, skips.at(-1))
  }

  x = silu(groupNorm(w.at('conv_norm_out'), x, groups, epsilon))
  const out = pictureToNchw(conv2d(w.at('conv_out'), x, { out: config.outChannels, kernel: 3 }))
  graph.output('out_sample', cast(out, 'f32'), ['n', config.outChannels, 'h', 'w'])
  if (deep) graph.output('deep', cast(deep, 'f32'), deepShape(graph, knownDim('deep', deep, channelAxis(graph))))
  return graph
}

/** What layer `cut` of the outermost level gets from below, as an input: `deep` of a run of the whole network. */
function deepInput(graph: Graph, { blockOutChannels }: UnetConfig, cut: number): Value {
  const from = cut === 0 ? Math.min(1, blockOutChannels.length - 1) : 0
  return cast(graph.input('deep', 'f32', deepShape(graph, blockOutChannels[from])), graph.computeType)
}

const deepShape = (graph: Graph, channels: number) =>
  graph.channelsLast ? ['n', 'h', 'w', channels] : ['n', channels, 'h', 'w']

/** Timestep [n] -> [n, 4 · c]; SDXL adds an embedding of the pooled text and the six size numbers. */
function timeEmbedding(w: Weights, config: UnetConfig, timestep: Value): Value {
  const { graph } = timestep
  const width = 4 * config.blockOutChannels[0]
  const features = cast(sinusoids(timestep, config.blockOutChannels[0]), graph.computeType)
  const time = timestepEmbedding(w.at('time_embedding'), features, width)
  if (!config.addition) return time

  const { timeEmbedDim, inputDim } = config.addition
  const ids = graph.input('time_ids', 'f32', ['n', 6]) // original, crop and target size, height before width
  const pooled = graph.input('text_embeds', 'f32', ['n', inputDim - 6 * timeEmbedDim])
  const sizes = reshape(sinusoids(reshape(ids, [-1]), timeEmbedDim), [-1, 6 * timeEmbedDim])
  const joined = cast(concat([pooled, sizes], 1), graph.computeType)
  return add(time, timestepEmbedding(w.at('add_embedding'), joined, width))
}
