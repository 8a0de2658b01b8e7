import { describe, expect, test } from 'vitest'
import { effective, shareAt, textWeights, weightAt, weightsAt } from '../../../main/pipeline/steps.ts'
import { apply, loraOf } from './fake-adapters.ts'

const layers = [{ path: 'a', inputs: 2, outputs: 3, isConv: false }]
const ink = loraOf('ink', layers, { a: 1 })
const wash = loraOf('wash', layers, { a: 1 })
const along = (applied: ReturnType<typeof apply>, steps: number) =>
  Array.from({ length: steps }, (_, step) => weightAt(applied, step, steps))

describe('the window of an adapter', () => {
  test('is everything when nothing is said, and closed parts weigh nothing', () => {
    expect(along(apply(ink, { weight: 0.7 }), 4)).toEqual([0.7, 0.7, 0.7, 0.7])
    expect(along(apply(ink, { start: 0.5 }), 4)).toEqual([0, 0, 1, 1])
    expect(along(apply(ink, { end: 0.25 }), 4)).toEqual([1, 0, 0, 0])
    expect(along(apply(ink, { start: 0.5, end: 0.5 }), 4)).toEqual([0, 0, 0, 0])
    expect(along(apply(ink, { start: 0.8, end: 0.2 }), 10)).toEqual(Array(10).fill(0))
  })

  test('rounds to whole steps, so that two windows that meet share no step and leave none out', () => {
    for (let steps = 1; steps <= 50; steps++) {
      for (const border of [0.1, 1 / 3, 0.5, 0.6, 2 / 3, 0.999]) {
        const before = along(apply(ink, { end: border }), steps)
        const after = along(apply(wash, { start: border }), steps)
        expect(before.map((weight, i) => weight + after[i])).toEqual(Array(steps).fill(1))
        expect(before.filter((weight) => weight === 1)).toHaveLength(Math.round(border * steps))
      }
    }
  })

  test('given as a share of whole steps is exactly those steps', () => {
    for (let steps = 1; steps <= 150; steps++) {
      for (let first = 0; first < steps; first++) {
        const weights = along(apply(ink, { start: first / steps, end: (first + 1) / steps }), steps)
        expect(weights.flatMap((weight, step) => (weight === 1 ? [step] : []))).toEqual([first])
      }
    }
  })
})

describe('a ramp', () => {
  test('reaches its ends at the first and the last step of the window', () => {
    expect(along(apply(ink, { weight: 0.8, ramp: 'ease-in' }), 5)).toEqual([0, 0.2, 0.4, 0.6000000000000001, 0.8])
    expect(along(apply(ink, { ramp: 'ease-out' }), 5)).toEqual([1, 0.75, 0.5, 0.25, 0])
    expect(along(apply(ink, { ramp: 'ease-in', start: 0.4, end: 0.9 }), 10)).toEqual([
      0, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 0,
    ])
    expect(along(apply(ink, { ramp: 'ease-in', start: 0.5 }), 2)).toEqual([0, 0.5])
  })

  test('of points is straight between them, exact on them, level outside, and may jump', () => {
    const points = [
      [0.25, 0.2],
      [0.5, 1],
      [0.75, -0.5],
    ] as const
    expect([0, 0.25, 0.375, 0.5, 0.625, 0.75, 1].map((place) => shareAt(points, place))).toEqual([
      0.2, 0.2, 0.6000000000000001, 1, 0.25, -0.5, -0.5,
    ])
    const jump = [
      [0, 1],
      [0.5, 1],
      [0.5, 0],
      [1, 0],
    ] as const
    expect(along(apply(ink, { ramp: jump }), 5)).toEqual([1, 1, 0, 0, 0])
    // In whatever order they were drawn.
    expect(shareAt([...points].reverse(), 0.375)).toBe(shareAt(points, 0.375))
  })
})

test('weights of one adapter add, and nothing is left of what adds up to nothing', () => {
  expect(weightsAt([apply(ink, { weight: 0.5 }), apply(wash), apply(ink, { weight: 0.25 })], 0, 4)).toEqual(
    new Map([
      [ink, 0.75],
      [wash, 1],
    ]),
  )
  expect(weightsAt([apply(ink, { weight: 0.5 }), apply(ink, { weight: -0.5 })], 0, 4).size).toBe(0)
})

test('text is changed as a whole by adapters that act at any step', () => {
  const both = [apply(ink, { textWeight: 0.3, end: 0.25 }), apply(wash, { textWeight: 0.6, end: 0.05 })]
  expect(textWeights(both, 4)).toEqual(new Map([[ink, 0.3]]))
})

test('what changes nothing is left out: weight 0, a closed window, nothing of its own for the network', () => {
  const text = loraOf('text', layers, { a: 1 }, 'text_encoder')
  const all = [
    apply(ink, { weight: 0 }),
    apply(ink, { end: 0.1 }),
    apply(ink, {
      ramp: [
        [0, 0],
        [1, 0],
      ],
    }),
    apply(text, { textWeight: 0 }),
    apply({ name: 'empty', sha256: 'empty', layers: {} }),
  ]
  expect(effective(all, 4)).toEqual([])
  const kept = [apply(ink, { textWeight: 0 }), apply(text, { weight: 0 }), apply(ink, { ramp: 'ease-in' })]
  expect(effective(kept, 4)).toEqual(kept)
})
