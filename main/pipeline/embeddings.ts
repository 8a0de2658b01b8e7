import { VignetteError } from '../../models/errors.ts'
import type { LoadedAdapter } from './adapter-types.ts'
import { tensor, type FloatTensor } from './tensor.ts'

// Textual inversion: words of the prompt for which vectors stand instead of tokens of the vocabulary.

type TextEncoder = 'text_encoder' | 'text_encoder_2'

/** A word and its vectors, as many for each text encoder; they take `count` places of the prompt, one after another. */
export type EmbeddingWord = {
  word: string
  count: number
  /** Hash of the adapter that brought it. */
  sha256: string
  vectors: Partial<Record<TextEncoder, FloatTensor>>
}

/** One of the places that an embedding's word takes. */
export type VectorPlace = { embedding: EmbeddingWord; index: number }

/** The words that these adapters bring, longest first, so that "ink2" is not read as "ink" and a 2. */
export function embeddingWords(adapters: Iterable<LoadedAdapter>): EmbeddingWord[] {
  const words = new Map<string, EmbeddingWord>()
  for (const { name, sha256, embeddings } of adapters) {
    for (const [word, vectors] of embeddings ?? []) {
      if (word.trim() === '') continue
      const counts = Object.values(vectors).map(({ shape }) => shape[0])
      const count = Math.max(...counts)
      if (counts.some((other) => other !== count)) {
        throw new VignetteError(
          'adapter-mismatch',
          `"${name}" has ${counts.join(' and ')} vectors for the word "${word}".`,
          {
            hint: 'Both text encoders need as many; the file is damaged.',
          },
        )
      }
      const key = word.toLowerCase()
      const known = words.get(key)
      if (known && known.sha256 !== sha256) {
        throw new VignetteError('bad-request', `Two adapters bring the word "${word}".`, {
          hint: 'Use one of them at a time, or rename the file of the other.',
        })
      }
      words.set(key, { word, count, sha256, vectors })
    }
  }
  return [...words.values()].sort((a, b) => b.word.length - a.word.length)
}

/** Text cut at the words of embeddings, which are read in any case and as wholes: not inside other words. */
export function splitAtWords(text: string, words: readonly EmbeddingWord[]): (string | EmbeddingWord)[] {
  if (words.length === 0) return [text]
  const byWord = new Map(words.map((one) => [one.word.toLowerCase(), one]))
  // A word that begins or ends with a bracket or the like needs no space there: "a<s1>cat".
  const alternatives = words.map(({ word }) => {
    const start = isInWord(word[0]) ? '(?<![\\p{L}\\p{N}_])' : ''
    const end = isInWord(word[word.length - 1]) ? '(?![\\p{L}\\p{N}_])' : ''
    return `${start}${word.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')}${end}`
  })
  const pieces: (string | EmbeddingWord)[] = []
  let from = 0
  for (const match of text.matchAll(new RegExp(alternatives.join('|'), 'giu'))) {
    const found = byWord.get(match[0].toLowerCase())
    if (!found) continue
    pieces.push(text.slice(from, match.index), found)
    from = match.index + match[0].length
  }
  return [...pieces, text.slice(from)]
}

const isInWord = (character: string) => /[\p{L}\p{N}_]/u.test(character)

/**
 * Inputs of a text encoder with slots for one chunk: `token_vectors` [1, 77, width] and `token_mask` [1, 77], 1 where the
 * vector stands for the token.
 */
export function vectorInputs(
  places: readonly (VectorPlace | undefined)[],
  network: TextEncoder,
  width: number,
): Record<'token_vectors' | 'token_mask', FloatTensor> {
  const vectors = new Float32Array(places.length * width)
  const mask = new Float32Array(places.length)
  places.forEach((place, i) => {
    if (!place) return
    const { embedding, index } = place
    const own = embedding.vectors[network]
    if (own && own.shape[1] !== width) {
      throw new Error(`"${embedding.word}": vectors of ${own.shape[1]} numbers for a text encoder of ${width}`)
    }
    // An embedding made for the other encoder alone says nothing here.
    if (own) vectors.set(own.data.subarray(index * width, (index + 1) * width), i * width)
    mask[i] = 1
  })
  return { token_vectors: tensor(vectors, [1, places.length, width]), token_mask: tensor(mask, [1, places.length]) }
}
