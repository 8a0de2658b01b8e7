import {
  cardKey,
  cardText,
  characterNames,
  contentWords,
  plainWords,
  type SuggestionCard,
} from '../../models/adapters/cards.ts'
import { phrasesOf, type Phrase } from './phrases.ts'
import type { TextVectors } from './text-vectors.ts'

// Adapters that a prompt asks for, after Stylus (methods.md, section 7) without its language model: in the paper finding
// the nearest adapters alone made pictures worse than none at all, and only the strict choice among them made them better.
// So here the words of a card must be said, or something that means the same; everything else is left alone. Nothing is
// applied: a suggestion is shown with its reason, and the person takes it or not.

export type Suggestion = {
  id: string
  title: string
  /** The phrase of the prompt that asks for it. */
  phrase: string
  /** What Stylus gives: 0.8 × the recommended weight, divided among those that answer to one topic. */
  weight: number
  /** 0 to 1. */
  score: number
  /** For the person. */
  reason: string
}

/** A card that came near and was not taken, and why. */
export type Declined = { id: string; title: string; phrase: string; why: string }

export type Suggestions = { suggestions: Suggestion[]; declined: Declined[] }

export type SuggestOptions = {
  /** What the model's text encoder says of texts; words alone decide when left out. */
  vectors?: TextVectors
  /** Adapters that are on already, by their cards: they count, and are not suggested. */
  active?: readonly SuggestionCard[]
  /** 0 to 1: how far two adapters change the same things (`compareAdapters`); undefined where nobody has looked. */
  conflict?: (a: string, b: string) => number | undefined
}

const most = 3
const mostStyles = 2
/** Cards that are looked at for a prompt, by the vectors of their texts, when there are more. */
const retrieved = 150
/** Another name counts as the same thing from here on: "bunny" and "rabbit" have 0.95, "fox" and "cat" 0.58. */
const sameThing = 0.7
/** A tag alone says what a card is about only when its title is not far off. */
const nearTitle = 0.4
/** The best card must beat the next one by this. */
const margin = 0.05
const mostConflict = 0.6

/** Suggests at most three adapters for a prompt, two of them styles, one for a phrase. The same input gives the same. */
export async function suggestAdapters(
  prompt: string,
  cards: readonly SuggestionCard[],
  options: SuggestOptions = {},
): Promise<Suggestions> {
  const { active = [] } = options
  const declined: Declined[] = []
  const taken = new Set(active.map(({ id }) => id))
  const phrases = phrasesOf(prompt)
  const able = withoutTwins(cards).filter(({ id, category }) => category !== 'tool' && !taken.has(id))
  const near = await nearest(prompt, able, options.vectors)

  const found: Match[] = []
  for (const phrase of phrases) {
    const matches: Match[] = []
    for (const card of near) {
      const match = await matchOf(phrase, card, options.vectors)
      if ('why' in match) {
        if (match.why !== '') declined.push({ ...nameOf(card), phrase: phrase.text, why: match.why })
      } else matches.push(match)
    }
    matches.sort((a, b) => b.score - a.score || (a.card.id < b.card.id ? -1 : 1))
    const [best, next] = matches
    if (!best) continue
    if (next && best.score - next.score < margin) {
      const why = `“${best.card.title}” and “${next.card.title}” fit “${phrase.text}” equally well.`
      for (const { card } of [best, next]) declined.push({ ...nameOf(card), phrase: phrase.text, why })
    } else found.push(best)
  }

  found.sort((a, b) => b.score - a.score || phrases.indexOf(a.phrase) - phrases.indexOf(b.phrase))
  const chosen: Match[] = []
  for (const match of found) {
    const why = refusal(match, chosen, options)
    if (why === undefined) chosen.push(match)
    else declined.push({ ...nameOf(match.card), phrase: match.phrase.text, why })
  }
  const styles = [...active, ...chosen.map(({ card }) => card)].filter(({ category }) => category === 'style').length
  return {
    suggestions: chosen.map(({ card, phrase, score, reason }) => {
      // All styles answer to one topic, how the picture is made; every other phrase is a topic of its own.
      const sharing = card.category === 'style' ? styles : 1
      const weight = Math.round((80 * card.recommendedWeight) / sharing) / 100
      const shared = sharing > 1 ? ' Its weight is halved, since two styles share the picture.' : ''
      return { ...nameOf(card), phrase: phrase.text, weight, score, reason: reason + shared }
    }),
    declined: declined.filter(({ id }) => !chosen.some(({ card }) => card.id === id)),
  }
}

type Match = { card: SuggestionCard; phrase: Phrase; score: number; reason: string }

const nameOf = ({ id, title }: SuggestionCard) => ({ id, title })

/** One of several files that are described alike. */
function withoutTwins(cards: readonly SuggestionCard[]): SuggestionCard[] {
  const byKey = new Map([...cards].reverse().map((card) => [cardKey(card), card]))
  return [...byKey.values()].reverse()
}

