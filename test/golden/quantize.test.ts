import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { groupScales, quantizeGroups, unpackCodes } from '../../kernels/int4.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { floatToHalf } from '../../models/graph/half.ts'
import { plainMatMul } from '../../models/quantize/algebra.ts'
import { difference, findBranch, nearest, refitBranch, squaredDistance } from '../../models/quantize/branch.ts'
import { feedbackOf, roundWithFeedback, scaledFeedback } from '../../models/quantize/gptq.ts'
import { columnSpans, divideColumns, multiplyColumns, smoothingVector } from '../../models/quantize/smooth.ts'
import { truncatedSvd } from '../../models/quantize/svd.ts'
import { expectClose } from '../expect-close.ts'

type Rounded = { codes: string; error: number }
type Case = {
  seed: number
  n: number
  channels: number
  taps: number
  rows: number
  group: 32 | 64
  rank: number
  alpha: number
  beta: number
  lambda: number[]
  rounds: number[]
  least: number
  down: string
  up: string
  scales: string
  nearest: Rounded
  feedback: Rounded
  corrected: number
}
const golden = JSON.parse(
  gunzipSync(readFileSync(new URL('./quantize.json.gz', import.meta.url))).toString('utf8'),
) as { draws: number[]; singular: number[]; cases: Case[] }

const matMul = plainMatMul

/** mulberry32, as doubles in [-1, 1). */
function uniform(seed: number, count: number): Float64Array {
  let state = seed >>> 0
  return Float64Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return 2 * (((t ^ (t >>> 14)) >>> 0) / 2 ** 32) - 1
  })
}

/** The weights and inputs of quantize.py, operation by operation. */
function problem({ seed, n, channels, taps, rows }: Pick<Case, 'seed' | 'n' | 'channels' | 'taps' | 'rows'>) {
  const k = channels * taps
  const [small, left, right] = [n * k, 4 * n, 4 * k].map((count, i) => uniform(seed + i, count))
  const weights = new Float32Array(n * k)
  for (let row = 0; row < n; row++) {
    for (let j = 0; j < k; j++) {
      let value = 0.05 * small[row * k + j]
      for (let i = 0; i < 4; i++) value += (0.3 / (i + 1)) * left[i * n + row] * right[i * k + j]
      weights[row * k + j] = value
    }
  }
  const causes = uniform(seed + 3, rows * taps * 6)
  const noise = uniform(seed + 4, rows * k)
  const x = Float32Array.from(noise, (draw, at) => {
    const channel = at % channels
    const pixel = Math.floor(at / channels)
    let value = 0.3 * draw
    for (let i = 0; i < 6; i++) value += causes[pixel * 6 + i] * Math.cos(0.7 * (i + 1) * channel + i)
    return value * (channel % 16 === 5 ? 12 : 1)
  })
  return { weights, x, k }
}

const floats = (halves: string) => toFloat32(Buffer.from(halves, 'base64'), 'F16')
const sum = (a: Float32Array, b: Float32Array) => a.map((value, i) => value + b[i])
const squares = (a: Float32Array) => a.reduce((total, value) => total + value * value, 0)

/** Codes of values that are whole multiples of their scales, without the bias and the filling of the last group. */
function codesOf(values: Float32Array, n: number, k: number, group: number, scales: Uint16Array): number[] {
  const padded = Math.ceil(k / group) * group
  const codes = unpackCodes(quantizeGroups(values, { n, k, bits: 4, group, scales }).codes)
  return Array.from({ length: n * k }, (_, i) => codes[Math.floor(i / k) * padded + (i % k)])
}

function share(codes: readonly number[], expected: string): number {
  const wanted = Buffer.from(expected, 'base64')
  expect(codes.length).toBe(wanted.length)
  return codes.filter((code, i) => code === wanted[i]).length / codes.length
}

test('the formula draws the same numbers here and in Python', () => {
  expectClose(uniform(7, 5), golden.draws, { abs: 1e-15 })
})

