/** Names of the original "LDM" autoencoder, and of older diffusers versions -> diffusers. */

const attentionParts: Record<string, string> = {
  norm: 'group_norm',
  q: 'to_q',
  k: 'to_k',
  v: 'to_v',
  proj_out: 'to_out.0',
  query: 'to_q',
  key: 'to_k',
  value: 'to_v',
  proj_attn: 'to_out.0',
}

const name =
  /^(?:(encoder|decoder)\.)?(conv_in|conv_out|norm_out|conv_norm_out|quant_conv|post_quant_conv|down|up|mid|down_blocks|up_blocks|mid_block)\./

/** True for any name an autoencoder can have, in either naming, once its prefix is gone. */
export function isVaeName(candidate: string): boolean {
  return name.test(candidate)
}

/** Levels of the decoder: its blocks are numbered from the far end in LDM files. */
export function decoderLevels(names: Iterable<string>): number {
  let levels = 0
  for (const each of names) {
    const found = /^decoder\.up\.(\d+)\./.exec(each)
    if (found) levels = Math.max(levels, Number(found[1]) + 1)
  }
  return levels
}

/** The diffusers name of an autoencoder tensor (without prefix); diffusers' own names come back as they are. */
export function vaeNameFromLdm(candidate: string, levels: number): string | undefined {
  const parts = candidate.split('.')
  if (!isVaeName(candidate)) return undefined
  // Some exports put the two 1×1 convolutions inside their half.
  if (parts[1] === 'quant_conv' || parts[1] === 'post_quant_conv') return parts.slice(1).join('.')
  const [half, group, ...rest] = parts
  if (half !== 'encoder' && half !== 'decoder') return candidate
  const path = (...more: string[]) => [half, ...more].join('.')
  switch (group) {
    case 'norm_out':
      return path('conv_norm_out', ...rest)
    case 'down':
    case 'up': {
      const level = group === 'down' ? rest[0] : String(levels - 1 - Number(rest[0]))
      if (rest[1] === 'block') return path(`${group}_blocks`, level, 'resnets', rest[2], ...shortcut(rest.slice(3)))
      return path(`${group}_blocks`, level, `${group}samplers.0`, ...rest.slice(2))
    }
    case 'mid':
      if (rest[0] === 'attn_1')
        return path('mid_block.attentions.0', attentionParts[rest[1]] ?? rest[1], ...rest.slice(2))
      return path('mid_block.resnets', String(Number(rest[0].replace('block_', '')) - 1), ...shortcut(rest.slice(1)))
    case 'mid_block':
      if (rest[0] === 'attentions')
        return path(group, rest[0], rest[1], attentionParts[rest[2]] ?? rest[2], ...rest.slice(3))
      return candidate
    default:
      return candidate
  }
}

function shortcut(rest: string[]): string[] {
  return rest[0] === 'nin_shortcut' ? ['conv_shortcut', ...rest.slice(1)] : rest
}
