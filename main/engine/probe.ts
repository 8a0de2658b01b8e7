import { Graph } from '../../models/graph/graph.ts'
import { toOnnx } from '../../models/graph/onnx.ts'
import {
  add,
  conv,
  instanceNormalization,
  matMul,
  quickGelu,
  reshape,
  transpose,
  upsampleNearest2,
} from '../../models/graph/ops.ts'
import { attention } from '../../models/layers.ts'
import type { FloatTensor } from '../pipeline/tensor.ts'
import { openSession, physicalCores, type Provider, type Session } from './networks.ts'

/** Makes the engine's entry run the test and end, instead of serving. */
export const probeArgument = '--probe'

export type ProbeResult = { isUsable: true; gpuMs: number; cpuMs: number } | { isUsable: false; reason: string }

/** float32 sums in another order differ by about 1e-6 of the largest value; wrong kernels by far more. */
const tolerance = 1e-3
const repetitions = 3

/** Runs the test graph on `provider` and on the processor and sends a ProbeResult to the parent, which ends us. */
export async function runProbe(provider: string): Promise<void> {
  const result = await compare(provider as Provider).catch((error: unknown) => ({
    isUsable: false as const,
    reason: explain(error instanceof Error ? error.message : String(error)),
  }))
  process.once('disconnect', () => process.exit())
  process.send?.(result)
}

async function compare(provider: Provider): Promise<ProbeResult> {
  const small = await onBoth(provider, 16)
  const largest = small.cpu.output.reduce((max, value) => Math.max(max, Math.abs(value)), 0)
  const error =
    small.cpu.output.reduce((max, value, i) => Math.max(max, Math.abs(value - small.gpu.output[i])), 0) / largest
  if (!(error < tolerance))
    return { isUsable: false, reason: `it computes wrong numbers (off by ${error.toExponential(1)})` }
  // At this size starting a kernel costs a fast card more than the work. A card that only exists in software is slower
  // by a factor of a hundred, and would take a minute for the larger size.
  const timed = small.gpu.ms > 20 * small.cpu.ms ? small : await onBoth(provider, 128)
  return { isUsable: true, gpuMs: timed.gpu.ms, cpuMs: timed.cpu.ms }
}

async function onBoth(provider: Provider, size: number) {
  const model = probeGraph(size)
  const input: FloatTensor = { data: wave(32 * size * size, 1), shape: [1, 32, size, size] }
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
function probeGraph(size: number): Uint8Array {
  const half = size / 2
  const graph = new Graph('probe', { dialect: 'webgpu' })
  const weight = (dims: number[], seed: number) => {
    const count = dims.reduce((product, dim) => product * dim, 1)
    const scale = 1.5 / Math.sqrt(dims.slice(1).reduce((product, dim) => product * dim, 1))
    return graph.constant(
      'f32',
      dims,
      wave(count, seed).map((value) => value * scale),
    )
  }
  const ones = (n: number, value: number) => graph.constant('f32', [n], new Float32Array(n).fill(value))

  const x = graph.input('x', 'f32', [1, 32, size, size])
  let h = conv(x, weight([64, 32, 3, 3], 2), weight([64], 3), { kernel: 3, stride: 2, pads: [1, 1, 1, 1] }) // [1, 64, s/2, s/2]
  h = reshape(instanceNormalization(reshape(h, [1, 32, -1]), ones(32, 1), ones(32, 0), 1e-5), [1, 64, half, half])
  h = quickGelu(h, 1)
  const n = half * half
  const rows = reshape(transpose(reshape(h, [1, 64, n]), [0, 2, 1]), [n, 64])
  const [q, k, v] = [4, 5, 6].map((seed) => matMul(rows, weight([64, 64], seed)))
  // The very attention of our networks: ONNX Runtime's fused one is wrong on some cards and therefore not in use.
  const attended = add(rows, matMul(attention(q, k, v, 4, x), weight([64, 64], 7)))
  h = reshape(transpose(reshape(attended, [1, n, 64]), [0, 2, 1]), [1, 64, half, half])
  h = conv(upsampleNearest2(h), weight([64, 64, 3, 3], 8), weight([64], 10), {
    kernel: 3,
    stride: 1,
    pads: [1, 1, 1, 1],
  })
  graph.output(
    'output',
    conv(h, weight([32, 64, 3, 3], 9), weight([32], 11), { kernel: 3, stride: 1, pads: [1, 1, 1, 1] }),
  )
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
