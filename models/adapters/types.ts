import type { FamilyId } from '../family.ts'
import type { StoredTensor } from '../graph/weights.ts'

// What is known of an adapter file, in one form for every layout that programs write.

/** The networks of a model that adapters change. */
export type AdapterTarget = 'unet' | 'text_encoder' | 'text_encoder_2'

/** Modules of a model's networks that have weights: path -> shapes of its `weight` and `bias`, as diffusers stores them. */
export type ModelLayers = ReadonlyMap<string, { weight: readonly number[]; bias?: readonly number[] }>
export type ModelShape = { family: FamilyId; layers: Partial<Record<AdapterTarget, ModelLayers>> }

/** How a module is changed (formats.md, section 5.5). With a `magnitude` tensor it is a DoRA over that change. */
export type PartKind = 'lora' | 'loha' | 'lokr' | 'ia3' | 'oft' | 'boft' | 'glora' | 'diff' | 'sparse'

/** What a tensor is to its part. `down` and `up` are A and B; hada and lokr factors keep the names of their files. */
export type TensorRole =
  | 'down'
  | 'up'
  | 'mid'
  | 'magnitude'
  | 'up_bias'
  | 'diff'
  | 'diff_b'
  | 'hada_w1_a'
  | 'hada_w1_b'
  | 'hada_w2_a'
  | 'hada_w2_b'
  | 'hada_t1'
  | 'hada_t2'
  | 'lokr_w1'
  | 'lokr_w1_a'
  | 'lokr_w1_b'
  | 'lokr_w2'
  | 'lokr_w2_a'
  | 'lokr_w2_b'
  | 'lokr_t2'
  | 'ia3'
  | 'oft_blocks'
  | 'oft_rescale'
  | 'a1'
  | 'a2'
  | 'b1'
  | 'b2'
  | 'bm'
  | 'sparse_index'
  | 'sparse_delta'

/** Where the scale of a part comes from, before the person's weight (formats.md, section 5.1). `alpha` is divided by the rank. */
export type ScaleRule =
  | { from: 'scale'; tensor: StoredTensor }
  | { from: 'alpha'; tensor: StoredTensor }
  | { from: 'metadata'; value: number }
  | { from: 'none' }

/** One changed module. Files of tensors are absolute paths. */
export type AdapterPart = {
  target: AdapterTarget
  /** Path in the network by its diffusers (text encoders: transformers, with `text_model.`) name. */
  path: string
  kind: PartKind
  tensors: Readonly<Partial<Record<TensorRole, StoredTensor>>>
  scale: ScaleRule
  /** IA3: the factor is for the inputs and not the outputs. */
  onInput?: boolean
  /** Only these rows of the outputs: a part of a fused matrix or the other way round. */
  rows?: readonly [number, number]
  /**
   * PEFT wrote it, which matters to three kinds: IA3 multiplies by the vector itself, the bias too (LyCORIS: by one plus
   * the vector); magnitudes are those of the outputs whatever their shape; OFT turns inputs.
   */
  origin?: 'peft'
  /** OFT of PEFT: terms of the series that stands for the Cayley transform, 0 for the transform itself; 5 when left out. */
  neumannTerms?: number
}

/** A textual-inversion embedding: `vectors` [count, width] stand for the word `token` in the prompt. */
export type EmbeddingPart = { target: 'text_encoder' | 'text_encoder_2'; token: string; vectors: StoredTensor }

export const adapterRoles = [
  'style',
  'subject',
  'detail',
  'condition',
  'speed',
  'speed-slow',
  'speed-fast',
  'guidance',
  'watermark',
] as const

export type AdapterRole = (typeof adapterRoles)[number]

/** Settings that an adapter for few steps is made for (methods.md, sections 3 and 10.1). */
export type SpeedPreset = {
  /** What the person reads: "LCM", "Lightning, 4 steps". */
  name: string
  sampler: string
  schedule?: string
  steps: number
  /** Other numbers of steps that are right, too. */
  stepRange?: readonly [number, number]
  guidanceScale: number
  /** The noise levels to draw at, by the timesteps of training, from noise to picture; instead of a schedule. */
  timesteps?: readonly number[]
  /** Of those steps, the ones at which this adapter acts: [first, end). A partner acts in the rest. */
  activeSteps?: readonly [number, number]
  /** TCD's gamma and the like. */
  eta?: number
}

/** How well a file goes with a model; `message` and `hint` are for the person. */
export type Verdict = {
  fit: 'fits' | 'partly' | 'wrong-family' | 'unsupported' | 'refused'
  message: string
  hint?: string
}

/** All that the header, its metadata and the sidecars tell; no weights are read for it. */
export type AdapterInfo = {
  file: string
  name: string
  bytes: number
  /** 'LoRA', 'LoCon', 'DoRA', 'LoHa', 'LoKr', …: the words for the card; several when mixed. */
  kinds: string[]
  /** Family the file is made for, as far as its shapes tell; `familyName` also for families that Vignette has not. */
  family?: FamilyId
  familyName?: string
  rank?: { min: number; max: number }
  /** 'fp16', 'bf16', … */
  precision: string
  /** Tensors of the file that found their place, of all. */
  matched: number
  total: number
  hasTextEncoder: boolean
  triggers: string[]
  preferredWeight?: number
  weightRange?: readonly [number, number]
  title?: string
  description?: string
  author?: string
  licence?: string
  tags: string[]
  role: AdapterRole
  preset?: SpeedPreset
  /** Of one that stands in for guidance: the scales it was trained for. */
  guidanceRange?: readonly [number, number]
  verdict: Verdict
  /** Things worth saying that stop nothing. */
  notices: string[]
}

/** An adapter file read against a model: what it is, and its parts that fit. */
export type AdapterFile = {
  info: AdapterInfo
  /** All tensors of the file, by their names in it. */
  tensors: ReadonlyMap<string, StoredTensor>
  parts: AdapterPart[]
  embeddings: EmbeddingPart[]
  /** Present in a guidance-distillation adapter, which has no `parts`: its tensors by their names in the file. */
  guidance?: GuidanceFile
  /** Names of tensors that were not used, in the file's order. */
  ignored: string[]
}

/**
 * A guidance-distillation adapter (Jensen and Sadat 2025; methods.md, section 2) as Vignette stores it: metadata
 * `vignette_kind` = `guidance`, `width` h, `guidance_min`, `guidance_max`; tensors `guidance.frequencies` and
 * `guidance.phases` [h], `guidance.linear_1.weight` [4h, h] and `.bias`, `guidance.linear_2.weight` [h, 4h] and `.bias`,
 * `guidance.norm.weight` and `.bias` [h], `time.weight` [h, temb], `text.weight` [h, d], and for each cross-attention
 * `sites.<path>.to_q.weight` [h, c], `.to_k.weight` and `.to_v.weight` [h, h], `.to_out.weight` [c, h], `.to_out.bias` [c].
 */
export type GuidanceFile = {
  width: number
  guidanceRange: readonly [number, number]
  /** Paths of the attentions (`….attn2`). */
  sites: string[]
  tensors: ReadonlyMap<string, StoredTensor>
}
