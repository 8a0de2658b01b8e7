import { describe, expect, test } from 'vitest'
import { groupScales } from '../../../kernels/int4.ts'
import { plainMatMul } from '../../../models/quantize/algebra.ts'
import { difference, nearest, refitBranch, squaredDistance } from '../../../models/quantize/branch.ts'
import {
  costsOf,
  feedbackOf,
  fromOutputSpace,
  roundWithFeedback,
  scaledFeedback,
  toOutputSpace,
} from '../../../models/quantize/gptq.ts'
import { divideColumns, multiplyColumns } from '../../../models/quantize/smooth.ts'
import { expectClose } from '../../expect-close.ts'
import { normalMatrix, plantedLayer } from './problem.ts'

const matMul = plainMatMul
const [n, k, rows] = [32, 96, 400]
const { values, x } = plantedLayer({ n, k, rows })
const groups = { n, k, bits: 4, group: 32 } as const
const scales = groupScales(values, groups)

function powerOf(input: number): number {
  let power = 0
  for (let row = 0; row < rows; row++) power += x[row * k + input] ** 2 / rows
  return power
}

async function outputError(rounded: Float32Array): Promise<number> {
  const off = await matMul(x, [rows, k], difference(values, rounded), [n, k], { transposeB: true })
  return off.reduce((sum, value) => sum + value * value, 0)
}

test('feedback leaves a fraction of the error of nearest codes', async () => {
  const rounded = await roundWithFeedback(values, groups, scales, await feedbackOf(x, k, 1, matMul), matMul)
  expect(await outputError(rounded)).toBeLessThan(0.4 * (await outputError(nearest(values, groups, scales))))
  expect(nearest(rounded, groups, scales)).toEqual(rounded) // values that codes have
})

test('inputs that have nothing to do with each other get the nearest codes', async () => {
  const identity = new Float32Array(k * k)
  for (let i = 0; i < k; i++) identity[i * k + i] = 1
  const rounded = await roundWithFeedback(values, groups, scales, await feedbackOf(identity, k, 1, matMul), matMul)
  expectClose(rounded, nearest(values, groups, scales), { abs: 1e-6 })
})

test('two inputs that are always the same share the error between them', async () => {
  const twins = Float32Array.from({ length: 64 }, (_, i) => normalMatrix(32, 1, 3)[Math.floor(i / 2)])
  const feedback = await feedbackOf(twins, 2, 1, matMul)
  // 0.4 and 0.4 in whole steps: 0 and 1 make 0.8 as good as can be, nearest codes make 0.
  const pair = { n: 1, k: 2, bits: 4, group: 32 } as const
  const rounded = await roundWithFeedback(Float32Array.of(0.4, 0.4), pair, Uint16Array.of(0x3c00), feedback, matMul)
  expect(rounded[0] + rounded[1]).toBe(1)
})

test('the factor of inputs divided by λ is the scaled factor', async () => {
  const lambda = Float32Array.from({ length: k }, (_, i) => powerOf(i) ** -0.2) // keeps the order
  const direct = await feedbackOf(divideColumns(x, lambda), k, 1, matMul)
  const [scaled] = scaledFeedback(await feedbackOf(x, k, 1, matMul), lambda)
  expect(scaled.order).toEqual(direct[0].order)
  expectClose(scaled.roots, direct[0].roots, { rel: 1e-4 })
  expectClose(scaled.factor, direct[0].factor, { abs: 2e-3 })
})

test('costs never exceed the power of the input: what others can make good is cheap', async () => {
  const costs = costsOf(await feedbackOf(x, k, 1, matMul), k)
  let cheaper = 0
  for (let i = 0; i < k; i++) {
    expect(costs[i]).toBeLessThan(1.0301 * powerOf(i))
    if (costs[i] < 0.5 * powerOf(i)) cheaper++
  }
  expect(cheaper).toBeGreaterThan(k / 2)
})

describe('the space of outputs', () => {
  test('has the length of the outputs', async () => {
    const feedback = await feedbackOf(x, k, 1, matMul)
    const there = await toOutputSpace(values, n, k, feedback, matMul)
    const outputs = await matMul(x, [rows, k], values, [n, k], { transposeB: true })
    const length = (of: Float32Array) => of.reduce((sum, value) => sum + value * value, 0)
    // Up to the damping, three hundredths of what each input would make alone.
    expect(length(there) / (length(outputs) / rows)).toBeGreaterThan(1)
    expect(length(there) / (length(outputs) / rows)).toBeLessThan(1.1)
  })

  test('is left the way it was entered', async () => {
    const feedback = await feedbackOf(x, k, 1, matMul)
    const there = await toOutputSpace(values, n, k, feedback, matMul)
    expectClose(fromOutputSpace(there, n, k, feedback), values, { abs: 1e-4 })
  })

  test('gives the best branch there is: no other of its rank comes near without it', async () => {
    const feedback = await feedbackOf(x, k, 1, matMul)
    const rounded = nearest(values, groups, scales)
    const { product } = await refitBranch(values, rounded, { rank: 4, groups, matMul, feedback })
    const refitted = await outputError(Float32Array.from(rounded, (value, i) => value + product[i]))
    const plain = await outputError(rounded)
    expect(refitted).toBeLessThan(0.7 * plain)
  })
})

describe('taps of a convolution', () => {
  const channels = 16
  const pixels = plantedLayer({ n: 8, k: channels, rows: 90 * 9 }).x // [90, 9 · 16]

  test('share one factor', async () => {
    const feedback = await feedbackOf(pixels, 9 * channels, 9, matMul)
    expect(feedback.map(({ start, size }) => [start, size])).toEqual(
      Array.from({ length: 9 }, (_, tap) => [tap * channels, channels]),
    )
    expect(new Set(feedback.map(({ factor }) => factor)).size).toBe(1)
  })

  test('are rounded as nine layers of their own', async () => {
    const weights = normalMatrix(8, 9 * channels, 4)
    const format = { n: 8, k: 9 * channels, bits: 4, group: 16 } as const
    const steps = groupScales(weights, format)
    const all = await roundWithFeedback(
      weights,
      format,
      steps,
      await feedbackOf(pixels, 9 * channels, 9, matMul),
      matMul,
    )
    const one = { n: 8, k: channels, bits: 4, group: 16 } as const
    const feedback = await feedbackOf(pixels, channels, 1, matMul)
    const tapOf = (from: Float32Array, tap: number) =>
      Float32Array.from(
        { length: 8 * channels },
        (_, i) => from[Math.floor(i / channels) * 9 * channels + tap * channels + (i % channels)],
      )
    for (const tap of [0, 4, 8]) {
      const own = tapOf(weights, tap)
      const alone = await roundWithFeedback(own, one, groupScales(own, one), feedback, matMul)
      expect(squaredDistance(alone, tapOf(all, tap))).toBe(0)
    }
  })
})

test('a channel that is never used gets its nearest codes and does no harm', async () => {
  const silent = multiplyColumns(
    x,
    Float32Array.from({ length: k }, (_, i) => (i === 5 ? 0 : 1)),
  )
  const rounded = await roundWithFeedback(values, groups, scales, await feedbackOf(silent, k, 1, matMul), matMul)
  const plain = nearest(values, groups, scales)
  for (let row = 0; row < n; row++) expect(rounded[row * k + 5]).toBeCloseTo(plain[row * k + 5], 6)
})
