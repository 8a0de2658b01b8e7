import { describe, expect, test } from 'vitest'
import { dequantizeGroups, quantizeGroups } from '../../../kernels/int4.ts'
import { toFloat32 } from '../../../models/checkpoint/dtypes.ts'
import { halfToFloat } from '../../../models/graph/half.ts'
import { plainMatMul } from '../../../models/quantize/algebra.ts'
import { findBranch, squaredDistance } from '../../../models/quantize/branch.ts'
import type { QuantizedLinear, QuantizeOptions } from '../../../models/quantize/layer.ts'
import { quantizeGroup } from '../../../models/quantize/layer.ts'
import { columnSpans, divideColumns, multiplyColumns, smoothingVector } from '../../../models/quantize/smooth.ts'
import { expectClose } from '../../expect-close.ts'
import { normalMatrix, plantedLayer } from './problem.ts'

const matMul = plainMatMul
const base: QuantizeOptions = { bits: 4, group: 64, rank: 0, matMul }

/** The smoothed matrix that the file's tensors stand for. */
async function restored(layer: QuantizedLinear): Promise<Float32Array> {
  const { n, k } = layer
  const weights = dequantizeGroups(layer, layer)
  if (!layer.down || !layer.up) return weights
  const [down, up] = [layer.down, layer.up].map((bits) => toFloat32(new Uint8Array(bits.buffer), 'F16'))
  const rank = down.length / k
  const product = await matMul(up, [n, rank], down, [rank, k])
  return weights.map((weight, i) => weight + product[i])
}

const power = (a: Float32Array) => a.reduce((sum, value) => sum + value * value, 0)

describe('a layer with loud channels and inputs that go together', () => {
  const [n, k, rows] = [64, 128, 640]
  const { values, x } = plantedLayer({ n, k, rows })
  const quantize = async (options: Partial<QuantizeOptions>) => {
    const group = await quantizeGroup([{ path: 'layer', n, k, values }], x, {
      ...base,
      activations: 'tensor',
      ...options,
    })
    return group.layers[0].errors
  }

  test('gets better with every part of the method', async () => {
    const naive = await quantize({})
    const smooth = await quantize({ smooth: true })
    const branch = await quantize({ smooth: true, rank: 8 })
    const feedback = await quantize({ smooth: true, rank: 8, gptq: true })
    expect(naive.weights).toBeLessThan(naive.nearest)
    expect(smooth.activations).toBeLessThan(naive.activations / 1.5)
    expect(branch.activations).toBeLessThan(smooth.activations / 1.1)
    expect(feedback.activations).toBeLessThan(branch.activations / 1.1)
    expect(feedback.weights).toBeLessThan(branch.weights / 2)
  })

  test('gets better when the branch is decomposed again with what the codes leave', async () => {
    const lambda = smoothingVector(
      { alpha: 0.5, beta: 0.5 },
      columnSpans([{ k, values: x }]),
      columnSpans([{ k, values }]),
    )
    const [target, inputs] = [multiplyColumns(values, lambda), divideColumns(x, lambda)]
    const exact = await matMul(inputs, [rows, k], target, [n, k], { transposeB: true })
    const errorOf = async (weights: Float32Array) =>
      squaredDistance(await matMul(inputs, [rows, k], weights, [n, k], { transposeB: true }), exact)
    const after = (rounds: number) =>
      findBranch(target, { rank: 8, groups: { n, k, bits: 4, group: 64 }, matMul, rounds, errorOf })
    expect((await after(4)).error).toBeLessThan(0.95 * (await after(1)).error)
  })

  test('reports the errors that its tensors have', async () => {
    const { inputScale, layers } = await quantizeGroup([{ path: 'layer', n, k, values }], x, {
      ...base,
      rank: 8,
      smooth: true,
      gptq: true,
    })
    const [layer] = layers
    const weights = divideColumns(await restored(layer), inputScale!)
    const heldOut = Float32Array.from(
      { length: (rows / 8) * k },
      (_, i) => x[(Math.floor(i / k) * 8 + 7) * k + (i % k)],
    )
    const outputs = (matrix: Float32Array) => matMul(heldOut, [rows / 8, k], matrix, [n, k], { transposeB: true })
    const exact = await outputs(values)
    expect(squaredDistance(await outputs(weights), exact) / power(exact) / layer.errors.weights).toBeCloseTo(1, 2)
  })

  test('is the same every time', async () => {
    const options = { ...base, rank: 8, smooth: true, gptq: true }
    const runs = await Promise.all([1, 2].map(() => quantizeGroup([{ path: 'layer', n, k, values }], x, options)))
    expect(runs[1]).toEqual(runs[0])
  })
})

test('a branch of full rank leaves next to nothing', async () => {
  const [n, k] = [24, 64]
  const values = normalMatrix(n, k, 1)
  const { layers } = await quantizeGroup([{ path: 'layer', n, k, values }], undefined, { ...base, rank: 24 })
  expect(squaredDistance(await restored(layers[0]), values) / power(values)).toBeLessThan(1e-6) // 1e-3 of the length
})

