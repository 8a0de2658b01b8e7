import type { Evidence } from './prefixes.ts'

const adapters = 'Import it under Adapters, and a model to use it with under Models.'

type Look = { what: string; hint: string }

/** Endings that only low-rank adapters and their kin have, in all common layouts. */
const adapterEnding =
  /[._]lora[._](up|down|mid|A|B)\b|\.lora_(linear_layer|layer)\.|_lora\.(up|down)\.weight$|\.(hada_w[12]_[ab]|lokr_w[12](_[ab])?|oft_blocks|dora_scale|on_input)$|\.lora_[AB]($|\.)|\.diff(_b)?$|^(unet|text_encoder|te|text_encoder_2):\d+:(up|down|mid)$/

/**
 * What a file without a whole model in it is: an adapter, a ControlNet, a part of a model. Undefined when it has a
 * diffusion network under names of its own, or nothing that is known.
 */
export function looksLike({ net, all }: Evidence): Look | undefined {
  const names = [...all.keys()]
  const count = (test: (name: string) => boolean) => names.reduce((sum, name) => sum + (test(name) ? 1 : 0), 0)
  const some = (test: (name: string) => boolean) => names.some(test)
  const starts = (...prefixes: string[]) => some((name) => prefixes.some((prefix) => name.startsWith(prefix)))

  if (
    starts('control_model.') ||
    net.has('input_hint_block.0.weight') ||
    all.has('controlnet_cond_embedding.conv_in.weight')
  ) {
    return { what: 'a ControlNet', hint: 'A ControlNet steers a model; import a Stable Diffusion model here.' }
  }
  if (count((name) => adapterEnding.test(name)) > names.length / 4)
    return { what: 'an adapter (LoRA or kin)', hint: adapters }
  if (net.has('input_blocks.0.0.weight')) return undefined

  if (starts('image_proj.', 'ip_adapter.'))
    return { what: 'an IP-Adapter', hint: 'Import a Stable Diffusion model here.' }
  if (starts('adapter.body.') || all.has('body.0.block1.weight'))
    return { what: 'a T2I-Adapter', hint: 'Import a Stable Diffusion model here.' }
  if (some((name) => name.includes('motion_modules.')))
    return { what: 'a motion module (AnimateDiff)', hint: 'Import a Stable Diffusion model here.' }
  if (
    all.has('emb_params') ||
    all.has('string_to_param') ||
    (names.length <= 3 && names.every((name) => name === 'clip_l' || name === 'clip_g'))
  ) {
    return { what: 'a textual-inversion embedding', hint: 'Import a Stable Diffusion model here.' }
  }
  if (names.length === 1 && [768, 1024, 1280].includes(all.get(names[0])?.shape.at(-1) ?? 0)) {
    return { what: 'a textual-inversion embedding', hint: 'Import a Stable Diffusion model here.' }
  }
  const folder = 'Choose the folder that holds model_index.json and all its parts.'
  if (all.has('conv_in.weight') && starts('down_blocks.') && starts('up_blocks.'))
    return { what: 'the UNet of a diffusers folder', hint: folder }
  if (starts('single_transformer_blocks.'))
    return { what: 'the transformer of a FLUX folder', hint: 'Stable Diffusion 1.x, 2.x and XL models work.' }
  if (all.has('conv_first.weight') || all.has('model.0.weight'))
    return { what: 'an upscaler (ESRGAN or kin)', hint: 'Import a Stable Diffusion model here.' }

  const hasNet = starts('model.diffusion_model.', 'diffusion_model.', 'model.', 'net.')
  if (hasNet) return undefined
  if (
    some((name) => /(^|\.)decoder\.(conv_in|up|up_blocks|mid)\b/.test(name)) &&
    !some((name) => name.includes('transformer'))
  ) {
    return { what: 'a VAE', hint: 'Import a whole model; its VAE comes with it.' }
  }
  if (
    some((name) => /^(decoder|encoder)\.layers\.\d+\.(conv\.\d+\.)?(weight|bias)$/.test(name)) ||
    all.has('taesd_decoder.1.weight')
  ) {
    return { what: 'a preview decoder (TAESD)', hint: 'Import a whole model.' }
  }
  const isTextOnly =
    names.length > 0 &&
    names.every((name) =>
      /text_model\.|embeddings\.|encoder\.(layers|block)\.|final_layer_norm|shared\.|logit_scale|text_projection|resblocks|token_embedding|positional_embedding|ln_final/.test(
        name,
      ),
    )
  if (isTextOnly) return { what: 'a text encoder', hint: 'Import a whole model; its text encoder comes with it.' }
  return undefined
}
