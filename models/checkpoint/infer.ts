import type { ConfigJson } from '../config-json.ts'
import type { FamilyId } from '../family.ts'
import type { TensorTable } from '../graph/weights.ts'

const has = (table: TensorTable, prefix: string) => {
  for (const name of table.keys()) if (name.startsWith(prefix)) return true
  return false
}
const dim = (table: TensorTable, name: string, axis: number): number | undefined => table.get(name)?.shape[axis]

/** One more than the largest number that follows `prefix` in any name. */
function count(table: TensorTable, prefix: string): number {
  let most = 0
  for (const name of table.keys())
    if (name.startsWith(prefix)) most = Math.max(most, Number.parseInt(name.slice(prefix.length), 10) + 1)
  return most
}

const range = (length: number) => Array.from({ length }, (_, i) => i)

/**
 * The UNet's configuration from its shapes, at any width. Heads leave no trace in shapes and follow the family: 8 at
 * every level in Stable Diffusion 1, 64 channels each in 2 and XL. `attention_head_dim` holds the number of heads:
 * diffusers' field is misnamed for these networks.
 */
export function inferUnetConfig(table: TensorTable, family: FamilyId): ConfigJson {
  const levels = range(count(table, 'down_blocks.'))
  const channels = levels.map((i) => dim(table, `down_blocks.${i}.resnets.0.conv1.weight`, 0) ?? 0)
  const depth = (path: string) => count(table, `${path}.transformer_blocks.`)
  const depths = levels.map((i) => depth(`down_blocks.${i}.attentions.0`))
  const midDepth = depth('mid_block.attentions.0')
  // The last entry is also the depth of the middle block; where a level has no attention its entry means nothing else.
  const listed = depths.map((own, i) => (i === depths.length - 1 ? midDepth : Math.max(1, own)))
  const attends = (i: number) => depths[i] > 0
  const projection = table.get('add_embedding.linear_1.weight')
  const crossNames = [...table.keys()].find((name) => name.endsWith('attn2.to_k.weight'))
  return {
    _class_name: 'UNet2DConditionModel',
    in_channels: dim(table, 'conv_in.weight', 1),
    out_channels: dim(table, 'conv_out.weight', 0),
    block_out_channels: channels,
    layers_per_block: count(table, 'down_blocks.0.resnets.'),
    down_block_types: levels.map((i) => (attends(i) ? 'CrossAttnDownBlock2D' : 'DownBlock2D')),
    up_block_types: [...levels].reverse().map((i) => (attends(i) ? 'CrossAttnUpBlock2D' : 'UpBlock2D')),
    transformer_layers_per_block: listed.every((own) => own === 1) ? 1 : listed,
    attention_head_dim: family === 'sd15' ? 8 : channels.map((width) => Math.max(1, Math.floor(width / 64))),
    cross_attention_dim: crossNames === undefined ? undefined : dim(table, crossNames, 1),
    use_linear_projection: dim(table, 'mid_block.attentions.0.proj_in.weight', 2) === undefined,
    norm_num_groups: 32,
    ...(family === 'sdxl'
      ? {
          addition_embed_type: 'text_time',
          addition_time_embed_dim: 256,
          projection_class_embeddings_input_dim: projection?.shape[1],
        }
      : {}),
  }
}

/** The autoencoder's configuration from its shapes; `scale` is the family's, since it leaves no trace. */
export function inferVaeConfig(table: TensorTable, scale: number): ConfigJson {
  const levels = range(count(table, 'encoder.down_blocks.'))
  return {
    _class_name: 'AutoencoderKL',
    in_channels: 3,
    out_channels: 3,
    latent_channels: dim(table, 'decoder.conv_in.weight', 1),
    block_out_channels: levels.map((i) => dim(table, `encoder.down_blocks.${i}.resnets.0.conv1.weight`, 0) ?? 0),
    layers_per_block: count(table, 'encoder.down_blocks.0.resnets.'),
    norm_num_groups: 32,
    use_quant_conv: has(table, 'quant_conv.'),
    use_post_quant_conv: has(table, 'post_quant_conv.'),
    scaling_factor: scale,
  }
}

/** Blocks of the published towers by width, so that a file which lost its last blocks is noticed. */
const publishedLayers: Record<number, number> = { 768: 12, 1024: 23, 1280: 32 }

/** A text tower's configuration from its shapes. Heads are 64 wide in every published tower. */
export function inferClipConfig(table: TensorTable, activation: 'quick_gelu' | 'gelu'): ConfigJson {
  const width = dim(table, 'text_model.embeddings.token_embedding.weight', 1) ?? 0
  const projection = dim(table, 'text_projection.weight', 0)
  return {
    hidden_size: width,
    intermediate_size: dim(table, 'text_model.encoder.layers.0.mlp.fc1.weight', 0),
    num_hidden_layers: publishedLayers[width] ?? count(table, 'text_model.encoder.layers.'),
    num_attention_heads: Math.max(1, Math.floor(width / 64)),
    vocab_size: dim(table, 'text_model.embeddings.token_embedding.weight', 0),
    max_position_embeddings: dim(table, 'text_model.embeddings.position_embedding.weight', 0),
    hidden_act: activation,
    ...(projection === undefined ? {} : { projection_dim: projection, architectures: ['CLIPTextModelWithProjection'] }),
  }
}
