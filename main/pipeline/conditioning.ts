import { families } from '../../models/family.ts'
import { chunkPrompt, frameChunk, parsePrompt, type Chunk, type Weighted } from './prompt.ts'
import { tensor, type FloatTensor } from './tensor.ts'
import type { EncodedChunk } from './text-cache.ts'
import type { Tokenizer } from './tokenizer.ts'
import type { Networks } from './types.ts'

/**
 * What the text gives the network. Rows are [negative, positive] when guidance is on, else [positive]; t is 77 for every
 * chunk of the longer prompt, d the joined width of the text encoders.
 */
export type Conditioning = {
  /** [1 or 2, t, d] */
  context: FloatTensor
  /** SDXL: pooled vector of its second encoder, [1 or 2, p]. */
  pooled?: FloatTensor
  /** SDXL: original height and width, crop top and left, target height and width. */
  timeIds?: readonly number[]
  notices: string[]
}

export type ConditioningOptions = {
  prompt: string
  negativePrompt: string
  /** Without guidance the negative prompt is not read. */
  guided: boolean
  /** A1111's count: 1 is the last block. SDXL never reads above 2, the block it was trained on. */
  clipSkip: number
  width: number
  height: number
}

/**
 * Encodes both prompts: chunks of 77 tokens, as many for the one as for the other, through every text encoder of the family.
 * An empty negative prompt is encoded like any other, but on SDXL it is all zeros, as in diffusers when none is given.
 */
export async function encodePrompts(
  networks: Networks,
  tokenizer: Tokenizer,
  options: ConditioningOptions,
): Promise<Conditioning> {
  const { manifest } = networks
  const family = families[manifest.family]
  const notices: string[] = []
  const read = (text: string, name: string): Weighted[][] => {
    const prompt = parsePrompt(text)
    const { chunks, unread } = chunkPrompt(prompt, tokenizer)
    notices.push(...prompt.notices)
    if (unread > 0) notices.push(`The ${name} is too long: its last ${unread} words or parts of words were not read.`)
    return chunks
  }
  const positive = read(options.prompt, 'prompt')
  const negative = options.guided ? read(options.negativePrompt, 'negative prompt') : undefined
  if (!options.guided && options.negativePrompt.trim() !== '') {
    notices.push('The negative prompt has no effect at guidance 1.')
  }
  const count = Math.max(positive.length, negative?.length ?? 0)
  const rows = (negative ? [negative, positive] : [positive]).map((chunks) => [
    ...chunks,
    ...Array.from({ length: count - chunks.length }, (): Weighted[] => []),
  ])

  const encoded: EncodedText[] = []
  for (const [i, network] of family.textEncoders.entries()) {
    const padTokenId = manifest.textEncoders[i]?.padTokenId ?? family.padTokenIds[i]
    const chunks = rows.flat().map((words) => frameChunk(words, padTokenId))
    // hidden_states and normed_states hold layers + 1 rows; the last is the last block.
    const skip = family.usesPenultimate ? Math.max(options.clipSkip, 2) : options.clipSkip
    const layers = manifest.textEncoders[i].layers
    const layer = Math.max(layers + 1 - skip, 1)
    const states = family.usesPenultimate ? 'hidden_states' : 'normed_states'
    encoded.push(await encodeChunks(networks, network, chunks, states, layer))
    await networks.rest?.(network)
  }

  const context = joinEncoders(encoded, rows.length, count)
  if (!family.hasSizeConditioning) return { context, notices }
  const pooled = pooledRows(encoded[encoded.length - 1].pooled, rows.length, count)
  if (negative && options.negativePrompt.trim() === '') {
    context.data.fill(0, 0, context.data.length / 2)
    pooled.data.fill(0, 0, pooled.data.length / 2)
  }
  const timeIds = [options.height, options.width, 0, 0, options.height, options.width]
  return { context, pooled, timeIds, notices }
}

/** states [m, 77, d] and pooled [m, p] of m chunks. */
type EncodedText = { states: FloatTensor; pooled: FloatTensor }

/**
 * Every chunk in a run of its own, or as the cache has it: its numbers then do not depend on what else is read, and a
 * prompt that was read before, the empty one above all, costs nothing. Keys and values that the unet makes of the text at
 * every step are not kept: 0.2 to 0.4 % of an evaluation of SD 1.5 at 512 × 512, 0.5 % of SDXL's at 1024 × 1024.
 */
async function encodeChunks(
  networks: Networks,
  network: 'text_encoder' | 'text_encoder_2',
  chunks: Chunk[],
  name: 'hidden_states' | 'normed_states',
  layer: number,
): Promise<EncodedText> {
  const encoded: EncodedChunk[] = []
  for (const { ids, eosIndex } of chunks) {
    const key = [network, name, layer, eosIndex, ...ids].join()
    const known = networks.texts?.get(key)
    const chunk = known ?? (await encodeChunk(networks, network, ids, eosIndex, name, layer))
    if (!known) networks.texts?.put(key, chunk)
    encoded.push(chunk)
  }
  const states = stack(encoded.map((chunk) => chunk.states))
  const size = states.data.length / chunks.length
  chunks.forEach(({ weights }, i) => weigh(states.data.subarray(i * size, (i + 1) * size), weights))
  return { states, pooled: stack(encoded.map((chunk) => chunk.pooled)) }
}

async function encodeChunk(
  networks: Networks,
  network: 'text_encoder' | 'text_encoder_2',
  ids: readonly number[],
  eosIndex: number,
  name: 'hidden_states' | 'normed_states',
  layer: number,
): Promise<EncodedChunk> {
  const outputs = await networks.run(
    network,
    {
      input_ids: { data: BigInt64Array.from(ids, BigInt), shape: [1, 77] },
      eos_index: { data: BigInt64Array.of(BigInt(eosIndex)), shape: [1] },
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

/** m tensors of one shape -> [m, ...shape], a copy. */
function stack(parts: readonly FloatTensor[]): FloatTensor {
  const size = parts[0].data.length
  const data = new Float32Array(parts.length * size)
  parts.forEach((part, i) => data.set(part.data, i * size))
  return tensor(data, [parts.length, ...parts[0].shape])
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

/** Chunks [rows · count, 77, d_i] of every encoder -> [rows, count · 77, Σ d_i]: chunks along tokens, encoders along width. */
function joinEncoders(encoded: EncodedText[], rows: number, count: number): FloatTensor {
  const widths = encoded.map(({ states }) => states.shape[2])
  const width = widths.reduce((a, b) => a + b, 0)
  const tokens = rows * count * 77
  const data = new Float32Array(tokens * width)
  let offset = 0
  encoded.forEach(({ states }, e) => {
    for (let t = 0; t < tokens; t++) {
      data.set(states.data.subarray(t * widths[e], (t + 1) * widths[e]), t * width + offset)
    }
    offset += widths[e]
  })
  return tensor(data, [rows, count * 77, width])
}

/** The first chunk's pooled vector of every row. */
function pooledRows(pooled: FloatTensor, rows: number, count: number): FloatTensor {
  const width = pooled.shape[1]
  const data = new Float32Array(rows * width)
  for (let r = 0; r < rows; r++) {
    data.set(pooled.data.subarray(r * count * width, (r * count + 1) * width), r * width)
  }
  return tensor(data, [rows, width])
}
