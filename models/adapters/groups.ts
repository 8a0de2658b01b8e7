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

const constructionOf = (name: string) => constructions.find(([pattern]) => pattern.test(name))?.[1]

/** Files of cloneofsimo say where a tensor belongs by a number; here it becomes the name that diffusers has for it. */
function readableNames(tensors: ReadonlyMap<string, StoredTensor>, shape: ModelShape): (name: string) => string {
  const numbered = /^(unet|text_encoder):(\d{1,6}):(up|down)$/
  if (![...tensors.keys()].some((name) => numbered.test(name))) return (name) => name
  const modules = safeloraModules(shape)
  return (name) => {
    const [, part, index, factor] = numbered.exec(name) ?? []
    const module = modules[part as 'unet' | 'text_encoder']?.[Number(index)]
    return module === undefined ? name : `${part}.${module}.lora_${factor}.weight`
  }
}

const roleOf: Partial<Record<Ending, TensorRole>> = { shira_index: 'sparse_index' }

/** The tensors of a file by the modules in their names, in the file's order; names without a known ending are left out. */
export function groupsOf(tensors: ReadonlyMap<string, StoredTensor>, shape: ModelShape): Group[] {
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
  return [...groups.values()]
}
