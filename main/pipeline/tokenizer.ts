/** CLIP's byte-pair tokenizer: text to ids without start, end and padding. */
export interface Tokenizer {
  encode(text: string): number[]
}

/** Ids of the two marks that frame every chunk of text. */
export const startToken = 49406
export const endToken = 49407

/** Merges that CLIP uses of the 262,144 in OpenAI's file; the vocabulary is 256 · 2 + merges + 2 = 49,408. */
const mergeCount = 48894

// OpenAI's split pattern without its two special tokens: somebody who types <|endoftext|> means those characters, and a
// real end token in mid-prompt would silence the rest. Digits stand alone; combining marks count as "other".
const words = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu

/**
 * Tokenizer over the text of the merge list: one `left right` a line, by rank. Same ids as transformers' CLIPTokenizer,
 * which normalises to NFC, folds white space and lower-cases; HTML entities stay as they are.
 */
export function createTokenizer(mergesText: string): Tokenizer {
  const symbols = byteSymbols()
  const ids = new Map<string, number>()
  for (const end of ['', '</w>']) for (const symbol of orderedSymbols(symbols)) ids.set(symbol + end, ids.size)
  const ranks = new Map<string, number>()
  for (const line of mergesText.split('\n')) {
    if (line === '') continue
    ids.set(line.replace(' ', ''), ids.size)
    ranks.set(line, ranks.size)
  }
  if (ranks.size !== mergeCount) throw new Error(`clip merges: expected ${mergeCount} lines, got ${ranks.size}`)

  const encodeWord = (word: string): number[] => {
    let parts = Array.from(new TextEncoder().encode(word), (byte) => symbols[byte])
    parts[parts.length - 1] += '</w>'
    while (parts.length > 1) {
      const best = lowestPair(parts, ranks)
      if (best === undefined) break
      parts = mergePair(parts, best)
    }
    return parts.map((part) => ids.get(part) as number)
  }

  // Prompts repeat their words; the bound keeps a long-lived engine from growing.
  const known = new Map<string, number[]>()
  return {
    encode(text) {
      const result: number[] = []
      for (const [word] of lowerCase(text.normalize('NFC')).matchAll(words)) {
        let pieces = known.get(word)
        if (!pieces) {
          pieces = encodeWord(word)
          if (known.size > 20_000) known.clear()
          known.set(word, pieces)
        }
        result.push(...pieces)
      }
      return result
    },
  }
}

/** Character by character: a whole string would turn a final Σ into ς, which the reference does not. */
function lowerCase(text: string): string {
  return Array.from(text, (character) => character.toLowerCase()).join('')
}

/** One printable character for each byte: printable Latin-1 stays, the other 68 bytes move up from U+0100. */
function byteSymbols(): string[] {
  let moved = 0
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : 256 + moved++))
}

function isPrintable(byte: number): boolean {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
}

/** Vocabulary order: the printable bytes first, then the moved ones. */
function orderedSymbols(symbols: string[]): string[] {
  return [...symbols.filter((_, byte) => isPrintable(byte)), ...symbols.filter((_, byte) => !isPrintable(byte))]
}

function lowestPair(parts: string[], ranks: Map<string, number>): string | undefined {
  let best: string | undefined
  let bestRank = Infinity
  for (let i = 0; i + 1 < parts.length; i++) {
    const pair = `${parts[i]} ${parts[i + 1]}`
    const rank = ranks.get(pair)
    if (rank !== undefined && rank < bestRank) [best, bestRank] = [pair, rank]
  }
  return best
}

/** Joins every occurrence of the pair, left to right. */
function mergePair(parts: string[], pair: string): string[] {
  const merged: string[] = []
  for (let i = 0; i < parts.length; i++) {
    if (i + 1 < parts.length && `${parts[i]} ${parts[i + 1]}` === pair) merged.push(parts[i] + parts[++i])
    else merged.push(parts[i])
  }
  return merged
}
