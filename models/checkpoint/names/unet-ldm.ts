/** Names of the original "LDM" UNet (Stable Diffusion 1, 2 and XL) -> diffusers. */

const top: Record<string, string> = {
  'time_embed.0': 'time_embedding.linear_1',
  'time_embed.2': 'time_embedding.linear_2',
  'label_emb.0.0': 'add_embedding.linear_1',
  'label_emb.0.2': 'add_embedding.linear_2',
  'input_blocks.0.0': 'conv_in',
  'out.0': 'conv_norm_out',
  'out.2': 'conv_out',
}

const resnetParts: Record<string, string> = {
  'in_layers.0': 'norm1',
  'in_layers.2': 'conv1',
  'emb_layers.1': 'time_emb_proj',
  'out_layers.0': 'norm2',
  'out_layers.3': 'conv2',
  skip_connection: 'conv_shortcut',
}

/** First parts of every LDM UNet name. */
export const unetRoots = ['input_blocks', 'middle_block', 'output_blocks', 'time_embed', 'label_emb', 'out'] as const

/**
 * Blocks per level on the way down, counting the downsampler: 3 in every published model. Read off the first
 * downsampler, so that small networks of other depths import as well.
 */
export function blocksPerLevel(names: Iterable<string>): number {
  let first = Infinity
  let last = 0
  for (const name of names) {
    const [root, index, , part] = name.split('.')
    if (root !== 'input_blocks') continue
    last = Math.max(last, Number(index))
    if (part === 'op') first = Math.min(first, Number(index))
  }
  return first === Infinity ? last + 1 : first
}

/** The diffusers name of an LDM UNet tensor (without prefix), or undefined when it has none. */
export function unetNameFromLdm(name: string, perLevel: number): string | undefined {
  const parts = name.split('.')
  const leaf = parts[parts.length - 1]
  if (leaf !== 'weight' && leaf !== 'bias') return undefined
  const module = parts.slice(0, -1)
  const direct = top[module.join('.')]
  if (direct) return `${direct}.${leaf}`

  const [root, first, second, ...rest] = module
  if (root === 'middle_block') {
    if (first === '1') return join('mid_block.attentions.0', [second, ...rest], leaf)
    return first === '0' || first === '2'
      ? resnet(`mid_block.resnets.${Number(first) / 2}`, [second, ...rest], leaf)
      : undefined
  }
  const index = Number(first)
  if (!Number.isInteger(index) || second === undefined) return undefined
  if (root === 'input_blocks' && index > 0) {
    const level = Math.floor((index - 1) / perLevel)
    const place = (index - 1) % perLevel
    if (second === '0' && rest[0] === 'op') return join(`down_blocks.${level}.downsamplers.0.conv`, rest.slice(1), leaf)
    if (second === '0') return resnet(`down_blocks.${level}.resnets.${place}`, rest, leaf)
    return second === '1' ? join(`down_blocks.${level}.attentions.${place}`, rest, leaf) : undefined
  }
  if (root === 'output_blocks') {
    const level = Math.floor(index / perLevel)
    const place = index % perLevel
    if (second === '0') return resnet(`up_blocks.${level}.resnets.${place}`, rest, leaf)
    // The upsampler comes last in its block: third part after an attention, second where there is none.
    if (rest[0] === 'conv') return join(`up_blocks.${level}.upsamplers.0.conv`, rest.slice(1), leaf)
    return second === '1' ? join(`up_blocks.${level}.attentions.${place}`, rest, leaf) : undefined
  }
  return undefined
}

function resnet(path: string, rest: string[], leaf: string): string | undefined {
  const part = resnetParts[rest.join('.')]
  return part === undefined ? undefined : `${path}.${part}.${leaf}`
}

function join(path: string, rest: string[], leaf: string): string {
  return [path, ...rest, leaf].join('.')
}
