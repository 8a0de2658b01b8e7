import { stat } from 'node:fs/promises'
import { basename, extname, join } from 'node:path'
import { readSafetensors, readTensor, type SafetensorsFile } from '../checkpoint/safetensors.ts'
import { fromSystemError, VignetteError } from '../errors.ts'
import type { StoredTensor } from '../graph/weights.ts'
import { embeddingsIn } from './embeddings.ts'
import { familyName, familyOf, type FamilyGuess } from './family.ts'
import { fitsLayer, kindOf, precisionOf, rankOf } from './fit.ts'
import { describe, isRecord, parseJson, type Described } from './metadata.ts'
import { aliasTable, plainModule, safeloraModules, type ModulePlace } from './names.ts'
import { presetFor } from './presets.ts'
import { standardShape } from './shape.ts'
import { readSidecars } from './sidecar.ts'
import { splitName, type Ending } from './suffixes.ts'
import type {
  AdapterFile,
  AdapterInfo,
  AdapterPart,
  EmbeddingPart,
  GuidanceFile,
  ModelShape,
  PartKind,
  ScaleRule,
  TensorRole,
} from './types.ts'
import { kindWords, verdictOf, wrongFamily } from './verdict.ts'

/** One module's tensors as the file has them, before anybody knows where they belong. */
type Group = {
  module: string
  tensors: Partial<Record<TensorRole, StoredTensor>>
  names: string[]
  alpha?: StoredTensor
  scale?: StoredTensor
  onInput?: StoredTensor
  weight?: StoredTensor
  isUnsupported?: boolean
}

/**
 * Reads an adapter of any layout against a model (against the published model of its own family when left out): header
 * and sidecars, and no weights. Throws what its verdict says when nothing of it can be used: `adapter-mismatch`, or what a
 * damaged or unsafe file throws.
 */
export async function readAdapter(file: string, shape?: ModelShape): Promise<AdapterFile> {
  const opened = await openFile(file)
  const found = await examine(opened, shape)
  const { fit, message, hint } = found.info.verdict
  if (fit === 'fits' || fit === 'partly') return found
  const code =
    fit === 'refused' ? 'file-unreadable' : fit === 'unsupported' ? 'checkpoint-unsupported' : 'adapter-mismatch'
  throw new VignetteError(code, message, { hint })
}

/** As `readAdapter`, for a card: whatever the file is, there is a verdict. */
export async function inspectAdapter(file: string, shape?: ModelShape): Promise<AdapterInfo> {
  try {
    return (await examine(await openFile(file), shape)).info
  } catch (error) {
    const known = error instanceof VignetteError ? error : fromSystemError(error)
    const message = known?.message ?? `${basename(file)} cannot be read as an adapter.`
    const bytes = await stat(file).then(
      ({ size }) => size,
      () => 0,
    )
    return {
      ...bareInfo(file, bytes),
      verdict: { fit: 'refused', message, ...(known?.hint ? { hint: known.hint } : {}) },
    }
  }
}

function bareInfo(file: string, bytes: number): AdapterInfo {
  const name = basename(file).replace(/\.safetensors$/i, '')
  return {
    ...{ file, name, bytes, kinds: [], precision: 'unknown', matched: 0, total: 0, hasTextEncoder: false },
    ...{ triggers: [], tags: [], role: 'style', notices: [], verdict: { fit: 'refused', message: '' } },
  }
}

type Opened = SafetensorsFile & { config?: Record<string, unknown> }

/** A file, or a folder as PEFT writes it. */
async function openFile(file: string): Promise<Opened> {
  const { isDirectory } = await stat(file).then(
    (found) => ({ isDirectory: found.isDirectory() }),
    (error: unknown) => {
      throw fromSystemError(error) ?? error
    },
  )
  if (!isDirectory) return readSafetensors(file)
  const { readFile } = await import('node:fs/promises')
  const text = await readFile(join(file, 'adapter_config.json'), 'utf8').catch(() => undefined)
  const config = parseJson(text)
  return {
    ...(await readSafetensors(join(file, 'adapter_model.safetensors'))),
    ...(isRecord(config) ? { config } : {}),
  }
}

