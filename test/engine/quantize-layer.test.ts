import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { dequantizeGroups } from '../../kernels/int4.ts'
import type { RuntimeMatMul } from '../../main/engine/quantize-matmul.ts'
import { openMatMul } from '../../main/engine/quantize-matmul.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { plainMatMul, upperCholesky } from '../../models/quantize/algebra.ts'
import { squaredDistance } from '../../models/quantize/branch.ts'
import { quantizeGroup } from '../../models/quantize/layer.ts'
import { divideColumns } from '../../models/quantize/smooth.ts'
import { truncatedSvd } from '../../models/quantize/svd.ts'
import { expectClose } from '../expect-close.ts'
import { normalMatrix, plantedLayer } from '../unit/quantize/problem.ts'

// The quantiser over products by ONNX Runtime, at sizes that real layers have.

let runtime: RuntimeMatMul
beforeAll(async () => {
  runtime = await openMatMul(1)
})
afterAll(() => runtime.release())

const decibels = (error: number) => -10 * Math.log10(error)

test('products are those of plain loops, whichever factor is turned, and of parts of an array', async () => {
  const [a, b] = [normalMatrix(7, 33, 1), normalMatrix(33, 20, 2)]
  for (const transposeA of [false, true]) {
    for (const transposeB of [false, true]) {
      const aShape = transposeA ? ([33, 7] as const) : ([7, 33] as const)
      const bShape = transposeB ? ([20, 33] as const) : ([33, 20] as const)
      const options = { transposeA, transposeB }
      expectClose(
        await runtime.matMul(a, aShape, b, bShape, options),
        await plainMatMul(a, aShape, b, bShape, options),
        { abs: 1e-5 },
      )
    }
  }
  const part = a.subarray(33, 99)
  expectClose(await runtime.matMul(part, [2, 33], b, [33, 20]), await plainMatMul(part, [2, 33], b, [33, 20]), {
    abs: 1e-5,
  })
})

test('a Cholesky factor of 700 rows', async () => {
  const n = 700
  const x = normalMatrix(900, n, 3)
  const gram = await runtime.matMul(x, [900, n], x, [900, n], { transposeA: true })
  const u = await upperCholesky(Float64Array.from(gram), n, runtime.matMul)
  const narrow = Float32Array.from(u!)
  expectClose(await runtime.matMul(narrow, [n, n], narrow, [n, n], { transposeB: true }), gram, { abs: 0.02 })
})

test('the 32 strongest directions of a wide matrix', async () => {
  const [n, k, rank] = [640, 1280, 32]
  const [left, right] = [normalMatrix(n, rank, 4), normalMatrix(k, rank, 5)]
  const a = await runtime.matMul(left, [n, rank], right, [k, rank], { transposeB: true })
  const noise = normalMatrix(n, k, 6, 0.5)
  for (let i = 0; i < a.length; i++) a[i] += noise[i]
  const { up, down } = await truncatedSvd(a, n, k, { rank, matMul: runtime.matMul })
  const product = await runtime.matMul(up, [n, rank], down, [rank, k])
  // What is left is the noise less the little of it that lies in the 32 directions.
  const left2 = squaredDistance(product, a) / (0.25 * n * k)
  expect(left2).toBeLessThan(1)
  expect(left2).toBeGreaterThan(0.9)
})

describe('a layer of 320 × 640', () => {
  const [n, k, rows] = [320, 640, 1024]
  const { values, x } = plantedLayer({ n, k, rows })
  const quantize = (options: { rank: number; smooth: boolean; gptq: boolean }) =>
    quantizeGroup([{ path: 'layer', n, k, values }], x, {
      bits: 4,
      group: 64,
      activations: 'tensor',
      matMul: runtime.matMul,
      ...options,
    })

  test('comes out better with every part, and its tensors give the outputs back', async () => {
    const nearest = (await quantize({ rank: 0, smooth: false, gptq: false })).layers[0].errors
    const branch = (await quantize({ rank: 16, smooth: true, gptq: false })).layers[0].errors
    const { inputScale, layers } = await quantize({ rank: 16, smooth: true, gptq: true })
    const [layer] = layers
    expect(decibels(branch.activations)).toBeGreaterThan(decibels(nearest.activations) + 3)
    expect(decibels(layer.errors.weights)).toBeGreaterThan(decibels(branch.weights) + 3)

    const halves = (bits: Uint16Array) => toFloat32(new Uint8Array(bits.buffer), 'F16')
    const product = await runtime.matMul(halves(layer.up!), [n, 16], halves(layer.down!), [16, k])
    const smoothed = dequantizeGroups(layer, layer).map((weight, i) => weight + product[i])
    const weights = inputScale ? divideColumns(smoothed, inputScale) : smoothed
    // Every eighth row was held out; the others come out better, since the codes were chosen on them.
    const heldOut = Float32Array.from(
      { length: (rows / 8) * k },
      (_, i) => x[(8 * Math.floor(i / k) + 7) * k + (i % k)],
    )
    const outputs = (matrix: Float32Array) =>
      runtime.matMul(heldOut, [rows / 8, k], matrix, [n, k], { transposeB: true })
    const exact = await outputs(values)
    const error = squaredDistance(await outputs(weights), exact) / exact.reduce((sum, value) => sum + value * value, 0)
    expect(Math.abs(decibels(error) - decibels(layer.errors.weights))).toBeLessThan(0.1)
  })
})
