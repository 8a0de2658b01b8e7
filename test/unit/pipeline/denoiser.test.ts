import { expect, test } from 'vitest'
import type { TextRow } from '../../../main/pipeline/conditioning.ts'
import { createDenoiser } from '../../../main/pipeline/denoiser.ts'
import { normalNoise } from '../../../main/pipeline/rng.ts'
import { noiseLevels } from '../../../main/pipeline/sigmas.ts'
import { tensor } from '../../../main/pipeline/tensor.ts'
import { expectClose } from '../../expect-close.ts'
import { gaussianNetworks } from './gaussian-networks.ts'

const shape = [2, 4, 3, 3]
const x = normalNoise(1)(72).map((value) => value * 3)

/** Contexts whose mean first number is −1 (negative) and 1 (positive): the means of the fake model's clean latents. */
const rowsOf = (means: number[]): TextRow[] =>
  means.flatMap((mean, i) =>
    [0, 1].map((picture) => ({
      picture,
      isNegative: i < means.length - 1,
      context: tensor(Float32Array.of(mean, 0, mean, 0), [2, 2]),
    })),
  )
const clean = (value: number, sigma: number, mean: number) => (value * 0.25 + mean * sigma ** 2) / (sigma ** 2 + 0.25)

function denoiser(predictionType: 'epsilon' | 'v_prediction', rows: number[], changes = {}, zeroTerminalSnr = false) {
  const networks = gaussianNetworks({ predictionType, zeroTerminalSnr })
  return createDenoiser(networks, {
    levels: noiseLevels(networks.manifest.schedule),
    conditioning: { rows: rowsOf(rows), notices: [] },
    shape,
    guidanceScales: [1, 1],
    guidanceRescale: 0,
    rowsPerRun: 4,
    ...changes,
  })
}

test.each(['epsilon', 'v_prediction'] as const)(
  'turns %s into the clean latents at every level',
  async (predictionType) => {
    for (const sigma of [0.03, 0.5, 3, 14]) {
      const actual = await denoiser(predictionType, [1])(x, sigma)
      expectClose(
        actual,
        x.map((value) => clean(value, sigma, 1)),
        { abs: 2e-4 },
      )
    }
  },
)

test('velocity works where the noise is all there is', async () => {
  const { sigmas } = noiseLevels({ ...gaussianNetworks().manifest.schedule, zeroTerminalSnr: true })
  const sigma = sigmas[999]
  expect(sigma).toBeCloseTo(4096, 0)
  const noisy = x.map((value) => value * sigma)
  const actual = await denoiser('v_prediction', [1], {}, true)(noisy, sigma)
  expectClose(
    actual,
    noisy.map((value) => clean(value, sigma, 1)),
    { abs: 2e-3 },
  )
})

test('guidance extrapolates from negative to positive', async () => {
  for (const rowsPerRun of [1, 2, 3, 4]) {
    const actual = await denoiser('epsilon', [-1, 1], { guidanceScales: [3, 3], rowsPerRun })(x, 2)
    const expected = x.map((value) => clean(value, 2, -1) + 3 * (clean(value, 2, 1) - clean(value, 2, -1)))
    expectClose(actual, expected, { abs: 1e-4 })
  }
})

test('full rescale gives each picture’s prediction the deviation of the unguided one', async () => {
  const sigma = 2
  const deviation = (values: Float32Array) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length
    return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length)
  }
  const noiseOf = async (rows: number[], changes: object) => {
    const denoised = await denoiser('epsilon', rows, changes)(x, sigma)
    return x.map((value, i) => (value - denoised[i]) / sigma)
  }
  const plain = await noiseOf([1], {})
  const rescaled = await noiseOf([-1, 1], { guidanceScales: [8, 8], guidanceRescale: 1 })
  for (const part of [
    [0, 36],
    [36, 72],
  ]) {
    expect(deviation(rescaled.subarray(...part)) / deviation(plain.subarray(...part))).toBeCloseTo(1, 4)
  }
})

test('single rows: every picture and pass in a run of its own, with the same result', async () => {
  const levels = noiseLevels(gaussianNetworks().manifest.schedule)
  const options = { levels, conditioning: { rows: rowsOf([-1, 1]), notices: [] }, shape, guidanceRescale: 0.5 }
  const batched = gaussianNetworks()
  const single = { ...gaussianNetworks(), singleRows: true }
  const both = { ...options, guidanceScales: [3, 3], rowsPerRun: 4 }
  const together = await createDenoiser(batched, both)(x, 2)
  const apart = await createDenoiser(single, both)(x, 2)
  expect(apart).toEqual(together)
  expect(batched.calls.unet).toEqual({ runs: 1, largestBatch: 4 })
  expect(single.calls.unet).toEqual({ runs: 4, largestBatch: 1 })
})