async function examine(opened: Opened, wanted: ModelShape | undefined): Promise<AdapterFile> {
  const { path: file, bytes, metadata } = opened
  const said = { ...describe(metadata), ...(await readSidecars(file)) }
  const info: AdapterInfo = {
    ...bareInfo(file, bytes),
    ...describedInfo(said, file),
    total: opened.tensors.size,
    precision: precisionOf(opened.tensors.values()),
  }
  if (metadata.get('vignette_kind') === 'guidance') return examineGuidance(opened, info, wanted)

  const guess = familyOf(opened.tensors, metadata)
  if (guess?.id) info.family = guess.id
  if (guess) info.familyName = guess.name
  const isForeign = guess && !guess.id
  const shape = wanted ?? standardShape(guess?.id ?? 'sd15')
  const tensors = withSafeloraNames(opened.tensors, shape)
  const groups = groupsOf(tensors)
  const { embeddings, used } = embeddingsIn(
    { ...opened, tensors: opened.tensors },
    groups.every(({ tensors }) => Object.keys(tensors).length === 0),
    shape,
  )
  const fitting = embeddings.filter(({ target }) => shape.layers[target])
  const places = aliasTable(shape)

  const parts: AdapterPart[] = []
  const taken = new Set<string>(used)
  const unfit: Group[] = []
  const rules = { metadata: scaleMetadata(opened), neumannTerms: neumannTermsOf(opened) }
  for (const group of groups) {
    const part = isForeign ? undefined : await partOf(group, places, shape, rules)
    if (
      part &&
      !parts.some((other) => other.target === part.target && other.path === part.path && other.kind === part.kind)
    ) {
      parts.push(part)
      for (const name of group.names) taken.add(name)
    } else unfit.push(group)
  }
  const ranks = parts
    .flatMap(({ kind, tensors }) => rankOf(kind, tensors) ?? [])
    .concat(parts.length > 0 ? [] : groups.flatMap(({ tensors }) => rankOf('lora', tensors) ?? []))
  info.kinds = kindWords(parts.length > 0 ? parts : groups.flatMap(asPart), embeddings.length > 0)
  if (ranks.length > 0) info.rank = { min: Math.min(...ranks), max: Math.max(...ranks) }
  info.hasTextEncoder =
    groups.some(({ module }) => /^(lora_te|text_encoder|te\d?_)|self_attn|text_model/.test(module)) ||
    fitting.length > 0
  const names = [...opened.tensors.keys()]
  const ignored = [...tensors].flatMap(([name], i) => (taken.has(name) ? [] : [names[i]]))
  info.matched = opened.tensors.size - ignored.length
  info.verdict = verdictOf({
    info,
    parts,
    embeddings: fitting,
    ignored,
    groups: unfit,
    guess,
    shape: wanted,
    all: opened.tensors,
  })
  return { info, parts, embeddings: fitting, ignored }
}

/** A kind for the card of a file whose parts fit nowhere. */
function asPart({ tensors }: Group): { kind: PartKind; tensors: AdapterPart['tensors'] }[] {
  const kind = kindOf(tensors)
  return kind ? [{ kind, tensors }] : []
}

function describedInfo(said: Partial<Described>, file: string): Partial<AdapterInfo> {
  const { role, preset, triggers = [], tags = [], ...rest } = said
  const named = preset ?? presetFor([basename(file, extname(file)), said.title])
  const texts = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
  return { ...texts, triggers, tags, role: role ?? (named ? 'speed' : 'style'), ...(named ? { preset: named } : {}) }
}

/** Files of cloneofsimo say where a tensor belongs by a number; here they get the names of diffusers. */
function withSafeloraNames(tensors: ReadonlyMap<string, StoredTensor>, shape: ModelShape): Map<string, StoredTensor> {
  const numbered = /^(unet|text_encoder):(\d+):(up|down)$/
  if (![...tensors.keys()].some((name) => numbered.test(name))) return new Map(tensors)
  const modules = safeloraModules(shape)
  return new Map(
    [...tensors].map(([name, tensor]) => {
      const [, part, index, factor] = numbered.exec(name) ?? []
      const module = modules[part as 'unet' | 'text_encoder']?.[Number(index)]
      return [module === undefined ? name : `${part}.${module}.lora_${factor}.weight`, tensor]
    }),
  )
}

