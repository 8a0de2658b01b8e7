import type { Value } from './graph/graph.ts'
import { expectShape, knownDim } from './graph/graph.ts'
import {
  add,
  concat,
  cos,
  gelu,
  mul,
  reshape,
  reshapeTo,
  shapeOf,
  sin,
  slice,
  transpose,
  unsqueeze,
} from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'
import { attention, conv2d, groupNorm, layerNorm, linear, silu, upsample, upsampleConv2d } from './layers.ts'

// Blocks that several networks share. Names are those of the checkpoints; shapes as in diffusers.

export type NormOptions = { groups: number; epsilon: number }

/**
 * ResnetBlock2D: x [n, in, h, w] -> [n, out, h, w]. `temb` [n, t] is silu(time embedding), made once by the network;
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
    const shift = linear(w.at('time_emb_proj'), temb, out) // [n, out]
    h = add(h, reshape(shift, [0, out, 1, 1]))
  }
  h = conv2d(w.at('conv2'), silu(groupNorm(w.at('norm2'), h, groups, epsilon)), { out, kernel: 3 })
  const skip = x.shape[1] === out ? x : conv2d(w.at('conv_shortcut'), x, { out, kernel: 1 })
  return endOfBlock(add(skip, h))
}

/** [n, c, h, w] -> one row per pixel [n·h·w, c], row-major in h and w. */
export function pixelsToRows(x: Value): Value {
  const c = knownDim('pixelsToRows', x, 1)
  return reshape(transpose(reshape(x, [0, c, -1]), [0, 2, 1]), [-1, c])
}

/** The way back: rows [n·h·w, c] -> [n, c, h, w] with the sizes of `like`. */
export function rowsToPixels(rows: Value, like: Value): Value {
  const c = knownDim('rowsToPixels', rows, 1)
  const [n, , h, w] = like.shape
  const { graph } = rows
  const tokens = reshapeTo(rows, concat([shapeOf(like, 0, 1), graph.constant('i64', [2], [-1, c])], 0), [n, null, c])
  const sizes = concat([shapeOf(like, 0, 1), graph.constant('i64', [1], [c]), shapeOf(like, 2, 4)], 0)
  return reshapeTo(transpose(tokens, [0, 2, 1]), sizes, [n, c, h, w])
}

/** Multi-head attention with its four projections; `context` rows are the keys and values, `x` itself when equal. */
export function attentionBlock(
  w: Weights,
  x: Value,
  context: Value,
  { heads, sample, qkvBias }: { heads: number; sample: Value; qkvBias: boolean },
): Value {
  const c = knownDim(w.path, x, 1)
  const project = (name: string, rows: Value) => linear(w.at(name), rows, c, { bias: qkvBias })
  const mixed = attention(project('to_q', x), project('to_k', context), project('to_v', context), heads, sample)
  return linear(w.at('to_out', 0), mixed, c)
}

/** FeedForward with GEGLU (Shazeer 2020): c -> 2 · 4c, value · gelu(gate), 4c -> c. */
function feedForward(w: Weights, x: Value): Value {
  const c = knownDim(w.path, x, 1)
  const both = linear(w.at('net', 0, 'proj'), x, 8 * c)
  const value = slice(both, 1, 0, 4 * c)
  const gate = slice(both, 1, 4 * c, 8 * c)
  return linear(w.at('net', 2), mul(value, gelu(gate)), c)
}

/** BasicTransformerBlock on rows [n·h·w, c]: self-attention, attention to the text, feed-forward, each after its norm. */
function transformerBlock(w: Weights, x: Value, context: Value, heads: number, sample: Value): Value {
  const options = { heads, sample, qkvBias: false }
  const own = layerNorm(w.at('norm1'), x)
  x = add(x, attentionBlock(w.at('attn1'), own, own, options))
  x = add(x, attentionBlock(w.at('attn2'), layerNorm(w.at('norm2'), x), context, options))
  return endOfBlock(add(x, feedForward(w.at('ff'), layerNorm(w.at('norm3'), x))))
}

/**
 * Transformer2DModel: x [n, c, h, w] and context rows [n·t, d] -> [n, c, h, w]. A 1 × 1 convolution is the same matrix
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
  }: { heads: number; depth: number; groups: number; linearProjection: boolean },
): Value {
  const c = knownDim(w.path, x, 1)
  const isConv = !linearProjection
  let rows = pixelsToRows(groupNorm(w.at('norm'), x, groups, 1e-6)) // Transformer2DModel has its own epsilon
  rows = linear(w.at('proj_in'), rows, c, { isConv })
  for (let i = 0; i < depth; i++) rows = transformerBlock(w.at('transformer_blocks', i), rows, context, heads, x)
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
  return conv2d(w.at('conv'), x, { out: knownDim(w.path, x, 1), kernel: 3, stride: 2, pads })
}

/** Upsample2D: nearest neighbour to twice the size, or to the size of `like`, then a convolution. */
export function upsampleBlock(w: Weights, x: Value, like?: Value): Value {
  if (!like) return upsampleConv2d(w.at('conv'), x, knownDim(w.path, x, 1))
  return conv2d(w.at('conv'), upsample(x, like), { out: knownDim(w.path, x, 1), kernel: 3 })
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
