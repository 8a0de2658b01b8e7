/** Names of CLIP text towers, as Hugging Face and as OpenCLIP write them -> transformers' CLIPTextModel. */

/** What to take from a stored tensor: all of it, its transpose, or one third of its rows (of a joined q, k, v). */
export type ClipPart = { name: string; transpose?: true; third?: 0 | 1 | 2 }

const projections = ['q_proj', 'k_proj', 'v_proj'] as const

const blockParts: Record<string, string> = {
  ln_1: 'layer_norm1',
  ln_2: 'layer_norm2',
  'attn.out_proj': 'self_attn.out_proj',
  'mlp.c_fc': 'mlp.fc1',
  'mlp.c_proj': 'mlp.fc2',
}

const openClipTop: Record<string, string> = {
  'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
  positional_embedding: 'text_model.embeddings.position_embedding.weight',
  'ln_final.weight': 'text_model.final_layer_norm.weight',
  'ln_final.bias': 'text_model.final_layer_norm.bias',
}

/**
 * The tensors that one stored tensor of a text tower stands for; empty when the app has no use for it (position ids,
 * logit scale, the vision half). The prefix is gone already.
 */
export function clipParts(name: string): ClipPart[] {
  const openClip = openClipTop[name]
  if (openClip) return [{ name: openClip }]
  // OpenCLIP computes pooled · P, a Linear computes pooled · Wᵀ. The matrix is square in every published model, so its
  // orientation cannot be read off its shape. The bare name is taken at its word, as diffusers and ComfyUI do; a file
  // whose writer forgot to turn it back gets a wrong pooled vector. Numbers of the official matrix would tell the two
  // apart, but none could be had to compare with.
  if (name === 'text_projection') return [{ name: 'text_projection.weight', transpose: true }]
  if (name === 'text_projection.weight') return [{ name }]

  const block = /^transformer\.resblocks\.(\d+)\.(.+)$/.exec(name)
  if (block) return blockTensors(`text_model.encoder.layers.${block[1]}`, block[2])

  // Very old exports, and transformers since 5.6, leave out "text_model.".
  const inner = name.startsWith('text_model.') ? name.slice('text_model.'.length) : name
  const fused = /^(encoder\.layers\.\d+)\.self_attn\.in_proj[._](weight|bias)$/.exec(inner)
  if (fused) return thirds(`text_model.${fused[1]}`, fused[2])
  const isWeight =
    /^(embeddings\.(token|position)_embedding\.weight|final_layer_norm\.(weight|bias)|encoder\.layers\.\d+\.[\w.]+\.(weight|bias))$/
  return isWeight.test(inner) ? [{ name: `text_model.${inner}` }] : []
}

function blockTensors(path: string, rest: string): ClipPart[] {
  const joined = /^attn\.in_proj[._](weight|bias)$/.exec(rest)
  if (joined) return thirds(path, joined[1])
  const dot = rest.lastIndexOf('.')
  const part = blockParts[rest.slice(0, dot)]
  return part === undefined ? [] : [{ name: `${path}.${part}${rest.slice(dot)}` }]
}

function thirds(path: string, leaf: string): ClipPart[] {
  return projections.map((projection, third) => ({
    name: `${path}.self_attn.${projection}.${leaf}`,
    third: third as 0 | 1 | 2,
  }))
}
