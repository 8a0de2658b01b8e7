import { cpus } from 'node:os'
import { Graph, type Value } from '../../models/graph/graph.ts'
import { toOnnx } from '../../models/graph/onnx.ts'
import {
  dynamicQuantizeLinear,
  gemm,
  matMulIntegerToFloat,
  matMulNBits,
  quantizeLinear,
} from '../../models/graph/ops.ts'
import type { FourBitReport } from '../../preload/contract/models.ts'
import type { ModeName } from '../../preload/limits.ts'
import { openSession, runtimeVersion, type Session } from './networks.ts'
import { recall, remember, runTestChild } from './test-child.ts'

// How a 4-bit model may run on this processor. Fast mode multiplies bytes: processors without instructions for that
// (x86 before AVX-VNNI and AVX-512 VNNI) add neighbouring products in 16 bits, where they overflow, and take longer than
// for floats. Low-memory mode multiplies packed weights of four bits.

/** Makes the engine's entry run the test and end, instead of serving. */
export const selfTestArgument = '--self-test'

/** With another test what was remembered of the old one is worth nothing. */
const testVersion = 2
const limitMs = 20_000
const cacheFile = 'self-test.json'
const dayMs = 24 * 3600 * 1000
type CacheEntry = { report: FourBitReport; until: number | null }

/** What was found about one way to multiply. */
export type KernelTest = {
  /** Right on numbers like those of a network. */
  isRight: boolean
  /** Right on the largest numbers there can be, too. */
  isExact: boolean
}
/** In the order in which they are found: a crash leaves out itself and what follows. */
export type SelfTest = { packed?: KernelTest; bytes?: KernelTest; speeds?: { bytesMs: number; floatMs: number } }
type Stage = 'start' | keyof SelfTest
type StageMessage = { stage: Stage; found: unknown }

/** The remembered verdict on this processor, or a new one: half a second, once. `entry` is the engine's entry file. */
export async function fourBitReport(entry: string, limit = limitMs): Promise<FourBitReport> {
  const processor = cpus()[0]?.model.trim() ?? 'unknown'
  const key = [testVersion, runtimeVersion, process.platform, process.arch, processor].join(' ')
  const known = recall<CacheEntry>(cacheFile, key)
  if (known && (known.until === null || (Date.now() < known.until && known.until - Date.now() <= dayMs)))
    return known.report
  const isLast = (message: unknown) => (message as StageMessage).stage === 'speeds'
  const { messages, failure } = await runTestChild(entry, [selfTestArgument], limit, isLast)
  const stages = messages as StageMessage[]
  const test: SelfTest = Object.fromEntries(stages.slice(1).map(({ stage, found }) => [stage, found]))
  const report = judge(test, failure?.reason)
  // A program that never began, or took too long in a busy moment, says nothing about the processor.
  const isTelling = stages.length > 0 && failure?.isFinal !== false
  // What is right stays right; what was slow may have been a busy moment.
  const isSlow = report.usable.includes('fast') && report.verdict !== 'fast'
  if (isTelling) remember<CacheEntry>(cacheFile, key, { report, until: isSlow ? Date.now() + dayMs : null })
  return isTelling || report.usable.length > 0 ? report : { ...report, verdict: 'low-memory', usable: ['low-memory'] }
}

/** The verdict, and which modes give the right picture. `failure` says why the test is not whole. */
export function judge({ packed, bytes, speeds }: SelfTest, failure?: string): FourBitReport {
  const usable: ModeName[] = []
  if (bytes?.isRight && bytes.isExact) usable.push('fast')
  if (packed?.isRight && packed.isExact) usable.push('low-memory')
  const ratio = speeds ? speeds.floatMs / speeds.bytesMs : 0
  const isFast = usable.includes('fast') && (ratio > 1 || !usable.includes('low-memory'))
  const verdict = isFast ? 'fast' : usable.length > 0 ? 'low-memory' : 'plain'
  const faults = [fault(bytes, 'bytes', failure), fault(packed, 'packed weights', failure)]
  const found = faults.filter((text) => text !== undefined)
  if (found.length === 0 && !speeds)
    found.push(`byte arithmetic could not be timed: ${failure ?? 'there is no result'}`)
  const times = `${ratio.toFixed(1)} times as fast as float32`
  const good = `byte arithmetic is exact${ratio > 1 ? ' and' : ', but only'} ${times}`
  return { verdict, usable, reason: found.length > 0 ? found.join('; ') : good }
}

