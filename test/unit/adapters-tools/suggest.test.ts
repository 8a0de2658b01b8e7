import { describe, expect, it } from 'vitest'
import { phrasesOf } from '../../../main/pipeline/phrases.ts'
import { suggestAdapters, type SuggestOptions } from '../../../main/pipeline/suggest.ts'
import type { TextVectors } from '../../../main/pipeline/text-vectors.ts'
import { cardKey, contentWords, suggestionCard, type SuggestionCard } from '../../../models/adapters/cards.ts'
import type { AdapterInfo } from '../../../models/adapters/types.ts'

const card = (
  title: string,
  category: SuggestionCard['category'],
  more: Partial<SuggestionCard> = {},
): SuggestionCard => ({
  ...{ id: title, title, category, tags: [], triggers: [], recommendedWeight: 1 },
  ...more,
})

const cards = [
  card('Ink wash', 'style', { triggers: ['inkwash'] }),
  card('Watercolour style', 'style', { recommendedWeight: 0.5 }),
  card('Linocut style', 'style'),
  card('Arctic fox', 'concept', { tags: ['fox', 'animal'] }),
  card('Rabbit', 'concept'),
  card('Raincoat', 'clothing'),
  card('Snowfall', 'concept', { tags: ['snow', 'weather'] }),
  card('Pip', 'character', { tags: ['fox', 'character'], triggers: ['pip the fox'] }),
  card('LCM', 'tool', { triggers: ['rabbit'] }),
]

/** Knows that bunny and rabbit, and snow and snowfall, are alike. */
const vectors: TextVectors = {
  knows: async (word) => word !== 'blorp',
  similarity: async (a, b) => {
    const pair = [a.toLowerCase(), b.toLowerCase()].sort().join(' ')
    return (
      (
        { 'bunny rabbit': 0.95, 'snow snowfall': 0.75, 'arctic fox fox': 0.3, 'blorp rabbit': 0.99 } as Record<
          string,
          number
        >
      )[pair] ?? 0
    )
  },
}
const titles = async (prompt: string, options: SuggestOptions = { vectors }) =>
  (await suggestAdapters(prompt, cards, options)).suggestions.map(({ title, weight }) => [title, weight])

describe('the phrases of a prompt', () => {
  const texts = (prompt: string) => phrasesOf(prompt).map(({ text, isStyle }) => (isStyle ? `~${text}` : text))
  it('are cut between things, without weights, and without what shall not be there', () => {
    expect(texts('a (small:1.2) fox wearing a red scarf in the snow, ink wash style, no people')).toEqual([
      'small fox',
      'red scarf',
      'snow',
      '~ink wash style',
    ])
    expect(texts('an owl, in the style of linocut')).toEqual(['owl', '~linocut style'])
    expect(texts('a bear without a hat in the snow')).toEqual(['bear', 'snow'])
    expect(texts(', masterpiece, best quality')).toEqual([])
  })
  it('have their words in the singular', () => {
    expect(contentWords('The foxes, cherries and glasses of a bus')).toEqual(['fox', 'cherry', 'glass', 'bus'])
  })
})

