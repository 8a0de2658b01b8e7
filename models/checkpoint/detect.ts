import { VignetteError } from '../errors.ts'
import type { FamilyId } from '../family.ts'
import type { TensorTable } from '../graph/weights.ts'
import { looksLike } from './not-a-model.ts'
import type { Evidence } from './prefixes.ts'
import { diffusionTensors, textPrefixes, textTensors } from './prefixes.ts'

type Verdict = { family: FamilyId } | { unsupported: string; hint?: string } | undefined

const lastDim = (tensor: { shape: number[] } | undefined) => tensor?.shape[tensor.shape.length - 1]
const anyName = (names: Iterable<string>, test: (name: string) => boolean) => {
  for (const name of names) if (test(name)) return true
  return false
}

/** Width of the text embeddings that the first cross-attention reads, or undefined without one. */
function contextWidth(net: Evidence['net']): number | undefined {
  for (const [name, tensor] of net) if (name.endsWith('attn2.to_k.weight')) return lastDim(tensor)
  return undefined
}

const isUnet = ({ net }: Evidence) => net.has('input_blocks.0.0.weight') && net.has('out.2.weight')
const unsupported = (name: string, hint?: string): Verdict => ({
  unsupported: name,
  ...(hint === undefined ? {} : { hint }),
})

/**
 * One rule per family, tested from the top: several families share names, so the order matters. The first verdict
 * counts; nothing is taken for Stable Diffusion 1 without its own marks.
 */
const rules: ((evidence: Evidence) => Verdict)[] = [
  // Networks of the Stable Diffusion kind that need something the app does not have.
  ({ net }) =>
    anyName(net.keys(), (name) => name.includes('.time_mixer.') || name.includes('.time_stack.'))
      ? unsupported('a video model (Stable Video Diffusion)')
      : undefined,
  ({ net, all }) => {
    const refinerTower =
      anyName(all.keys(), (name) => name.startsWith('conditioner.embedders.0.model.')) &&
      !anyName(all.keys(), (name) => name.startsWith('conditioner.embedders.1.'))
    const refinerNet = lastDim(net.get('label_emb.0.0.weight')) === 2560 && contextWidth(net) === 1280
    return refinerTower || refinerNet
      ? unsupported('the SDXL refiner', 'Import the SDXL base model; Vignette draws with it alone.')
      : undefined
  },
  ({ net }) =>
    net.has('label_emb.weight') && net.has('input_blocks.0.0.weight')
      ? unsupported('the Stable Diffusion x4 upscaler')
      : undefined,
  ({ all }) =>
    anyName(all.keys(), (name) => name.startsWith('depth_model.'))
      ? unsupported('Stable Diffusion 2 Depth')
      : undefined,
  ({ all }) => (all.has('edm_mean') || all.has('edm_std') ? unsupported('Playground 2.5') : undefined),
  ({ all }) =>
    all.has('edm_vpred.sigma_max') ? unsupported('CosXL, an SDXL model with another noise schedule') : undefined,
  (evidence) => (isUnet(evidence) ? unusualInput(evidence) : undefined),
  (evidence) =>
    isUnet(evidence) && !anyName(evidence.net.keys(), (name) => name.startsWith('middle_block.1.'))
      ? unsupported(slimName(evidence))
      : undefined,
  (evidence) => (isUnet(evidence) ? unetFamily(evidence) : undefined),

  // Transformers. All recognised by name and refused.
  ({ net }) => {
    if (!net.has('joint_blocks.0.context_block.adaLN_modulation.1.bias')) return undefined
    if (net.has('joint_blocks.37.x_block.mlp.fc1.weight')) return unsupported('Stable Diffusion 3.5 Large')
    return unsupported(
      net.has('joint_blocks.0.x_block.attn.ln_q.weight') ? 'Stable Diffusion 3.5 Medium' : 'Stable Diffusion 3',
    )
  },
  has('single_stream_modulation.lin.weight', 'FLUX.2'),
  has('double_stream_modulation_img.lin.weight', 'FLUX.2'),
  starts('distilled_guidance_layer.', 'Chroma'),
  starts('txt_in.individual_token_refiner.', 'HunyuanVideo'),
  has('double_blocks.0.img_mlp.gate_proj.weight', 'Ovis'),
  ({ net }) => {
    if (
      !net.has('double_blocks.0.img_attn.norm.key_norm.scale') &&
      !net.has('double_blocks.0.img_attn.norm.key_norm.weight')
    )
      return undefined
    const width = lastDim(net.get('img_in.weight'))
    const kind =
      width === 384 ? ' Fill' : width === 128 ? ' Control' : net.has('guidance_in.in_layer.bias') ? ' dev' : ' schnell'
    return unsupported(`FLUX.1${kind}`)
  },
  has('transformer_blocks.0.img_mod.1.weight', 'Qwen-Image'),
  has('layers.0.adaLN_modulation.0.weight', 'Z-Image'),
  has('layers.0.adaLN_modulation.1.weight', 'Lumina 2'),
  has('blocks.0.mlp.inverted_conv.conv.weight', 'SANA'),
  ({ net }) =>
    net.has('blocks.0.cross_attn.q_linear.weight') && net.has('blocks.0.mlp.fc1.weight')
      ? unsupported('PixArt')
      : undefined,
  has('double_layers.0.attn.w1q.weight', 'AuraFlow'),
  has('mlp_t5.0.weight', 'HunyuanDiT'),
  ({ net }) =>
    anyName(net.keys(), (name) => name.includes('patchify_proj.') || name.startsWith('adaln_single.'))
      ? unsupported('LTX or another video model')
      : undefined,
  has('head.modulation', 'Wan'),
  starts('double_stream_blocks.0.', 'HiDream'),
  has('llm_adapter.blocks.0.cross_attn.q_proj.weight', 'Anima'),
  ({ net }) =>
    anyName(net.keys(), (name) => name.startsWith('t5_y_embedder.') || name.startsWith('pos_embedder.inv_freq'))
      ? unsupported('Mochi or another video model')
      : undefined,
  ({ net }) =>
    anyName(net.keys(), (name) => name.startsWith('x_embedder.proj.1.') || name.startsWith('extra_pos_embedder.'))
      ? unsupported('Cosmos')
      : undefined,
  ({ net }) =>
    anyName(net.keys(), (name) => name.startsWith('clip_txt_pooled_mapper.') || name.startsWith('clip_mapper.'))
      ? unsupported('Stable Cascade')
      : undefined,
]

