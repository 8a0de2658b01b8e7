import { families } from '../../models/family.ts'
import type { LoadedAdapter } from './adapter-types.ts'
import { embeddingWords, vectorInputs, type EmbeddingWord } from './embeddings.ts'
import { chunkPrompt, frameChunk, parsePrompt, type Chunk, type Weighted } from './prompt.ts'
import type { Slots } from './slots.ts'
import { changes, type Weights } from './steps.ts'
import { stack, tensor, type FloatTensor, type IdTensor } from './tensor.ts'
import { createTextCache, type EncodedChunk, type TextCache } from './text-cache.ts'
import type { Tokenizer } from './tokenizer.ts'
import type { Networks } from './types.ts'

/** One text of one picture as the network reads it: t is 77 for every chunk, d the joined width of the text encoders. */
export type TextRow = {
  picture: number
  isNegative: boolean
  /** [t, d] */
  context: FloatTensor
  /** SDXL: pooled vector of its second encoder, [p]. */
  pooled?: FloatTensor
}

/** What the text gives the network. */
export type Conditioning = {
  /** The negative prompts of the pictures that are guided, then the prompts of all, each in the order of the pictures. */
  rows: TextRow[]
  /** SDXL: original height and width, crop top and left, target height and width. */
  timeIds?: readonly number[]
  notices: string[]
}

export type PictureText = {
  prompt: string
  negativePrompt: string
  /** Without guidance the negative prompt is not read. */
  guided: boolean
  /** What adapters weigh on the text encoders. */
  weights?: Weights
}

export type ConditioningOptions = {
  pictures: readonly PictureText[]
  /** A1111's count: 1 is the last block. SDXL never reads above 2, the block it was trained on. */
  clipSkip: number
  width: number
  height: number
  /** Slots of the text encoders that have any. */
  slots?: Partial<Record<'text_encoder' | 'text_encoder_2', Slots>>
}

type RowText = Pick<TextRow, 'picture' | 'isNegative'> & { chunks: Weighted[][]; weights: Weights; isZero: boolean }

/**
 * Encodes the prompts: chunks of 77 tokens through every text encoder of the family, for both prompts of a picture as many
 * as for the longer. An empty negative prompt is encoded like any other, but on SDXL it is all zeros, as in diffusers when
 * none is given.
 */
export async function encodePrompts(
  networks: Networks,
  tokenizer: Tokenizer,
  options: ConditioningOptions,
): Promise<Conditioning> {
  const { manifest } = networks
  const family = families[manifest.family]
  const { texts, notices } = readTexts(options.pictures, tokenizer, family.hasSizeConditioning)
  const cache = networks.texts ?? createTextCache()

  const encoded: EncodedText[][] = texts.map(() => [])
  for (const [i, network] of family.textEncoders.entries()) {
    const padTokenId = manifest.textEncoders[i]?.padTokenId ?? family.padTokenIds[i]
    // hidden_states and normed_states hold layers + 1 rows; the last is the last block.
    const skip = family.usesPenultimate ? Math.max(options.clipSkip, 2) : options.clipSkip
    const { layers, width } = manifest.textEncoders[i]
    const block = {
      network,
      width,
      layer: Math.max(layers + 1 - skip, 1),
      states: family.usesPenultimate ? 'hidden_states' : 'normed_states',
      slots: options.slots?.[network],
    } as const
    for (const [row, { chunks, weights }] of texts.entries()) {
      const framed = chunks.map((words) => frameChunk(words, padTokenId))
      encoded[row].push(await encodeChunks(networks, cache, framed, weights, block))
    }
    await networks.rest?.(network)
  }

  const rows = texts.map(({ picture, isNegative, isZero }, i): TextRow => {
    const context = joinEncoders(encoded[i])
    if (!family.hasSizeConditioning) return { picture, isNegative, context }
    const pooled = encoded[i][encoded[i].length - 1].pooled
    if (!isZero) return { picture, isNegative, context, pooled }
    const zeros = ({ shape, data }: FloatTensor) => tensor(new Float32Array(data.length), shape)
    return { picture, isNegative, context: zeros(context), pooled: zeros(pooled) }
  })
  if (!family.hasSizeConditioning) return { rows, notices }
  return { rows, timeIds: [options.height, options.width, 0, 0, options.height, options.width], notices }
}

/** Parses and cuts all texts, the negative ones first; says what was not read. */
function readTexts(
  pictures: readonly PictureText[],
  tokenizer: Tokenizer,
  hasZeros: boolean,
): { texts: RowText[]; notices: string[] } {
  const notices = new Set<string>()
  const read = (text: string, name: string, words: readonly EmbeddingWord[]): Weighted[][] => {
    const prompt = parsePrompt(text)
    const { chunks, unread } = chunkPrompt(prompt, tokenizer, words)
    for (const notice of prompt.notices) notices.add(notice)
    if (unread > 0) notices.add(`The ${name} is too long: its last ${unread} words or parts of words were not read.`)
    return chunks
  }
  const [negatives, positives]: RowText[][] = [[], []]
  for (const [picture, { prompt, negativePrompt, guided, weights = new Map() }] of pictures.entries()) {
    const words = embeddingWords(weights.keys())
    const positive = read(prompt, 'prompt', words)
    const negative = guided ? read(negativePrompt, 'negative prompt', words) : []
    if (!guided && negativePrompt.trim() !== '') notices.add('The negative prompt has no effect at guidance 1.')
    const count = Math.max(positive.length, negative.length)
    const filled = (chunks: Weighted[][]) => [
      ...chunks,
      ...Array.from({ length: count - chunks.length }, (): Weighted[] => []),
    ]
    const isZero = hasZeros && negativePrompt.trim() === ''
    if (guided) negatives.push({ picture, isNegative: true, chunks: filled(negative), weights, isZero })
    positives.push({ picture, isNegative: false, chunks: filled(positive), weights, isZero: false })
    const used = new Set([...positive, ...negative].flat().map(({ vector }) => vector?.embedding))
    for (const word of words) {
      if (!used.has(word)) notices.add(`"${word.word}" is in neither prompt, so what it stands for has no effect.`)
    }
  }
  return { texts: [...negatives, ...positives], notices: [...notices] }
}

