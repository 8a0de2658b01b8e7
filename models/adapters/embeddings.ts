import { basename, extname } from 'node:path'
import type { SafetensorsFile } from '../checkpoint/safetensors.ts'
import type { StoredTensor } from '../graph/weights.ts'
import type { EmbeddingPart, ModelShape } from './types.ts'

type Found = { embeddings: EmbeddingPart[]; used: Set<string> }

/** Widths of the text towers of published models (formats.md, section 5.11). */
const published = [768, 1024, 1280]

const vectorsOf = (tensor: StoredTensor): StoredTensor | undefined => {
  const { shape } = tensor
  if (!/^(F32|F16|BF16|F64)$/.test(tensor.dtype)) return undefined
  if (shape.length === 1) return { ...tensor, shape: [1, shape[0]] }
  return shape.length === 2 ? tensor : undefined
}

/**
 * Textual-inversion embeddings of a file: `emb_params`, `clip_l` with `clip_g`, or tensors named by their word (several
 * vectors of one word as `word`, `word_1`, …). The word is the file's name where the tensor has none of its own. `shape` is
 * the model's, whose text encoders may be of a width of their own.
 */
export function embeddingsIn(
  { path, tensors, metadata }: SafetensorsFile,
  isAlone: boolean,
  { layers }: Pick<ModelShape, 'layers'> = { layers: {} },
): Found {
  const own = [layers.text_encoder, layers.text_encoder_2].flatMap(
    (encoder) => encoder?.get('text_model.embeddings.token_embedding')?.weight[1] ?? [],
  )
  const widths = new Set([...published, ...own])
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
    if (tensors.has('clip_l') && tensors.has('clip_g')) {
      add('clip_l', fileWord, 'text_encoder')
      add('clip_g', fileWord, 'text_encoder_2')
    }
  }
  const isWord = (name: string) =>
    /^<[^<>:]{1,60}>$/.test(name) ||
    (isAlone && tensors.size <= 16 && !/\.(weight|bias|alpha)$/.test(name)) ||
    metadata.get(name) === '<embed>'
  for (const name of tensors.keys())
    if (!found.used.has(name) && isWord(name))
      add(
        name,
        name.replace(/_\d+$/, (end) => (tensors.has(name.slice(0, -end.length)) ? '' : end)),
        'text_encoder',
      )
  return found
}
