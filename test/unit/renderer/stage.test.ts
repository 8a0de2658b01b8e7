import { describe, expect, it } from 'vitest'
import { GenerateRequest, type GenerateRequestInput } from '../../../preload/contract/generate.ts'
import type { ImageRecord, RecalledRecipe } from '../../../preload/contract/images.ts'
import type { Job } from '../../../preload/contract/jobs.ts'
import type { StudioForm, StudioSlot } from '../../../preload/contract/settings.ts'
import { auditionRequest, takesOf } from '../../../renderer/state/audition.ts'
import { differences, dividerAfter } from '../../../renderer/state/compare.ts'
import { StudioHistory } from '../../../renderer/state/history.svelte.ts'
import { LibraryState } from '../../../renderer/state/library.svelte.ts'
import { SlotsState } from '../../../renderer/state/slots.svelte.ts'
import { UndoState } from '../../../renderer/state/undo.svelte.ts'

const slot = (id: string, part: Partial<StudioSlot> = {}): StudioSlot => ({
  ...{ id, name: id, role: 'style', isOn: true, weight: 0.8, start: 0, end: 1, ramp: 'flat' },
  ...part,
})
const image = (id: string, createdAt: number): ImageRecord => ({
  ...{ id, url: '', thumb: '', file: '', prompt: id, seed: 1, width: 1, height: 1, createdAt },
})

describe('slots', () => {
  it('change places among the own ones, and stop at the ends', () => {
    const slots = new SlotsState()
    slots.restore([slot('a'), slot('fast', { role: 'speed-fast' }), slot('b'), slot('c')])
    slots.move('a', 1)
    expect(slots.all.map(({ id }) => id)).toEqual(['b', 'fast', 'a', 'c'])
    slots.move('b', -1)
    slots.move('fast', 1)
    expect(slots.all.map(({ id }) => id)).toEqual(['b', 'fast', 'a', 'c'])
  })

  it('say the weight on the text encoders only where it is another', () => {
    const slots = new SlotsState()
    slots.restore([slot('a')])
    expect(slots.uses()[0]).not.toHaveProperty('textWeight')
    slots.change('a', { textWeight: 0.2 })
    expect(slots.uses()[0].textWeight).toBe(0.2)
    slots.change('a', { textWeight: undefined })
    expect(slots.all[0]).not.toHaveProperty('textWeight')
  })

  it('take a set in place of what is there, or beside it as far as there is room', () => {
    const slots = new SlotsState()
    const guidance = slot('g', { role: 'guidance' })
    slots.restore([slot('a'), guidance, ...Array.from({ length: 6 }, (_, i) => slot(`x${i}`))])
    const left = slots.mergeSet([slot('a', { weight: -1 }), slot('n'), slot('m'), slot('s', { role: 'speed' })])
    expect(left.map(({ id }) => id)).toEqual(['m'])
    expect(slots.own.map(({ id }) => id)).toEqual(['a', 'x0', 'x1', 'x2', 'x3', 'x4', 'x5', 'n'])
    expect(slots.find('a')?.weight).toBe(-1)
    expect(slots.reserved).toEqual([guidance])
    slots.applySet([slot('z')])
    expect(slots.all.map(({ id }) => id)).toEqual(['z', 'g'])
  })

  it('print the cost on those that changed since the last job, and leave the others as they were', () => {
    const job = (id: string, appliedMs: number | undefined, weights: Record<string, number>): Job => ({
      ...{ id, batchId: id, rank: 0, place: 0, batchSize: 1, source: 'studio', status: 'running', createdAt: 0 },
      ...{ phase: 'denoising', step: 0, steps: 4, appliedMs },
      request: GenerateRequest.parse({
        prompt: 'a',
        adapters: Object.entries(weights).map(([file, weight]) => ({ file, weight })),
      }),
    })
    const slots = new SlotsState()
    slots.heard(job('1', undefined, { a: 1 }))
    expect(slots.applied).toEqual({})
    slots.heard(job('1', 900, { a: 1 }))
    slots.heard(job('1', 901, { a: 1 }))
    expect(slots.applied).toEqual({ a: 900 })
    slots.heard(job('2', 40, { a: 1, b: 0.5 }))
    slots.heard(job('3', 7, { a: 1, b: 0.6 }))
    slots.heard(job('4', 3, { a: 1, b: 0.6 }))
    expect(slots.applied).toEqual({ a: 900, b: 7 })
  })
})

