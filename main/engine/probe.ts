import { Graph, type Value } from '../../models/graph/graph.ts'
import { toOnnx } from '../../models/graph/onnx.ts'
import {
  add,
  cast,
  conv,
  instanceNormalization,
  matMul,
  matMulNBits,
  quickGelu,
  reshape,
  transpose,
  upsampleNearest2,
} from '../../models/graph/ops.ts'
import { attention } from '../../models/attention.ts'
import type { FloatTensor } from '../pipeline/tensor.ts'
import { openSession, physicalCores, type Provider, type Session } from './networks.ts'

/** Makes the engine's entry run the test and end, instead of serving. */
export const probeArgument = '--probe'
/** With another test what was remembered of the old one is worth nothing. */
export const probeVersion = 2

/** Sent first: whether networks run on the card at all. */
export type ProbeResult = { isUsable: true; gpuMs: number; cpuMs: number } | { isUsable: false; reason: string }
/** Sent after it by a usable card, each on its own, so that a crash costs only what follows: what else it gets right. */
export type ExtraResult = { extra: 'packed' | 'halves'; isRight: boolean; reason?: string }

/** float32 sums in another order differ by about 1e-6 of the largest value; wrong kernels by far more. */
const tolerance = 1e-3
/** Half floats have eleven bits, and errors add up. */
const halfTolerance = 3e-2
const repetitions = 3

/** Runs the tests on `provider` and on the processor and sends their results to the parent, which ends us. */
export async function runProbe(provider: string): Promise<void> {
  process.once('disconnect', () => process.exit())
  const result = await compare(provider as Provider).catch((error: unknown) => ({
    isUsable: false as const,
    reason: reasonOf(error),
  }))
  process.send?.(result)
  if (!result.isUsable) return
  const card = provider as Provider
  process.send?.({
    extra: 'packed',
    ...(await isRight(card, packedGraph(), packedGraph(), tolerance)),
  } satisfies ExtraResult)
  const halves = await isRight(card, probeGraph(16, 'f16'), probeGraph(16), halfTolerance)
  process.send?.({ extra: 'halves', ...halves } satisfies ExtraResult)
}

async function compare(provider: Provider): Promise<ProbeResult> {
  const small = await onBoth(provider, 16)
  const error = difference(small.gpu.output, small.cpu.output)
  if (!(error < tolerance)) return { isUsable: false, reason: wrongNumbers(error) }
  // At this size starting a kernel costs a fast card more than the work. A card that only exists in software is slower
  // by a factor of a hundred, and would take a minute for the larger size.
  const timed = small.gpu.ms > 20 * small.cpu.ms ? small : await onBoth(provider, 128)
  return { isUsable: true, gpuMs: timed.gpu.ms, cpuMs: timed.cpu.ms }
}

/** Whether `graph` gives on the card what `exact` gives on the processor. */
async function isRight(
  provider: Provider,
  graph: Uint8Array,
  exact: Uint8Array,
  within: number,
): Promise<Omit<ExtraResult, 'extra'>> {
  const input = probeInput(16)
  try {
    const card = await openSession(graph, { provider, threads: 1, isStrict: true })
    const own = await openSession(exact, { provider: 'cpu', threads: 1 })
    const error = difference((await card.run({ x: input })).output.data, (await own.run({ x: input })).output.data)
    await card.release()
    await own.release()
    return error < within ? { isRight: true } : { isRight: false, reason: wrongNumbers(error) }
  } catch (error) {
    return { isRight: false, reason: reasonOf(error) }
  }
}

const wrongNumbers = (error: number) => `it computes wrong numbers (off by ${error.toExponential(1)})`
const reasonOf = (error: unknown) => explain(error instanceof Error ? error.message : String(error))

/** The largest difference, as a share of the largest value. */
function difference(actual: Float32Array, expected: Float32Array): number {
  const largest = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0)
  return expected.reduce((max, value, i) => Math.max(max, Math.abs(value - actual[i])), 0) / largest
}

const probeInput = (size: number): FloatTensor => ({ data: wave(32 * size * size, 1), shape: [1, 32, size, size] })

async function onBoth(provider: Provider, size: number) {
  const model = probeGraph(size)
  const input = probeInput(size)
  return {
    gpu: await measure(await openSession(model, { provider, threads: 1, isStrict: true }), input),
    cpu: await measure(await openSession(model, { provider: 'cpu', threads: physicalCores() }), input),
  }
}

