import { looksLike } from '../checkpoint/not-a-model.ts'
import { diffusionTensors } from '../checkpoint/prefixes.ts'
import type { StoredTensor } from '../graph/weights.ts'
import { familyName, type FamilyGuess } from './family.ts'
import type { Leftover } from './parts.ts'
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

/** What was found in a file. */
export type Findings = {
  info: AdapterInfo
  parts: readonly AdapterPart[]
  embeddings: readonly EmbeddingPart[]
  /** All that the file has, whether they go with the model or not. */
  words: readonly EmbeddingPart[]
  leftovers: readonly Leftover[]
  /** Names of all tensors that are not used, those of `leftovers` among them. */
  ignored: readonly string[]
  guess: FamilyGuess | undefined
  /** The model it is for, where there is one. */
  wanted: ModelShape | undefined
  /** Whether it was held against the sizes of a model. */
  isSized: boolean
  all: ReadonlyMap<string, StoredTensor>
}

/** How the file goes with the model, or with a model of its own family (formats.md, section 5.10). */
export function verdictOf(findings: Findings): Verdict {
  const { info, parts, embeddings, words, leftovers, ignored, guess, wanted, isSized, all } = findings
  const isEmpty = parts.length === 0 && embeddings.length === 0
  const isNamedSo = guess !== undefined && !guess.id && [...all.keys()].some((name) => adapterName.test(name))
  const isAdapter =
    isNamedSo ||
    leftovers.some(({ kind, reason }) => kind !== undefined || reason === 'construction' || reason === 'incomplete')
  if (isEmpty) {
    const other = otherThing(info.name, all, isAdapter || words.length > 0)
    if (other) return other
  }
  if (guess && !guess.id) {
    return {
      fit: 'wrong-family',
      message: `"${info.name}" was made for ${guess.name}, which Vignette does not draw with.`,
      hint: 'Look for a version for Stable Diffusion 1.x, 2.x or XL.',
    }
  }
  if (isEmpty) return withoutParts(findings)
  if (wanted && isOfOtherText(parts, leftovers)) return wrongFamily(info.name, guess, wanted)
  const share = info.matched / info.total
  if (wanted && guess?.id && guess.id !== wanted.family && share < 0.5) return wrongFamily(info.name, guess, wanted)
  if (!isSized) {
    return {
      fit: 'fits',
      message: `${info.kinds.join(' and ')} for a Stable Diffusion model of a size of its own.`,
      hint: 'Choose the model to see whether it fits.',
    }
  }
  if (ignored.length === 0 && parts.length === 0) {
    const typed = [...new Set(embeddings.map(({ token }) => `"${cut(token)}"`))].slice(0, 3).join(', ')
    return { fit: 'fits', message: `Fits: works where the prompt has ${typed}.` }
  }
  if (ignored.length === 0) return { fit: 'fits', message: `Fits: all ${info.total} tensors found their place.` }
  return {
    fit: 'partly',
    message: `Fits partly: ${info.matched} of ${info.total} tensors (${Math.round(100 * share)} %). Left out: ${leftOut(leftovers, ignored)}.`,
    hint:
      share < 0.5
        ? 'Most of it does not belong to this model: expect little of its effect.'
        : 'What fits works as usual.',
  }
}

/** What adapters for other families have in their names. */
const adapterName = /lora|hada_|lokr_|oft_blocks|dora_scale|\.diff(_b)?$/

/** The matrices that read the text are as wide as the text is: one width for each family. */
function isOfOtherText(parts: readonly AdapterPart[], leftovers: readonly Leftover[]): boolean {
  const readsText = (path: string | undefined) => /\.attn2\.to_[kv]$/.test(path ?? '')
  if (parts.some(({ path }) => readsText(path))) return false
  return leftovers.some(({ reason, place }) => reason === 'shape' && readsText(place?.path))
}

/** Nothing of the file can be used, though it is an adapter. */
function withoutParts({ info, words, leftovers, guess, wanted }: Findings): Verdict {
  const targets = new Set(words.map(({ target }) => target))
  if (guess?.id === 'sdxl' && targets.size === 1 && leftovers.length === 0) {
    return {
      fit: 'refused',
      message: `"${info.name}" is half of an embedding for ${guess.name}: it has vectors for one of the two text encoders.`,
      hint: 'Look for a file that has both, clip_l and clip_g.',
    }
  }
  const reasons = new Set(leftovers.map(({ reason }) => reason))
  if (reasons.has('construction') && !reasons.has('shape')) {
    const names = [...new Set(leftovers.flatMap(({ construction }) => construction ?? []))]
    return {
      fit: 'unsupported',
      message: `"${info.name}" is built in a way that Vignette cannot use yet: ${names.slice(0, 3).join(', ')}.`,
      hint: 'Keep it for later, or look for a LoRA version.',
    }
  }
  if (reasons.has('incomplete') && !reasons.has('shape')) {
    const first = leftovers.find(({ reason }) => reason === 'incomplete')!.names[0]
    return {
      fit: 'refused',
      message: `"${info.name}" is not whole: the other half of "${cut(first)}" is missing.`,
      hint: 'The download or the program that wrote it was cut off. Fetch the file again.',
    }
  }
  if (wanted) return wrongFamily(info.name, guess, wanted)
  const first = leftovers[0]?.names[0]
  return {
    fit: 'unsupported',
    message: `"${info.name}" is an adapter for a model that Vignette does not know.`,
    hint: first === undefined ? 'Keep it for later.' : `The first thing that it changes is "${cut(first)}".`,
  }
}

