import { expect, test } from 'vitest'
import { normalNoise } from '../../../main/pipeline/rng.ts'
import { samplers, type Denoiser } from '../../../main/pipeline/samplers.ts'
import { noiseLevels, sigmasAtTimesteps } from '../../../main/pipeline/sigmas.ts'
import { lcmTimesteps } from '../../../models/adapters/presets.ts'
import { sdNoiseSchedule } from '../../../models/family.ts'
import { expectClose } from '../../expect-close.ts'

const levels = noiseLevels(sdNoiseSchedule)

// What diffusers' LCMScheduler and TCDScheduler count, both alike (`set_timesteps` of diffusers with its defaults).
test.each([
  [1, [999]],
  [2, [999, 499]],
  [3, [999, 679, 339]],
  [4, [999, 759, 499, 259]],
  [6, [999, 839, 679, 499, 339, 179]],
  [8, [999, 879, 759, 639, 499, 379, 259, 139]],
  [13, [999, 939, 859, 779, 699, 619, 539, 479, 399, 319, 239, 159, 79]],
])('%i levels of a consistency model are those of the reference', (steps, timesteps) => {
  expect(lcmTimesteps(steps)).toEqual(timesteps)
})

test('timesteps become their levels, with 0 at the end; what would not fall is left out', () => {
  const sigmas = sigmasAtTimesteps([999, 499, 499, 600, 20], levels)
  expect(sigmas).toEqual([levels.sigmas[999], levels.sigmas[499], levels.sigmas[20], 0])
  // Between two timesteps as everywhere.
  expect(sigmasAtTimesteps([60.5], levels)[0]).toBe(levels.sigmaAt(60.5))
})

test('TCD without fresh noise is Euler, with all of it LCM', async () => {
  const denoise: Denoiser = async (x, sigma) => x.map((value) => value / (1 + 4 * sigma * sigma))
  const sigmas = sigmasAtTimesteps(lcmTimesteps(4), levels)
  const start = normalNoise(1)(40).map((value) => value * sigmas[0])
  const end = async (name: 'tcd' | 'euler' | 'lcm', eta?: number) => {
    let x: Float32Array = start
    for await (const step of samplers[name](denoise, start, sigmas, { noise: normalNoise(2), levels, eta })) x = step.x
    return x
  }
  expectClose(await end('tcd', 0), await end('euler'), { abs: 1e-5 })
  // At η = 1 it jumps to timestep 0 (σ = 0.03) and not quite to nothing; without fresh noise it ends elsewhere.
  const [all, none, lcm] = [await end('tcd', 1), await end('tcd', 0), await end('lcm')]
  expectClose(all, lcm, { abs: 0.05 })
  expect(Math.max(...none.map((value, i) => Math.abs(value - lcm[i])))).toBeGreaterThan(0.2)
  expect(await end('tcd')).toEqual(await end('tcd', 0.3))
})
