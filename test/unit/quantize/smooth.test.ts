import { describe, expect, test } from 'vitest'
import { roundActivations } from '../../../models/quantize/activations.ts'
import { plainMatMul } from '../../../models/quantize/algebra.ts'
import { squaredDistance } from '../../../models/quantize/branch.ts'
import {
  columnSpans,
  divideColumns,
  findSmoothing,
  multiplyColumns,
  smoothingVector,
} from '../../../models/quantize/smooth.ts'
import { expectClose } from '../../expect-close.ts'
import { normalMatrix, plantedLayer } from './problem.ts'

const options = { bits: 4, group: 32, rank: 4, activations: 'tensor', matMul: plainMatMul } as const

function inputOf(x: Float32Array, k: number) {
  const costs = new Float32Array(k)
  for (let i = 0; i < x.length; i++) costs[i % k] += x[i] ** 2 / (x.length / k)
  return { x, spans: columnSpans([{ k, values: x }]), costs }
}

describe('the smoothing vector of a candidate', () => {
  test('follows its formula up to a common factor, which makes the geometric mean 1', () => {
    const spans = Float32Array.of(1, 4, 16, 64)
    const weights = Float32Array.of(2, 2, 8, 8)
    const lambda = smoothingVector({ alpha: 0.5, beta: 0.5 }, spans, weights)
    for (let i = 0; i < 4; i++) expect(lambda[i] / lambda[0]).toBeCloseTo(Math.sqrt(spans[i] / weights[i] / 0.5), 5)
    expect(lambda.reduce((product, value) => product * value, 1)).toBeCloseTo(1, 5)
  })

  test('stays within a factor of 100, also for a channel that is never used', () => {
    const spans = Float32Array.from({ length: 32 }, (_, i) => (i === 3 ? 0 : i === 4 ? 1e9 : 1))
    const lambda = smoothingVector({ alpha: 1, beta: 0 }, spans, new Float32Array(32).fill(1))
    expect(Math.min(...lambda)).toBeCloseTo(0.01, 6)
    expect(Math.max(...lambda)).toBeCloseTo(100, 3)
  })
})

describe('the search', () => {
  const [n, k] = [64, 128]
  const { values, x } = plantedLayer({ n, k, rows: 128 })

  test('finds a vector that makes the layer with int8 inputs better', async () => {
    const lambda = await findSmoothing([{ n, k, values }], inputOf(x, k), options)
    if (!lambda) throw new Error('nothing found')
    expect(lambda[7]).toBeGreaterThan(3 * lambda[6]) // channel 7 is loud
    const outputs = (input: Float32Array, weights: Float32Array) =>
      plainMatMul(input, [128, k], weights, [n, k], { transposeB: true })
    const exact = await outputs(x, values)
    const plain = squaredDistance(await outputs(roundActivations(x, k, 'tensor'), values), exact)
    const smoothed = roundActivations(divideColumns(x, lambda), k, 'tensor')
    expect(squaredDistance(await outputs(smoothed, multiplyColumns(values, lambda)), exact)).toBeLessThan(plain / 4)
  })

  test('finds none where channels and weights are alike', async () => {
    const even = normalMatrix(128, k, 5)
    expect(await findSmoothing([{ n, k, values: normalMatrix(n, k, 6) }], inputOf(even, k), options)).toBeUndefined()
  })

  test('layers that share the input share the vector: the louder errors decide', async () => {
    const quiet = { n, k, values: normalMatrix(n, k, 6, 1e-6) }
    const alone = await findSmoothing([{ n, k, values }], inputOf(x, k), options)
    const together = await findSmoothing([quiet, { n, k, values }], inputOf(x, k), options)
    expectClose(together!, alone!, { rel: 1e-6 })
  })
})

describe('int8 rows', () => {
  test('per tensor: zero stays zero, the range is met, errors are at most half a step', () => {
    const x = Float32Array.of(-1, 0, 0.001, 2.5, 4, 3.99)
    const rounded = roundActivations(x, 3, 'tensor')
    expect(rounded[1]).toBe(0)
    expectClose(rounded, x, { abs: 5 / 255 / 2 + 1e-6 })
  })

  test('per row: a loud row does not coarsen a quiet one', () => {
    const rounded = roundActivations(Float32Array.of(0.01, -0.02, 100, 50), 2, 'token')
    expectClose(rounded.subarray(0, 2), [0.01, -0.02], { abs: 0.02 / 127 / 2 + 1e-9 })
    expect(rounded[2]).toBeCloseTo(100, 4)
  })
})
