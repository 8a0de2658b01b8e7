import { expect, test } from 'vitest'
import { createReuse } from '../../../main/pipeline/reuse.ts'
import { tensor } from '../../../main/pipeline/tensor.ts'

// Levels that lie evenly over log σ, from 10 down; the small offset of the place (1/100) is far below what is tested.
const levels = (steps: number, ratio = 0.8) => [...Array.from({ length: steps }, (_, i) => 10 * ratio ** i), 0]
const loose = { tolerance: 0.1, longest: 3 }
/** Too little for a feature to be held as it is, so that guesses are lines. */
const strict = { tolerance: 0.02, longest: 3 }

/** Goes once through all levels; `feature` is what a whole run at σ would hand up. Gives the pattern and the guesses' errors. */
function walk(
  limits: { tolerance: number; longest: number },
  sigmas: number[],
  feature: (sigma: number) => number[],
  asked: number[] = sigmas.slice(0, -1),
) {
  const reuse = createReuse(limits, sigmas)
  let pattern = ''
  let worst = 0
  for (const sigma of asked) {
    const exact = feature(sigma)
    if (reuse.needsAll(sigma)) {
      pattern += 'F'
      reuse.keep(0, sigma, tensor(Float32Array.from(exact), [1, exact.length]))
    } else {
      pattern += '.'
      const { data } = reuse.guess(0, sigma)
      const error = exact.reduce((sum, value, i) => sum + Math.abs(value - data[i]), 0)
      worst = Math.max(worst, error / exact.reduce((sum, value) => sum + Math.abs(value), 0))
    }
  }
  return { pattern, worst }
}

const line = (sigma: number) => Array.from({ length: 40 }, (_, i) => 3 + i - 0.2 * i * -Math.log(1 / sigma + 1 / 100))
const wave = (frequency: number) => (sigma: number) =>
  Array.from({ length: 40 }, (_, i) => 2 + Math.sin(frequency * Math.log(sigma) + i))

test('a feature that changes evenly is guessed without error, as long as allowed', () => {
  const { pattern, worst } = walk(strict, levels(12), line)
  expect(pattern).toBe('FFF...F...FF')
  expect(worst).toBeLessThan(1e-5)
  expect(walk({ ...strict, longest: 1 }, levels(12), line).pattern).toBe('FFF.F.F.F.FF')
})

test('the error of the guesses stays about the tolerance, and the quicker the change the fewer they are', () => {
  const guesses = [0.5, 1, 2, 4, 8].map((frequency) => {
    const { pattern, worst } = walk(loose, levels(30), wave(frequency))
    expect(worst, `frequency ${frequency}`).toBeLessThan(1.5 * loose.tolerance)
    return pattern.split('.').length - 1
  })
  expect([...guesses].sort((a, b) => b - a)).toEqual(guesses)
  expect(guesses[0]).toBeGreaterThan(18)
  expect(guesses[4]).toBeLessThan(3)
})

test('a tolerance of nothing runs everything whole', () => {
  expect(walk({ tolerance: 0, longest: 3 }, levels(10), wave(1)).pattern).toBe('F'.repeat(10))
})

test('few steps are all whole: there is nothing to go by yet', () => {
  expect(walk(strict, levels(4), line).pattern).toBe('FFFF')
})

test('first and last level are whole, however often they are asked for', () => {
  const sigmas = levels(8)
  const twice = sigmas.slice(0, -1).flatMap((sigma, i) => (i === 0 ? [sigma] : [sigma, sigma])) // as heun does
  const { pattern, worst } = walk(strict, sigmas, line, twice)
  expect(pattern[0]).toBe('F')
  expect(pattern.slice(-2)).toBe('FF')
  expect(pattern).toContain('.')
  expect(worst).toBeLessThan(1e-5)
})

test('the second evaluation at a level that has just run whole is a guess, and it is that run', () => {
  const sigmas = levels(8)
  const reuse = createReuse(loose, sigmas)
  const deep = tensor(new Float32Array([1, 2, 3]), [1, 3])
  expect(reuse.needsAll(sigmas[0])).toBe(true)
  reuse.keep(0, sigmas[0], tensor(new Float32Array([5, 5, 5]), [1, 3]))
  expect(reuse.needsAll(sigmas[1])).toBe(true)
  reuse.keep(0, sigmas[1], deep)
  expect(reuse.needsAll(sigmas[1])).toBe(false)
  expect(reuse.guess(0, sigmas[1])).toBe(deep)
})

test('runs of one evaluation are kept apart, and the worst of them decides', () => {
  const sigmas = levels(20)
  const walkBoth = (second: (sigma: number) => number[]) => {
    const reuse = createReuse(strict, sigmas)
    let pattern = ''
    for (const sigma of sigmas.slice(0, -1)) {
      const all = reuse.needsAll(sigma)
      pattern += all ? 'F' : '.'
      for (const [key, feature] of [line, second].entries()) {
        const exact = Float32Array.from(feature(sigma))
        if (all) reuse.keep(key, sigma, tensor(exact, [1, 40]))
        else if (key === 0) reuse.guess(key, sigma).data.forEach((value, i) => expect(value).toBeCloseTo(exact[i], 4))
      }
    }
    return pattern
  }
  expect(walkBoth(line)).toBe(walk(strict, sigmas, line).pattern)
  expect(walkBoth(wave(0.5))).toBe(walk(strict, sigmas, wave(0.5)).pattern)
  expect(walkBoth(wave(0.5))).not.toBe(walkBoth(line))
})

test('a long way from pure noise does not make the next stretch look easy', () => {
  const sigmas = [4096, ...levels(20)]
  const { pattern, worst } = walk(loose, sigmas, wave(3))
  expect(pattern.slice(0, 3)).toBe('FFF')
  expect(worst).toBeLessThan(1.5 * loose.tolerance)
})

test('a feature that jumps from run to run is held, not drawn on as a line', () => {
  const sigmas = levels(12)
  const jumping = (sigma: number) => Array.from({ length: 40 }, (_, i) => 10 + Math.sin(1e4 * sigma * (i + 1)))
  const reuse = createReuse(loose, sigmas)
  let held = 0
  let newest: unknown
  for (const sigma of sigmas.slice(0, -1)) {
    const deep = tensor(Float32Array.from(jumping(sigma)), [1, 40])
    if (reuse.needsAll(sigma)) {
      newest = deep
      reuse.keep(0, sigma, deep)
    } else {
      held++
      expect(reuse.guess(0, sigma)).toBe(newest)
    }
  }
  expect(held).toBeGreaterThan(2)
})
