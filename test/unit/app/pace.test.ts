import { expect, it } from 'vitest'
import { Pace, type JobClock } from '../../../main/app/pace.ts'

const start = (at: number): JobClock => ({ key: 'tiny 64x64', pictureStartedAt: at, stepTimes: [] })

it('knows nothing before the first step, then counts the steps left', () => {
  const pace = new Pace()
  const clock = start(0)
  expect(pace.remaining(clock, 10, 0, 5)).toBeUndefined()
  clock.firstStepAt = 100
  clock.stepTimes.push(200)
  expect(pace.remaining(clock, 10, 0, 200)).toBe(9 * 100 + 2 * 100)
  expect(pace.remaining(clock, 10, 0, 250)).toBe(9 * 100 + 2 * 100 - 50)
})

it('learns loading and decoding from finished pictures, as a median that one slow picture does not move', () => {
  const pace = new Pace()
  for (const after of [300, 300, 9000]) {
    pace.finished({ ...start(0), firstStepAt: 50, stepTimes: [150, 250] }, 250 + after)
  }
  expect(pace.remaining(start(1000), 4, 0, 1000)).toBe(50 + 4 * 100 + 300)
  expect(pace.remaining(start(1000), 4, 2, 1000)).toBe(50 + 3 * (4 * 100 + 300))
  expect(pace.remaining({ ...start(0), key: 'other' }, 4, 0, 0)).toBeUndefined()
})

it('never tells less than nothing', () => {
  const pace = new Pace()
  const clock = { ...start(0), firstStepAt: 0, stepTimes: [10, 20] }
  expect(pace.remaining(clock, 2, 0, 100_000)).toBe(0)
})