describe('an audition', () => {
  const request: GenerateRequestInput = {
    prompt: 'p',
    count: 4,
    adapters: [
      { file: 'o', weight: 1 },
      { file: 'a', weight: 0.8 },
    ],
  }

  it('has the picture without it first, then by weight, at most five and none twice', () => {
    expect(takesOf(slot('a'), []).map(({ weight }) => weight)).toEqual([undefined, 0.8])
    expect(takesOf(slot('a'), ['negative', 'half', 'full', 'more']).map(({ weight }) => weight)).toEqual([
      ...[undefined, -0.8, 0.4, 0.8, 1.2],
    ])
    expect(takesOf(slot('Ink'), ['negative']).map(({ label }) => label)).toEqual([
      ...['Without Ink', 'Ink −0.80', 'Ink 0.80'],
    ])
  })

  it('asks for one picture each, of one seed, that differs in this adapter alone', () => {
    const [without, half] = takesOf(slot('a'), ['half']).map((take) => auditionRequest(request, slot('a'), take, 7))
    expect(without).toEqual({ prompt: 'p', count: 1, seed: 7, adapters: [{ file: 'o', weight: 1 }] })
    expect(half.adapters).toMatchObject([
      { file: 'o', weight: 1 },
      { file: 'a', weight: 0.4 },
    ])
    // One that is switched off is heard all the same.
    const off = auditionRequest({ prompt: 'p' }, slot('a', { isOn: false }), { weight: 0.8, label: '' }, 7)
    expect(off.adapters).toMatchObject([{ file: 'a', weight: 0.8 }])
    expect(GenerateRequest.safeParse(half).success).toBe(true)
  })
})

describe('two pictures side by side', () => {
  const recipe: RecalledRecipe = {
    request: { prompt: 'a fox', seed: 1, width: 64, height: 64, steps: 4, sampler: 'euler', strength: 0.6 },
    model: { name: 'M' },
    adapters: [{ name: 'ink.safetensors', sha256: 'x', weight: 0.8, start: 0, end: 1, ramp: 'flat' }],
  }

  it('are labelled with what differs and nothing else', () => {
    expect(differences(recipe, recipe)).toEqual([])
    const other: RecalledRecipe = {
      ...recipe,
      request: { ...recipe.request, seed: 2, sampler: 'dpmpp_2m', strength: 0.1 },
      adapters: [
        { name: 'renamed.safetensors', sha256: 'x', weight: -0.4, start: 0, end: 0.5, ramp: 'ease-in' },
        { name: 'glow', weight: 1, start: 0, end: 1, ramp: 'flat' },
      ],
    }
    expect(differences(recipe, other)).toEqual([
      { key: 'seed', label: 'Seed', left: '1', right: '2' },
      { key: 'sampler', label: 'Sampler', left: 'Euler', right: 'DPM++ 2M' },
      { key: 'x', label: 'ink', left: '0.80', right: '−0.40, 0–50 %, ease in' },
      { key: 'glow', label: 'glow', left: '–', right: '1.00' },
    ])
    expect(differences(undefined, recipe)[0]).toEqual({ key: 'prompt', label: 'Prompt', left: '–', right: 'a fox' })
  })

  it('have a divider that keys move by a hundredth, with Shift by a tenth, and not beyond the ends', () => {
    const press = (share: number, key: string, shiftKey = false) => dividerAfter(share, { key, shiftKey })
    expect(press(0.5, 'ArrowLeft')).toBe(0.49)
    expect(press(0.5, 'ArrowRight', true)).toBe(0.6)
    expect(press(0.995, 'ArrowRight', true)).toBe(1)
    expect([press(0.5, 'Home'), press(0.5, 'End'), press(0.5, 'a')]).toEqual([0, 1, undefined])
  })

  it('are marked one after the other, and let go', () => {
    const library = new LibraryState()
    library.replace([image('c', 3), image('b', 2), image('a', 1)])
    library.compare('a')
    expect([library.isComparing, library.compared]).toEqual([false, ['a']])
    library.compare('a')
    expect(library.compared).toEqual([])
    library.compare('a')
    library.compare('b')
    expect([library.isComparing, library.compared]).toEqual([true, ['a', 'b']])
    library.compare('c')
    expect([library.isComparing, library.compared]).toEqual([false, ['c']])
    library.compare('b')
    library.apply({ type: 'images:gone', ids: ['b'] })
    expect([library.isComparing, library.compared]).toEqual([false, ['c']])
  })
})

