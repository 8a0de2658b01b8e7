import type { StoredTensor } from '../graph/weights.ts'
import { plainModule, safeloraModules } from './names.ts'
import { splitName, type Ending } from './suffixes.ts'
import type { ModelShape, TensorRole } from './types.ts'

/** One module's tensors as the file has them, before anybody knows where they belong. */
export type Group = {
  module: string
  tensors: Partial<Record<TensorRole, StoredTensor>>
  /** Names of all its tensors in the file. */
  names: string[]
  alpha?: StoredTensor
  scale?: StoredTensor
  onInput?: StoredTensor
  weight?: StoredTensor
  /** A construction that Vignette cannot use, by its name. */
  construction?: string
}

/** Constructions of other programs that have no place here, by what their tensors' names end with. */
const constructions: readonly (readonly [RegExp, string])[] = [
  [/\.boft_[RPs](\.|$)/, 'BOFT as PEFT writes it'],
  [/\.oft_[rs]$/, 'OFT of the first kind'],
  [/\.lora_embedding_[AB](\.|$)/, 'changes to the table of words'],
  [/\.(set_weight|reshape_weight)$/, 'weights in place of the model’s'],
  [/\.bias_(indices|values|size)$/, 'sparse biases'],
  [/custom_diffusion/, 'Custom Diffusion'],
  [/\.vera_lambda_[bd](\.|$)|^base_model\.vera_[AB]$/, 'VeRA'],
  [/\.randlora_(lambda|gamma)(\.|$)/, 'RandLoRA'],
  [/vblora_(logits|vector_bank)/, 'VB-LoRA'],
  [/\.fourierft_spectrum(\.|$)/, 'FourierFT'],
  [/\.waveft_spectrum(\.|$)/, 'WaveFT'],
  [/\.hra_u(\.|$)/, 'HRA'],
  [/\.(miss|bone)_block(\.|$)/, 'MiSS (Bone)'],
  [/\.c3a_kernel(\.|$)/, 'C3A'],
  [/\.road_(theta|alpha)(\.|$)/, 'RoAd'],
  [/motion_modules/, 'motion for AnimateDiff'],
  [/(^|\.)(ip_adapter|image_proj)\./, 'IP-Adapter'],
  [/\.lora_(route|gate)|lora_moe/, 'a mixture of experts'],
]

/** One pass over a name that is none of them, as most are. */
const anyConstruction = new RegExp(constructions.map(([{ source }]) => source).join('|'))

const constructionOf = (name: string) =>
  anyConstruction.test(name) ? constructions.find(([pattern]) => pattern.test(name))?.[1] : undefined

/** Files of cloneofsimo say where a tensor belongs by a number; here it becomes the name that diffusers has for it. */
function readableNames(tensors: ReadonlyMap<string, StoredTensor>, shape: () => ModelShape): (name: string) => string {
  const numbered = /^(unet|text_encoder):(\d{1,6}):(up|down)$/
  if (![...tensors.keys()].some((name) => numbered.test(name))) return (name) => name
  const modules = safeloraModules(shape())
  return (name) => {
    const [, part, index, factor] = numbered.exec(name) ?? []
    const module = modules[part as 'unet' | 'text_encoder']?.[Number(index)]
    return module === undefined ? name : `${part}.${module}.lora_${factor}.weight`
  }
}

const roleOf: Partial<Record<Ending, TensorRole>> = { shira_index: 'sparse_index' }

/**
 * The tensors of a file by the modules in their names, in the file's order; names without a known ending are left out.
 * `shape` is asked for only where names count modules.
 */
export function groupsOf(tensors: ReadonlyMap<string, StoredTensor>, shape: () => ModelShape): Group[] {
  const groups = new Map<string, Group>()
  const readable = readableNames(tensors, shape)
  for (const [name, tensor] of tensors) {
    const construction = constructionOf(name)
    const split =
      splitName(readable(name)) ?? (construction ? { module: name, ending: 'unsupported' as const } : undefined)
    if (!split) continue
    const module = plainModule(split.module)
    const group = groups.get(module) ?? { module, tensors: {}, names: [] }
    groups.set(module, group)
    group.names.push(name)
    const { ending } = split
    if (construction) group.construction = construction
    if (ending === 'alpha') group.alpha = tensor
    else if (ending === 'scale') group.scale = tensor
    else if (ending === 'on_input') group.onInput = tensor
    else if (ending === 'weight') group.weight = tensor
    else if (ending === 'unsupported') group.construction ??= 'an unknown construction'
    else if (ending !== 'bias') group.tensors[roleOf[ending] ?? (ending as TensorRole)] ??= tensor
  }
  return [...groups.values()].flatMap(apart)
}

/** Whole changes beside factors of the same module are a part of their own, and whole weights are none. */
function apart(group: Group): Group[] {
  const { module, tensors, weight, onInput, names } = group
  const { diff, ...factors } = tensors
  const isMixed = Object.keys(factors).some((role) => role !== 'diff_b')
  if (!isMixed && !(weight && onInput)) return [group]
  const isDiff = (name: string) => diff !== undefined && isMixed && /\.(diff|w_norm)$/.test(name)
  const isWhole = (name: string) => {
    const ending = splitName(name)?.ending
    return (ending === 'weight' && !onInput) || ending === 'bias'
  }
  const rest = names.filter((name) => !isDiff(name) && !isWhole(name))
  if (rest.length === names.length) return [group]
  return [
    { ...group, names: rest, tensors: isMixed ? factors : tensors },
    ...(names.some(isDiff) ? [{ module, tensors: { diff }, names: names.filter(isDiff) }] : []),
    ...(names.some(isWhole) ? [{ module, tensors: {}, names: names.filter(isWhole), weight }] : []),
  ]
}
