import { isFloat } from '../checkpoint/dtypes.ts'
import { readTensor } from '../checkpoint/safetensors.ts'
import type { StoredTensor } from '../graph/weights.ts'
import { fitsLayer, kindOf, rankOf } from './fit.ts'
import type { Group } from './groups.ts'
import { isRecord, parseJson } from './metadata.ts'
import { firstNumbers } from './first-numbers.ts'
import { placesOf, type ModulePlace } from './names.ts'
import type { AdapterPart, ModelShape, PartKind, ScaleRule } from './types.ts'

/** Why the tensors of a module were left out. */
export type Leftover = {
  names: readonly string[]
  /**
   * `unknown`: no such module; `shape`: another size; `incomplete`: a factor is missing; `twice`: under two names;
   * `weights`: no change but whole weights.
   */
  reason: 'unknown' | 'shape' | 'incomplete' | 'twice' | 'weights' | 'construction'
  construction?: string
  kind?: PartKind
  /** The module that its name means. */
  place?: ModulePlace
}

/** What a file says of all its parts together. */
export type PartRules = {
  /** What diffusers' or PEFT's notes multiply the product of a part with. */
  scaleOf(target: AdapterPart['target'], path: string, kind: PartKind, rank: number | undefined): number | undefined
  /** `AdapterPart.neumannTerms` of the file's OFT. */
  neumannTerms: number
}

/** Endings that mean something else in PEFT's files than in those of others. */
const peftOnly = /\.(ia3_l|lora_magnitude_vector|oft_R)\b/

/**
 * The parts that a module's tensors are: one as a rule, one for each layer that a fused module stands for, or why there is
 * none. With `anySize` the sizes of the model do not count.
 */
export async function partsOf(
  group: Group,
  shape: ModelShape,
  rules: PartRules,
  anySize = false,
): Promise<AdapterPart[] | Leftover> {
  const { names, construction } = group
  if (construction) return { names, reason: 'construction', construction }
  const tensors = group.weight && group.onInput ? { ...group.tensors, ia3: group.weight } : group.tensors
  const kind = kindOf(tensors)
  const places = placesOf(shape, group.module)
  if (places.length === 0) return { names, reason: 'unknown', kind }
  if (!kind) {
    return { names, reason: Object.keys(tensors).length > 0 ? 'incomplete' : 'weights', place: places[0] }
  }
  const odd = Object.entries(tensors).find(([role, { dtype }]) => role !== 'sparse_index' && !isFloat(dtype))?.[1]
  if (odd) return { names, reason: 'construction', construction: `numbers stored as ${odd.dtype}`, kind }

  const layerOf = ({ target, path }: ModulePlace) => shape.layers[target]!.get(path)!
  const make = async (place: ModulePlace): Promise<AdapterPart> => {
    const { target, path, rows } = place
    const part: AdapterPart = { target, path, kind, tensors, scale: await scaleRule(group, kind, place, rules) }
    if (rows) part.rows = rows
    if (names.some((name) => peftOnly.test(name))) part.origin = 'peft'
    if (kind === 'oft' && part.origin) part.neumannTerms = rules.neumannTerms
    if (kind === 'ia3') part.onInput = await isOnInput(group, tensors.ia3!, layerOf(place).weight)
    return part
  }
  if (places[0].rows) {
    const [weight] = places.map((place) => layerOf(place).weight)
    const rows = Math.max(...places.map(({ rows: [, end] = [0, 0] }) => end))
    const fits =
      kind === 'lora' && !tensors.magnitude && fitsLayer(kind, tensors, { weight: [rows, ...weight.slice(1)] })
    return fits ? Promise.all(places.map(make)) : { names, reason: 'shape', kind, place: places[0] }
  }
  const place = anySize ? places[0] : places.find((each) => fitsLayer(kind, tensors, layerOf(each), each.path))
  return place ? [await make(place)] : { names, reason: 'shape', kind, place: places[0] }
}

/** IA3: a factor for each input or for each output; where both are as many the file says which. */
async function isOnInput({ onInput }: Group, factors: StoredTensor, weight: readonly number[]): Promise<boolean> {
  const count = factors.shape.reduce((product, dim) => product * dim, 1)
  if (weight[0] !== weight[1]) return count === weight[1]
  if (!onInput) return factors.shape.length === 2 && factors.shape[0] === 1
  return onInput.length <= 8 && (await readTensor(onInput)).some((byte) => byte !== 0)
}