function fault(test: KernelTest | undefined, what: string, failure: string | undefined): string | undefined {
  if (!test) return `products of ${what} could not be tested: ${failure ?? 'there is no result'}`
  if (!test.isRight) return `products of ${what} come out wrong`
  if (!test.isExact) return `large products of ${what} overflow on this processor`
  return undefined
}

/** The test itself, in the child: sends what it finds bit by bit, so that the parent knows where it crashed. */
export async function runSelfTest(): Promise<void> {
  process.once('disconnect', () => process.exit())
  const tell = (stage: Stage, found: unknown) => process.send?.({ stage, found } satisfies StageMessage)
  tell('start', true)
  const { packed, bytes, float } = kernels
  tell('packed', await testKernel(packed))
  tell('bytes', await testKernel(bytes))
  tell('speeds', await speedsOf(bytes, float))
}

/** One way to multiply: x [m, k] of whole numbers times weights [k, n] of whole numbers, exact where it is right. */
type Kernel = {
  /** Largest magnitudes. */
  x: { from: number; to: number }
  weights: { from: number; to: number }
  /** x f32 [m, k] -> f32 [m, n]; `isTimed` builds it as networks have it, else so that nothing is rounded. */
  build(x: Value, weights: Int8Array, size: { k: number; n: number }, isTimed: boolean): Value
}

export const kernels = {
  packed: {
    x: { from: -127, to: 127 },
    weights: { from: -8, to: 7 },
    build(x, weights, { k, n }) {
      const { graph } = x
      const group = 64
      const codes = new Uint8Array((n * k) / 2)
      for (let row = 0; row < n; row++) {
        for (let i = 0; i < k; i++) codes[(row * k + i) >> 1] |= (weights[i * n + row] + 8) << (4 * (i & 1))
      }
      const scales = graph.constant('f32', [n, k / group], new Float32Array((n * k) / group).fill(1))
      const packed = graph.constant('u8', [n, k / group, group / 2], codes)
      return matMulNBits(x, packed, scales, undefined, { bits: 4, group, k, n, accuracy: 1 })
    },
  },
  bytes: {
    // As bytes these are 1 … 255 about a zero point of 128.
    x: { from: -127, to: 127 },
    weights: { from: -127, to: 127 },
    build(x, weights, { k, n }, isTimed) {
      const { graph } = x
      const scalar = (type: 'f32' | 'u8', value: number) => graph.constant(type, [], [value])
      const [one, zero] = [scalar('f32', 1), scalar('u8', 128)]
      const q = isTimed ? dynamicQuantizeLinear(x) : { q: quantizeLinear(x, one, zero), scale: one, zero }
      const scales = graph.constant('f32', [n], new Float32Array(n).fill(1))
      return matMulIntegerToFloat(
        { ...q, q: { ...q.q, shape: x.shape } },
        graph.constant('i8', [k, n], weights),
        scales,
      )
    },
  },
  float: {
    x: { from: -127, to: 127 },
    weights: { from: -127, to: 127 },
    build: (x, weights, { k, n }) => gemm(x, x.graph.constant('f32', [k, n], weights), undefined),
  },
} satisfies Record<string, Kernel>

async function testKernel(kernel: Kernel): Promise<KernelTest> {
  const isRight = await matches(kernel, ordinary(kernel))
  return { isRight, isExact: isRight && (await matches(kernel, extreme(kernel))) }
}

/** x [m, k] and weights [k, n]; sums of products stay below 2^24, so that float32 holds them exactly. */
export type Product = { m: number; k: number; n: number; x: Float32Array; weights: Int8Array }

// One row takes another way through the runtime than many; 7 and 70 leave remainders of every block.
const rows = [1, 7, 64]
const size = { k: 512, n: 70 }

