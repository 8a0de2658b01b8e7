import { expect, test } from 'vitest'
import { normalNoise } from '../../../main/pipeline/rng.ts'
import { samplers, type Denoiser } from '../../../main/pipeline/samplers.ts'
import { noiseLevels } from '../../../main/pipeline/sigmas.ts'
import { sdNoiseSchedule } from '../../../models/family.ts'
import { samplerNames, type SamplerName } from '../../../preload/limits.ts'

// Clean data normal with deviation d: the best denoiser is known, and so is where every trajectory ends.
const d = 0.5
const gaussian: Denoiser = async (x, sigma) => x.map((value) => (value * d * d) / (d * d + sigma * sigma))
const levels = noiseLevels(sdNoiseSchedule)

function geometric(from: number, to: number, steps: number): number[] {
  return Array.from({ length: steps + 1 }, (_, i) => from * (to / from) ** (i / steps))
}

async function last(sampler: SamplerName, x: Float32Array, sigmas: number[], seed = 1): Promise<Float32Array> {
  const options = { noise: normalNoise(seed), levels }
  for await (const step of samplers[sampler](gaussian, x, sigmas, options)) x = step.x
  return x
}

test.each([
  ['euler', 1],
  ['ddim', 1],
  ['heun', 2],
  ['dpmpp_2m', 2],
  ['unipc', 3], // the corrector adds one to the predictor's 2,
] as const)('%s converges with order %i', async (sampler, order) => {
  const exact = (3 * Math.sqrt(d * d + 0.1 ** 2)) / Math.sqrt(d * d + 10 ** 2)
  const errorAt = async (steps: number) =>
    Math.abs((await last(sampler, Float32Array.of(3), geometric(10, 0.1, steps)))[0] - exact)
  const measured = Math.log2((await errorAt(32)) / (await errorAt(64)))
  expect(measured).toBeGreaterThan(order - 0.3)
  expect(await errorAt(64)).toBeLessThan(order === 1 ? 0.01 : 0.001)
})

test.each(samplerNames.filter((name) => name !== 'lcm' && name !== 'tcd'))(
  '%s turns noise into data of the right spread',
  async (sampler) => {
    const noise = normalNoise(3)(6000).map((value) => value * Math.sqrt(10 ** 2 + d * d))
    const x = await last(sampler, noise, [...geometric(10, 0.03, 60), 0])
    const deviation = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length)
    expect(deviation / d).toBeGreaterThan(0.93)
    expect(deviation / d).toBeLessThan(1.03)
  },
)

test.each(samplerNames)('%s leaves its input alone and reports every step', async (sampler) => {
  const x = Float32Array.of(1, 2, 3)
  const steps = []
  const sigmas = [10, 3, 1, 0.3, 0]
  for await (const step of samplers[sampler](gaussian, x, sigmas, { noise: normalNoise(1), levels })) steps.push(step)
  expect(x).toEqual(Float32Array.of(1, 2, 3))
  expect(steps.map((step) => step.index)).toEqual([0, 1, 2, 3])
  expect(steps.map((step) => step.sigma)).toEqual(sigmas.slice(1))
})

test.each(samplerNames)('%s goes on from what the consumer writes into a step', async (sampler) => {
  let seen: Float32Array = new Float32Array()
  const watching: Denoiser = async (x, sigma) => {
    seen = x.slice()
    return gaussian(x, sigma)
  }
  const run = samplers[sampler](watching, Float32Array.of(5), [10, 3, 1, 0], { noise: normalNoise(1), levels })
  const { value: step } = await run.next()
  step?.x.fill(-4)
  await run.next()
  if (sampler === 'heun') return // its last call of a step is at the predicted point
  expect(seen).toEqual(Float32Array.of(-4))
})
