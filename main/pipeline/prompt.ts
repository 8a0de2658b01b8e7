import { endToken, startToken, type Tokenizer } from './tokenizer.ts'

/** Text between two changes of weight; `break` ends the chunk before it. */
export type PromptSpan = { text: string; weight: number } | 'break'

export type Prompt = { spans: PromptSpan[]; notices: string[] }

/** What one run of the text encoder reads: 77 ids, a weight for each, and where the first end mark stands. */
export type Chunk = { ids: number[]; weights: number[]; eosIndex: number }

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

/** The prompt's tokens in chunks of 75, cut as A1111 cuts; `unread` counts the tokens beyond the last chunk that is read. */
export function chunkPrompt(prompt: Prompt, tokenizer: Tokenizer): { chunks: Weighted[][]; unread: number } {
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
    for (const id of tokenizer.encode(span.text)) {
      if (id === commaToken) lastComma = chunk.length
      else if (chunk.length === chunkTokens && lastComma !== -1 && chunk.length - lastComma <= commaBacktrack) {
        const moved = chunk.splice(lastComma + 1)
        close()
        chunk = moved
      }
      if (chunk.length === chunkTokens) close()
      chunk.push({ id, weight: span.weight })
    }
  }
  if (chunk.length > 0 || chunks.length === 0) close()
  const unread = chunks.slice(maxChunks).reduce((sum, extra) => sum + extra.length, 0)
  return { chunks: chunks.slice(0, maxChunks), unread }
}

export type Weighted = { id: number; weight: number }

/** Start mark, words, end mark, then the encoder's padding up to 77. */
export function frameChunk(words: readonly Weighted[], padTokenId: number): Chunk {
  const padding = chunkTokens - words.length
  return {
    ids: [startToken, ...words.map((word) => word.id), endToken, ...Array<number>(padding).fill(padTokenId)],
    weights: [1, ...words.map((word) => word.weight), 1, ...Array<number>(padding).fill(1)],
    eosIndex: words.length + 1,
  }
}
