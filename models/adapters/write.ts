import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import { toFloat16, type StorageDtype } from '../checkpoint/dtypes.ts'
import { layOut, writeSafetensors, type PlannedTensor } from '../checkpoint/safetensors.ts'
import { fromSystemError, VignetteError } from '../errors.ts'
import type { FamilyId } from '../family.ts'
import { ldmName } from './names.ts'
import type { AdapterRole, AdapterTarget, ModelShape } from './types.ts'

// Low-rank adapters as files that other programs read: kohya's names with `alpha`, or those of PEFT and diffusers.

/**
 * One layer's change ΔW = up · down with every scale in it: down [rank, k], up [n, rank], k as the file has it, (channel,
 * y, x) for a 3 × 3 convolution. `weight` is the shape of the layer's weight as diffusers stores it.
 */
export type LayerDelta = {
  target: AdapterTarget
  path: string
  weight: readonly number[]
  rank: number
  down: Float32Array
  up: Float32Array
}

export type AdapterLayout = 'kohya' | 'diffusers'

/** What a file says of itself; all of it is for people and cards. */
export type AdapterNotes = {
  title?: string
  description?: string
  author?: string
  licence?: string
  tags?: readonly string[]
  triggers?: readonly string[]
  weight?: number
  role?: AdapterRole
  /** Further entries, by their own keys. */
  more?: Readonly<Record<string, string>>
}

export type WriteOptions = {
  /** Of the model that the adapter is for: names depend on it. */
  shape: ModelShape
  layout?: AdapterLayout
  /** F16 when left out; a file whose numbers are too large for it is written in F32. */
  storage?: StorageDtype
  notes?: AdapterNotes
  /** Layers whose factors are stored in F32 whatever the rest: those that must come back bit for bit. */
  isExact?: (layer: LayerDelta) => boolean
}

/** Family -> (kohya's base version, the architecture of the model specification). */
const familyNotes: Record<FamilyId, { base: string; architecture: string }> = {
  sd15: { base: 'sd_v1', architecture: 'stable-diffusion-v1' },
  sd2: { base: 'sd_v2', architecture: 'stable-diffusion-v2-512' },
  sdxl: { base: 'sdxl_base_v1-0', architecture: 'stable-diffusion-xl-v1-base' },
}

/**
 * Writes an adapter as one safetensors file, whole or not at all. The same layers and notes give the same bytes. Returns
 * the storage that was used.
 */
export async function writeAdapter(
  file: string,
  layers: readonly LayerDelta[],
  options: WriteOptions,
): Promise<StorageDtype> {
  if (layers.length === 0) throw new VignetteError('adapter-mismatch', 'There is no layer to write into an adapter.')
  const { layout = 'kohya', storage = 'F16' } = options
  const names = moduleNames(options.shape, layout)
  const isTooLarge = storage === 'F16' && layers.some((layer) => !fitsHalf(layer))
  const used = isTooLarge ? 'F32' : storage
  const stored = layout === 'kohya' ? withOneAlpha(layers) : layers
  const alpha = layout === 'kohya' ? usualRank(layers) : undefined
  const tensors = stored.flatMap((layer) =>
    tensorsOf(layer, names(layer), alpha, options.isExact?.(layer) ? 'F32' : used),
  )
  await writeTensors(file, tensors, metadataOf(layers, options, layout))
  return used
}

export type NamedBytes = PlannedTensor & { bytes: Uint8Array }

/** Writes tensors with the hash by which kohya's tools know a file, over everything after its header. */
export async function writeTensors(
  file: string,
  tensors: readonly NamedBytes[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const bytes = new Map(tensors.map((tensor) => [tensor.name, tensor.bytes]))
  const get = (name: string): Uint8Array => bytes.get(name)!
  const hash = createHash('sha256')
  for (const { name } of layOut(tensors).tensors) hash.update(get(name))
  const noted = { ...metadata, sshs_model_hash: hash.digest('hex') }
  try {
    await writeSafetensors(file, tensors, ({ name }) => [get(name)], noted)
  } catch (error) {
    const known = fromSystemError(error)
    if (known?.code !== 'disk-full') throw error
    const size = tensors.reduce((sum, tensor) => sum + tensor.bytes.length, 0)
    const message = `There is no room for ${basename(file)}: it needs ${Math.ceil(size / 1e6)} MB.`
    throw new VignetteError('disk-full', message, { hint: known.hint, cause: error })
  }
}

/** Float32 numbers as the bytes of a dtype. */
export function toBytes(values: Float32Array, dtype: StorageDtype): Uint8Array {
  const stored = dtype === 'F16' ? toFloat16(values) : values
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength)
}

/** Gives a layer its name in a file, without the ending. */
export function moduleNames(
  { family, layers }: ModelShape,
  layout: AdapterLayout,
): (layer: Pick<LayerDelta, 'target' | 'path'>) => string {
  if (layout === 'diffusers') return ({ target, path }) => `${target}.${path}`
  const text = family === 'sdxl' ? 'lora_te1_' : 'lora_te_'
  // Files for SDXL have the names of the original code (formats.md, section 5.3).
  const paths = family === 'sdxl' ? [...(layers.unet?.keys() ?? [])] : []
  const perLevel =
    1 + Math.max(0, ...paths.map((path) => Number(/^up_blocks\.\d+\.resnets\.(\d+)\./.exec(path)?.[1] ?? 0)))
  const hasAttention = (prefix: string) => paths.some((path) => path.startsWith(`${prefix}.`))
  return ({ target, path }) => {
    const prefix = target === 'unet' ? 'lora_unet_' : target === 'text_encoder' ? text : 'lora_te2_'
    const original = target === 'unet' && family === 'sdxl' ? ldmName(path, perLevel, hasAttention) : undefined
    return prefix + (original ?? path).replaceAll('.', '_')
  }
}

