import { InferenceSession, Tensor } from 'onnxruntime-node'
import { expect } from 'vitest'
import { toColumns } from '../../kernels/columns.ts'
import type { Groups } from '../../kernels/int4.ts'
import { dequantizeGroups, groupCount, quantizeGroups } from '../../kernels/int4.ts'
import type { Int8Weights } from '../../kernels/linear-int8.ts'
import { linearInt8 } from '../../kernels/linear-int8.ts'
import type { NBitsWeights } from '../../kernels/linear-nbits.ts'
import type { Sums } from '../../kernels/reference.ts'
import type { Dialect, Dim, Value } from '../../models/graph/graph.ts'
import { Graph } from '../../models/graph/graph.ts'
import { floatToHalf, halfToFloat } from '../../models/graph/half.ts'
import { toOnnx } from '../../models/graph/onnx.ts'

// How the tests of the kernels run a fragment of a graph, and what they may differ from the reference.

/** A tensor that goes into a graph: its numbers, and its sizes as the graph knows them and as they are. */
export type Feed = { data: Float32Array; dims: readonly number[]; shape?: readonly Dim[]; half?: boolean }

/** Opens what `build` makes of its inputs; then `run` gives its output for other feeds of the same names, too. */
export async function open(
  dialect: Dialect,
  feeds: Record<string, Feed>,
  build: (inputs: Record<string, Value>, graph: Graph) => Value,
) {
  const graph = new Graph('fragment', { dialect })
  const inputs = Object.entries(feeds).map(([name, { dims, shape, half }]) => {
    return [name, graph.input(name, half ? 'f16' : 'f32', shape ?? dims)] as const
  })
  const output = build(Object.fromEntries(inputs), graph)
  graph.output('y', output)
  const session = await InferenceSession.create(toOnnx(graph), {
    executionProviders: [dialect],
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
  })
  const run = async (fed: Record<string, Feed>) => {
    const tensors = Object.entries(fed).map(([name, { data, dims, half }]) => {
      const tensor = half
        ? new Tensor('float16', Uint16Array.from(data, floatToHalf), dims)
        : new Tensor('float32', data, dims)
      return [name, tensor]
    })
    const { y } = await session.run(Object.fromEntries(tensors) as Record<string, Tensor>)
    return { data: y.data as Float32Array, dims: y.dims }
  }
  return { graph, run, release: () => session.release() }
}

/** One run of a fragment. */
export async function evaluate(
  dialect: Dialect,
  feeds: Record<string, Feed>,
  build: (inputs: Record<string, Value>, graph: Graph) => Value,
) {
  const { run, release } = await open(dialect, feeds, build)
  const result = await run(feeds)
  await release()
  return result
}

/** Weights [n, k] in groups: as values of the graph, and the floats that they stand for. */
export function nbits(
  weights: Float32Array,
  shape: Groups,
): { floats: Float32Array; on: (graph: Graph) => NBitsWeights } {
  const packed = quantizeGroups(weights, { ...shape, search: true })
  const { n, k, bits, group } = shape
  const count = groupCount(k, group)
  const on = (graph: Graph): NBitsWeights => ({
    codes: graph.constant('u8', [n, count, (group * bits) / 8], packed.codes),
    scales: graph.constant('f16', [n, count], Array.from(packed.scales, halfToFloat)),
    ...shape,
  })
  return { floats: dequantizeGroups(packed, shape), on }
}

/** Weights [n, k] as columns of bytes: as values of the graph, and the floats that they stand for. */
export function int8(
  weights: Float32Array,
  n: number,
  k: number,
): { floats: Float64Array; scales: Float32Array; on: (graph: Graph) => Int8Weights } {
  const { columns, scales } = toColumns(weights, { n, k })
  const floats = Float64Array.from({ length: n * k }, (_, i) => {
    const row = Math.floor(i / k)
    return columns[(i % k) * n + row] * scales[row]
  })
  const on = (graph: Graph) => ({
    columns: graph.constant('i8', [k, n], columns),
    scales: graph.constant('f32', [n], scales),
  })
  return { floats, scales, on }
}

/**
 * The most that a sum may differ from the exact one when every term and every partial sum is rounded, in any order:
 * `roundings` · u · Σ|terms| (Higham, Accuracy and Stability, 4.2), with room for u² terms; u = 2⁻²⁴ for float32.
 */
export function roundingBounds({ magnitudes }: Sums, roundings: number): Float64Array {
  return magnitudes.map((magnitude) => 1.01 * roundings * 2 ** -24 * magnitude)
}

/** Every value within its own bound. Says where it is worst. */
export function expectWithin(actual: ArrayLike<number>, expected: ArrayLike<number>, bounds: ArrayLike<number>): void {
  expect(actual.length, 'number of values').toBe(expected.length)
  let worst = { ratio: 0, message: '' }
  for (let i = 0; i < actual.length; i++) {
    const error = Math.abs(actual[i] - expected[i])
    const ratio = Number.isNaN(error) ? Infinity : error / Math.max(bounds[i], 1e-300)
    if (ratio > worst.ratio)
      worst = { ratio, message: `value ${i}: got ${actual[i]}, expected ${expected[i]} ± ${bounds[i]}` }
  }
  expect(worst.ratio, worst.message).toBeLessThanOrEqual(1)
}

/** 10 · log10 of the power of `expected` over the power of the difference. */
export function decibels(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let [signal, noise] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    signal += expected[i] ** 2
    noise += (actual[i] - expected[i]) ** 2
  }
  return 10 * Math.log10(signal / noise)
}

/**
 * Whether this processor adds byte products exactly. x64 processors without VNNI add them by pairs in 16 bits and cut off
 * what does not fit; the engine's self-test keeps byte products from them.
 */
export async function addsBytesExactly(): Promise<boolean> {
  const [m, k, n] = [8, 64, 16]
  const { on } = int8(new Float32Array(n * k).fill(127), n, k) // scale 1
  const feeds = { x: { data: new Float32Array(m * k).fill(255), dims: [m, k] } }
  const { data } = await evaluate('cpu', feeds, ({ x }, graph) =>
    linearInt8(x, on(graph), undefined, { per: 'tensor', name: 'probe' }),
  )
  return data.every((sum) => sum === k * 255 * 127)
}
