// Ways to compute self-attention on ONNX Runtime's CPU provider: time, and error on flat, usual and peaked scores.
//   npx tsx scripts/bench-attention.ts [--tokens 4096] [--heads 8] [--width 40] [--threads 1] [--only NAME]
//
// ONNX Runtime 1.30, one core of a Xeon with AMX, ms of CPU time; t x heads x width. Errors are relative, root mean square,
// the worst of the three kinds of scores (deviation 0.3, 2 and 8; values with one channel eight times as loud).
//
//                            4096 x 8 x 40   4096 x 10 x 64   1024 x 8 x 80   error
//   MultiHeadAttention            176              285              18        -       what the networks use
//   Attention, opset 23           277              402              20        0
//   heads padded to 48 / 64    189 / 232            -                -        0
//   float blocks of 256           176              300              18        0       64: 187, 1024: 183
//   all heads, blocks of 64       240              431              24        0       16: 432
//   byte values                   211              362              28       14 %     three passes over the scores cost more
//   byte scores                   182              262              15        5 %     than the product saves
//
// No other float form of the same products is faster. Bytes can be, by 8 to 17 % where heads are wide, but with errors ten
// times what one may allow (0.5 %): scores want more than 8 bits where they are peaked, and among thousands of nearly equal
// weights most are below half a step of 1/255. On two threads, with other work on the machine, the order was the same.
// Hence MultiHeadAttention stays, and large pictures get fewer keys instead (`everyOther` in models/attention.ts).
import { parseArgs } from 'node:util'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import type { Value } from '../models/graph/graph.ts'
import { Graph } from '../models/graph/graph.ts'
import { toOnnx } from '../models/graph/onnx.ts'
import {
  concat,
  dynamicQuantizeLinear,
  matMul,
  mul,
  multiHeadAttention,
  quantizeLinear,
  reduceMaxLast,
  reshape,
  slice,
  softmax,
  sub,
  transpose,
  unsqueeze,
} from '../models/graph/ops.ts'

const { values: options } = parseArgs({
  options: {
    tokens: { type: 'string', default: '4096' },
    heads: { type: 'string', default: '8' },
    width: { type: 'string', default: '40' },
    threads: { type: 'string', default: '1' },
    runs: { type: 'string', default: '3' },
    only: { type: 'string' },
  },
})
const [t, heads, d] = [Number(options.tokens), Number(options.heads), Number(options.width)]
const c = heads * d
const domain = 'com.microsoft'

type Way = { name: string; build: (q: Value, k: Value, v: Value) => Value; opset?: number }

/** x [1, t, c] -> one [rows, d] (or with `flip` [d, rows]) per head. */
function perHead(x: Value, flip = false): Value[] {
  const all = transpose(reshape(x, [t, heads, d]), flip ? [1, 2, 0] : [1, 0, 2])
  return Array.from({ length: heads }, (_, h) => reshape(slice(all, 0, h, h + 1), flip ? [d, t] : [t, d]))
}

const scale = (x: Value) => mul(x, x.graph.constant('f32', [], [1 / Math.sqrt(d)]))
const join = (parts: Value[]) => reshape(concat(parts, 1), [1, t, c])
const blocks = (size: number) => Array.from({ length: Math.ceil(t / size) }, (_, i) => [i * size, (i + 1) * size])

/** Scores, softmax and values for `size` queries at a time, so that they stay in the cache. */
const inBlocks = (size: number) => (q: Value, k: Value, v: Value) => {
  const [qs, ks, vs] = [perHead(scale(q)), perHead(k, true), perHead(v)]
  return join(
    qs.map((qh, h) =>
      concat(
        blocks(size).map(([from, to]) => matMul(softmax(matMul(slice(qh, 0, from, to), ks[h])), vs[h])),
        0,
      ),
    ),
  )
}

/** The same for all heads at once: batched products over [heads, size, ·]. */
const headMajor = (size: number) => (q: Value, k: Value, v: Value) => {
  const split = (x: Value, perm: number[]) => transpose(reshape(x, [t, heads, d]), perm)
  const [qs, ks, vs] = [split(scale(q), [1, 0, 2]), split(k, [1, 2, 0]), split(v, [1, 0, 2])]
  const parts = blocks(size).map(([from, to]) => matMul(softmax(matMul(slice(qs, 1, from, to), ks)), vs))
  return reshape(transpose(concat(parts, 1), [1, 0, 2]), [1, t, c])
}

