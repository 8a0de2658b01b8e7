import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { samplers, type Denoiser, type SamplerOptions } from '../../main/pipeline/samplers.ts'
import { noiseLevels, sigmaSchedule } from '../../main/pipeline/sigmas.ts'
import { sdNoiseSchedule } from '../../models/family.ts'
import { samplerNames, scheduleNames, type SamplerName, type ScheduleName } from '../../preload/limits.ts'
import { expectClose } from '../expect-close.ts'

type Kind = 'plain' | 'zero_snr' | 'linear'
type Run = { kind: Kind; sampler: SamplerName; states: number[][] }
const golden = JSON.parse(
  gunzipSync(readFileSync(new URL('./samplers.json.gz', import.meta.url))).toString('utf8'),
) as {
  levels: Record<Kind, number[]>
  schedules: Record<string, number[]>
  ours: (Run & { schedule: ScheduleName; steps: number })[]
  diffusers: (Run & { timesteps: number[] })[]
}

const levels = {
  plain: noiseLevels(sdNoiseSchedule),
  zero_snr: noiseLevels({ ...sdNoiseSchedule, zeroTerminalSnr: true }),
  linear: noiseLevels({ ...sdNoiseSchedule, betaSchedule: 'linear' }),
}

// The problem of samplers.py: its start, its noise and its model, value by value.
const position = [1, 2, 3, 4, 5, 6]
const start = position.map((p) => 1.3 * Math.sin(2.1 * p) + 0.2)
const model: Denoiser = async (x, sigma) =>
  x.map(
    (v) =>
      (v * 0.36) / (sigma ** 2 + 0.36) + ((0.4 * sigma) / (1 + sigma)) * Math.tanh(0.7 + v / Math.sqrt(1 + sigma ** 2)),
  )

async function run({ kind, sampler }: Run, sigmas: readonly number[]): Promise<number[][]> {
  let draws = 0
  const noise = () => {
    const k = draws++
    return Float32Array.from(position, (p) => Math.SQRT2 * Math.sin(12.9898 * p + 78.233 * (k + 1)))
  }
  const options: SamplerOptions = { noise, levels: levels[kind] }
  const x = Float32Array.from(start, (v) => v * Math.sqrt(1 + sigmas[0] ** 2))
  const states: number[][] = []
  for await (const step of samplers[sampler](model, x, sigmas, options)) states.push(Array.from(step.x))
  return states
}

/** Relative to the largest value of a state, and to 1 where all are small. */
function expectStates(actual: number[][], expected: number[][], rel: number): void {
  expected.forEach((state, i) => expectClose(actual[i], state, { abs: rel * Math.max(1, ...state.map(Math.abs)) }))
}

test('noise levels, with and without zero terminal SNR, scaled-linear and linear', () => {
  for (const [kind, expected] of Object.entries(golden.levels)) {
    const { sigmas, sigmaAt, timestepAt } = levels[kind as Kind]
    expectClose(
      [0, 1, 2, 250, 500, 997, 998, 999].map((t) => sigmas[t]),
      expected,
      { rel: 1e-7 },
    )
    for (const t of [0, 0.5, 17.25, 500, 998.5, 999]) expect(timestepAt(sigmaAt(t))).toBeCloseTo(t, 6)
    expect([timestepAt(0), timestepAt(1e9)]).toEqual([0, 999])
  }
})

test('every schedule at 1 to 150 steps', () => {
  for (const [key, expected] of Object.entries(golden.schedules)) {
    const [kind, name, steps] = key.split(' ')
    const actual = sigmaSchedule(name as ScheduleName, levels[kind as Kind], Number(steps))
    expectClose(actual, expected, { rel: 1e-7 })
    expect(actual.every((sigma, i) => i === 0 || sigma < actual[i - 1])).toBe(true)
  }
})

describe('every step equals the formulas in float64', () => {
  test.each(samplerNames)('%s', async (sampler) => {
    const runs = golden.ours.filter((r) => r.sampler === sampler)
    expect(new Set(runs.map((r) => r.schedule)).size).toBe(scheduleNames.length)
    for (const golden of runs) {
      const states = await run(golden, sigmaSchedule(golden.schedule, levels[golden.kind], golden.steps))
      expectStates(states.slice(-golden.states.length), golden.states, 1e-5)
    }
  })
})

describe('every step equals diffusers', () => {
  // diffusers keeps its σ table in float32, which near σ = 4096 is worth 1e-5.
  test.each(golden.diffusers)('$sampler $kind', async (golden) => {
    const { sigmas } = levels[golden.kind]
    const states = await run(golden, [...golden.timesteps.map((t) => sigmas[t]), 0])
    expectStates(states, golden.states, golden.kind === 'plain' ? 1e-5 : 3e-5)
  })
})
