import type { FamilyId } from '../family.ts'
import type { StoredTensor } from '../graph/weights.ts'

/** `id` only where Vignette draws with such models. */
export type FamilyGuess = { id?: FamilyId; name: string }

const names = {
  sd15: 'Stable Diffusion 1.x',
  sd2: 'Stable Diffusion 2.x',
  sdxl: 'Stable Diffusion XL',
} as const

const known = (id: FamilyId): FamilyGuess => ({ id, name: names[id] })

/**
 * The family that an adapter was made for, by names and widths (formats.md, section 5.10, tested from top to bottom).
 * Metadata only decides where the tensors leave it open.
 */
export function familyOf(
  tensors: ReadonlyMap<string, StoredTensor>,
  metadata: ReadonlyMap<string, string> = new Map(),
): FamilyGuess | undefined {
  const all = [...tensors.keys()]
  const some = (pattern: RegExp) => all.some((name) => pattern.test(name))
  const widths = (pattern: RegExp) =>
    new Set(all.filter((name) => pattern.test(name) && isDown(name)).map((name) => tensors.get(name)!.shape[1]))

  if (some(/individual_token_refiner/)) return { name: 'HunyuanVideo' }
  if (some(/joint_blocks/)) return { name: 'Stable Diffusion 3' }
  if (some(/lora_prior_(unet|te)_/)) return { name: 'Stable Cascade' }
  if (some(/single_blocks|single_transformer_blocks/)) {
    const from = widths(/single_blocks|single_transformer_blocks/)
    return { name: from.has(6144) || some(/to_qkv_mlp_proj/) ? 'FLUX.2' : 'FLUX.1' }
  }
  if (some(/double_blocks/)) return { name: 'FLUX.1' }
  if (some(/add_k_proj/) && [...widths(/add_k_proj/)].some((width) => width === 1536 || width === 2432))
    return { name: 'Stable Diffusion 3' }
  if (some(/transformer_blocks[._]\d+[._](img_mod|img_mlp|txt_mlp)/)) return { name: 'Qwen-Image' }
  if (some(/transformer_blocks[._]\d+[._](ff_context|norm1_context)/)) return { name: 'FLUX.1' }
  if (
    some(/layers[._]\d+[._](attention|feed_forward)/) &&
    [...widths(/feed_forward/)].some((width) => width === 3840 || width === 2304)
  )
    return { name: 'Z-Image or Lumina' }

  const text = widths(/attn2[._]?(processor[._])?to_[kv]/)
  if (text.has(768)) return known('sd15')
  if (text.has(1024)) return known('sd2')
  if (text.has(2048)) return known('sdxl')
  const isUnet =
    some(/(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)[._]/) || some(/^unet:\d+:/)
  if (isUnet && some(/transformer_blocks[._]9[._]/)) return known('sdxl')
  if (some(/lora_te2_text_model_|text_encoder_2\./)) return known('sdxl')
  const byName = familyByMetadata(metadata)
  if (some(/down_blocks[._]0[._]attentions|up_blocks[._]3[._]|input_blocks[._][12][._]1[._]/))
    return byName?.id === 'sd2' ? byName : known('sd15')
  if (byName) return byName
  const tower = widths(/text_model|text_encoder|lora_te\d?_|encoder[._]layers/)
  if (tower.has(1280)) return known('sdxl')
  if (tower.has(1024)) return known('sd2')
  if (tower.has(768) || some(/^(unet|text_encoder):\d+:/)) return known('sd15')
  return undefined
}

const isDown = (name: string) =>
  /(lora_down|lora\.down|lora_A|hada_w1_b|hada_w2_b|linear_layer\.down|:down)(\.|$)/.test(name)

/** What the writer says of the base model. */
export function familyByMetadata(metadata: ReadonlyMap<string, string>): FamilyGuess | undefined {
  const version = metadata.get('ss_base_model_version') ?? ''
  const architecture = metadata.get('modelspec.architecture') ?? ''
  if (version.startsWith('sdxl') || architecture.startsWith('stable-diffusion-xl')) return known('sdxl')
  if (metadata.get('ss_v2') === 'True' || version.startsWith('sd_v2') || architecture.startsWith('stable-diffusion-v2'))
    return known('sd2')
  if (version.startsWith('sd_v1') || architecture.startsWith('stable-diffusion-v1')) return known('sd15')
  if (version.startsWith('flux') || architecture.startsWith('flux')) return { name: 'FLUX.1' }
  if (version.startsWith('sd3') || architecture.startsWith('stable-diffusion-3')) return { name: 'Stable Diffusion 3' }
  return undefined
}

export const familyName = (id: FamilyId): string => names[id]
