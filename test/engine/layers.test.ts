import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { beforeAll, describe, expect, it } from 'vitest'
import { Graph } from '../../models/graph/graph.ts'
import { toOnnx } from '../../models/graph/onnx.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import { Weights } from '../../models/graph/weights.ts'
import { groupNorm, upsample } from '../../models/layers.ts'
import { scratchFolder } from './tiny-model.ts'

// Layers over pictures with their channels last, against plain loops in float64.

let folder: string
beforeAll(async () => {
  folder = await scratchFolder('layers')
})

/** The same numbers every time, in -1 … 1. */
function numbers(count: number): Float32Array {
  let state = 7
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  })
}

async function run(graph: Graph, feeds: Record<string, Tensor>): Promise<Tensor> {
  const path = join(folder, 'layer.onnx')
  writeFileSync(path, toOnnx(graph))
  const session = await InferenceSession.create(path, { intraOpNumThreads: 1, logSeverityLevel: 3 })
  const { y } = await session.run(feeds)
  await session.release()
  return y as Tensor
}

/** nn.GroupNorm over x [n, pixels, c]. */
function groupNormOf(
  x: Float32Array,
  [n, pixels, c]: number[],
  groups: number,
  weight: Float32Array,
  bias: Float32Array,
) {
  const out = new Float64Array(x.length)
  const size = c / groups
  for (let picture = 0; picture < n; picture++) {
    for (let group = 0; group < groups; group++) {
      const places: number[] = []
      for (let pixel = 0; pixel < pixels; pixel++)
        for (let i = 0; i < size; i++) places.push((picture * pixels + pixel) * c + group * size + i)
      const mean = places.reduce((sum, at) => sum + x[at], 0) / places.length
      const variance = places.reduce((sum, at) => sum + (x[at] - mean) ** 2, 0) / places.length
      for (const at of places) out[at] = ((x[at] - mean) / Math.sqrt(variance + 1e-5)) * weight[at % c] + bias[at % c]
    }
  }
  return out
}

describe('groupNorm', () => {
  // The deviation is 0.58: means of 300 to 900 leave a difference of mean squares with no right digit in float32.
  it.each([0, 10, 300])('is exact channels last when groups have means of %d and more', async (mean) => {
    const [n, h, w, c, groups] = [2, 24, 17, 24, 8]
    const [weight, bias] = [numbers(c), numbers(2 * c).subarray(c)]
    writeFileSync(join(folder, 'weights.bin'), new Uint8Array(Float32Array.from([...weight, ...bias]).buffer))
    const place = (offset: number): StoredTensor => ({
      file: 'weights.bin',
      offset,
      length: 4 * c,
      dtype: 'F32',
      shape: [c],
    })
    const table = new Map([
      ['norm.weight', place(0)],
      ['norm.bias', place(4 * c)],
    ])
    const graph = new Graph('norm', { dialect: 'cpu', channelsLast: true })
    const x = graph.input('x', 'f32', ['n', 'h', 'w', c])
    graph.output('y', groupNorm(new Weights(table, 'norm'), x, groups, 1e-5))

    const values = numbers(n * h * w * c).map((value, i) => value + mean * (1 + (Math.floor((i % c) / 3) % 3)))
    const y = await run(graph, { x: new Tensor('float32', values, [n, h, w, c]) })
    expect(y.dims).toEqual([n, h, w, c])
    const expected = groupNormOf(values, [n, h * w, c], groups, weight, bias)
    const largest = (y.data as Float32Array).reduce(
      (most, value, i) => Math.max(most, Math.abs(value - expected[i])),
      0,
    )
    expect(largest).toBeLessThan(5e-4)
  })
})

describe('upsample', () => {
  it.each([
    [6, 10],
    [5, 9],
  ])('doubles every pixel channels last, cut to %d x %d', async (height, width) => {
    const [n, h, w, c] = [2, 3, 5, 3]
    const graph = new Graph('upsample', { dialect: 'cpu', channelsLast: true })
    const x = graph.input('x', 'f32', ['n', 'h/2', 'w/2', c])
    graph.output('y', upsample(x, graph.input('like', 'f32', ['n', 'h', 'w', 1])))
    const values = numbers(n * h * w * c)
    const y = await run(graph, {
      x: new Tensor('float32', values, [n, h, w, c]),
      like: new Tensor('float32', new Float32Array(n * height * width), [n, height, width, 1]),
    })
    expect(y.dims).toEqual([n, height, width, c])
    ;(y.data as Float32Array).forEach((value, i) => {
      const [channel, column, row] = [i % c, Math.floor(i / c) % width, Math.floor(i / c / width) % height]
      const picture = Math.floor(i / c / width / height)
      const from = ((picture * h + Math.floor(row / 2)) * w + Math.floor(column / 2)) * c + channel
      if (value !== values[from]) throw new Error(`pixel ${row}, ${column}: ${value} for ${values[from]}`)
    })
  })
})
