import { expect } from 'vitest'

/**
 * Fails unless |actual − expected| ≤ abs + rel · |expected| everywhere; says where it is worst, both values there and
 * the largest difference. NaN never passes.
 */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { abs = 0, rel = 0 }: { abs?: number; rel?: number },
): void {
  expect(actual.length, 'number of values').toBe(expected.length)
  let worst = -1
  let excess = 0
  let largest = 0
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs(actual[i] - expected[i])
    const over = difference - (abs + rel * Math.abs(expected[i]))
    largest = Math.max(largest, difference)
    if (!(over <= excess)) [worst, excess] = [i, Number.isNaN(over) ? Infinity : over]
  }
  if (worst >= 0) {
    throw new Error(
      `value ${worst} of ${actual.length}: got ${actual[worst]}, expected ${expected[worst]} (abs ${abs}, rel ${rel}); ` +
        `largest difference ${largest}`,
    )
  }
}
