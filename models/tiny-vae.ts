import type { ConfigJson } from './config-json.ts'
import { readConfig } from './config-json.ts'
import type { GraphOptions, Value } from './graph/graph.ts'
import { Graph, knownDim } from './graph/graph.ts'
import { add, cast, mul, relu, sub, tanh } from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'
import { constant, conv2d, upsample } from './layers.ts'

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

// The layers are one nn.Sequential, so the checkpoint names them by number: 'encoder.layers.3.conv.0'. Layers without
// weights (ReLU, Upsample) count too.

/** Image [n, 3, f·h, f·w] in −1…1 -> scaled latents [n, c, h, w]. */
export function buildTinyVaeEncoder(w: Weights, config: TinyVaeConfig, options: GraphOptions): Graph {
  const graph = new Graph('tiny_vae_encoder', options)
  const image = graph.input('sample', 'f32', ['n', config.inChannels, 'height', 'width'])
  let index = 0
  const next = () => w.at('encoder', 'layers', index++)

  let x = cast(image, graph.computeType)
  x = mul(add(x, constant(graph, [], [1])), constant(graph, [], [0.5])) // it was trained on 0…1
  config.numEncoderBlocks.forEach((blocks, level) => {
    const out = config.encoderBlockOutChannels[level]
    x =
      level === 0
        ? conv2d(next(), x, { out, kernel: 3 })
        : conv2d(next(), x, { out, kernel: 3, stride: 2, bias: false })
    for (let i = 0; i < blocks; i++) x = tinyBlock(next(), x, out)
  })
  x = conv2d(next(), x, { out: config.latentChannels, kernel: 3 })
  graph.output('latent_sample', cast(x, 'f32'), ['n', config.latentChannels, 'h', 'w'])
  return graph
}

/** Scaled latents [n, c, h, w] -> image [n, 3, f·h, f·w], about −1…1. */
export function buildTinyVaeDecoder(w: Weights, config: TinyVaeConfig, options: GraphOptions): Graph {
  const graph = new Graph('tiny_vae_decoder', options)
  const latents = graph.input('latent_sample', 'f32', ['n', config.latentChannels, 'h', 'w'])
  let index = 0
  const next = () => w.at('decoder', 'layers', index++)

  // Far latents saturate smoothly instead of burning out: 3 · tanh(x / 3).
  let x = cast(latents, graph.computeType)
  x = mul(tanh(mul(x, constant(graph, [], [1 / 3]))), constant(graph, [], [3]))
  x = relu(conv2d(next(), x, { out: config.decoderBlockOutChannels[0], kernel: 3 }))
  index++ // the ReLU
  config.numDecoderBlocks.forEach((blocks, level) => {
    const isLast = level === config.numDecoderBlocks.length - 1
    const channels = config.decoderBlockOutChannels[level]
    for (let i = 0; i < blocks; i++) x = tinyBlock(next(), x, channels)
    if (!isLast) {
      x = upsample(x)
      index++
    }
    x = conv2d(next(), x, { out: isLast ? config.outChannels : channels, kernel: 3, bias: isLast })
  })
  const image = sub(mul(x, constant(graph, [], [2])), constant(graph, [], [1]))
  graph.output('sample', cast(image, 'f32'), ['n', config.outChannels, 'height', 'width'])
  return graph
}

/** AutoencoderTinyBlock: three convolutions with a shortcut, ReLU after the sum. */
function tinyBlock(w: Weights, x: Value, out: number): Value {
  const skip = knownDim(w.path, x, 1) === out ? x : conv2d(w.at('skip'), x, { out, kernel: 1, bias: false })
  let h = x
  for (const index of [0, 2]) h = relu(conv2d(w.at('conv', index), h, { out, kernel: 3 }))
  return relu(add(conv2d(w.at('conv', 4), h, { out, kernel: 3 }), skip))
}
