import { VignetteError } from '../../models/errors.ts'
import { splitAtWords, type EmbeddingWord, type VectorPlace } from './embeddings.ts'
import { endToken, startToken, type Tokenizer } from './tokenizer.ts'

/** Text between two changes of weight; `break` ends the chunk before it. */
export type PromptSpan = { text: string; weight: number } | 'break'

export type Prompt = { spans: PromptSpan[]; notices: string[] }

/**
 * What one run of the text encoder reads: 77 ids, a weight for each, where the first end mark stands, and for which of the
 * ids a vector of an embedding stands instead.
 */
export type Chunk = { ids: number[]; weights: number[]; eosIndex: number; vectors: (VectorPlace | undefined)[] }

/** Words a chunk holds between its start and end marks. */
export const chunkTokens = 75

/** Chunks read of one prompt; each makes every step a little slower, and models saw few of them. */
const maxChunks = 8

/** When a chunk overflows at most this many tokens after a comma, the words after it move to the next chunk (A1111). */
const commaBacktrack = 20
const commaToken = 267

/**
 * Reads A1111's attention syntax: `(x)` ×1.1, `[x]` ÷1.1, `(x:1.3)` ×1.3, nested ones multiply, `\(` is a plain bracket,
 * an unclosed bracket counts to the end, BREAK starts a new chunk. Neighbours of equal weight are joined. Syntax that
 * changes over time (`[from:to:0.5]`, `[a|b]`, AND) is read as plain words, adapter tags are taken out; both with a notice.
 */
export function parsePrompt(text: string): Prompt {
  const notices: string[] = []
  const tags = text.match(/<\w+:[^<>]*>/g)
  if (tags) {
    notices.push(`Left out of the prompt: ${tags.join(' ')}. Adapters are not chosen in the prompt.`)
    text = text.replace(/<\w+:[^<>]*>/g, ' ')
  }
  if (/(?<!\\)\[[^[\]]*(:\s*\d*\.?\d+|\|[^[\]]*)\]/.test(text)) {
    notices.push('Words that change while drawing, such as [cat:dog:0.5] or [cat|dog], are read as plain words.')
  }
  if (/\bAND\b/.test(text)) notices.push('AND is read as a plain word; prompts are not combined.')
  return { spans: weightedSpans(text), notices }
}

// One lexeme a match: escape, opening bracket, weight with its closing bracket, closing bracket, plain text, lone colon.
const lexemes = /\\([()[\]\\])|([([])|:\s*([+-]?[.\d]+)\s*\)|([)\]])|[^\\()[\]:]+|[\\:]/g

function weightedSpans(text: string): PromptSpan[] {
  const spans: PromptSpan[] = []
  const round: number[] = [] // where the spans of each open ( begin
  const square: number[] = []
  const multiply = (from: number, factor: number) => {
    for (const span of spans.slice(from)) if (span !== 'break') span.weight *= factor
  }
  for (const [lexeme, escaped, open, weight, close] of text.matchAll(lexemes)) {
    if (escaped || lexeme === '\\')
      spans.push({ text: escaped ?? '', weight: 1 }) // a lone backslash is dropped
    else if (open) (open === '(' ? round : square).push(spans.length)
    else if (weight && round.length > 0 && Number.isFinite(Number(weight)))
      multiply(round.pop() as number, Number(weight))
    else if (close === ')' && round.length > 0) multiply(round.pop() as number, 1.1)
    else if (close === ']' && square.length > 0) multiply(square.pop() as number, 1 / 1.1)
    else {
      lexeme.split(/\s*\bBREAK\b\s*/).forEach((part, i) => {
        if (i > 0) spans.push('break')
        spans.push({ text: part, weight: 1 })
      })
    }
  }
  for (const from of round) multiply(from, 1.1)
  for (const from of square) multiply(from, 1 / 1.1)
  return joinEqual(spans)
}

/** Joined before tokenising, so that `(un)(happy)` is one word. */
function joinEqual(spans: PromptSpan[]): PromptSpan[] {
  const joined: PromptSpan[] = []
  for (const span of spans) {
    const last = joined.at(-1)
    if (span !== 'break' && last !== undefined && last !== 'break' && last.weight === span.weight)
      last.text += span.text
    else joined.push(span === 'break' ? span : { ...span })
  }
  return joined
}

/**
 * The prompt's tokens in chunks of 75, cut as A1111 cuts; `unread` counts the tokens beyond the last chunk that is read. The
 * vectors of an embedding's word stay in one chunk.
 */