test('singular values of the first problem are those of LAPACK', async () => {
  const { weights } = problem(golden.cases[0])
  const { values } = await truncatedSvd(weights, 48, 128, { rank: 48, matMul })
  expectClose(values, golden.singular, { rel: 1e-5 })
})

describe.each(golden.cases)('case $seed: $n outputs, $taps taps of $channels channels', (the) => {
  const { n, taps, group, rank, alpha, beta } = the
  const { weights, x, k } = problem(the)
  const groups = { n, k, bits: 4 as const, group }
  const spans = [columnSpans([{ k, values: x }]), columnSpans([{ k, values: weights }])]
  const lambda = smoothingVector({ alpha, beta }, spans[0], spans[1])
  const scales = Uint16Array.from(floats(the.scales), floatToHalf)
  const [target, inputs] = [multiplyColumns(weights, lambda), divideColumns(x, lambda)]

  async function errorOf(approximation: Float32Array): Promise<number> {
    const outputs = (matrix: Float32Array) => matMul(inputs, [the.rows, k], matrix, [n, k], { transposeB: true })
    return squares(await outputs(difference(approximation, target))) / squares(await outputs(target))
  }

  test('the smoothing vector', () => expectClose(lambda, the.lambda, { rel: 1e-6 }))

  test('branch and nearest codes, round by round', async () => {
    const power = squares(target)
    const after = (rounds: number) => {
      const distance = async (weights: Float32Array) => squaredDistance(weights, target) / power
      return findBranch(target, { rank, groups, matMul, rounds, errorOf: distance })
    }
    expectClose([(await after(1)).error], [the.rounds[0]], { rel: 0.01 })
    // Ours stops at the first round that is no better.
    const stop = the.rounds.findIndex((error, i) => i > 0 && error >= the.rounds[i - 1])
    expectClose([(await after(3)).error], [the.rounds[(stop < 0 ? the.rounds.length : stop) - 1]], { rel: 0.02 })
  })

  /** What the golden branch leaves: our own differs in the last bits of its halves, and some codes with it. */
  async function leftByGoldenBranch() {
    const product = await matMul(floats(the.up), [n, rank], floats(the.down), [rank, k])
    return { product, rest: difference(target, product) }
  }

  test('scales and nearest codes of what a branch leaves', async () => {
    const { product, rest } = await leftByGoldenBranch()
    const own = squaredDistance(nearest(rest, groups, groupScales(rest, groups, { search: true })), rest)
    expectClose([own], [the.least], { rel: 0.005 })
    const rounded = nearest(rest, groups, scales)
    expect(share(codesOf(rounded, n, k, group, scales), the.nearest.codes)).toBeGreaterThan(0.998)
    expectClose([await errorOf(sum(rounded, product))], [the.nearest.error], { rel: 0.01 })
  })

  test('codes with feedback are those of GPTQ, and the refitted branch is the best there is', async () => {
    const { product, rest } = await leftByGoldenBranch()
    const feedback = await feedbackOf(inputs, k, taps, matMul)
    const rounded = await roundWithFeedback(rest, groups, scales, feedback, matMul)
    expect(share(codesOf(rounded, n, k, group, scales), the.feedback.codes)).toBeGreaterThan(0.95)
    expectClose([await errorOf(sum(rounded, product))], [the.feedback.error], { rel: 0.03 })
    // The factor of the inputs as they were, scaled, serves as well; only the order of rounding is another.
    const scaled = scaledFeedback(await feedbackOf(x, k, taps, matMul), lambda)
    const other = await roundWithFeedback(rest, groups, scales, scaled, matMul)
    expect((await errorOf(sum(other, product))) / the.feedback.error).toBeLessThan(1.15)
    const refitted = await refitBranch(target, rounded, { rank, groups, matMul, feedback })
    expectClose([await errorOf(sum(rounded, refitted.product))], [the.corrected], { rel: 0.03 })
  })
})
