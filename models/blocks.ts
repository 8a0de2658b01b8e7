import { attention, everyOther } from './attention.ts'
import type { Value } from './graph/graph.ts'
import { expectShape, knownDim } from './graph/graph.ts'
import { add, concat, cos, gelu, mul, sin, unsqueeze } from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'
import type { GuidanceTokens } from './guidance.ts'
import { guidanceSite } from './guidance.ts'
import {
  addPerChannel,
  channelAxis,
  conv2d,
  groupNorm,
  layerNorm,
  linear,
  linearHalves,
  pixelsToRows,
  rowsToPixels,
  silu,
  upsample,
  upsampleConv2d,
} from './layers.ts'
import { isLive, slotOf } from './matrix.ts'

// Blocks that several networks share. Names are those of the checkpoints. Pictures are [n, c, h, w] as in diffusers, or
// [n, h, w, c] where the graph is `channelsLast`.

export type NormOptions = { groups: number; epsilon: number }

/**
 * ResnetBlock2D: a picture of `out` channels from one of any number. `temb` [n, t] is silu(time embedding), made once by the network;
 * autoencoders have none.
 */
export function resnetBlock(
  w: Weights,
  x: Value,
  temb: Value | undefined,
  out: number,
  { groups, epsilon }: NormOptions,
): Value {
  let h = conv2d(w.at('conv1'), silu(groupNorm(w.at('norm1'), x, groups, epsilon)), { out, kernel: 3 })
  if (temb) {
    h = addPerChannel(h, linear(w.at('time_emb_proj'), temb, out))
  }
  h = conv2d(w.at('conv2'), silu(groupNorm(w.at('norm2'), h, groups, epsilon)), { out, kernel: 3 })
  const skip =
    knownDim(w.path, x, channelAxis(x.graph)) === out ? x : conv2d(w.at('conv_shortcut'), x, { out, kernel: 1 })
  return endOfBlock(add(skip, h))
}

/** Multi-head attention with its four projections; `context` rows are the keys and values, `x` itself when equal. */
export function attentionBlock(
  w: Weights,
  x: Value,
  context: Value,
  { heads, sample, qkvBias, keyStride }: { heads: number; sample: Value; qkvBias: boolean; keyStride?: Value },
): Value {
  const c = knownDim(w.path, x, 1)
  // `x` comes from a norm; text does not, and its first token is far larger than the others.
  const project = (name: string, rows: Value) => linear(w.at(name), rows, c, { bias: qkvBias, isNormed: rows === x })
  const thin = (rows: Value) => (keyStride ? everyOther(rows, sample, keyStride) : rows)
  const [q, k, v] = [project('to_q', x), thin(project('to_k', context)), thin(project('to_v', context))]
  const mixed = attention(q, k, v, heads, sample)
  return linear(w.at('to_out', 0), mixed, c)
}

/** FeedForward with GEGLU (Shazeer 2020): c -> 2 · 4c, value · gelu(gate), 4c -> c. */
function feedForward(w: Weights, x: Value): Value {
  const c = knownDim(w.path, x, 1)
  const [value, gate] = linearHalves(w.at('net', 0, 'proj'), x, 8 * c, ['value', 'gate'])
  return linear(w.at('net', 2), mul(value, gelu(gate)), c)
}

type BlockOptions = { heads: number; sample: Value; keyStride?: Value; guidance?: GuidanceTokens }

/** BasicTransformerBlock on rows [n·h·w, c]: self-attention, attention to the text, feed-forward, each after its norm. */
function transformerBlock(
  w: Weights,
  x: Value,
  context: Value,
  { heads, sample, keyStride, guidance }: BlockOptions,
): Value {
  const options = { heads, sample, qkvBias: false }
  const own = layerNorm(w.at('norm1'), x)
  x = add(x, attentionBlock(w.at('attn1'), own, own, { ...options, keyStride }))
  const normed = layerNorm(w.at('norm2'), x)
  x = add(x, attentionBlock(w.at('attn2'), normed, context, options))
  if (guidance) x = add(x, guidanceSite(w.at('attn2').path, normed, guidance, sample))
  return endOfBlock(add(x, feedForward(w.at('ff'), layerNorm(w.at('norm3'), x))))
}

/**
 * Transformer2DModel: a picture of c channels and context rows [n·t, d] -> the same shape. A 1 × 1 convolution is the same matrix
 * on every pixel, so both kinds of projection run on rows.
 */
export function transformer2d(
  w: Weights,
  x: Value,
  context: Value,
  {
    heads,
    depth,
    groups,
    linearProjection,
    keyStride,
    guidance,
  }: Omit<BlockOptions, 'sample'> & { depth: number; groups: number; linearProjection: boolean },
): Value {
  const c = knownDim(w.path, x, channelAxis(x.graph))
  const isConv = !linearProjection
  let rows = pixelsToRows(groupNorm(w.at('norm'), x, groups, 1e-6)) // Transformer2DModel has its own epsilon
  rows = linear(w.at('proj_in'), rows, c, { isConv, isNormed: true })
  const options = { heads, sample: x, keyStride, guidance }
  for (let i = 0; i < depth; i++) rows = transformerBlock(w.at('transformer_blocks', i), rows, context, options)
  rows = linear(w.at('proj_out'), rows, c, { isConv })
  return endOfBlock(add(rowsToPixels(rows, x), x))
}

/** Notes where the graph may be cut: after `x` little but the picture itself flows on. */
function endOfBlock(x: Value): Value {
  x.graph.endBlock()
  return x
}

/** Downsample2D: halves h and w, an odd size rounded up; the autoencoder pads right and below only. */
export function downsample(w: Weights, x: Value, padding: 'even' | 'right-below'): Value {
  const pads = padding === 'even' ? ([1, 1, 1, 1] as const) : ([0, 0, 1, 1] as const)
  return conv2d(w.at('conv'), x, { out: knownDim(w.path, x, channelAxis(x.graph)), kernel: 3, stride: 2, pads })
}

/** Upsample2D: nearest neighbour to twice the size, or to the size of `like`, then a convolution. */
export function upsampleBlock(w: Weights, x: Value, like?: Value): Value {
  const out = knownDim(w.path, x, channelAxis(x.graph))
  // Sums of weights are folded when the graph is loaded: not those that come with each run, nor an adapter's.
  const { graph } = x
  const isPlain = !graph.channelsLast && !isLive(graph, w.at('conv')) && !slotOf(graph, `${w.path}.conv`, 9 * out, out)
  if (!like && isPlain) return upsampleConv2d(w.at('conv'), x, out)
  return conv2d(w.at('conv'), upsample(x, like), { out, kernel: 3 })
}

/**
 * Sinusoidal features of numbers [m] -> [m, width]: cosines first, then sines, frequencies 10000^(−i/half) from 1 down
 * (diffusers' get_timestep_embedding with flip_sin_to_cos and freq_shift 0). Always float32: the numbers reach 1000.
 */
export function sinusoids(numbers: Value, width: number): Value {
  expectShape('sinusoids', numbers, [null])
  const half = width / 2
  const frequencies = Array.from({ length: half }, (_, i) => Math.exp((-Math.log(10000) * i) / half))
  const angles = mul(unsqueeze(numbers, 1), numbers.graph.constant('f32', [1, half], frequencies))
  return concat([cos(angles), sin(angles)], 1)
}

/** TimestepEmbedding: linear, SiLU, linear. [n, in] -> [n, width]. */
export function timestepEmbedding(w: Weights, features: Value, width: number): Value {
  return linear(w.at('linear_2'), silu(linear(w.at('linear_1'), features, width)), width)
}