/** Heads of `wide` numbers, zeros behind the d that count: in a model the projections would give them so. */
const padded = (wide: number) => (q: Value, k: Value, v: Value) => {
  const { graph } = q
  const pads = graph.constant('i64', [8], [0, 0, 0, 0, 0, 0, 0, wide - d])
  const widen = (x: Value, factor = 1) => {
    const scaled = factor === 1 ? x : mul(x, graph.constant('f32', [], [factor]))
    const split = reshape(scaled, [1, t, heads, d])
    return reshape(graph.node('Pad', [split, pads], { type: 'f32', shape: [1, t, heads, wide] }), [1, t, heads * wide])
  }
  const mixed = multiHeadAttention(widen(q, Math.sqrt(wide / d)), widen(k), widen(v), heads)
  return reshape(slice(reshape(mixed, [1, t, heads, wide]), 3, 0, d), [1, t, c])
}

/** ONNX's own Attention operator of opset 23. */
const onnxAttention = (q: Value, k: Value, v: Value) =>
  q.graph.node('Attention', [q, k, v], q, { attributes: { q_num_heads: heads, kv_num_heads: heads } })

/**
 * Scores in float32; exp(score - largest) in 0 to 1 as bytes, not yet divided by its sum; values as bytes, one scale per
 * channel. A channel of ones behind the values makes the sums in the same product, of the very bytes that weigh.
 */
const byteValues = (size: number) => (q: Value, k: Value, v: Value) => {
  const { graph } = q
  const [qs, ks] = [perHead(scale(q)), perHead(k, true)]
  const magnitude = graph.node(
    'ReduceMax',
    [graph.node('Abs', [v], v), graph.constant('i64', [1], [1])],
    { type: 'f32', shape: [1, c] },
    { attributes: { keepdims: 0 } },
  )
  const scales = reshape(mul(magnitude, graph.constant('f32', [], [1 / 127])), [c])
  const zeros = graph.constant('i8', [c], new Array<number>(c).fill(0))
  const bytes = quantizeLinear(reshape(v, [t, c]), scales, zeros, 1)
  const vs = perHead({ ...bytes, shape: [t, c] })
  const ones = graph.constant('i8', [t, 1], new Array<number>(t).fill(1))
  const step = graph.constant('f32', [], [1 / 255])
  const zero = graph.constant('u8', [], [0])
  return join(
    qs.map((qh, h) => {
      const values = concat([vs[h], ones], 1) // [t, d + 1]
      const columns = concat([slice(scales, 0, h * d, (h + 1) * d), graph.constant('f32', [1], [1])], 0)
      const parts = blocks(size).map(([from, to]) => {
        const scores = matMul(slice(qh, 0, from, to), ks[h])
        const below = sub(scores, unsqueeze(reduceMaxLast(scores), 1))
        const weights = quantizeLinear(graph.node('Exp', [below], below), step, zero)
        const both = graph.node(
          'MatMulIntegerToFloat',
          [weights, values, step, columns, zero],
          { type: 'f32', shape: [to - from, d + 1] },
          { domain },
        )
        const sums = slice(both, 1, d, d + 1)
        return graph.node('Div', [slice(both, 1, 0, d), sums], { type: 'f32', shape: [to - from, d] })
      })
      return concat(parts, 0)
    }),
  )
}

/** Queries and keys as bytes too, one scale a tensor. */
const byteScores = (size: number) => (q: Value, k: Value, v: Value) => {
  const { graph } = q
  const rows = (x: Value) => reshape(x, [t, c])
  const qq = dynamicQuantizeLinear(rows(scale(q)))
  const largest = graph.node(
    'ReduceMax',
    [graph.node('Abs', [k], k)],
    { type: 'f32', shape: [] },
    { attributes: { keepdims: 0 } },
  )
  const ksScale = mul(largest, graph.constant('f32', [], [1 / 127]))
  const kq = quantizeLinear(rows(k), ksScale, graph.constant('i8', [], [0]))
  const [qs, ks, vs] = [perHead(qq.q), perHead(kq, true), perHead(v)]
  return join(
    qs.map((qh, h) =>
      concat(
        blocks(size).map(([from, to]) => {
          const inputs = [slice(qh, 0, from, to), ks[h], qq.scale, ksScale, qq.zero]
          const scores = graph.node('MatMulIntegerToFloat', inputs, { type: 'f32', shape: [to - from, t] }, { domain })
          return matMul(softmax(scores), vs[h])
        }),
        0,
      ),
    ),
  )
}