describe('suggestions', () => {
  it('by name, by what means the same, each with its reason', async () => {
    const { suggestions } = await suggestAdapters('a bunny in a raincoat, ink wash style', cards, { vectors })
    expect(suggestions.map(({ title, phrase, weight }) => [title, phrase, weight])).toEqual([
      ['Raincoat', 'raincoat', 0.8],
      ['Ink wash', 'ink wash style', 0.8],
      ['Rabbit', 'bunny', 0.8],
    ])
    expect(suggestions.map(({ reason }) => reason)).toEqual([
      'The prompt says “raincoat”, and this is “Raincoat”.',
      'The prompt says “ink wash style”, and this is “Ink wash”.',
      '“bunny” means nearly the same as “Rabbit” to this model.',
    ])
  })

  it('nothing where nothing is asked for', async () => {
    expect(await titles('a castle by the sea')).toEqual([])
    expect(await titles('a blorp')).toEqual([]) // alike only because the encoder does not know it
    expect(await titles('a bottle of ink')).toEqual([])
    expect(await titles('a raincoat', { vectors, active: [cards[5]] })).toEqual([])
    expect(await titles('a fox without a raincoat')).toEqual([])
    expect(await titles('')).toEqual([])
  })

  it('no narrower thing for a general word, and no character but by name', async () => {
    const { suggestions, declined } = await suggestAdapters('a fox in a meadow', cards, { vectors })
    expect(suggestions).toEqual([])
    expect(declined.map(({ title, why }) => [title, why])).toEqual([
      ['Arctic fox', 'It is about “fox”, but “Arctic fox” is something more special than “fox”.'],
      ['Pip', '“Pip” is a character and is only suggested by name.'],
    ])
    expect(await titles('Pip in a meadow')).toEqual([['Pip', 0.8]])
    expect(await titles('an arctic fox')).toEqual([['Arctic fox', 0.8]])
    const named = [
      card('Luna, the purple rabbit', 'character', { triggers: ['luna', 'a purple rabbit'] }),
      card('Bear', 'character'),
    ]
    const chosen = async (prompt: string) =>
      (await suggestAdapters(prompt, named, {})).suggestions.map(({ title }) => title)
    expect(await chosen('a purple rabbit in a meadow')).toEqual([])
    expect(await chosen('a bear in a meadow')).toEqual([])
    expect(await chosen('Luna and Bear in a meadow')).toEqual(['Luna, the purple rabbit', 'Bear'])
  })

  it('a tag counts when the title is near', async () => {
    expect(await titles('a fox in the snow')).toEqual([['Snowfall', 0.8]])
    expect(await titles('a fox in the snow', {})).toEqual([])
  })

  it('a style only where a style is asked for', async () => {
    const { suggestions, declined } = await suggestAdapters('an ink wash brush on a table', cards, { vectors })
    expect(suggestions).toEqual([])
    expect(declined).toMatchObject([{ title: 'Ink wash', why: '“ink wash brush” does not ask for a style.' }])
    expect(await titles('a table, ink wash')).toEqual([['Ink wash', 0.8]])
  })

  it('two styles at most, which share their weight; three adapters at most', async () => {
    const prompt = 'a rabbit in a raincoat, ink wash style, watercolour style, linocut style'
    const { suggestions, declined } = await suggestAdapters(prompt, cards, { vectors })
    expect(suggestions.map(({ title, weight }) => [title, weight])).toEqual([
      ['Rabbit', 0.8],
      ['Raincoat', 0.8],
      ['Ink wash', 0.8],
    ])
    expect(declined.map(({ why }) => why)).toContain('3 adapters at a time are enough.')
    expect(await titles('ink wash style, watercolour style, linocut style')).toEqual([
      ['Ink wash', 0.4],
      ['Watercolour style', 0.2],
    ])
    expect(await titles('watercolour style', { vectors, active: [cards[2]] })).toEqual([['Watercolour style', 0.2]])
  })

  it('none of two that fit equally well, one of two that are described alike', async () => {
    const twin = { ...cards[4], id: 'another file' }
    const alike = await suggestAdapters('a rabbit', [...cards, twin], { vectors })
    expect(alike.suggestions.map(({ id }) => id)).toEqual(['Rabbit'])
    const rival = card('Rabbits', 'concept')
    const { suggestions, declined } = await suggestAdapters('a rabbit', [...cards, rival], {})
    expect(suggestions).toEqual([])
    expect(declined[0].why).toMatch(/equally well/)
  })

  it('no two that change the same things', async () => {
    const conflict = (a: string, b: string) =>
      [a, b].sort().join() === 'Raincoat,Rabbit' || [a, b].includes('Raincoat') ? 0.8 : 0.1
    const { suggestions, declined } = await suggestAdapters('a rabbit in a raincoat', cards, { vectors, conflict })
    expect(suggestions.map(({ title }) => title)).toEqual(['Rabbit'])
    expect(declined).toMatchObject([
      { title: 'Raincoat', why: 'It changes nearly the same things as “Rabbit” (80 %).' },
    ])
  })
})

describe('the card of a file', () => {
  const info = (more: Partial<AdapterInfo>): AdapterInfo => ({
    ...{
      file: '/x/ink_wash-v2_fp16.safetensors',
      name: 'ink_wash-v2_fp16',
      bytes: 1,
      kinds: ['LoRA'],
      precision: 'fp16',
    },
    ...{ matched: 2, total: 2, hasTextEncoder: false, triggers: [], tags: [], role: 'style', notices: [] },
    ...{ verdict: { fit: 'fits', message: '' } },
    ...more,
  })

  it('has a name without versions, a category by tags and a weight', () => {
    expect(suggestionCard(info({}))).toMatchObject({ title: 'ink wash', category: 'concept', recommendedWeight: 0.8 })
    expect(suggestionCard(info({ title: 'Ink style', weightRange: [0.6, 0.8] }))).toMatchObject({
      category: 'style',
      recommendedWeight: 0.7,
    })
    expect(suggestionCard(info({ tags: ['Clothing', 'character'] })).category).toBe('character')
    expect(suggestionCard(info({ role: 'subject' })).category).toBe('character')
    expect(suggestionCard(info({ role: 'speed', tags: ['style'] })).category).toBe('tool')
    expect(suggestionCard(info({ tags: ['style'], verdict: { fit: 'wrong-family', message: '' } })).category).toBe(
      'tool',
    )
  })

  it('has a key that changes with what it says', () => {
    const one = card('Rabbit', 'concept')
    expect(cardKey(one)).toBe(cardKey({ ...one, id: 'elsewhere' }))
    expect(cardKey(one)).not.toBe(cardKey({ ...one, tags: ['hare'] }))
  })
})