function wrongFamily(name: string, guess: FamilyGuess | undefined, { family }: ModelShape): Verdict {
  const current = familyName(family)
  if (guess?.id === family) {
    return {
      fit: 'wrong-family',
      message: `"${name}" was made for a ${current} model of another size than this one.`,
      hint: 'Use it with the model that it was made for.',
    }
  }
  return {
    fit: 'wrong-family',
    message: `"${name}" was made for ${guess?.name ?? 'another kind of model'}; this model is ${current}.`,
    hint: `Keep it for other models, or look for a version for ${current}.`,
  }
}

/** What a file is that has no part of an adapter in it, or one that only looks like it. */
function otherThing(name: string, all: ReadonlyMap<string, StoredTensor>, isAdapter: boolean): Verdict | undefined {
  const refused = (message: string, hint: string): Verdict => ({ fit: 'refused', message, hint })
  if (all.size === 0) return refused(`"${name}" holds nothing.`, 'Fetch the file again.')
  const names = [...all.keys()]
  if (names.some((each) => /^(control_model\.|lora_controlnet$|controlnet_)/.test(each))) {
    return refused(
      `"${name}" is a ControlNet, not an adapter.`,
      'It steers a model by pictures and is used as a condition.',
    )
  }
  if (isAdapter) return undefined
  const net = diffusionTensors(all)
  const isModel = names.some((each) =>
    /^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\./.test(each),
  )
  if (isModel || net.has('input_blocks.0.0.weight')) {
    return refused(`"${name}" is a whole model, not an adapter.`, 'Import it under Models.')
  }
  const look = looksLike({ net, all })
  if (look && !/adapter \(LoRA/.test(look.what))
    return refused(`"${name}" is ${look.what}, not an adapter.`, 'Adapters change a model; this is something else.')
  return refused(`"${name}" is not an adapter that Vignette knows.`, `Its first tensor is "${cut(names[0])}".`)
}

/** What was left out, in words, with how many tensors and the first of them. */
function leftOut(leftovers: readonly Leftover[], ignored: readonly string[]): string {
  const counts = new Map<string, { count: number; first: string }>()
  const add = (word: string, names: readonly string[]) => {
    const known = counts.get(word) ?? { count: 0, first: names[0] }
    counts.set(word, { ...known, count: known.count + names.length })
  }
  const told = new Set<string>()
  for (const leftover of leftovers) {
    const names = leftover.names
    for (const name of names) told.add(name)
    add(wordsFor(leftover), names)
  }
  for (const name of ignored) if (!told.has(name)) add(wordsFor({ names: [name], reason: 'unknown' }), [name])
  return [...counts].map(([word, { count, first }]) => `${word} (${count}, first "${cut(first)}")`).join('; ')
}

const purposes: readonly (readonly [string, RegExp])[] = [
  ['the changes to the second text encoder', /^(lora_te2_|text_encoder_2[.:])|clip_g/],
  ['the changes to the text encoder', /^(lora_te|text_encoder|te\d?_)|self_attn|text_model/],
  ['the changes to how time steers the drawing', /time_emb|emb_layers|label_emb|add_embedding/],
  ['the changes to the norms', /norm|in_layers[._]0|out_layers[._]0/],
  ['the changes to the convolutions', /conv|resnets|in_layers|out_layers|skip_connection|[._]op[._]|samplers/],
  ['the changes to the attention', /attn|attentions|transformer_blocks/],
  ['words of its own', /^<.*>$|emb_params|clip_[lg]$/],
]

function wordsFor({
  names,
  reason,
  construction,
  place,
}: Pick<Leftover, 'names' | 'reason' | 'construction' | 'place'>): string {
  if (reason === 'construction') return `what is built as ${construction}`
  if (reason === 'weights') return 'whole weights in place of the model’s own'
  if (reason === 'twice') return 'what it has under two names'
  const purpose = (text: string) => purposes.find(([, pattern]) => pattern.test(text))?.[0]
  const what = (place && purpose(`${place.target}.${place.path}`)) ?? purpose(names[0]) ?? 'parts of unknown purpose'
  if (reason === 'incomplete') return `halves of ${what}`
  return reason === 'shape' ? `${what}, which are of another size` : what
}

/** Names are text from strangers. */
const cut = (name: string) => (name.length > 90 ? `${name.slice(0, 89)}…` : name)
