import { families } from '../../models/family.ts'
import { chunkPrompt, frameChunk } from './prompt.ts'
import type { IdTensor } from './tensor.ts'
import type { Tokenizer } from './tokenizer.ts'
import type { Networks } from './types.ts'

// What a model's own text encoder makes of short texts, as vectors that can be compared. CLIP was not made for that and
// Stylus found it wanting: vectors of any two texts are alike, and all words that a small encoder never saw are one. So the
// mean of everyday phrases is taken away, the words' own embeddings count as much as what the encoder makes of the whole,
// and what cannot be told from made-up words is said to be unknown.

export interface TextVectors {
  /** −1 to 1; about 1 for the same thing in other words, 0 for unrelated things. */
  similarity(a: string, b: string): Promise<number>
  /** Whether the encoder tells the word from one that does not exist. */
  knows(word: string): Promise<boolean>
}

/** Keeps vectors by text; of one model only. The app may keep them for as long as the model is installed. */
export interface VectorCache {
  get(text: string): Float32Array | undefined
  put(text: string, vector: Float32Array): void
}

/** In memory; as many texts as a library of some hundred adapters has. */
export function createVectorCache(most = 5000): VectorCache {
  const vectors = new Map<string, Float32Array>()
  return {
    get: (text) => vectors.get(text),
    put(text, vector) {
      if (vectors.size >= most) vectors.clear()
      vectors.set(text, vector)
    },
  }
}

/** Their mean is what all texts have in common. Words that every model for pictures has seen. */
const everyday = [
  ...['fox', 'dog', 'forest', 'at the beach', 'at night', 'red hat', 'storybook style', 'rain', 'book', 'sitting'],
  ...['in the city', 'blue dress', 'bear', 'in the mountains', 'with a balloon', 'on a sunny day', 'mouse', 'glasses'],
  ...['flower', 'in a room', 'in the desert', 'lion', 'owl', 'snow'],
]
const madeUp = ['zxq', 'brungle', 'vorbelquist']

/** Above this a word is like those that do not exist. */
const unknownFrom = 0.9

/** Vectors by the first text encoder of a model, which runs without adapters. */
export function createTextVectors(
  networks: Networks,
  tokenizer: Tokenizer,
  cache: VectorCache = createVectorCache(),
): TextVectors {
  const { manifest } = networks
  const [network] = families[manifest.family].textEncoders
  const { width, padTokenId } = manifest.textEncoders[0]

  /** [pooled p | mean of the words' embeddings d] of one text. */
  async function encode(text: string): Promise<Float32Array> {
    const known = cache.get(text)
    if (known) return known
    const { chunks } = chunkPrompt({ spans: [{ text, weight: 1 }], notices: [] }, tokenizer)
    const { ids, eosIndex } = frameChunk(chunks[0], padTokenId)
    const outputs = await networks.run(
      network,
      {
        input_ids: { data: BigInt64Array.from(ids, BigInt), shape: [1, 77] } satisfies IdTensor,
        eos_index: { data: BigInt64Array.of(BigInt(eosIndex)), shape: [1] } satisfies IdTensor,
      },
      ['hidden_states', 'pooled'],
    )
    const pooled = outputs.pooled.data
    const vector = new Float32Array(pooled.length + width)
    vector.set(pooled)
    // Row 0 of hidden_states [layers + 1, 1, 77, d] is the embeddings; between the marks stand the words.
    for (let token = 1; token < eosIndex; token++)
      for (let i = 0; i < width; i++)
        vector[pooled.length + i] += outputs.hidden_states.data[token * width + i] / (eosIndex - 1)
    cache.put(text, vector)
    return vector
  }

  /** Both halves of unit length, without what all texts share, and of unit length again: [2][…]. */
  const halves = (vector: Float32Array) =>
    [vector.subarray(0, vector.length - width), vector.subarray(vector.length - width)].map(unit)
  let centre: Promise<Float64Array[]> | undefined
  const centreOf = async (): Promise<Float64Array[]> => {
    const all: Float64Array[][] = []
    for (const text of everyday) all.push(halves(await encode(text)))
    return [0, 1].map((half) =>
      all[0][half].map((_, i) => all.reduce((sum, each) => sum + each[half][i], 0) / all.length),
    )
  }
  async function centred(text: string): Promise<Float64Array[]> {
    centre ??= centreOf()
    const middle = await centre
    return halves(await encode(text)).map((half, which) => unit(half.map((value, i) => value - middle[which][i])))
  }
  const compare = ([a, b]: Float64Array[], [c, d]: Float64Array[]) => (dot(a, c) + dot(b, d)) / 2

  return {
    similarity: async (a, b) => compare(await centred(a), await centred(b)),
    async knows(word) {
      const own = await centred(word)
      for (const other of madeUp) if (compare(own, await centred(other)) > unknownFrom) return false
      return true
    },
  }
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i]
  return sum
}

function unit(values: ArrayLike<number>): Float64Array {
  const out = Float64Array.from(values)
  const size = Math.sqrt(dot(out, out)) || 1
  return out.map((value) => value / size)
}
