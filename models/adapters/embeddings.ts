import { basename, extname } from 'node:path'
import type { SafetensorsFile } from '../checkpoint/safetensors.ts'
import type { FamilyId } from '../family.ts'
import type { StoredTensor } from '../graph/weights.ts'
import type { EmbeddingPart, ModelShape } from './types.ts'

/** Words that a file brings, the names of their tensors, and the family that they are for as far as their widths tell. */
type Found = { embeddings: EmbeddingPart[]; used: Set<string>; family?: FamilyId }

/** Widths of the text towers of published models (formats.md, section 5.11). */
const published: Readonly<Record<number, FamilyId>> = { 768: 'sd15', 1024: 'sd2', 1280: 'sdxl' }

const widthOf = (shape: Pick<ModelShape, 'layers'> | undefined, target: EmbeddingPart['target']) =>
  shape?.layers[target]?.get('text_model.embeddings.token_embedding')?.weight[1]

/** A vector, or several, as [count, width]; at most as many as a prompt has places. */
function vectorsOf(tensor: StoredTensor): StoredTensor | undefined {
  const { shape, dtype } = tensor
  if (!/^(F32|F16|BF16|F64)$/.test(dtype)) return undefined
  if (shape.length === 1) return { ...tensor, shape: [1, shape[0]] }
  return shape.length === 2 && shape[0] >= 1 && shape[0] <= 75 ? tensor : undefined
}

/**
 * Textual-inversion embeddings of a file: `emb_params`, `clip_l` with `clip_g`, or tensors named by their word. Several
 * vectors of a word are one tensor, or `word`, `word_1`, …: then several parts of one word, in their order. The word is the
 * file's name where the tensor has none of its own. `shape` is the model's, whose text encoders may be of a width of their
 * own; `isAlone` where the file holds nothing else.
 */
export function embeddingsIn(
  { path, tensors, metadata }: SafetensorsFile,
  isAlone: boolean,
  shape?: Pick<ModelShape, 'layers'>,
): Found {
  const widths = new Set([
    ...Object.keys(published).map(Number),
    widthOf(shape, 'text_encoder'),
    widthOf(shape, 'text_encoder_2'),
  ])
  const fileWord = basename(path, extname(path))
  const found: Found = { embeddings: [], used: new Set() }
  const add = (name: string, token: string, target: EmbeddingPart['target']) => {
    const stored = tensors.get(name)
    const vectors = stored && vectorsOf(stored)
    if (!vectors || !widths.has(vectors.shape[1])) return
    found.embeddings.push({ target, token, vectors })
    found.used.add(name)
  }
  if (isAlone) {
    add('emb_params', fileWord, 'text_encoder')
    add('clip_l', fileWord, 'text_encoder')
    add('clip_g', fileWord, 'text_encoder_2')
  }
  const isWord = (name: string) =>
    /^<[^<>:]{1,60}>$/.test(name) ||
    (isAlone && tensors.size <= 16 && name.length <= 64 && !/\.(weight|bias|alpha)$/.test(name)) ||
    metadata.get(name) === '<embed>'
  const words = [...tensors.keys()].filter((name) => !found.used.has(name) && isWord(name))
  for (const name of words.sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))) {
    const first = /^(.*)_\d+$/.exec(name)?.[1]
    add(name, first !== undefined && tensors.has(first) ? first : name, 'text_encoder')
  }
  const family = familyOfWords(found)
  return family ? { ...found, family } : found
}

function familyOfWords({ embeddings, used }: Found): FamilyId | undefined {
  if (used.has('clip_l') || used.has('clip_g')) return 'sdxl'
  return embeddings.length > 0 ? published[embeddings[0].vectors.shape[1]] : undefined
}

/** Whether a model can take the words: each of them for all of its text encoders, in their widths. */
export function takesWords(shape: ModelShape, embeddings: readonly EmbeddingPart[]): boolean {
  const targets = (['text_encoder', 'text_encoder_2'] as const).filter((target) => shape.layers[target])
  const tokens = new Set(embeddings.map(({ token }) => token))
  const isWhole = [...tokens].every((token) =>
    targets.every((target) => embeddings.some((each) => each.token === token && each.target === target)),
  )
  return isWhole && embeddings.every(({ target, vectors }) => widthOf(shape, target) === vectors.shape[1])
}