test('without branch, smoothing and feedback the codes are the nearest ones to the weights', async () => {
  const [n, k] = [16, 100]
  const values = normalMatrix(n, k, 2)
  for (const bits of [4, 8] as const) {
    const format = { n, k, bits, group: 32 } as const
    const { inputScale, layers } = await quantizeGroup([{ path: 'layer', n, k, values }], normalMatrix(100, k, 3), {
      ...base,
      ...format,
    })
    const [{ codes, scales, down, up }] = layers
    expect([inputScale, down, up]).toEqual([undefined, undefined, undefined])
    expect(codes).toEqual(quantizeGroups(values, { ...format, scales }).codes)
    const naive = squaredDistance(dequantizeGroups(quantizeGroups(values, format), format), values)
    expect(squaredDistance(await restored(layers[0]), values)).toBeLessThan(1.0001 * naive)
    // 8 bits keep the plain rule, so there everything is the naive form.
    if (bits === 8) expect(scales).toEqual(quantizeGroups(values, format).scales)
  }
})

test('layers that share an input share its smoothing vector and keep their own branches', async () => {
  const [k, rows] = [64, 256]
  const layers = [24, 40, 24].map((n, i) => ({
    path: `to_${'qkv'[i]}`,
    n,
    k,
    values: plantedLayer({ n, k, rows, seed: 7 + 50 * i }).values,
  }))
  const { x } = plantedLayer({ n: 8, k, rows, seed: 7 })
  const result = await quantizeGroup(layers, x, { ...base, rank: 4, smooth: true, gptq: true, activations: 'tensor' })
  expect(result.inputScale?.length).toBe(k)
  expect(result.layers.map(({ path, n }) => [path, n])).toEqual([
    ['to_q', 24],
    ['to_k', 40],
    ['to_v', 24],
  ])
  for (const [i, layer] of result.layers.entries()) {
    expect([layer.codes.length, layer.scales.length]).toEqual([(layer.n * k) / 2, layer.n])
    expect([layer.down?.length, layer.up?.length]).toEqual([4 * k, 4 * layer.n])
    const target = multiplyColumns(layers[i].values, result.inputScale!)
    expect(squaredDistance(await restored(layer), target) / power(target)).toBeLessThan(0.05)
  }
})

test('a convolution as nine taps', async () => {
  const [n, channels, rows] = [16, 16, 120]
  const k = 9 * channels
  const values = normalMatrix(n, k, 5)
  const { x } = plantedLayer({ n, k: channels, rows: rows * 9 })
  const options = { ...base, group: 32, rank: 4, taps: 9, activations: 'tensor' } as const
  const [plain] = (await quantizeGroup([{ path: 'conv', n, k, values }], x, options)).layers
  const [fed] = (await quantizeGroup([{ path: 'conv', n, k, values }], x, { ...options, gptq: true })).layers
  expect(fed.codes.length).toBe((n * 5 * 32) / 2) // 144 inputs in five groups, the last half empty
  expect(fed.errors.weights).toBeLessThan(0.6 * plain.errors.weights)
})

test('rows of zeros stay zero, and so do layers', async () => {
  const [n, k] = [8, 64]
  const values = normalMatrix(n, k, 6)
  values.fill(0, 2 * k, 3 * k)
  const x = normalMatrix(128, k, 7)
  const options = { ...base, rank: 2, smooth: true, gptq: true }
  const [layer] = (await quantizeGroup([{ path: 'layer', n, k, values }], x, options)).layers
  const back = await restored(layer)
  expectClose(back.subarray(2 * k, 3 * k), new Float32Array(k), { abs: 1e-5 })
  const [none] = (await quantizeGroup([{ path: 'layer', n, k, values: new Float32Array(n * k) }], x, options)).layers
  expect((await restored(none)).every((value) => value === 0)).toBe(true)
  expect([none.errors.nearest, none.errors.weights, none.errors.activations]).toEqual([0, 0, 0])
})

describe('what is no number is told by name and place', () => {
  const [n, k] = [4, 64]
  test.each([NaN, Infinity, -Infinity])('%d in the weights', async (value) => {
    const values = normalMatrix(n, k, 8)
    values[2 * k + 9] = value
    const group = quantizeGroup([{ path: 'mid_block.attn1.to_q', n, k, values }], undefined, base)
    await expect(group).rejects.toThrow(`mid_block.attn1.to_q: ${value} at [2, 9]`)
  })

  test('in the samples', async () => {
    const x = normalMatrix(80, k, 9)
    x[5] = NaN
    const group = quantizeGroup([{ path: 'mid_block.ff.net.2', n, k, values: normalMatrix(n, k, 8) }], x, base)
    await expect(group).rejects.toThrow('input of mid_block.ff.net.2: NaN at [0, 5]')
  })

  test('samples or weights of another size', async () => {
    const values = normalMatrix(n, k, 8)
    await expect(quantizeGroup([{ path: 'a', n: 5, k, values }], undefined, base)).rejects.toThrow('a: 256 values')
    await expect(quantizeGroup([{ path: 'a', n, k, values }], new Float32Array(100), base)).rejects.toThrow('a')
  })
})

test('scales are halves that the file can hold', async () => {
  const values = normalMatrix(8, 64, 10, 1e-3)
  const { layers } = await quantizeGroup([{ path: 'layer', n: 8, k: 64, values }], undefined, base)
  for (const half of layers[0].scales) expect(Math.abs(halfToFloat(half))).toBeGreaterThan(1e-5)
})