const roleOf: Partial<Record<Ending, TensorRole>> = { shira_index: 'sparse_index' }

function groupsOf(tensors: ReadonlyMap<string, StoredTensor>): Group[] {
  const groups = new Map<string, Group>()
  for (const [name, tensor] of tensors) {
    const split = splitName(name)
    if (!split) continue
    const module = plainModule(split.module)
    const group = groups.get(module) ?? { module, tensors: {}, names: [] }
    groups.set(module, group)
    group.names.push(name)
    const { ending } = split
    if (ending === 'alpha') group.alpha = tensor
    else if (ending === 'scale') group.scale = tensor
    else if (ending === 'on_input') group.onInput = tensor
    else if (ending === 'weight') group.weight = tensor
    else if (ending === 'unsupported') group.isUnsupported = true
    else if (ending !== 'bias') group.tensors[roleOf[ending] ?? (ending as TensorRole)] ??= tensor
  }
  return [...groups.values()]
}

type Rules = {
  metadata: (target: AdapterPart['target'], path: string, rank: number) => number | undefined
  /** `AdapterPart.neumannTerms` of the file's OFT. */
  neumannTerms: number
}

/** Endings that mean something else in PEFT's files than in those of others. */
const peftOnly = /\.(ia3_l|lora_magnitude_vector|oft_R)\b/

async function partOf(
  group: Group,
  places: ReadonlyMap<string, ModulePlace>,
  shape: ModelShape,
  rules: Rules,
): Promise<AdapterPart | undefined> {
  const place = places.get(group.module)
  const layer = place && shape.layers[place.target]?.get(place.path)
  if (!place || !layer || group.isUnsupported) return undefined
  const tensors = group.weight && group.onInput ? { ...group.tensors, ia3: group.weight } : group.tensors
  const kind = kindOf(tensors)
  if (!kind || !fitsLayer(kind, tensors, layer)) return undefined
  const part: AdapterPart = { ...place, kind, tensors, scale: scaleOf(group, kind, place, tensors, rules) }
  if (group.names.some((name) => peftOnly.test(name))) part.origin = 'peft'
  if (kind === 'oft' && part.origin) part.neumannTerms = rules.neumannTerms
  if (kind !== 'ia3') return part
  return { ...part, onInput: await isOnInput(group, tensors.ia3!, layer.weight) }
}

/** IA3: a factor for each input or for each output; where both are as many the file says which. */
async function isOnInput({ onInput }: Group, factors: StoredTensor, weight: readonly number[]): Promise<boolean> {
  const count = factors.shape.reduce((product, dim) => product * dim, 1)
  if (weight[0] !== weight[1]) return count === weight[1]
  if (!onInput) return factors.shape.length === 2 && factors.shape[0] === 1
  return (await readTensor(onInput)).some((byte) => byte !== 0)
}

function scaleOf(
  group: Group,
  kind: PartKind,
  { target, path }: ModulePlace,
  tensors: AdapterPart['tensors'],
  rules: Rules,
): ScaleRule {
  // Beside the blocks of an OFT, alpha is a bound on them and no scale; who turns the weights knows.
  if (kind === 'oft' || kind === 'boft')
    return group.alpha ? { from: 'alpha', tensor: group.alpha } : { from: 'none' }
  if (kind === 'ia3' || kind === 'sparse' || kind === 'diff') return { from: 'none' }
  if (group.scale) return { from: 'scale', tensor: group.scale }
  // A LoKr of two whole factors has no rank: what stands for alpha there means nothing.
  if (group.alpha && !(kind === 'lokr' && tensors.lokr_w1 && tensors.lokr_w2))
    return { from: 'alpha', tensor: group.alpha }
  const rank = rankOf(kind, tensors)
  const value = rank === undefined ? undefined : rules.metadata(target, path, rank)
  return value === undefined ? { from: 'none' } : { from: 'metadata', value }
}

