import type { AdapterTarget, ModelShape } from './types.ts'

// Which module of a model a name in an adapter file means. All names that programs give to a module are made from its own
// path and looked up: turning underscores back into dots would be a guess (formats.md, section 5.3).

/** `rows`: the module is only these rows of the fused one that a name means. */
export type ModulePlace = { target: AdapterTarget; path: string; rows?: readonly [number, number] }

const underscored = (path: string) => path.replaceAll('.', '_')

const top: Record<string, string> = {
  'time_embedding.linear_1': 'time_embed.0',
  'time_embedding.linear_2': 'time_embed.2',
  'add_embedding.linear_1': 'label_emb.0.0',
  'add_embedding.linear_2': 'label_emb.0.2',
  conv_in: 'input_blocks.0.0',
  conv_norm_out: 'out.0',
  conv_out: 'out.2',
}

const resnetParts: Record<string, string> = {
  norm1: 'in_layers.0',
  conv1: 'in_layers.2',
  time_emb_proj: 'emb_layers.1',
  norm2: 'out_layers.0',
  conv2: 'out_layers.3',
  conv_shortcut: 'skip_connection',
}

/** The LDM name of a UNet's module, the inverse of checkpoint/names/unet-ldm.ts. `perLevel`: resnets of a level on the way up. */
export function ldmName(path: string, perLevel: number, hasAttention: (block: string) => boolean): string | undefined {
  const direct = top[path]
  if (direct) return direct
  const found = /^(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$/.exec(path)
  if (found) {
    const [, way, levelText, kind, placeText, rest] = found
    const [level, place] = [Number(levelText), Number(placeText)]
    const block =
      way === 'down' ? `input_blocks.${1 + perLevel * level + place}` : `output_blocks.${perLevel * level + place}`
    if (kind === 'resnets') return resnetParts[rest] && `${block}.0.${resnetParts[rest]}`
    if (kind === 'attentions') return `${block}.1.${rest}`
    if (kind === 'downsamplers') return rest === 'conv' ? `input_blocks.${perLevel * (level + 1)}.0.op` : undefined
    const last = `output_blocks.${perLevel * (level + 1) - 1}`
    return `${last}.${hasAttention(`up_blocks.${level}.attentions`) ? 2 : 1}.${rest}`
  }
  const mid = /^mid_block\.(resnets|attentions)\.(\d+)\.(.+)$/.exec(path)
  if (!mid) return undefined
  const [, kind, place, rest] = mid
  if (kind === 'attentions') return `middle_block.1.${rest}`
  return resnetParts[rest] && `middle_block.${2 * Number(place)}.${resnetParts[rest]}`
}

/** LDM names of the modules of a UNet. */
export function ldmNamer(layers: ReadonlyMap<string, unknown>): (path: string) => string | undefined {
  let perLevel = 1
  const withAttention = new Set<string>()
  for (const path of layers.keys()) {
    const [, place] = /^up_blocks\.\d+\.resnets\.(\d+)\./.exec(path) ?? []
    if (place !== undefined) perLevel = Math.max(perLevel, 1 + Number(place))
    const [, attentions] = /^(up_blocks\.\d+\.attentions)\./.exec(path) ?? []
    if (attentions !== undefined) withAttention.add(attentions)
  }
  return (path) => ldmName(path, perLevel, (block) => withAttention.has(block))
}

function unetAliases(path: string, ldm: string | undefined): string[] {
  const names = [`lora_unet_${underscored(path)}`, `lycoris_${underscored(path)}`, `unet.${path}`, path]
  names.push(`base_model.model.${path}`, `base_model.model.unet.${path}`, `unet.base_model.model.${path}`)
  if (ldm === undefined) return names
  const full = [`diffusion_model.${ldm}`, `model.diffusion_model.${ldm}`, ldm, `base_model.model.${ldm}`]
  return [...names, `lora_unet_${underscored(ldm)}`, ...full]
}

function textAliases(path: string, target: 'text_encoder' | 'text_encoder_2'): string[] {
  // transformers 5 leaves out "text_model.", which all earlier files have.
  const short = path.replace(/^text_model\./, '')
  const [kohya, diffusers, comfy] =
    target === 'text_encoder'
      ? [['lora_te_', 'lora_te1_'], ['text_encoder.'], ['clip_l', 'clip_h']]
      : [['lora_te2_'], ['text_encoder_2.'], ['clip_g']]
  return [...new Set([path, short])].flatMap((each) => [
    ...kohya.map((prefix) => `${prefix}${underscored(each)}`),
    ...diffusers.flatMap((prefix) => [
      `${prefix}${each}`,
      `base_model.model.${prefix}${each}`,
      `${prefix}base_model.model.${each}`,
    ]),
    ...comfy.map((tower) => `text_encoders.${tower}.transformer.${each}`),
  ])
}

const tables = new WeakMap<ModelShape, ReadonlyMap<string, ModulePlace>>()

/** Every name that a module of the model goes by -> the module. Made once for each model. */
export function aliasTable(shape: ModelShape): ReadonlyMap<string, ModulePlace> {
  const table = tables.get(shape) ?? makeTable(shape)
  tables.set(shape, table)
  return table
}

function makeTable(shape: ModelShape): ReadonlyMap<string, ModulePlace> {
  const table = new Map<string, ModulePlace>()
  const add = (alias: string, place: ModulePlace) => {
    const known = table.get(alias)
    if (known && (known.path !== place.path || known.target !== place.target))
      throw new Error(`"${alias}" means ${known.path} and ${place.path}`)
    table.set(alias, place)
  }
  for (const [target, layers] of Object.entries(shape.layers) as [AdapterTarget, ReadonlyMap<string, unknown>][]) {
    const ldmOf = ldmNamer(layers)
    for (const path of layers.keys()) {
      const names = target === 'unet' ? unetAliases(path, ldmOf(path)) : textAliases(path, target)
      for (const name of names) add(name, { target, path })
    }
  }
  return table
}

const sharedTables = new WeakMap<ModelShape, ReadonlyMap<string, readonly ModulePlace[]>>()

/**
 * The modules that a name in a file means: one as a rule; where text encoders share their names, that of each, to be told
 * apart by size; of a fused matrix its parts, with their rows in order. None for unknown names.
 */
export function placesOf(shape: ModelShape, name: string): readonly ModulePlace[] {
  const place = aliasTable(shape).get(name)
  if (place) return [place]
  const shared = sharedTables.get(shape) ?? makeSharedTable(shape)
  sharedTables.set(shape, shared)
  return shared.get(name) ?? []
}

/** Names that leave open which text encoder they mean, and those of the projections that diffusers fuses. */
function makeSharedTable(shape: ModelShape): ReadonlyMap<string, readonly ModulePlace[]> {
  const table = new Map<string, readonly ModulePlace[]>()
  for (const target of ['text_encoder', 'text_encoder_2'] as const) {
    for (const path of shape.layers[target]?.keys() ?? []) {
      for (const each of new Set([path, path.replace(/^text_model\./, '')])) {
        for (const name of [each, `base_model.model.${each}`, `lycoris_${underscored(each)}`])
          table.set(name, [...(table.get(name) ?? []), { target, path }])
      }
    }
  }
  const unet = shape.layers.unet
  for (const path of unet?.keys() ?? []) {
    const [, site] = /^(.*\.attn[12])\.to_k$/.exec(path) ?? []
    if (site === undefined) continue
    const fused = site.endsWith('1') ? ['to_q', 'to_k', 'to_v'] : ['to_k', 'to_v']
    let end = 0
    const places = fused.map((part): ModulePlace => {
      const start = end
      end += unet!.get(`${site}.${part}`)!.weight[0]
      return { target: 'unet', path: `${site}.${part}`, rows: [start, end] }
    })
    const name = `${site}.${fused.length === 3 ? 'to_qkv' : 'to_kv'}`
    for (const alias of unetAliases(name, undefined)) table.set(alias, places)
  }
  return table
}

/** The name as the tables have it: processors of old diffusers files are their modules, and so are PEFT's wrappers. */
export function plainModule(module: string): string {
  if (!/\.to_|base_layer|^default/.test(module)) return module
  return module
    .replace(/\.processor\.to_(q|k|v)$/, '.to_$1')
    .replace(/\.processor\.to_out$/, '.to_out.0')
    .replace(/(self_attn)\.to_(q|k|v)$/, '$1.$2_proj')
    .replace(/(self_attn)\.to_out$/, '$1.out_proj')
    .replace(/\.base_layer$/, '')
    .replace(/^default\./, '')
}

/**
 * Modules of a cloneofsimo file by their numbers (formats.md, section 5.6): of the UNet the attentions and the first
 * feed-forward matrix of every transformer block, the way up before the middle; of the text tower k, v, q and out.
 */
export function safeloraModules(shape: ModelShape): { unet: string[]; text_encoder: string[] } {
  const inOrder = (paths: Iterable<string>, part: string) => [...paths].filter((path) => path.startsWith(part))
  const layers = [...(shape.layers.unet?.keys() ?? [])]
  const blocks = ['down_blocks.', 'up_blocks.', 'mid_block.'].flatMap((part) => {
    const found = inOrder(layers, part).flatMap((path) => /^(.*\.transformer_blocks\.\d+)\./.exec(path)?.[1] ?? [])
    return [...new Set(found)].sort((a, b) => (numbersOf(a) < numbersOf(b) ? -1 : 1))
  })
  const parts = [
    'attn1.to_q',
    'attn1.to_k',
    'attn1.to_v',
    'attn1.to_out.0',
    'ff.net.0.proj',
    'attn2.to_q',
    'attn2.to_k',
    'attn2.to_v',
    'attn2.to_out.0',
  ]
  const towers = [...(shape.layers.text_encoder?.keys() ?? [])].flatMap(
    (path) => /^(.*\.layers\.\d+)\.self_attn\.q_proj$/.exec(path)?.[1] ?? [],
  )
  towers.sort((a, b) => (numbersOf(a) < numbersOf(b) ? -1 : 1))
  return {
    unet: blocks.flatMap((block) => parts.map((part) => `${block}.${part}`)),
    text_encoder: towers.flatMap((layer) =>
      ['k_proj', 'v_proj', 'q_proj', 'out_proj'].map((part) => `${layer}.self_attn.${part}`),
    ),
  }
}

/** Its numbers, in a form that sorts: 'down_blocks.1.…' before 'down_blocks.10.…'. */
const numbersOf = (path: string) => path.replace(/\d+/g, (digits) => digits.padStart(4, '0'))