/** Numbers of a third of the largest magnitude, so that pairs of products fit 16 bits, and now and then the largest. */
export function ordinary({ x, weights }: Kernel): Product[] {
  const draw = numbers(1)
  const within = ({ from, to }: { from: number; to: number }) => Math.round((from + (to - from) * draw()) / 3)
  return rows.map((m) =>
    product(
      m,
      (_, i) => (i % 32 === 0 ? x.to : within(x)),
      () => within(weights),
    ),
  )
}

/** The largest magnitudes, in runs of two signs of all lengths: any two, four or eight neighbours add up somewhere. */
export function extreme({ x, weights }: Kernel): Product[] {
  const end = ({ from, to }: { from: number; to: number }, i: number, length: number) =>
    Math.floor(i / 2 ** length) % 2 === 0 ? to : from
  return rows.map((m) =>
    product(
      m,
      (row, i) => (row % 7 === 0 ? x.to : end(x, i, row % 7)),
      (i, column) => (column < 2 ? (column === 0 ? weights.to : weights.from) : end(weights, i, column % 8)),
    ),
  )
}

function product(
  m: number,
  xAt: (row: number, i: number) => number,
  weightAt: (i: number, column: number) => number,
): Product {
  const { k, n } = size
  return {
    ...{ m, k, n },
    x: Float32Array.from({ length: m * k }, (_, i) => xAt(Math.floor(i / k), i % k)),
    weights: Int8Array.from({ length: k * n }, (_, i) => weightAt(Math.floor(i / n), i % n)),
  }
}

/** The products in whole numbers. */
export function exactProduct({ m, k, n, x, weights }: Product): Float32Array {
  return Float32Array.from({ length: m * n }, (_, at) => {
    const [row, column] = [Math.floor(at / n), at % n]
    let sum = 0
    for (let i = 0; i < k; i++) sum += x[row * k + i] * weights[i * n + column]
    return sum
  })
}

async function matches(kernel: Kernel, products: readonly Product[]): Promise<boolean> {
  for (const item of products) {
    const session = await open(kernel, item, false)
    const { data: y } = (await session.run({ x: { data: item.x, shape: [item.m, item.k] } })).y
    await session.release()
    const expected = exactProduct(item)
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1)
    // Packed weights are summed up in float32, block by block; an overflow is off by whole per cents.
    if (!expected.every((value, i) => Math.abs(value - y[i]) <= 1e-4 * largest)) return false
  }
  return true
}

/**
 * Milliseconds for a product of a usual size in bytes and in floats. In turns, on one thread and the least of many: other
 * programs may be at work, most of all at the first start.
 */
async function speedsOf(...timed: readonly [bytes: Kernel, float: Kernel]): Promise<SelfTest['speeds']> {
  const draw = numbers(2)
  const [m, k, n] = [256, 640, 640]
  const x = Float32Array.from({ length: m * k }, () => Math.round(draw() * 254) - 127)
  const weights = Int8Array.from({ length: k * n }, () => Math.round(draw() * 14) - 7)
  const sessions = []
  for (const kernel of timed) sessions.push(await open(kernel, { m, k, n, x, weights }, true))
  const least = timed.map(() => Infinity)
  for (let i = 0; i < 12; i++) {
    for (const [which, session] of sessions.entries()) {
      const startedAt = performance.now()
      await session.run({ x: { data: x, shape: [m, k] } })
      least[which] = Math.min(least[which], performance.now() - startedAt)
    }
  }
  for (const session of sessions) await session.release()
  return { bytesMs: least[0], floatMs: least[1] }
}

function open(kernel: Kernel, { m, k, n, weights }: Product, isTimed: boolean): Promise<Session> {
  const graph = new Graph('self-test', { dialect: 'cpu' })
  graph.output('y', kernel.build(graph.input('x', 'f32', [m, k]), weights, { k, n }, isTimed))
  return openSession(toOnnx(graph), { provider: 'cpu', threads: 1 })
}

/** Numbers from 0 to 1 without a pattern, the same every time. */
function numbers(seed: number): () => number {
  let state = Math.imul(seed, 2654435761) >>> 0
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32
}