/** One text through one encoder: states [m, 77, d] of its m chunks, and pooled [p] of the first. */
type EncodedText = { states: FloatTensor; pooled: FloatTensor }

/** Which states of which text encoder are read. */
type EncoderBlock = {
  network: 'text_encoder' | 'text_encoder_2'
  width: number
  layer: number
  states: 'hidden_states' | 'normed_states'
  slots?: Slots
}

/**
 * Every chunk in a run of its own, or as the cache has it: its numbers then do not depend on what else is read, and a
 * prompt that was read before, the empty one above all, costs nothing. Keys and values that the unet makes of the text at
 * every step are not kept: 0.2 to 0.4 % of an evaluation of SD 1.5 at 512 × 512, 0.5 % of SDXL's at 1024 × 1024.
 */
async function encodeChunks(
  networks: Networks,
  cache: TextCache,
  chunks: Chunk[],
  weights: Weights,
  block: EncoderBlock,
): Promise<EncodedText> {
  const { network, states: name, layer, slots } = block
  // Adapters that change nothing in this encoder are not in it, so that what was read without them still stands.
  const applied: Weights = new Map([...weights].filter(([adapter]) => changes(adapter, network)))
  const weighed = [...applied].map(([adapter, weight]) => `${contentKey(adapter, network)} ${weight}`).sort()
  const encoded: EncodedChunk[] = []
  for (const chunk of chunks) {
    const { ids, eosIndex, vectors } = chunk
    const words = vectors.map((place) => place && `${place.embedding.sha256} ${place.embedding.word} ${place.index}`)
    const tokens = ids.map((id, i) => words[i] ?? id)
    const key = [network, name, layer, eosIndex, ...tokens, slots ? 'slots' : '', ...weighed].join()
    const known = cache.get(key)
    const made = known ?? (await encodeChunk(networks, chunk, applied, block))
    if (!known) cache.put(key, made)
    encoded.push(made)
  }
  const states = stack(encoded.map(({ states }) => states))
  const size = states.data.length / chunks.length
  chunks.forEach((chunk, i) => weigh(states.data.subarray(i * size, (i + 1) * size), chunk.weights))
  return { states, pooled: encoded[0].pooled }
}

/** What an adapter is to one network: its file, and how much of the ranks is left where it was cut to a budget. */
function contentKey({ sha256, layers }: LoadedAdapter, network: 'text_encoder' | 'text_encoder_2'): string {
  const ranks = [...(layers[network]?.values() ?? [])].reduce((all, { rank }) => all + rank, 0)
  return `${sha256} ${ranks}`
}

async function encodeChunk(
  networks: Networks,
  { ids, eosIndex, vectors }: Chunk,
  weights: Weights,
  { network, states: name, layer, width, slots }: EncoderBlock,
): Promise<EncodedChunk> {
  if (!slots && (weights.size > 0 || vectors.some((place) => place !== undefined))) {
    throw new Error(`${network}: adapters change it, but it has no slots`)
  }
  const outputs = await networks.run(
    network,
    {
      input_ids: { data: BigInt64Array.from(ids, BigInt), shape: [1, 77] } satisfies IdTensor,
      eos_index: { data: BigInt64Array.of(BigInt(eosIndex)), shape: [1] } satisfies IdTensor,
      ...(slots ? { ...(await slots.inputs([weights])), ...vectorInputs(vectors, network, width) } : {}),
    },
    [name, 'pooled'],
  )
  const { data, shape } = outputs[name] // [layers + 1, 1, 77, d]
  const size = 77 * shape[3]
  const pooled = outputs.pooled // [1, p]
  return {
    states: tensor(data.slice(layer * size, (layer + 1) * size), [77, shape[3]]),
    pooled: tensor(pooled.data, [pooled.shape[1]]),
  }
}

/**
 * Multiplies each token's vector by its weight and scales the chunk so that its mean stays (A1111's "original" emphasis).
 * states [77, d], in place.
 */
function weigh(states: Float32Array, weights: number[]): void {
  if (weights.every((weight) => weight === 1)) return
  const width = states.length / weights.length
  const before = sum(states)
  for (let i = 0; i < states.length; i++) states[i] *= weights[Math.floor(i / width)]
  const restore = before / sum(states)
  if (!Number.isFinite(restore) || restore === 0) return
  for (let i = 0; i < states.length; i++) states[i] *= restore
}

function sum(values: Float32Array): number {
  return values.reduce((total, value) => total + value, 0)
}

/** Chunks [m, 77, d_i] of every encoder -> [m · 77, Σ d_i]: chunks along tokens, encoders along width. */
function joinEncoders(encoded: readonly EncodedText[]): FloatTensor {
  const widths = encoded.map(({ states }) => states.shape[2])
  const width = widths.reduce((a, b) => a + b, 0)
  const tokens = encoded[0].states.shape[0] * 77
  const data = new Float32Array(tokens * width)
  let offset = 0
  encoded.forEach(({ states }, e) => {
    for (let t = 0; t < tokens; t++) {
      data.set(states.data.subarray(t * widths[e], (t + 1) * widths[e]), t * width + offset)
    }
    offset += widths[e]
  })
  return tensor(data, [tokens, width])
}