/** Fastest of a few runs after one that compiles shaders and packs weights. */
async function measure(session: Session, x: FloatTensor): Promise<{ output: Float32Array; ms: number }> {
  let { output } = await session.run({ x })
  let ms = Infinity
  for (let i = 0; i < repetitions; i++) {
    const startedAt = performance.now()
    output = (await session.run({ x })).output
    ms = Math.min(ms, performance.now() - startedAt)
    if (ms > 1000) break
  }
  return { output: output.data, ms }
}

/**
 * One of everything a UNet or VAE needs: x [1, 32, s, s] -> convolution, group norm, SiLU, attention over s² / 4 tokens,
 * linear, nearest upsampling, convolution -> output [1, 32, s, s]. 0.03 GFLOP at s = 16, 6 at 128.
 */
function probeGraph(size: number, computeType: 'f32' | 'f16' = 'f32'): Uint8Array {
  const half = size / 2
  const graph = new Graph('probe', { dialect: 'webgpu', computeType })
  const constant = (dims: number[], numbers: Float32Array) => cast(graph.constant('f32', dims, numbers), computeType)
  const weight = (dims: number[], seed: number) => {
    const count = dims.reduce((product, dim) => product * dim, 1)
    const scale = 1.5 / Math.sqrt(dims.slice(1).reduce((product, dim) => product * dim, 1))
    return constant(
      dims,
      wave(count, seed).map((value) => value * scale),
    )
  }
  const same = (n: number, value: number) => constant([n], new Float32Array(n).fill(value))
  const kernel = { kernel: 3, stride: 1, pads: [1, 1, 1, 1] } as const

  const x = cast(graph.input('x', 'f32', [1, 32, size, size]), computeType)
  let h = conv(x, weight([64, 32, 3, 3], 2), weight([64], 3), { ...kernel, stride: 2 }) // [1, 64, s/2, s/2]
  h = reshape(instanceNormalization(reshape(h, [1, 32, -1]), same(32, 1), same(32, 0), 1e-5), [1, 64, half, half])
  h = quickGelu(h, 1)
  const n = half * half
  const rows = reshape(transpose(reshape(h, [1, 64, n]), [0, 2, 1]), [n, 64])
  const [q, k, v] = [4, 5, 6].map((seed) => matMul(rows, weight([64, 64], seed)))
  // The very attention of our networks: ONNX Runtime's fused one is wrong on some cards and therefore not in use.
  const attended = add(rows, matMul(attention(q, k, v, 4, x), weight([64, 64], 7)))
  h = reshape(transpose(reshape(attended, [1, n, 64]), [0, 2, 1]), [1, 64, half, half])
  h = conv(upsampleNearest2(h), weight([64, 64, 3, 3], 8), weight([64], 10), kernel)
  graph.output('output', cast(conv(h, weight([32, 64, 3, 3], 9), weight([32], 11), kernel), 'f32'))
  return toOnnx(graph)
}

/** Packed weights of 4 bits, then of 8: x [1, 32, 16, 16] as rows of 64 -> [128, 96] -> output [128, 64]. */
function packedGraph(): Uint8Array {
  const graph = new Graph('packed', { dialect: 'webgpu' })
  const layer = (x: Value, bits: 4 | 8, k: number, n: number) => {
    const group = 32
    const codes = wave((n * k * bits) / 8, bits).map((value) => Math.floor(127.99 * value) + 128)
    const scales = wave((n * k) / group, bits + 1).map((value) => (1.5 + value) / 2 ** bits)
    const packed = graph.constant('u8', [n, k / group, (group * bits) / 8], codes)
    const shape = { bits, group, k, n, accuracy: 1 }
    return matMulNBits(x, packed, graph.constant('f32', [n, k / group], scales), undefined, shape)
  }
  const rows = reshape(graph.input('x', 'f32', [1, 32, 16, 16]), [-1, 64])
  graph.output('output', layer(layer(rows, 4, 64, 96), 8, 96, 64))
  return toOnnx(graph)
}

/** Numbers between −1 and 1 without a pattern, the same every time. */
function wave(count: number, seed: number): Float32Array {
  let state = Math.imul(seed, 2654435761) >>> 0
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  })
}

/** What a person can understand of ONNX Runtime's words. */
function explain(text: string): string {
  if (/WebGpuContext::Initialize|adapter/i.test(text)) return 'none was found'
  if (/fallback to CPU EP has been explicitly disabled/i.test(text)) return 'it lacks operations that are needed'
  return text.split('\n')[0].slice(0, 200)
}