describe('the filmstrip', () => {
  it('has what was made since the start, and goes on to the neighbour of what went to the bin', () => {
    const library = new LibraryState()
    library.replace([image('d', 4), image('c', 3), image('b', 2), image('a', 1)], 2)
    expect(library.recent.map(({ id }) => id)).toEqual(['d', 'c', 'b'])
    library.select('c')
    library.apply({ type: 'images:gone', ids: ['c', 'b'] })
    expect(library.selectedId).toBe('a')
    library.apply({ type: 'images:changed', images: [image('c', 3), image('foreign', 9)] })
    expect(library.images.map(({ id }) => id)).toEqual(['d', 'c', 'a'])
    library.remove(['a'])
    library.select('c')
    library.remove(['c', 'd'])
    expect(library.selectedId).toBeUndefined()
  })
})

describe('the history of the Studio', () => {
  function studio() {
    let form: StudioForm = { prompt: '', slots: [slot('a')] }
    let now = 0
    const undo = new UndoState()
    const target = {
      snapshot: () => structuredClone(form),
      restore: (next: StudioForm) => (form = structuredClone(next)),
    }
    const history = new StudioHistory(target, undo, () => now)
    return {
      undo,
      set: (part: StudioForm, after = 2000) => {
        now += after
        form = { ...form, ...part }
        history.changed()
      },
      get: () => form,
    }
  }

  it('takes back and makes again form and slots alike', async () => {
    const { undo, set, get } = studio()
    set({ prompt: 'a fox' })
    set({ slots: [slot('a', { weight: 0.3 })] })
    set({ slots: [] })
    await undo.undo('studio')
    expect(get().slots).toMatchObject([{ weight: 0.3 }])
    await undo.undo('studio')
    expect(get()).toMatchObject({ prompt: 'a fox', slots: [{ weight: 0.8 }] })
    await undo.redo('studio')
    expect(get().slots).toMatchObject([{ weight: 0.3 }])
    await undo.undo('studio')
    await undo.undo('studio')
    expect(get().prompt).toBe('')
    expect(undo.next('studio')).toBeUndefined()
  })

  it('takes a drag or a word back as one step, and another slot as another', async () => {
    const { undo, set, get } = studio()
    for (const prompt of ['a', 'a f', 'a fox']) set({ prompt }, 100)
    for (const weight of [0.7, 0.6, 0.5]) set({ slots: [slot('a', { weight })] }, 100)
    set({ slots: [slot('a', { weight: 0.5, end: 0.5 })] }, 100)
    await undo.undo('studio')
    expect(get().slots).toEqual([slot('a', { weight: 0.5 })])
    await undo.undo('studio')
    expect(get()).toEqual({ prompt: 'a fox', slots: [slot('a')] })
    await undo.undo('studio')
    expect(get().prompt).toBe('')
  })

  it('makes no step of what a choice of speed puts in', async () => {
    const { undo, set } = studio()
    set({ slots: [slot('a'), slot('fast', { role: 'speed', isAutomatic: true })] })
    expect(undo.next('studio')).toBeUndefined()
    set({ pace: 'fast', slots: [slot('a')] })
    expect(undo.next('studio')).toBeDefined()
  })

  it('keeps a hundred steps', async () => {
    const { undo, set, get } = studio()
    for (let i = 1; i <= 120; i++) set({ seed: i })
    for (let i = 0; i < 120; i++) await undo.undo('studio')
    expect(get().seed).toBe(20)
  })
})