/** The cards that come into question at all. Words of the prompt that a card has count before every vector. */
async function nearest(
  prompt: string,
  cards: readonly SuggestionCard[],
  vectors: TextVectors | undefined,
): Promise<SuggestionCard[]> {
  if (cards.length <= retrieved) return [...cards]
  const words = new Set(contentWords(prompt))
  const scored = await Promise.all(
    cards.map(async (card) => {
      const shared = contentWords([card.title, ...card.tags, ...card.triggers].join(' ')).filter((word) =>
        words.has(word),
      )
      return { card, score: shared.length + ((await vectors?.similarity(prompt, cardText(card))) ?? 0) }
    }),
  )
  scored.sort((a, b) => b.score - a.score || (a.card.id < b.card.id ? -1 : 1))
  return scored.slice(0, retrieved).map(({ card }) => card)
}

/** Whether a card answers to a phrase; else why not, empty where nothing in it does. */
async function matchOf(
  phrase: Phrase,
  card: SuggestionCard,
  vectors: TextVectors | undefined,
): Promise<Match | { why: string }> {
  const said = new Set(phrase.words)
  const saysAll = (words: readonly string[]) => words.length > 0 && words.every((word) => said.has(word))
  const name = [card.title, ...card.triggers].find((text) => saysAll(contentWords(text)))
  const { category, title } = card

  if (category === 'character') {
    const isNamed = !phrase.hasArticle && characterNames(card).some((text) => saysAll(contentWords(text)))
    if (isNamed) return matched(phrase, card, 1, `“${title}” is named in the prompt.`)
    const hint = name !== undefined || card.tags.some((tag) => saysAll(contentWords(tag)))
    return { why: hint ? `“${title}” is a character and is only suggested by name.` : '' }
  }
  if (category === 'style' && !phrase.isStyle) {
    // "an ink bottle" is no wish for ink as a style; the name on its own, between commas, is one.
    const own = new Set([title, ...card.triggers, ...card.tags].flatMap(contentWords))
    if (!phrase.words.every((word) => own.has(word)))
      return { why: name === undefined ? '' : `“${phrase.text}” does not ask for a style.` }
  }
  if (name !== undefined) {
    const likeness = await likenessOf(phrase, title, vectors)
    return matched(
      phrase,
      card,
      0.9 + 0.1 * Math.max(0, likeness),
      `The prompt says “${phrase.text}”, and this is “${name}”.`,
    )
  }
  const likeness = await likenessOf(phrase, title, vectors)
  const tag = card.tags.find((text) => saysAll(contentWords(text)))
  if (tag !== undefined) {
    // A title that is the tag and more names something narrower: no arctic fox for a fox.
    const isNarrower = contentWords(tag).some((word) => contentWords(title).includes(word))
    if (likeness >= nearTitle && !isNarrower)
      return matched(
        phrase,
        card,
        0.5 + 0.3 * likeness,
        `The prompt says “${phrase.text}”, and this is about “${tag}”.`,
      )
    return { why: `It is about “${tag}”, but “${title}” is something more special than “${phrase.text}”.` }
  }
  if (likeness >= sameThing)
    return matched(phrase, card, likeness * 0.9, `“${phrase.text}” means nearly the same as “${title}” to this model.`)
  return { why: likeness >= sameThing - 0.15 ? `“${title}” is near “${phrase.text}”, but not the same.` : '' }
}

const matched = (phrase: Phrase, card: SuggestionCard, score: number, reason: string): Match => ({
  ...{ card, phrase, reason },
  score: Math.min(1, score),
})

/**
 * How alike the phrase and a title are to the model; 0 where either has a word that it does not know. A title of one word
 * is also compared with what the phrase is about, its last word: "a red jumper" is a sweater.
 */
async function likenessOf(phrase: Phrase, title: string, vectors: TextVectors | undefined): Promise<number> {
  const [said, words] = [plainWords(phrase.text), plainWords(title)]
  if (!vectors || said.length === 0 || words.length === 0) return 0
  for (const word of [...said, ...words]) if (!(await vectors.knows(word))) return 0
  const whole = await vectors.similarity(said.join(' '), words.join(' '))
  return words.length > 1 ? whole : Math.max(whole, await vectors.similarity(said[said.length - 1], words[0]))
}

/** Why a card cannot be added to those that are chosen already. */
function refusal(
  { card, phrase }: Match,
  chosen: readonly Match[],
  { active = [], conflict }: SuggestOptions,
): string | undefined {
  const present = [...active, ...chosen.map((match) => match.card)]
  if (chosen.some((match) => match.card.id === card.id))
    return `It is suggested for another phrase than “${phrase.text}”.`
  if (present.length >= most) return `${most} adapters at a time are enough.`
  const styles = present.filter(({ category }) => category === 'style').length
  if (card.category === 'style' && styles >= mostStyles) return `${mostStyles} styles at a time are enough.`
  for (const other of present) {
    const overlap = conflict?.(card.id, other.id)
    if (overlap !== undefined && overlap > mostConflict)
      return `It changes nearly the same things as “${other.title}” (${Math.round(100 * overlap)} %).`
  }
  return undefined
}
