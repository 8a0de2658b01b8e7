import { attention } from './attention.ts'
import type { ConfigJson } from './config-json.ts'
import { readConfig } from './config-json.ts'
import type { GraphOptions, Value } from './graph/graph.ts'
import { Graph } from './graph/graph.ts'
import { add, cast, concat, equal, gelu, matMul, quickGelu, reshape, unsqueeze, where } from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'
import { constant, embedding, layerNorm, linear, positionTable } from './layers.ts'

/** A CLIP text tower, by the fields of transformers' CLIPTextConfig. */
export type ClipConfig = {
  vocabSize: number
  hiddenSize: number
  intermediateSize: number
  layers: number
  heads: number
  maxPositions: number
  activation: 'quick_gelu' | 'gelu'
  layerNormEps: number
  /** Width of the pooled output when the tower has a `text_projection`; absent when it has none. */
  projectionDim?: number
}

/** Reads transformers' config.json. The projection exists only in the class that says so (CLIPTextModelWithProjection). */
export function clipConfigFrom(json: ConfigJson): ClipConfig {
  const config = readConfig('text encoder', json)
  const architectures = config.strings('architectures', [])
  const activation = config.oneOf('hidden_act', ['quick_gelu', 'gelu'] as const, 'quick_gelu')
  return {
    vocabSize: config.number('vocab_size', 49408),
    hiddenSize: config.number('hidden_size'),
    intermediateSize: config.number('intermediate_size'),
    layers: config.number('num_hidden_layers'),
    heads: config.number('num_attention_heads'),
    maxPositions: config.number('max_position_embeddings', 77),
    activation,
    layerNormEps: config.number('layer_norm_eps', 1e-5),
    ...(architectures.includes('CLIPTextModelWithProjection')
      ? { projectionDim: config.number('projection_dim') }
      : {}),
  }
}

const openClip = { vocabSize: 49408, maxPositions: 77, activation: 'gelu', layerNormEps: 1e-5 } as const

/** CLIP ViT-L/14, in SD 1.x and as SDXL's first encoder. */
export const clipL: ClipConfig = {
  ...openClip,
  activation: 'quick_gelu',
  hiddenSize: 768,
  intermediateSize: 3072,
  layers: 12,
  heads: 12,
}

/** OpenCLIP ViT-H in SD 2.x: the checkpoint's 24th block is not used. */
export const openClipH: ClipConfig = { ...openClip, hiddenSize: 1024, intermediateSize: 4096, layers: 23, heads: 16 }

/** OpenCLIP ViT-bigG, SDXL's second encoder. */
export const openClipBigG: ClipConfig = {
  ...openClip,
  hiddenSize: 1280,
  intermediateSize: 5120,
  layers: 32,
  heads: 20,
  projectionDim: 1280,
}

/**
 * A text tower: token ids [n, t] and the position of each end token [n] -> the states after every block, plain and
 * normed, and the pooled vector (`manifest.ts` lists them). Follows transformers' CLIPTextModel: causal mask, no mask
 * of the padding.
 */
export function buildClip(name: string, w: Weights, config: ClipConfig, options: GraphOptions): Graph {
  const graph = new Graph(name, options)
  const { hiddenSize: d, maxPositions: t, layerNormEps: epsilon } = config
  const model = w.at('text_model')
  const ids = graph.input('input_ids', 'i64', ['n', t])
  const eosIndex = graph.input('eos_index', 'i64', ['n'])

  const known = embedding(model.at('embeddings', 'token_embedding'), ids, config.vocabSize, d)
  const tokens = graph.slots ? withVectors(known, t, d) : known
  const positions = positionTable(graph, model.at('embeddings', 'position_embedding'), t, d)
  let x = reshape(add(tokens, positions), [-1, d]) // rows [n·t, d]
  const mask = constant(graph, [1, 1, t, t], causalMask(t))
  const states = [x]
  for (let layer = 0; layer < config.layers; layer++) {
    x = encoderLayer(model.at('encoder', 'layers', layer), x, config, ids, mask)
    graph.endBlock()
    states.push(x)
  }

  const finalNorm = model.at('final_layer_norm')
  const stack = concat(
    states.map((state) => unsqueeze(reshape(state, [-1, t, d]), 0)),
    0,
  ) // [layers + 1, n, t, d]
  const normed = layerNorm(finalNorm, stack, epsilon)
  graph.output('hidden_states', cast(stack, 'f32'), [config.layers + 1, 'n', t, d])
  graph.output('normed_states', cast(normed, 'f32'), [config.layers + 1, 'n', t, d])

  // The row at the end token, by a product with its one-hot vector: every provider has that, not every one GatherND.
  const last = reshape(layerNorm(finalNorm, x, epsilon), [-1, t, d])
  const position = graph.constant(
    'i64',
    [1, t],
    Array.from({ length: t }, (_, i) => i),
  )
  const oneHot = cast(equal(unsqueeze(eosIndex, 1), position), graph.computeType) // [n, t]
  const row = reshape(matMul(unsqueeze(oneHot, 1), last), [-1, d])
  const { projectionDim } = config
  const pooled =
    projectionDim === undefined ? row : linear(w.at('text_projection'), row, projectionDim, { bias: false })
  graph.output('pooled', cast(pooled, 'f32'), ['n', projectionDim ?? d])
  return graph
}

/**
 * Textual inversion: where `token_mask` [n, t] is 1 the vector of `token_vectors` [n, t, d] stands for the token's own.
 * Inputs of networks with slots only.
 */
function withVectors(known: Value, t: number, d: number): Value {
  const { graph } = known
  const vectors = cast(graph.input('token_vectors', 'f32', ['n', t, d]), known.type)
  const mask = cast(unsqueeze(graph.input('token_mask', 'f32', ['n', t]), 2), 'bool')
  return where(mask, vectors, known)
}

/** CLIPEncoderLayer on rows: causal self-attention and a two-layer perceptron, each after its norm. */
function encoderLayer(w: Weights, x: Value, config: ClipConfig, sample: Value, mask: Value): Value {
  const { hiddenSize: d, layerNormEps: epsilon } = config
  const own = layerNorm(w.at('layer_norm1'), x, epsilon)
  const at = w.at('self_attn')
  const project = (name: string) => linear(at.at(name), own, d)
  const mixed = attention(project('q_proj'), project('k_proj'), project('v_proj'), config.heads, sample, mask)
  x = add(x, linear(at.at('out_proj'), mixed, d))
  const inner = linear(w.at('mlp', 'fc1'), layerNorm(w.at('layer_norm2'), x, epsilon), config.intermediateSize)
  const active = config.activation === 'gelu' ? gelu(inner) : quickGelu(inner, 1.702)
  return add(x, linear(w.at('mlp', 'fc2'), active, d))
}

/** 0 where a token may look (itself and before), −10,000 elsewhere: e^−10000 is 0 in every type, and float16 holds it. */
function causalMask(t: number): Float32Array {
  return Float32Array.from({ length: t * t }, (_, i) => (i % t > Math.floor(i / t) ? -1e4 : 0))
}
