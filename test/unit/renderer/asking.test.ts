import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { PromptReading } from '../../../preload/contract/prompt.ts'
import { EstimateState, type Estimate } from '../../../renderer/state/estimate.svelte.ts'
import { paintPrompt } from '../../../renderer/state/prompt-paint.ts'
import { ReadingState } from '../../../renderer/state/reading.svelte.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** Answers that come when the test says so. */
function answers<T>() {
  const open: { resolve: (value: T) => void; reject: (error: Error) => void }[] = []
  return { open, ask: () => new Promise<T>((resolve, reject) => open.push({ resolve, reject })) }
}
const settle = () => vi.advanceTimersByTimeAsync(100)

describe('the estimate', () => {
  it('says time, pictures and room, and that the time is not known before the first picture', async () => {
    const { open, ask } = answers<Estimate>()
    const estimate = new EstimateState(ask)
    expect(estimate.text).toBe('')
    estimate.changed({ prompt: 'a' })
    await settle()
    open[0].resolve({ bytes: 1_200_000 })
    await settle()
    expect(estimate.text).toBe('timing after the first image · 1 picture · 1.2 MB')
    estimate.changed({ prompt: 'a', count: 3 })
    await settle()
    open[1].resolve({ ms: 41_000, bytes: 3_600_000 })
    await settle()
    expect(estimate.text).toBe('about 40 s · 3 pictures · 3.6 MB')
  })

  it('is asked for within 100 ms of a change, once, and not for words alone', async () => {
    const { open, ask } = answers<Estimate>()
    const estimate = new EstimateState(ask)
    for (let steps = 1; steps <= 5; steps++) estimate.changed({ prompt: 'a', steps })
    await settle()
    expect(open).toHaveLength(1)
    for (const prompt of ['ab', 'abc']) estimate.changed({ prompt, steps: 5 })
    await settle()
    expect(open).toHaveLength(1)
    estimate.changed({ prompt: 'abc', steps: 5 }, 'a picture was finished')
    await settle()
    expect(open).toHaveLength(2)
  })

  it('takes the newest answer, in whatever order they come, and asks again after a failure', async () => {
    const { open, ask } = answers<Estimate>()
    const estimate = new EstimateState(ask)
    estimate.changed({ prompt: 'a', steps: 1 })
    await settle()
    estimate.changed({ prompt: 'a', steps: 2 })
    await settle()
    open[1].resolve({ ms: 2000, bytes: 1000 })
    open[0].resolve({ ms: 9000, bytes: 1000 })
    await settle()
    expect(estimate.text).toContain('about 2 s')
    estimate.changed({ prompt: 'a', steps: 3 })
    await settle()
    open[2].reject(new Error('no model'))
    await settle()
    expect(estimate.text).toBe('')
    estimate.changed({ prompt: 'a', steps: 3 })
    await settle()
    expect(open).toHaveLength(4)
  })
})

describe('what is read of the prompts', () => {
  const reading = (tokens: number, part: Partial<PromptReading> = {}): PromptReading => ({
    ...{ tokens, limit: 77, parts: 1, isLongest: false, missingLists: [], unknownHandles: [] },
    ...part,
  })

  it('is asked for when typing rests, and points to nothing in a text that has changed since', async () => {
    const { open, ask } = answers<{ prompt: PromptReading; negativePrompt: PromptReading }>()
    const state = new ReadingState(ask)
    state.changed('a', '')
    state.changed('a fox', '')
    await settle()
    expect(open).toHaveLength(1)
    open[0].resolve({ prompt: reading(4, { unreadFrom: 2 }), negativePrompt: reading(2) })
    await settle()
    expect(state.of('prompt', 'a fox')).toMatchObject({ tokens: 4, unreadFrom: 2 })
    expect(state.of('prompt', 'a fox r')).toMatchObject({ tokens: 4, unreadFrom: undefined })
    expect(state.of('negativePrompt', '')).toMatchObject({ tokens: 2 })
  })
})

describe('the painting of a prompt', () => {
  it('is the text, cut where its look changes', () => {
    const text = 'a (red:1.3) fox [dim] {x|y} __l__ __gone__ @mira <lora:ink> # note'
    const painted = paintPrompt(text, { missingLists: ['gone'], unknownHandles: ['mira'], unreadFrom: 50 })
    expect(painted.map((part) => part.text).join('')).toBe(text)
    const looks = Object.fromEntries(
      painted.filter(({ paints }) => paints.length > 0).map((one) => [one.text, one.paints]),
    )
    expect(looks).toMatchObject({
      '(red:1.3)': ['stronger'],
      '[dim]': ['weaker'],
      '{x|y}': ['choice'],
      __l__: ['list'],
      __gone__: ['unknown'],
      '@mira': ['unknown'],
      '# note': ['comment', 'unread'],
    })
  })

  it('dims the marks of weights that have no effect, and leaves the words', () => {
    const painted = paintPrompt('a (red:1.3) fox', { hasIdleWeights: true })
    expect(painted.filter(({ paints }) => paints.includes('idle')).map(({ text }) => text)).toEqual(['(', ':1.3)'])
  })
})
