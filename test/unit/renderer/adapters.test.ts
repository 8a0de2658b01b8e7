import { describe, expect, it } from 'vitest'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import { StudioForm } from '../../../preload/contract/settings.ts'
import { limits } from '../../../preload/limits.ts'
import { AdaptersState } from '../../../renderer/state/adapters.svelte.ts'
import { bytesText } from '../../../renderer/state/bytes.ts'
import { FormState } from '../../../renderer/state/form.svelte.ts'
import { hasWords, insertWords } from '../../../renderer/state/prompt-words.ts'
import { SlotsState } from '../../../renderer/state/slots.svelte.ts'
import { stepsText, tidyWeight, weightText } from '../../../renderer/state/weights.ts'
import { adapterRecord as record } from '../app/adapter-record.ts'

describe('trigger words', () => {
  it.each([
    ['a fox, inkstyle', 'inkstyle', true],
    ['a fox, InkStyle!', 'inkstyle', true],
    ['inkstyles', 'inkstyle', false],
    ['größe', 'gr', false],
    ['wet  brush', 'wet brush', true],
    ['a (c++) sign', 'c++', true],
    ['', 'inkstyle', false],
  ])('%j has %j: %s', (prompt, words, expected) => expect(hasWords(prompt, words)).toBe(expected))

  it.each([
    ['', 0, ['ink'], 'ink'],
    ['a fox', 5, ['ink'], 'a fox, ink'],
    ['a fox in snow', 5, ['ink'], 'a fox, ink, in snow'],
    ['a fox in snow', 3, ['ink'], 'a fox, ink, in snow'],
    ['a fox, in snow', 6, ['ink'], 'a fox, ink, in snow'],
    ['a fox, ', 7, ['ink'], 'a fox, ink'],
    ['a fox', 0, ['ink', 'wet'], 'ink, wet, a fox'],
    ['a fox, ink', 10, ['ink', 'wet', 'wet'], 'a fox, ink, wet'],
  ])('%j with the caret at %i takes %j', (prompt, caret, words, expected) => {
    const inserted = insertWords(prompt, caret, words)
    expect(inserted.prompt).toBe(expected)
    expect(inserted.prompt.slice(0, inserted.caret).endsWith(words.at(-1)!)).toBe(true)
    expect(insertWords(inserted.prompt, inserted.caret, words).prompt).toBe(expected)
  })
})

describe('numbers of slots', () => {
  it('are tidy and within what may be typed', () => {
    expect([0.1 + 0.2, 9, -9, -0.001].map(tidyWeight)).toEqual([0.3, 4, -4, 0])
    expect(Object.is(tidyWeight(-0.001), 0)).toBe(true)
    expect(weightText(-0.8)).toBe('−0.80')
  })

  it('say which steps they are', () => {
    expect(stepsText(0, 1, 20)).toBe('steps 1–20 of 20')
    expect(stepsText(0.5, 1, 4)).toBe('steps 3–4 of 4')
    expect(stepsText(0.5, 0.75, 4)).toBe('step 3 of 4')
    expect(stepsText(0.01, 0.02, 4)).toBe('no step of 4')
  })

  it('say sizes as file managers do', () => {
    expect([0, 999, 1500, 38_228, 144_000_000, 2.5e9].map(bytesText)).toEqual([
      '0 bytes',
      '999 bytes',
      '1.5 kB',
      '38 kB',
      '144 MB',
      '2.5 GB',
    ])
  })
})

describe('the strip', () => {
  it('begins at the preferred weight, and asks when it is full, proposing the weakest', () => {
    const slots = new SlotsState()
    for (let i = 0; i < limits.userAdapters; i++) {
      expect(slots.add(record(`a${i}`, i === 3 ? { preferredWeight: -0.1 } : {}))).toBe(true)
    }
    expect(slots.all.map(({ weight }) => weight).slice(2, 4)).toEqual([0.8, -0.1])
    expect(slots.add(record('late'))).toBe(false)
    expect([slots.isFull, slots.waiting?.id, slots.weakest?.id]).toEqual([true, 'late', 'a3'])
    slots.replace('a3')
    expect(slots.all[3]).toMatchObject({ id: 'late', weight: 0.8 })
    expect(slots.waiting).toBeUndefined()
    expect(slots.add(record('quick', { role: 'speed' }))).toBe(true)
    expect([slots.own.length, slots.reserved.length]).toEqual([limits.userAdapters, 1])
  })

  it('holds one of each reserved role, at its whole weight', () => {
    const slots = new SlotsState()
    slots.add(record('lcm', { role: 'speed' }))
    slots.add(record('tcd', { role: 'speed' }))
    expect(slots.all).toMatchObject([{ id: 'tcd', weight: 1 }])
  })

  it('puts back what was taken out last, where it was', () => {
    const slots = new SlotsState()
    for (const id of ['a', 'b', 'c']) slots.add(record(id))
    slots.change('b', { weight: -1, start: 0.5 })
    slots.remove('b')
    expect(slots.all.map(({ id }) => id)).toEqual(['a', 'c'])
    slots.undoRemove()
    expect(slots.all[1]).toMatchObject({ id: 'b', weight: -1, start: 0.5 })
    expect(slots.canUndo).toBe(false)
  })
})