/** Scales by diffusers' `lora_adapter_metadata` or PEFT's adapter_config.json (formats.md, section 5.1). */
function scaleMetadata({ metadata, config }: Opened): Rules['metadata'] {
  const packed = parseJson(metadata.get('lora_adapter_metadata'))
  const flat = isRecord(packed) ? packed : {}
  return (target, path, rank) => {
    const prefixed = Object.fromEntries(
      Object.entries(flat).flatMap(([key, value]) =>
        key.startsWith(`${target}.`) ? [[key.slice(target.length + 1), value]] : [],
      ),
    )
    const facts = Object.keys(prefixed).length > 0 ? prefixed : (config ?? {})
    const pattern = isRecord(facts.alpha_pattern) ? Object.entries(facts.alpha_pattern) : []
    const special = pattern.find(([key]) => path === key || path.endsWith(`.${key}`))?.[1]
    const alpha = Number(special ?? facts.lora_alpha ?? facts.alpha ?? NaN)
    if (!Number.isFinite(alpha)) return undefined
    return facts.use_rslora === true ? alpha / Math.sqrt(rank) : alpha / rank
  }
}

/** PEFT's OFT takes a series for the Cayley transform unless its configuration says otherwise. */
function neumannTermsOf({ config }: Opened): number {
  if (config?.use_cayley_neumann === false) return 0
  const terms = Number(config?.num_cayley_neumann_terms ?? 5)
  return Number.isInteger(terms) && terms > 0 && terms <= 64 ? terms : 5
}

/** Our own guidance-distillation file: see `GuidanceFile`. */
function examineGuidance({ tensors, metadata }: Opened, info: AdapterInfo, shape: ModelShape | undefined): AdapterFile {
  const width = Number(metadata.get('width') ?? metadata.get('vignette_width') ?? NaN)
  const least = Number(metadata.get('guidance_min') ?? 1)
  const most = Number(metadata.get('guidance_max') ?? NaN)
  const sites = [...tensors.keys()].flatMap((name) => /^sites\.(.*)\.to_q\.weight$/.exec(name)?.[1] ?? [])
  info.role = 'guidance'
  info.kinds = ['Guidance distillation']
  info.matched = tensors.size
  const isWhole =
    Number.isInteger(width) &&
    width > 0 &&
    width % 2 === 0 &&
    sites.length > 0 &&
    most > least &&
    tensors.has('guidance.frequencies')
  const refuse = (message: string, hint: string): AdapterFile => {
    info.matched = 0
    info.verdict = { fit: isWhole ? 'wrong-family' : 'refused', message, hint }
    return { info, parts: [], embeddings: [], ignored: [] }
  }
  if (!isWhole) return refuse(`${basename(info.file)} is no whole guidance adapter.`, 'Fetch the file again.')
  const layers = shape?.layers.unet
  const fits = sites.every(
    (site) =>
      !layers ||
      sameInputs(layers.get(`${site}.to_q`)?.weight[1], tensors.get(`sites.${site}.to_q.weight`)?.shape, width),
  )
  const isAll = !layers || [...layers.keys()].filter((path) => path.endsWith('.attn2.to_q')).length === sites.length
  if (!fits || !isAll)
    return refuse(
      `"${info.name}" was made for another model than this one.`,
      'A guidance adapter goes with the one model that it was trained for.',
    )
  info.verdict = { fit: 'fits', message: 'Guidance in one evaluation instead of two.' }
  const guidance: GuidanceFile = { width, guidanceRange: [least, most], sites, tensors }
  return { info, parts: [], embeddings: [], guidance, ignored: [] }
}

const sameInputs = (inputs: number | undefined, shape: readonly number[] | undefined, width: number) =>
  shape?.[0] === width && shape[1] === inputs

export type { EmbeddingPart, FamilyGuess }
export { familyName, wrongFamily }
