import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Pace } from '../../../main/app/pace.ts'

const request = { model: 'tiny', width: 64, height: 64, guidanceScale: 3, speed: 'exact', steps: 4 } as const
const seen = (pace: Pace, after: number, part: object = {}) =>
  pace.finished(
    { ...pace.start({ ...request, ...part }, 0), firstStepAt: 50, stepTimes: [150, 250] },
    250 + after,
    1000,
  )

it('knows nothing before the first step, then counts the steps left', () => {
  const pace = new Pace()
  const clock = pace.start(request, 0)
  expect(pace.remaining(clock, 0, 10, 5)).toBeUndefined()
  clock.firstStepAt = 100
  clock.stepTimes.push(200)
  expect(pace.remaining(clock, 1, 10, 200)).toBe(9 * 100 + 2 * 100)
  expect(pace.remaining(clock, 1, 10, 250)).toBe(9 * 100 + 2 * 100 - 50)
  // One that went on from its seventh step.
  expect(pace.remaining({ ...clock, stepTimes: [200] }, 8, 10, 200)).toBe(2 * 100 + 2 * 100)
  expect(pace.remaining(clock, 10, 10, 100_000)).toBe(0)
})

it('learns from finished pictures, as a median that one slow picture does not move', () => {
  const pace = new Pace()
  expect(pace.estimate(request)).toEqual({ bytes: 1.4 * 64 * 64 })
  for (const after of [300, 300, 9000]) seen(pace, after)
  expect(pace.remaining(pace.start(request, 1000), 0, 4, 1000)).toBe(50 + 4 * 100 + 300)
  expect(pace.estimate(request)).toEqual({ ms: 4 * 100 + 300, bytes: 1000 })
  expect(pace.estimate({ ...request, model: 'other' }).ms).toBeUndefined()
})

it('counts only the last five', () => {
  const pace = new Pace()
  for (const after of [9000, 9000, 9000, 9000, 300, 300, 300]) seen(pace, after)
  expect(pace.estimate(request).ms).toBe(4 * 100 + 300)
})

it('guesses other sizes and one pass instead of two from what it has seen of the model', () => {
  const pace = new Pace()
  seen(pace, 300)
  expect(pace.estimate({ ...request, width: 128 })).toEqual({ ms: 4 * 200 + 600, bytes: 2000 })
  expect(pace.estimate({ ...request, guidanceScale: 1 }).ms).toBe(4 * 50 + 300)
  seen(pace, 100, { width: 128 })
  expect(pace.estimate({ ...request, width: 128 }).ms).toBe(4 * 100 + 100)
})

it('never counts upward by more than a fifth without calling it slow', () => {
  const pace = new Pace()
  const clock = pace.start(request, 0)
  clock.firstStepAt = 0
  let now = 0
  let least = Infinity
  let slow = 0
  for (let step = 1; step <= 40; step++) {
    now += step < 20 ? 1000 : 5000 // something else takes the processor in the middle
    clock.stepTimes.push(now)
    const said = pace.say(clock, step, 40, now)!
    least = Math.min(least, said.ms)
    expect(said.isSlow || said.ms <= Math.max(1000, 1.2 * least)).toBe(true)
    if (said.isSlow) slow++
  }
  expect(slow).toBeGreaterThan(0)
  expect(pace.say(clock, 40, 40, now + 60_000)!.ms).toBeLessThan(1000)
})

it('is told without a jump: a new measure moves the time only part of the way', () => {
  const pace = new Pace()
  const clock = { ...pace.start(request, 0), firstStepAt: 0, stepTimes: [1000] }
  const first = pace.say(clock, 1, 11, 1000)!.ms
  clock.stepTimes.push(1500)
  const second = pace.say(clock, 2, 11, 1500)!.ms
  const raw = pace.remaining(clock, 2, 11, 1500)!
  expect(second).toBeGreaterThan(Math.min(first - 500, raw))
  expect(second).toBeLessThan(Math.max(first - 500, raw) + 1)
})

it('is there again at the next start', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vignette-pace-'))
  try {
    const file = join(folder, 'pace.json')
    const pace = await Pace.open(file)
    seen(pace, 300)
    await expect.poll(async () => (await Pace.open(file)).estimate(request).ms).toBe(700)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

it('counts one pass a step for an adapter that stands in for guidance', () => {
  const pace = new Pace()
  seen(pace, 300)
  const distilled = { ...request, adapters: [{ file: 'agd', start: 0, end: 1, ramp: 'flat' as const }] }
  const before = pace.estimate(distilled).ms!
  pace.distils('agd')
  expect(before - pace.estimate(distilled).ms!).toBe((4 * 100) / 2)
  expect(pace.estimate(request).ms).toBe(before)
})
