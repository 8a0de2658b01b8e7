import type { StoredTensor } from '../graph/weights.ts'
import { familyName, type FamilyGuess } from './family.ts'
import type { AdapterInfo, AdapterPart, EmbeddingPart, ModelShape, PartKind, Verdict } from './types.ts'

// What a file is good for, in words for the person who dropped it.

type Kinds = readonly { kind: PartKind; tensors: AdapterPart['tensors'] }[]

/** The words for the card, commonest first. */
export function kindWords(parts: Kinds, hasEmbeddings: boolean): string[] {
  const counts = new Map<string, number>()
  for (const { kind, tensors } of parts)
    counts.set(wordFor(kind, tensors), (counts.get(wordFor(kind, tensors)) ?? 0) + 1)
  const words = [...counts].sort((a, b) => b[1] - a[1]).map(([word]) => word)
  // A LoCon changes matrices, too; the one word says it.
  const kinds = words.includes('LoCon') ? words.filter((word) => word !== 'LoRA') : words
  return hasEmbeddings ? [...kinds, 'Embedding'] : kinds
}

function wordFor(kind: PartKind, tensors: AdapterPart['tensors']): string {
  if (tensors.magnitude) return 'DoRA'
  switch (kind) {
    case 'lora':
      return tensors.mid || (tensors.down?.shape ?? []).slice(2).some((dim) => dim > 1) ? 'LoCon' : 'LoRA'
    case 'loha':
      return 'LoHa'
    case 'lokr':
      return 'LoKr'
    case 'glora':
      return 'GLoRA'
    case 'ia3':
      return 'IA3'
    case 'oft':
      return 'OFT'
    case 'boft':
      return 'BOFT'
    case 'sparse':
      return 'SHiRA'
    case 'diff':
      return tensors.diff && tensors.diff.shape.length > 1 ? 'Full difference' : 'Norms and biases'
    default:
      return kind satisfies never
  }
}

export type Findings = {
  info: AdapterInfo
  parts: readonly AdapterPart[]
  embeddings: readonly EmbeddingPart[]
  ignored: readonly string[]
  groups: readonly { module: string; tensors: AdapterPart['tensors']; isUnsupported?: boolean }[]
  guess: FamilyGuess | undefined
  /** The model it is for, where there is one. */
  shape: ModelShape | undefined
  all: ReadonlyMap<string, StoredTensor>
}

export function verdictOf({ info, parts, embeddings, ignored, groups, guess, shape, all }: Findings): Verdict {
  const adapterLike = groups.some(({ tensors }) => Object.keys(tensors).length > 0)
  const isEmpty = parts.length === 0 && embeddings.length === 0
  if (isEmpty && !adapterLike && !groups.some((group) => group.isUnsupported)) return noAdapter(info, all, guess)
  if (guess && !guess.id) {
    return {
      fit: 'wrong-family',
      message: `"${info.name}" was made for ${guess.name}, which Vignette does not draw with.`,
      hint: 'Look for a version for Stable Diffusion 1.x, 2.x or XL.',
    }
  }
  if (guess?.id && shape && guess.id !== shape.family)
    return wrongFamily(info.name, guess.name, familyName(shape.family))
  if (isEmpty && groups.some((group) => group.isUnsupported)) {
    return {
      fit: 'unsupported',
      message: `"${info.name}" is built in a way that Vignette cannot use yet (${[...new Set(ignored.map(lastPart))].slice(0, 3).join(', ')}).`,
      hint: 'Keep it for later, or look for a LoRA version.',
    }
  }
  if (isEmpty)
    return wrongFamily(
      info.name,
      guess?.name ?? 'another kind of model',
      shape ? familyName(shape.family) : 'any model that Vignette knows',
    )
  if (ignored.length === 0) return { fit: 'fits', message: `Fits: all ${info.total} tensors found their place.` }
  const share = Math.round((100 * info.matched) / info.total)
  return {
    fit: 'partly',
    message: `Fits partly: ${info.matched} of ${info.total} tensors (${share} %). Left out: ${ignoredWords(ignored)}.`,
    hint:
      share < 50
        ? 'Most of it does not belong to this model: expect little of its effect.'
        : 'What fits works as usual.',
  }
}

export function wrongFamily(name: string, madeFor: string, current: string): Verdict {
  return {
    fit: 'wrong-family',
    message: `"${name}" was made for ${madeFor}; this model is ${current}.`,
    hint: `Keep it for other models, or look for a version for ${current}.`,
  }
}

/** A file without any part of an adapter in it. */
function noAdapter(info: AdapterInfo, all: ReadonlyMap<string, StoredTensor>, guess: FamilyGuess | undefined): Verdict {
  const refused = (message: string, hint: string): Verdict => ({ fit: 'refused', message, hint })
  if (all.size === 0) return refused(`"${info.name}" holds nothing.`, 'Fetch the file again.')
  const names = [...all.keys()]
  const has = (pattern: RegExp) => names.some((name) => pattern.test(name))
  if (has(/^(control_model|controlnet_)|^controlnet_cond_embedding|input_hint_block/))
    return refused(`"${info.name}" is a ControlNet, not an adapter.`, 'Conditions take such files.')
  if (
    has(/^(model\.diffusion_model\.|first_stage_model\.|cond_stage_model\.)/) ||
    (has(/^(conv_in|input_blocks\.0\.0)\.weight$/) && all.size > 100)
  )
    return refused(`"${info.name}" is a whole model, not an adapter.`, 'Import it under Models.')
  const what = guess ? ` It has names of ${guess.name}.` : ''
  return refused(
    `"${info.name}" is not an adapter that Vignette knows.${what}`,
    `Its first tensor is "${names[0].slice(0, 80)}".`,
  )
}

/** Groups of tensors that were left out, in words. */
export function ignoredWords(names: readonly string[]): string {
  const groups: [string, RegExp][] = [
    ['the changes to the text encoder', /^(lora_te|text_encoder|te\d?_)|self_attn|text_model/],
    ['the changes to the convolutions', /conv|resnets|in_layers|out_layers|skip_connection|_op[._]|samplers/],
    ['the changes to how time steers the drawing', /time_emb|time_embed|emb_layers|label_emb/],
    ['the changes to the attention', /attn|attentions|transformer_blocks/],
    ['words of its own', /^<.*>$|emb_params|clip_[lg]$/],
  ]
  const counts = new Map<string, string[]>()
  for (const name of names) {
    const word = groups.find(([, pattern]) => pattern.test(name))?.[0] ?? 'parts of unknown purpose'
    counts.set(word, [...(counts.get(word) ?? []), name])
  }
  return [...counts].map(([word, list]) => `${word} (${list.length}, first "${list[0].slice(0, 90)}")`).join('; ')
}

const lastPart = (name: string) => name.split('.').slice(-2).join('.').slice(0, 40)