describe('the form with adapters', () => {
  it('asks for those that are on, and comes back as it was', () => {
    const form = new FormState()
    form.prompt = 'a fox'
    form.slots.add(record('own/a'))
    form.slots.add(record('own/b'))
    form.slots.change('own/b', { isOn: false, weight: 0.3 })
    expect(form.request().adapters).toEqual([{ file: 'own/a', weight: 0.8, start: 0, end: 1, ramp: 'flat' }])
    expect(GenerateRequest.safeParse(form.request()).success).toBe(true)
    const stored = StudioForm.parse(JSON.parse(JSON.stringify(form.snapshot())))
    const again = new FormState()
    again.restore(stored)
    expect(again.slots.all).toEqual(form.slots.all)
    expect('slots' in form.request()).toBe(false)
  })

  it('follows an adapter for few steps where nothing was touched, and says where it does not', () => {
    const adapters = new AdaptersState()
    const preset = { name: 'LCM', sampler: 'lcm', steps: 4, guidanceScale: 1 }
    adapters.replace('m', {
      adapters: [record('lcm', { role: 'speed', preset })],
      isScanning: false,
      links: [],
      roots: [],
    })
    const form = new FormState(adapters)
    form.slots.add(adapters.find('lcm')!)
    expect([form.steps, form.guidanceScale, form.sampler, form.isOffPreset]).toEqual([4, 1, 'lcm', false])
    expect(form.request()).not.toHaveProperty('steps')
    form.steps = 20
    expect(form.isOffPreset).toBe(true)
    form.followModel()
    expect([form.steps, form.isOffPreset]).toEqual([4, false])
    form.slots.change('lcm', { isOn: false })
    expect(form.steps).toBe(20) // no model is there: the form's own default
  })
})

describe('the library in the window', () => {
  const xl = record('xl', { verdict: { fit: 'wrong-family', message: 'made for XL' } })

  it('searches names and words, those that fit first of all', () => {
    const adapters = new AdaptersState()
    adapters.replace('m', {
      adapters: [record('ink', { triggers: ['wet brush'] }), record('art'), xl],
      isScanning: false,
      links: [],
      roots: [],
    })
    expect(adapters.search('', true)).toMatchObject({ shown: [{ id: 'art' }, { id: 'ink' }], hidden: 1 })
    expect(adapters.search('BRUSH wet', true).shown.map(({ id }) => id)).toEqual(['ink'])
    expect(adapters.search('xl', false)).toMatchObject({ shown: [{ id: 'xl' }], hidden: 0 })
  })

  it('takes what main tells of its model, and nothing of another', () => {
    const adapters = new AdaptersState()
    adapters.replace('m', { adapters: [record('a'), record('b')], isScanning: true, links: [], roots: [] })
    adapters.apply({ type: 'adapters:changed', model: 'other', changed: [record('x')], gone: ['a'] })
    adapters.apply({
      type: 'adapters:changed',
      model: 'm',
      changed: [record('c'), record('b', { name: 'B' })],
      gone: ['a'],
      scan: { done: 1, total: 2 },
    })
    expect(adapters.all.map(({ name }) => name)).toEqual(['B', 'c'])
    expect(adapters.scan).toEqual({ done: 1, total: 2 })
  })

  it('says how an adapter stands with the model', () => {
    const adapters = new AdaptersState()
    const slots = new SlotsState()
    const partly = record('partly', { matched: 9, total: 11, verdict: { fit: 'partly', message: '' } })
    adapters.replace('m', { adapters: [record('a'), partly, xl], isScanning: false, links: [], roots: [] })
    for (const one of [record('a'), partly, xl, record('gone')]) slots.add(one)
    expect(slots.all.map((slot) => adapters.statusOf(slot, false).text)).toEqual([
      'ready',
      'partly applied 81 %',
      'not for this model',
      'file is missing',
    ])
    expect(adapters.statusOf(slots.all[0], true).kind).toBe('loading')
  })
})
