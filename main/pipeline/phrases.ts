import { contentWords, styleMarkers } from '../../models/adapters/cards.ts'
import { parsePrompt } from './prompt.ts'

/** One thing that a prompt asks for: "a small fox", "watercolour style". */
export type Phrase = {
  text: string
  /** Its words that say something, in the singular. */
  words: string[]
  /** It speaks of how the picture is made. */
  isStyle: boolean
  /** "a fox", as no name is written. */
  hasArticle: boolean
}

/** Between what is shown and where, how or with what. */
const links =
  /\b(?:in|on|at|by|with|under|over|among|near|behind|beside|inside|outside|above|below|through|across|from|and|or|while|of|as|wearing|holding|carrying|riding|reading|sitting|standing|walking|waving|playing|looking|to|into)\b/gi

/**
 * The phrases of a prompt, in its order: cut at commas and at the words between things. What the prompt wants to be without
 * is left out; weights of words do not matter here.
 */
export function phrasesOf(prompt: string): Phrase[] {
  const plain = parsePrompt(prompt)
    .spans.map((span) => (span === 'break' ? ',' : span.text))
    .join('')
    // "in the style of ink wash" names a style like "ink wash style".
    .replace(/\b(?:in|done in|drawn in)?\s*(?:the|a|an)?\s*style of\s+([^,.;]+)/gi, ', $1 style')
    .replace(/\b(?:in|as)\s+(?:a|an|the)?\s*([^,.;]*\b(?:style|aesthetic))\b/gi, ', $1')
  const phrases = plain
    .split(/[,.;:!?\n()]+/)
    .flatMap((part) => part.split(links))
    .map((part) => part.replace(/\b(?:no|not|without)\b.*$/i, ''))
    .map((part): Phrase => {
      const [, article, rest] = /^\s*((?:a|an|the|some|one|two|three|his|her|its|their)\b)?(.*)$/is.exec(part)!
      const text = rest.trim()
      return { text, words: contentWords(text), isStyle: styleMarkers.test(text), hasArticle: article !== undefined }
    })
  const seen = new Set<string>()
  return phrases.filter(({ words }) => {
    const key = words.join(' ')
    if (words.length === 0 || seen.has(key)) return false
    seen.add(key)
    return true
  })
}
