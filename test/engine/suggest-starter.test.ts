import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { rm } from 'node:fs/promises'
import { openNetworks, type OpenNetworks } from '../../main/engine/networks.ts'
import { suggestAdapters } from '../../main/pipeline/suggest.ts'
import { createTextVectors, createVectorCache, type TextVectors } from '../../main/pipeline/text-vectors.ts'
import { createTokenizer } from '../../main/pipeline/tokenizer.ts'
import type { SuggestionCard } from '../../models/adapters/cards.ts'
import { installStarter } from '../../models/starter/install.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { scratchFolder } from './tiny-model.ts'

// The choice by the starter's own text encoder, over cards of its small world.

let folder: string
let networks: OpenNetworks
let vectors: TextVectors
let runs = 0
const cache = createVectorCache()
beforeAll(async () => {
  folder = await scratchFolder('suggest')
  networks = openNetworks(await installStarter(folder), { threads: 1 })
  const counted = {
    ...networks,
    manifest: networks.manifest,
    run: (...all: Parameters<typeof networks.run>) => (runs++, networks.run(...all)),
  }
  vectors = createTextVectors(counted, createTokenizer(await readClipMerges()), cache)
})
afterAll(async () => {
  await networks.release?.()
  await rm(folder, { recursive: true, force: true })
})

const card = (
  title: string,
  category: SuggestionCard['category'],
  more: Partial<SuggestionCard> = {},
): SuggestionCard => ({
  ...{ id: title, title, category, tags: [], triggers: [], recommendedWeight: 1 },
  ...more,
})
const cards = [
  card('Rabbit', 'concept', { tags: ['animal'] }),
  card('Dog', 'concept', { tags: ['animal'] }),
  card('Forest', 'place', { tags: ['background', 'trees'] }),
  card('Beach at sunset', 'place', { tags: ['background', 'beach'] }),
  card('Sweater', 'clothing'),
  card('Snowy mountains', 'place'),
  card('Ink wash style', 'style', { triggers: ['inkwash'] }),
  card('Paper cut style', 'style'),
  card('Cyberpunk', 'style', { tags: ['neon'] }),
  card('Dragon', 'concept', { tags: ['monster'] }),
  card('Pip', 'character', { tags: ['fox', 'character'], triggers: ['pip the fox'] }),
]
const chosen = async (prompt: string) =>
  (await suggestAdapters(prompt, cards, { vectors })).suggestions.map(({ title, phrase }) => `${title} for ${phrase}`)

describe('the starter’s text encoder', () => {
  it.each([
    ['bunny', 'rabbit'],
    ['puppy', 'dog'],
    ['woods', 'forest'],
    ['jumper', 'sweater'],
    ['dusk', 'sunset'],
    ['tortoise', 'turtle'],
    ['spectacles', 'glasses'],
  ])('%s is %s', async (a, b) => {
    expect(await vectors.similarity(a, b)).toBeGreaterThan(0.85)
  })

  it.each([
    ['fox', 'cat'],
    ['bunny', 'dog'],
    ['red scarf', 'red dress'],
    ['rain', 'snow'],
    ['mountains', 'snowy mountains'],
    ['woods', 'beach'],
  ])('%s is not %s', async (a, b) => {
    expect(await vectors.similarity(a, b)).toBeLessThan(0.68)
  })

  it('tells words of its world from words that it never saw', async () => {
    const words = ['fox', 'woods', 'scarf', 'storybook', 'spaceship', 'dragon', 'cyberpunk']
    expect(await Promise.all(words.map((word) => vectors.knows(word)))).toEqual([
      true,
      true,
      true,
      true,
      false,
      false,
      false,
    ])
  })
})

describe('suggestions for prompts of the starter', () => {
  it('by another word for the same', async () => {
    expect(await chosen('a bunny wearing a red jumper in the woods at dusk')).toEqual([
      'Sweater for red jumper',
      'Rabbit for bunny',
      'Forest for woods',
    ])
    expect(await chosen('a puppy at the beach, ink wash style')).toEqual([
      'Ink wash style for ink wash style',
      'Dog for puppy',
    ])
  })

  it('nothing for what no card is about, however near it is', async () => {
    for (const prompt of [
      'a fox in a meadow, storybook style',
      'a cat in the mountains at night',
      'a spaceship over a castle',
      'a kitten with a balloon, rain',
      'a robot, masterpiece, best quality',
      'an owl reading a blue book at sunset',
    ])
      expect([prompt, await chosen(prompt)]).toEqual([prompt, []])
  })

  it('the same again without asking the encoder again', async () => {
    const prompt = 'a bunny wearing a red jumper in the woods at dusk'
    const before = await suggestAdapters(prompt, cards, { vectors })
    const asked = runs
    expect(asked).toBeGreaterThan(20)
    expect(await suggestAdapters(prompt, cards, { vectors })).toEqual(before)
    expect(runs).toBe(asked)
  })
})
