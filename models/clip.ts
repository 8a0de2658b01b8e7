import type { ConfigJson } from './config-json.ts'
import { readConfig } from './config-json.ts'

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
    ...(architectures.includes('CLIPTextModelWithProjection') ? { projectionDim: config.number('projection_dim') } : {}),
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