/** The rank that most layers have. */
export function usualRank(layers: readonly Pick<LayerDelta, 'rank'>[]): number {
  const counts = new Map<number, number>()
  for (const { rank } of layers) counts.set(rank, (counts.get(rank) ?? 0) + 1)
  return [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0]
}

/**
 * The layers as a kohya file has them: one alpha for all, the usual rank, and `up` scaled for it where the rank is another.
 * With alpha = rank in every layer diffusers 0.42 loses those alphas that are not the usual one (it looks for them under
 * the names of attention processors), and scales the layer by the usual rank over its own.
 */
export function withOneAlpha<L extends LayerDelta>(layers: readonly L[]): (L & { scale: number })[] {
  const usual = usualRank(layers)
  return layers.map((layer) => {
    const scale = usual / layer.rank
    return { ...layer, scale, up: scale === 1 ? layer.up : layer.up.map((value) => value / scale) }
  })
}

function tensorsOf(layer: LayerDelta, module: string, alpha: number | undefined, dtype: StorageDtype): NamedBytes[] {
  const { weight, rank } = layer
  const [n, ...inner] = weight
  const [down, up] = dtype === 'F16' ? balanced(layer) : [layer.down, layer.up]
  const ends = alpha !== undefined ? ['lora_down.weight', 'lora_up.weight'] : ['lora_A.weight', 'lora_B.weight']
  const factors = [
    { name: `${module}.${ends[0]}`, shape: [rank, ...inner], bytes: toBytes(down, dtype) },
    { name: `${module}.${ends[1]}`, shape: [n, rank, ...inner.slice(1).map(() => 1)], bytes: toBytes(up, dtype) },
  ].map((tensor) => ({ ...tensor, dtype }))
  if (alpha === undefined) return factors
  // A scalar, as kohya's trainer writes it. Halves hold every whole number to 2048.
  return [...factors, { name: `${module}.alpha`, dtype, shape: [], bytes: toBytes(Float32Array.of(alpha), dtype) }]
}

/** Below this the halves of a factor begin to lose digits: their smallest full number is 2^-14. */
const smallest = 2 ** -7

/** Moves a power of two from one factor to the other where the second would lose digits as halves; exact. */
function balanced({ down, up }: LayerDelta): [Float32Array, Float32Array] {
  const [large, small] = [largest(down), largest(up)]
  if (small === 0 || small >= smallest || large <= small) return [down, up]
  const factor = 2 ** Math.floor(Math.log2(large / small) / 2)
  return [down.map((value) => value / factor), up.map((value) => value * factor)]
}

const largest = (values: Float32Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)

/** Halves end at 65504. What is no number at all is a fault of whoever made it. */
function fitsHalf({ path, down, up }: LayerDelta): boolean {
  const most = Math.max(largest(down), largest(up))
  if (!Number.isFinite(most)) throw new Error(`${path}: a factor of the adapter is not finite`)
  return most < 65504
}

function metadataOf(
  layers: readonly LayerDelta[],
  options: WriteOptions,
  layout: AdapterLayout,
): Record<string, string> {
  const { notes = {} } = options
  const { family } = options.shape
  const ranks = new Set(layers.map(({ rank }) => rank))
  const rank = ranks.size === 1 ? String([...ranks][0]) : 'Dynamic'
  const { base, architecture } = familyNotes[family]
  const entries: [string, string | undefined][] = [
    ['format', 'pt'],
    ['ss_network_module', 'networks.lora'],
    ['ss_network_dim', rank],
    ['ss_network_alpha', String(usualRank(layers))],
    ['ss_base_model_version', base],
    ['ss_v2', family === 'sd2' ? 'True' : 'False'],
    ['ss_output_name', notes.title],
    ['modelspec.sai_model_spec', '1.0.0'],
    ['modelspec.architecture', `${architecture}/lora`],
    ['modelspec.implementation', layout],
    ['modelspec.title', notes.title],
    ['modelspec.description', notes.description],
    ['modelspec.author', notes.author],
    ['modelspec.license', notes.licence],
    ['modelspec.tags', notes.tags?.join(', ')],
    ['modelspec.trigger_phrase', notes.triggers?.join(', ')],
    ['vignette_kind', 'lora'],
    ['vignette_role', notes.role],
    ['vignette_title', notes.title],
    ['vignette_trigger', notes.triggers?.join(', ')],
    ['vignette_weight', notes.weight === undefined ? undefined : String(notes.weight)],
    ['lora_adapter_metadata', layout === 'diffusers' ? JSON.stringify(peftConfig(layers)) : undefined],
    ...Object.entries(notes.more ?? {}),
  ]
  const told = entries.filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '')
  return Object.fromEntries(told)
}

/**
 * PEFT's configuration, by component, as diffusers keeps it in `lora_adapter_metadata`: without `alpha_pattern` it would
 * scale every layer whose rank is not the usual one.
 */
function peftConfig(layers: readonly LayerDelta[]): Record<string, unknown> {
  const config: Record<string, unknown> = {}
  for (const target of new Set(layers.map((layer) => layer.target))) {
    const own = layers.filter((layer) => layer.target === target)
    const usual = usualRank(own)
    const others = Object.fromEntries(own.filter(({ rank }) => rank !== usual).map(({ path, rank }) => [path, rank]))
    config[`${target}.r`] = usual
    config[`${target}.lora_alpha`] = usual
    config[`${target}.rank_pattern`] = others
    config[`${target}.alpha_pattern`] = others
    config[`${target}.target_modules`] = own.map(({ path }) => path)
  }
  return config
}