async function scaleRule(
  group: Group,
  kind: PartKind,
  { target, path }: ModulePlace,
  rules: PartRules,
): Promise<ScaleRule> {
  const { alpha, scale, tensors } = group
  // Beside the blocks of an OFT, alpha is a bound on them and no scale; who turns the weights knows.
  if (kind === 'oft' || kind === 'boft')
    return alpha && isFloat(alpha.dtype) ? { from: 'alpha', tensor: alpha } : { from: 'none' }
  if (kind === 'ia3' || kind === 'sparse' || kind === 'diff') return { from: 'none' }
  if (scale && !isFloat(scale.dtype)) return { from: 'metadata', value: (await firstNumbers([scale]))[0] }
  if (scale) return { from: 'scale', tensor: scale }
  // A LoKr of two whole factors has no rank: what stands for alpha there means nothing.
  // PEFT multiplies it all the same, by the rank that was asked for.
  const isWhole = kind === 'lokr' && tensors.lokr_w1 && tensors.lokr_w2
  if (isWhole && alpha) return { from: 'none' }
  const rank = rankOf(kind, tensors)
  if (alpha && !isFloat(alpha.dtype)) {
    // LyCORIS keeps a whole number as one.
    const [value] = await firstNumbers([alpha])
    return { from: 'metadata', value: value / (rank ?? value) }
  }
  if (alpha) return { from: 'alpha', tensor: alpha }
  const value = rank === undefined && !isWhole ? undefined : rules.scaleOf(target, path, kind, rank)
  return value === undefined ? { from: 'none' } : { from: 'metadata', value }
}

/** A pattern for each layer of a large model is far below this. */
const maxPatterns = 5000

/**
 * Rules from diffusers' `lora_adapter_metadata` or PEFT's adapter_config.json (formats.md, section 5.1). A pattern names a
 * module by the end of its path; PEFT takes the first that matches.
 */
export function partRules(
  metadata: ReadonlyMap<string, string>,
  config: Record<string, unknown> | undefined,
): PartRules {
  const packed = parseJson(metadata.get('lora_adapter_metadata'))
  const byTarget = new Map<string, Map<string, unknown>>()
  for (const [key, value] of Object.entries(isRecord(packed) ? packed : {})) {
    const [, target, name] = /^(unet|text_encoder|text_encoder_2)\.(.+)$/.exec(key) ?? []
    if (target === undefined) continue
    byTarget.set(target, (byTarget.get(target) ?? new Map<string, unknown>()).set(name, value))
  }
  const ruleOf = (facts: ReadonlyMap<string, unknown>): PartRules['scaleOf'] => {
    const listed = facts.get('alpha_pattern')
    const pattern = isRecord(listed) ? Object.entries(listed).slice(0, maxPatterns) : []
    const ranks = facts.get('rank_pattern')
    const rankPattern = isRecord(ranks) ? Object.entries(ranks).slice(0, maxPatterns) : []
    const valueFor = (patterns: readonly [string, unknown][], path: string) =>
      patterns.find(([key]) => path === key || path.endsWith(`.${key}`))?.[1]
    const common = facts.get('lora_alpha') ?? facts.get('alpha')
    const isStabilised = facts.get('use_rslora') === true
    return (_, path, kind, found) => {
      const alpha = valueFor(pattern, path) ?? common
      const rank = found ?? valueFor(rankPattern, path) ?? facts.get('r')
      if (typeof alpha !== 'number' || !Number.isFinite(alpha)) return undefined
      if (typeof rank !== 'number' || !(rank > 0)) return undefined
      return kind === 'lora' && isStabilised ? alpha / Math.sqrt(rank) : alpha / rank
    }
  }
  const rules = new Map([...byTarget].map(([target, facts]) => [target, ruleOf(facts)]))
  const ofFolder = config && ruleOf(new Map(Object.entries(config)))
  return {
    scaleOf: (target, ...part) => (rules.get(target) ?? ofFolder)?.(target, ...part),
    neumannTerms: neumannTermsOf(config),
  }
}

/** PEFT's OFT takes a series for the Cayley transform unless its configuration says otherwise. */
function neumannTermsOf(config: Record<string, unknown> | undefined): number {
  if (config?.use_cayley_neumann === false) return 0
  const terms = Number(config?.num_cayley_neumann_terms ?? 5)
  return Number.isInteger(terms) && terms > 0 && terms <= 64 ? terms : 5
}
