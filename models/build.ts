import type { ClipConfig } from './clip.ts'
import { buildClip } from './clip.ts'
import type { Dialect, Graph, GraphOptions, SlotGroup } from './graph/graph.ts'
import { toOnnx } from './graph/onnx.ts'
import type { TensorTable } from './graph/weights.ts'
import { Weights } from './graph/weights.ts'
import type { NetworkName } from './manifest.ts'
import { slotGroupOf } from './matrix.ts'
import type { TinyVaeConfig } from './tiny-vae.ts'
import { buildTinyVaeDecoder, buildTinyVaeEncoder } from './tiny-vae.ts'
import type { UnetConfig } from './unet.ts'
import { buildUnet } from './unet.ts'
import type { VaeConfig } from './vae.ts'
import { buildVaeDecoder, buildVaeEncoder } from './vae.ts'

/** The parts of a checkpoint, each with one config and one table of tensors. A VAE part makes two networks. */
export type PartConfigs = {
  text_encoder: ClipConfig
  text_encoder_2: ClipConfig
  unet: UnetConfig
  vae: VaeConfig
  tiny_vae: TinyVaeConfig
}
export type PartName = keyof PartConfigs

/** One part and where its weights lie. `file` of every tensor is relative to the folder the graphs will lie in. */
export type Part<P extends PartName = PartName> = {
  [K in P]: { part: K; config: PartConfigs[K]; tensors: TensorTable }
}[P]

/**
 * `cpu`: what ONNX Runtime's CPU provider is fastest with. `webgpu`: only operators that its WebGPU provider has.
 * Both compute in float32 over F32 or F16 weights; `fp16Compute` is for GPUs with shader-f16 (inputs and outputs stay
 * float32). `fusedAttention` (on for `cpu`, off for `webgpu`) never holds all attention scores; the WebGPU provider of
 * ONNX Runtime 1.30 gets it wrong from 32 tokens on where subgroups are small, so switch it on only after comparing.
 */
export type BuildOptions = {
  dialect: Dialect
  fp16Compute?: boolean
  fusedAttention?: boolean
  /** The UNet's pictures as [n, h, w, c]: on by itself where its weights are quantised. */
  channelsLast?: boolean
  /** The UNet has the input `key_stride` (`GraphOptions.keyStride`); what runs it feeds a 1 where nobody asks for more. */
  keyStride?: boolean
  /** Layers of the UNet and the text encoders that take adapters (`GraphOptions.slots`). */
  slots?: GraphOptions['slots']
  /** Modules of the UNet and the text encoders whose weights are inputs (`GraphOptions.live`). */
  live?: ReadonlySet<string>
  /** The UNet takes a guidance-distillation adapter (`GraphOptions.guidance`). */
  guidance?: { width: number }
}

export type BuiltNetwork = { name: NetworkName; onnx: Uint8Array }

/** The networks of a part: a VAE is an encoder and a decoder, a UNet comes with its outermost layers alone. */
export function networksOf(part: PartName): NetworkName[] {
  if (part === 'vae') return ['vae_encoder', 'vae_decoder']
  if (part === 'tiny_vae') return ['tiny_vae_encoder', 'tiny_vae_decoder']
  if (part === 'unet') return ['unet', 'unet_shallow']
  return [part]
}

/**
 * Builds every network of `parts` as ONNX bytes: graph only, weights by file, offset and length. Write each to
 * `<name>.onnx` in the folder the tensors' files are relative to. Takes milliseconds and no weight is read.
 */
export function buildNetworks(parts: readonly Part[], options: BuildOptions): BuiltNetwork[] {
  return parts
    .flatMap((part) => graphsOf(part, graphOptionsOf(part, options)))
    .map((graph) => ({ name: graph.name as NetworkName, onnx: toOnnx(graph) }))
}

function graphOptionsOf({ part, tensors }: Part, options: BuildOptions): GraphOptions {
  const { dialect, fp16Compute, fusedAttention, slots, live, keyStride, guidance } = options
  const common = { dialect, computeType: fp16Compute ? 'f16' : 'f32', fusedAttention } as const
  if (part === 'text_encoder' || part === 'text_encoder_2') return { ...common, slots, live }
  if (part !== 'unet') return common
  return { ...common, channelsLast: options.channelsLast ?? isQuantized(tensors), keyStride, slots, live, guidance }
}

/** Whether any matrix is kept as codes or columns of bytes: see kernels/README.md. */
export function isQuantized(tensors: TensorTable): boolean {
  for (const name of tensors.keys()) if (/\.weight\.(q4|q8|columns)$/.test(name)) return true
  return false
}

/**
 * Every tensor that a part needs, by its diffusers (text encoders: transformers, with `text_model.`) name, with its
 * shape: 686 for the UNet of SD 1.x and 2.x, 1680 for SDXL's, 248 for a VAE with quant convs, 196 for CLIP-L. Found by
 * building the networks over a table that only takes notes, so it cannot disagree with `buildNetworks`. A stored shape
 * matches when it is equal but for trailing ones (a 1 × 1 convolution kept as a matrix and the other way round).
 */
export function requiredTensors<P extends PartName>(part: P, config: PartConfigs[P]): Map<string, number[]> {
  const required = new Map<string, number[]>()
  const onWeight = (name: string, shape: readonly number[]) => void required.set(name, [...shape])
  graphsOf({ part, config, tensors: new Map() } as Part, { dialect: 'cpu', onWeight })
  return required
}

/** A layer that takes adapters: `inputs` is 9 times the channels for a 3 × 3 convolution. */
export type SlotPlace = { path: string; group: SlotGroup; inputs: number; outputs: number; isConv: boolean }

/** The layers of a part that adapters may enter, whatever form its weights are stored in; see kernels/slot.ts. */
export function slotsOf({ part, config }: Pick<Part, 'part' | 'config'>): SlotPlace[] {
  if (part === 'vae' || part === 'tiny_vae') return []
  const groups = new Set(['attention', 'mlp', 'time', 'conv'] as const)
  const nowhere = () => {}
  const [graph] = graphsOf({ part, config, tensors: new Map() } as Part, {
    dialect: 'cpu',
    slots: { groups },
    onWeight: nowhere,
  })
  const sizes = new Map(graph.inputs.map(({ name, shape }) => [name, Number(shape[1])]))
  const convs = new Set(
    graph.layers.filter((layer) => layer.kind === 'conv' && layer.kernel === 3).map(({ path }) => path),
  )
  return [...sizes].flatMap(([name, inputs]) => {
    const path = /^(.*)\.down$/.exec(name)?.[1]
    if (path === undefined) return []
    const outputs = sizes.get(`${path}.up`)!
    return [{ path, group: slotGroupOf(path), inputs, outputs, isConv: convs.has(path) }]
  })
}

/** In the order of `networksOf`. */
function graphsOf(part: Part, options: GraphOptions): Graph[] {
  const w = new Weights(part.tensors)
  switch (part.part) {
    case 'text_encoder':
    case 'text_encoder_2':
      return [buildClip(part.part, w, part.config, options)]
    case 'unet':
      return [buildUnet(w, part.config, options), buildUnet(w, part.config, options, { shallow: true })]
    case 'vae':
      return [buildVaeEncoder(w, part.config, options), buildVaeDecoder(w, part.config, options)]
    case 'tiny_vae':
      return [buildTinyVaeEncoder(w, part.config, options), buildTinyVaeDecoder(w, part.config, options)]
    default:
      return part satisfies never
  }
}