const ways: Way[] = [
  { name: 'MultiHeadAttention', build: (q, k, v) => multiHeadAttention(q, k, v, heads) },
  { name: 'Attention, opset 23', build: onnxAttention, opset: 23 },
  ...[48, 64].filter((wide) => wide > d).map((wide) => ({ name: `heads of ${wide}`, build: padded(wide) })),
  ...[64, 256, 1024]
    .filter((size) => size <= t)
    .map((size) => ({ name: `float blocks of ${size}`, build: inBlocks(size) })),
  ...[16, 64].map((size) => ({ name: `all heads, blocks of ${size}`, build: headMajor(size) })),
  ...[64, 256].map((size) => ({ name: `byte values, blocks of ${size}`, build: byteValues(size) })),
  ...[64, 256].map((size) => ({ name: `byte scores, blocks of ${size}`, build: byteScores(size) })),
]

/** Normal numbers, the same every time. */
function normals(count: number, seed: number): Float32Array {
  let state = seed
  const uniform = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) + 0.5) / 2 ** 32
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  )
}

/** Queries, keys and values whose scores have the deviation `spread`; values have one loud channel a head, as in real nets. */
function inputs(spread: number): Record<string, Tensor> {
  const times = (values: Float32Array, by: (i: number) => number) => values.map((value, i) => value * by(i))
  const root = Math.sqrt(spread)
  const arrays = {
    q: times(normals(t * c, 1), () => root),
    k: times(normals(t * c, 2), () => root),
    v: times(normals(t * c, 3), (i) => (i % d === 5 ? 8 : 1)),
  }
  return Object.fromEntries(
    Object.entries(arrays).map(([name, data]) => [name, new Tensor('float32', data, [1, t, c])]),
  )
}

const kinds = { flat: inputs(0.3), usual: inputs(2), peaked: inputs(8) }
const exact: Record<string, Float32Array> = {}

console.log(
  `${t} tokens, ${heads} heads of ${d}, ${options.threads} thread(s); ms of CPU time, error relative (root mean square)`,
)
for (const way of ways) {
  if (options.only && !way.name.includes(options.only) && way !== ways[0]) continue
  const graph = new Graph('attention', { dialect: 'cpu' })
  const [q, k, v] = ['q', 'k', 'v'].map((name) => graph.input(name, 'f32', [1, t, c]))
  graph.output('y', way.build(q, k, v))
  let session: InferenceSession
  try {
    session = await InferenceSession.create(toOnnx(graph, way.opset), {
      executionProviders: ['cpu'],
      graphOptimizationLevel: 'all',
      intraOpNumThreads: Number(options.threads),
      enableMemPattern: false,
      logSeverityLevel: 4,
      extra: { session: { intra_op: { allow_spinning: '0' } } },
    })
  } catch (error) {
    console.log(way.name.padEnd(28), 'cannot be loaded:', (error as Error).message.slice(0, 90))
    continue
  }
  const errors: string[] = []
  let best = Infinity
  for (const [kind, feeds] of Object.entries(kinds)) {
    for (let run = 0; run < (kind === 'usual' ? Number(options.runs) : 1); run++) {
      const [cpu, wall] = [process.cpuUsage(), performance.now()]
      const { y } = await session.run(feeds)
      const spent = process.cpuUsage(cpu)
      const ms = Number(options.threads) > 1 ? performance.now() - wall : (spent.user + spent.system) / 1000
      if (kind === 'usual') best = Math.min(best, ms)
      const data = y.data as Float32Array
      if (run > 0) continue
      exact[kind] ??= data
      errors.push(`${kind} ${(100 * relative(data, exact[kind])).toFixed(3)} %`)
    }
  }
  await session.release()
  const speed = (4 * t * t * c) / 1e6 / best
  console.log(
    way.name.padEnd(28),
    best.toFixed(0).padStart(5),
    'ms',
    speed.toFixed(0).padStart(4),
    'GFLOP/s ',
    errors.join(', '),
  )
}

function relative(a: Float32Array, b: Float32Array): number {
  let [error, size] = [0, 0]
  for (let i = 0; i < a.length; i++) {
    error += (a[i] - b[i]) ** 2
    size += b[i] ** 2
  }
  return Math.sqrt(error / size)
}
