import { describe, expect, it } from 'vitest'
import type { AdapterRecord } from '../../../preload/contract/adapters.ts'
import {
  choicesOf,
  findAdapters,
  sortAdapters,
  type AdapterFilters,
  type AdapterView,
} from '../../../renderer/state/adapter-search.ts'
import { sampleRequests } from '../../../renderer/state/sample-requests.ts'
import { adapterRecord as record } from '../app/adapter-record.ts'

const foreign = { verdict: { fit: 'wrong-family' as const, message: '' }, familyName: 'SDXL' }
const all: AdapterRecord[] = [
  record('ink', { triggers: ['wet brush'], notes: 'good for skies', hash: 'ab12cd34'.padEnd(64, '0'), timesUsed: 3 }),
  record('luna', { folder: 'people/luna', tags: ['cat'], rating: 5, lastUsedAt: 5, role: 'subject' }),
  record('paper', { isMissing: true, collections: ['Book'], kinds: ['LoHa'] }),
  record('twin-a', { twins: 'x', isFavourite: true, bytes: 9 }),
  record('twin-b', { twins: 'x', familyName: 'SD 1.x' }),
  record('xl', foreign),
]
const find = (part: Partial<AdapterFilters>, used: string[] = []) => {
  const { shown, hidden } = findAdapters(all, { text: '', isFitting: true, ...part }, (id) => used.includes(id))
  return [shown.map(({ id }) => id).join(' '), hidden]
}

describe('finding adapters', () => {
  it.each<[string, string]>([
    ['brush', 'ink'],
    ['SKIES good', 'ink'],
    ['people/', 'luna'],
    ['cat', 'luna'],
    ['book', 'paper'],
    ['ab12', 'ink'],
    ['hash:ab12cd', 'ink'],
    ['b12cd', ''],
    ['ab', ''],
    ['ink luna', ''],
    ['loha', 'paper'],
  ])('by %j finds %j', (text, ids) => expect(find({ text })[0]).toBe(ids))

  it.each<[Partial<AdapterFilters>, string]>([
    [{ role: 'subject' }, 'luna'],
    [{ kind: 'LoHa' }, 'paper'],
    [{ family: 'SDXL', isFitting: false }, 'xl'],
    [{ collection: 'Book' }, 'paper'],
    [{ tag: 'cat' }, 'luna'],
    [{ view: 'favourites' }, 'twin-a'],
    [{ view: 'missing' }, 'paper'],
    [{ view: 'duplicates' }, 'twin-a twin-b'],
    [{ view: 'in-use' }, 'luna'],
    [{ view: 'unused' }, 'paper twin-a twin-b'],
  ])('filters by %j', (part, ids) => expect(find(part, ['luna'])[0]).toBe(ids))

  it('leaves out what does not fit, says how many, and never what has a slot', () => {
    expect(find({})).toEqual(['ink luna paper twin-a twin-b', 1])
    expect(find({ text: 'nothing' })).toEqual(['', 0])
    expect(find({}, ['xl'])).toEqual(['ink luna paper twin-a twin-b xl', 0])
    expect(find({ isFitting: false })[1]).toBe(0)
  })

  it('looks through five thousand quickly enough to be done with each letter', () => {
    const many = Array.from({ length: 5000 }, (_, i) =>
      record(`look-${i}`, { triggers: i % 700 === 350 ? ['heron'] : ['word', 'other words'], notes: 'x'.repeat(200) }),
    )
    const filters = { text: 'heron', isFitting: true }
    expect(findAdapters(many, filters, () => false).shown).toHaveLength(7)
    const start = performance.now()
    for (let i = 0; i < 5; i++) findAdapters(many, { ...filters, text: 'hero'.slice(0, i) }, () => false)
    expect((performance.now() - start) / 5).toBeLessThan(200)
  })
})

describe('the order', () => {
  const order = (...args: [Parameters<typeof sortAdapters>[1], string[]?, AdapterView?]) =>
    sortAdapters(all, args[0], (id) => (args[1] ?? []).includes(id), args[2] === 'duplicates')
      .map(({ id }) => id)
      .slice(0, 2)

  it('is by name, use, stars or size, with what has a slot on top', () => {
    expect(order('name')).toEqual(['ink', 'luna'])
    expect(order('name', ['xl'])).toEqual(['xl', 'ink'])
    expect(order('rating')).toEqual(['luna', 'ink'])
    expect(order('most-used')).toEqual(['ink', 'luna'])
    expect(order('last-used', ['paper'])).toEqual(['paper', 'luna'])
    expect(order('size')).toEqual(['twin-a', 'ink'])
  })
})

it('offers what occurs, with how often', () => {
  expect(choicesOf(all, ({ kinds }) => kinds)).toEqual([
    { value: 'LoHa', count: 1 },
    { value: 'LoRA', count: 5 },
  ])
})

it('makes samples of plain things with the words and the weight of the adapter, in few steps', () => {
  const requests = sampleRequests(record('own/ink', { triggers: ['inkstyle'], preferredWeight: 0.6 }), 'starter')
  expect(requests).toHaveLength(3)
  for (const request of requests) {
    expect(request).toMatchObject({ model: 'starter', steps: 4, adapters: [{ file: 'own/ink', weight: 0.6 }] })
    expect(request.prompt).toMatch(/^inkstyle, a /)
  }
  expect(new Set(requests.map(({ seed }) => seed)).size).toBe(3)
  const preset = { name: '2 steps', sampler: 'lcm', steps: 2, guidanceScale: 1 }
  const [quick] = sampleRequests(record('own/quick', { role: 'speed', triggers: ['no'], preset }), 'starter')
  expect([quick.steps, quick.prompt.startsWith('no')]).toEqual([undefined, false])
})