function has(name: string, model: string): (evidence: Evidence) => Verdict {
  return ({ net }) => (net.has(name) ? unsupported(model) : undefined)
}
function starts(prefix: string, model: string): (evidence: Evidence) => Verdict {
  return ({ net }) => (anyName(net.keys(), (name) => name.startsWith(prefix)) ? unsupported(model) : undefined)
}

/** A plain model reads what it writes; editing models read more channels: a mask, a second picture, a depth map. */
function unusualInput({ net }: Evidence): Verdict {
  const reads = net.get('input_blocks.0.0.weight')?.shape[1]
  const writes = net.get('out.2.weight')?.shape[0]
  if (reads === undefined || writes === undefined || reads === writes) return undefined
  const hint = 'Import the plain version of this model; it can inpaint too.'
  if (reads === 2 * writes + 1) return unsupported(`an inpainting model (it reads ${reads} channels)`, hint)
  if (reads === 2 * writes) return unsupported(`an InstructPix2Pix model (it reads ${reads} channels)`)
  if (reads === writes + 1) return unsupported(`a depth model (it reads ${reads} channels)`)
  return unsupported(`a Stable Diffusion model that reads ${reads} channels instead of ${writes}`)
}

function slimName({ net }: Evidence): string {
  return net.has('label_emb.0.0.weight') ? 'a slimmed SDXL (SSD-1B, Vega)' : 'a slimmed Stable Diffusion (SDXS, BK-SDM)'
}

/** Stable Diffusion 1, 2 and XL by context width, or at other widths by the text towers that come along. */
function unetFamily({ net, all }: Evidence): Verdict {
  const context = contextWidth(net)
  const label = lastDim(net.get('label_emb.0.0.weight'))
  const hasTower = (prefixes: readonly string[]) => textTensors(all, prefixes).size > 0
  if (label !== undefined) {
    if (label === 2816 || context === 2048) return { family: 'sdxl' }
    if (context === 1024) return unsupported('Stable Diffusion 2 unCLIP')
    return hasTower(textPrefixes.first) && hasTower(textPrefixes.second) ? { family: 'sdxl' } : undefined
  }
  if (context === 1024) return { family: 'sd2' }
  if (context === 768) return { family: 'sd15' }
  // No published width: the tower's naming decides, and its width must be the one the network reads.
  const tower = textTensors(all, textPrefixes.single)
  if (lastDim(tower.get('ln_final.weight')) === context && context !== undefined) return { family: 'sd2' }
  const norm = tower.get('text_model.final_layer_norm.weight') ?? tower.get('final_layer_norm.weight')
  return lastDim(norm) === context && context !== undefined ? { family: 'sd15' } : undefined
}

/** The family of a single-file checkpoint; throws in words for everything that is not one the app can run. */
export function detectFamily(all: TensorTable, label: string): FamilyId {
  const evidence = { net: diffusionTensors(all), all }
  const other = looksLike(evidence)
  if (other)
    throw new VignetteError('checkpoint-unknown', `${label} looks like ${other.what}, not a whole model.`, {
      hint: other.hint,
    })
  for (const rule of rules) {
    const verdict = rule(evidence)
    if (!verdict) continue
    if ('family' in verdict) return verdict.family
    throw new VignetteError(
      'checkpoint-unsupported',
      `${label} is ${verdict.unsupported}, which Vignette cannot run yet.`,
      {
        hint: verdict.hint ?? 'Stable Diffusion 1.x, 2.x and XL models work.',
      },
    )
  }
  throw new VignetteError('checkpoint-unknown', `${label} has no layout that Vignette knows.`, {
    hint: `It holds ${all.size} tensors${all.size > 0 ? `, the first is "${all.keys().next().value}"` : ''}. Stable Diffusion 1.x, 2.x and XL models work.`,
  })
}
