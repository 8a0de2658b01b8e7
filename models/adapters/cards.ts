import { createHash } from 'node:crypto'
import type { AdapterInfo } from './types.ts'

// What is known of an adapter in words, for finding those that a prompt asks for (after Stylus; methods.md, section 7).

/** What an adapter adds to a picture. `tool`: how pictures are made (speed, detail, guidance); nobody asks for it in a prompt. */
export type CardCategory = 'style' | 'character' | 'concept' | 'clothing' | 'place' | 'action' | 'tool'

export type SuggestionCard = {
  /** How the caller knows the adapter: a file or a hash. */
  id: string
  title: string
  description?: string
  tags: readonly string[]
  triggers: readonly string[]
  category: CardCategory
  /** 0.8 where nobody has said anything. */
  recommendedWeight: number
}

/** Words that tags have for a category, checked in this order: a character that wears something is a character. */
const categoryWords: readonly (readonly [CardCategory, readonly string[]])[] = [
  ['tool', ['tool', 'slider', 'enhancer', 'detailer', 'lcm', 'turbo', 'lightning', 'negative', 'quality']],
  ['character', ['character', 'celebrity', 'person', 'mascot', 'oc']],
  ['clothing', ['clothing', 'clothes', 'outfit', 'costume', 'garment', 'accessory']],
  ['place', ['background', 'place', 'scenery', 'landscape', 'building', 'environment', 'location']],
  ['action', ['action', 'pose', 'poses', 'gesture']],
  ['style', ['style', 'artstyle', 'art style', 'medium', 'painting style', 'artist']],
  ['concept', ['concept', 'animal', 'object', 'objects', 'vehicle', 'food', 'plant', 'weather']],
]

/** The card of a file, from what `inspectAdapter` tells. */
export function suggestionCard(info: AdapterInfo, id: string = info.file): SuggestionCard {
  const title = info.title ?? plainName(info.name)
  return {
    id,
    title,
    tags: info.tags,
    triggers: info.triggers,
    category: categoryOf(info, title),
    recommendedWeight: info.preferredWeight ?? (info.weightRange ? mean(info.weightRange) : 0.8),
    ...(info.description === undefined ? {} : { description: info.description }),
  }
}

const mean = ([least, most]: readonly [number, number]) => (least + most) / 2

/** 'ink_wash-v2_fp16' -> 'ink wash'. */
function plainName(name: string): string {
  const words = name
    .replace(/([a-z])([A-Z])/g, '$1 $2')
    .split(/[\s_\-.]+/)
    .filter((word) => !/^(v?\d+(\.\d+)*|fp16|bf16|fp32|lora|locon|lycoris|sdxl|sd15?|xl|epoch|final)$/i.test(word))
  return words.join(' ') || name
}

function categoryOf({ role, tags, verdict }: AdapterInfo, title: string): CardCategory {
  if (!['style', 'subject'].includes(role) || !['fits', 'partly'].includes(verdict.fit)) return 'tool'
  const lower = tags.map((tag) => tag.toLowerCase())
  for (const [category, words] of categoryWords) if (lower.some((tag) => words.includes(tag))) return category
  if (role === 'subject') return 'character'
  // Every file without notes has the role of a style; only its name can say that it is one.
  return styleMarkers.test(title) ? 'style' : 'concept'
}

/** Words that say "what follows or stands before is a style". */
export const styleMarkers =
  /\b(styles?|styled|aesthetic|artstyle|painting|drawing|illustration|sketch|engraving|woodcut|watercolou?rs?|render(ing)?)\b/i

/**
 * What a character goes by: its title up to the first comma, bracket or "the", and the words that call it and have part
 * of that. "a blue fox" calls "Pip, the blue fox" as well, but is no name.
 */
export function characterNames({ title, triggers }: SuggestionCard): string[] {
  const name = title.split(/[,(–—:|]|\bthe\b/i)[0].trim() || title
  const words = new Set(contentWords(name))
  return [name, ...triggers.filter((trigger) => contentWords(trigger).some((word) => words.has(word)))]
}

/** The string that Stylus embeds. */
export const cardText = ({ title, description, tags }: SuggestionCard): string =>
  [title, description, tags.join(', ')].filter((text) => text !== undefined && text !== '').join('; ')

/** Changes whenever anything changes that a choice depends on: what vectors and decisions are kept by. */
export function cardKey({ title, description, tags, triggers, category, recommendedWeight }: SuggestionCard): string {
  const text = JSON.stringify([title, description, tags, triggers, category, recommendedWeight])
  return createHash('sha256').update(text).digest('hex')
}

/** Words that stand in names and prompts without saying what is in the picture. */
const emptyWords = new Set(
  (
    'a an the this that some of in on at by with and or for to from into over under near as is are its his her their very ' +
    'style styles styled aesthetic artstyle art lora locon adapter model picture image photo illustration drawing painting ' +
    'character concept trigger word masterpiece best quality highly detailed beautiful'
  ).split(' '),
)

/** The words that say something, as they are written but for capitals: what a text encoder is asked about. */
export const plainWords = (text: string): string[] =>
  (text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).filter((word) => !emptyWords.has(word))

/** The same in the singular, each once: what texts are compared by. */
export const contentWords = (text: string): string[] => [...new Set(plainWords(text).map(singular))]

/** Without the ends of plurals. */
function singular(word: string): string {
  if (/(ss|us|is)$/.test(word) || word.length < 4) return word
  if (word.endsWith('ies') && word.length > 4) return `${word.slice(0, -3)}y`
  if (/(s|x|ch|sh)es$/.test(word)) return word.slice(0, -2)
  return word.endsWith('s') ? word.slice(0, -1) : word
}