export function chunkPrompt(
  prompt: Prompt,
  tokenizer: Tokenizer,
  words: readonly EmbeddingWord[] = [],
): { chunks: Weighted[][]; unread: number } {
  const chunks: Weighted[][] = []
  let chunk: Weighted[] = []
  let lastComma = -1
  const close = () => {
    chunks.push(chunk)
    chunk = []
    lastComma = -1
  }
  for (const span of prompt.spans) {
    if (span === 'break') {
      close()
      continue
    }
    const { weight } = span
    for (const tokens of splitAtWords(span.text, words).flatMap((piece) => tokensOf(piece, tokenizer))) {
      const isFull = chunk.length + tokens.length > chunkTokens
      if (tokens[0].id === commaToken) lastComma = chunk.length
      else if (isFull && lastComma !== -1 && chunk.length - lastComma <= commaBacktrack) {
        const moved = chunk.splice(lastComma + 1)
        close()
        chunk = moved
      }
      if (chunk.length + tokens.length > chunkTokens) close()
      chunk.push(...tokens.map((token) => ({ ...token, weight })))
    }
  }
  if (chunk.length > 0 || chunks.length === 0) close()
  const unread = chunks.slice(maxChunks).reduce((sum, extra) => sum + extra.length, 0)
  return { chunks: chunks.slice(0, maxChunks), unread }
}

/**
 * How much of a text is read: its tokens with the two marks around each part of 75, the room in as many parts as it needs
 * (at most those that are read; then the tokens that are not read come on top), and where in the text the tail begins that is not.
 */
export function measurePrompt(
  text: string,
  tokenizer: Tokenizer,
): { tokens: number; limit: number; parts: number; unreadFrom?: number } {
  const { chunks, unread } = chunkPrompt(parsePrompt(text), tokenizer)
  const read = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  const framed = chunkTokens + 2
  const limit = framed * chunks.length
  if (unread === 0) return { tokens: read + 2 * chunks.length, limit, parts: chunks.length }
  const measure = { tokens: limit + unread, limit, parts: chunks.length }
  // Tokens of a beginning of the text grow with it: the longest beginning of whole words that has all that is read.
  const ends = [0, ...wordEnds(text)]
  let [low, high] = [0, ends.length - 1]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (countTokens(text.slice(0, ends[middle]), tokenizer) <= read) low = middle
    else high = middle - 1
  }
  const tail = /\S/.exec(text.slice(ends[low]))
  return { ...measure, unreadFrom: ends[low] + (tail?.index ?? 0) }
}

/** Where words end; every character of long ones counts, for scripts that put no blanks between words. */
function wordEnds(text: string): number[] {
  const longest = 24
  return Array.from(text.matchAll(/\S+/g)).flatMap(({ index, 0: word }) => {
    if (word.length <= longest) return [index + word.length]
    let end = index
    return Array.from(word, (character) => (end += character.length))
  })
}

function countTokens(text: string, tokenizer: Tokenizer): number {
  const { chunks, unread } = chunkPrompt(parsePrompt(text), tokenizer)
  return chunks.reduce((sum, chunk) => sum + chunk.length, unread)
}

export type Weighted = { id: number; weight: number; vector?: VectorPlace }

/** Tokens that belong together: each of plain text by itself, all places of an embedding's word at once. */
function tokensOf(piece: string | EmbeddingWord, tokenizer: Tokenizer): { id: number; vector?: VectorPlace }[][] {
  if (typeof piece === 'string') return tokenizer.encode(piece).map((id) => [{ id }])
  if (piece.count > chunkTokens) {
    throw new VignetteError('adapter-mismatch', `The word "${piece.word}" stands for ${piece.count} vectors.`, {
      hint: `A prompt has room for ${chunkTokens} of them side by side.`,
    })
  }
  // Whatever the id: its embedding is not looked at, and the end mark is found by its place.
  return [Array.from({ length: piece.count }, (_, index) => ({ id: 0, vector: { embedding: piece, index } }))]
}

/** Start mark, words, end mark, then the encoder's padding up to 77. */
export function frameChunk(words: readonly Weighted[], padTokenId: number): Chunk {
  const padding = chunkTokens - words.length
  return {
    ids: [startToken, ...words.map((word) => word.id), endToken, ...Array<number>(padding).fill(padTokenId)],
    weights: [1, ...words.map((word) => word.weight), 1, ...Array<number>(padding).fill(1)],
    vectors: [undefined, ...words.map((word) => word.vector), ...Array<undefined>(padding + 1).fill(undefined)],
    eosIndex: words.length + 1,
  }
}
