// Speed of the quantised layers against float32 on this processor, one thread, best of some runs, as Markdown tables:
//   npx tsx scripts/bench-kernels.ts [linear] [conv] [norm] [pack]
// Sizes are those of the UNet of SD 1.5 at 512 x 512. Compare within one row only: other work on the machine shows.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { toColumns } from '../kernels/columns.ts'
import { convolve, stripsFor } from '../kernels/im2col.ts'
import type { Bits } from '../kernels/int4.ts'
import { dequantizeGroups, groupCount, groupOf, packCodes, quantizeGroups, unpackCodes } from '../kernels/int4.ts'
import { convInt8, linearInt8 } from '../kernels/linear-int8.ts'
import { linearNBits } from '../kernels/linear-nbits.ts'
import { lowRank } from '../kernels/low-rank.ts'
import { normalNoise } from '../main/pipeline/rng.ts'
import type { Value } from '../models/graph/graph.ts'
import { Graph } from '../models/graph/graph.ts'
import { toOnnx } from '../models/graph/onnx.ts'
import { cast, conv, gemm, matMulNBits } from '../models/graph/ops.ts'
import type { Dtype, StoredTensor } from '../models/graph/weights.ts'
import { Weights } from '../models/graph/weights.ts'
import { groupNorm, silu } from '../models/layers.ts'

const folder = mkdtempSync(join(tmpdir(), 'vignette-bench-kernels-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const noise = normalNoise(7)(1 << 20)
/** `size` normal numbers of spread 1, repeating after a million. */
const numbers = (size: number) => Float32Array.from({ length: size }, (_, i) => noise[i & (noise.length - 1)])

type Arrays = Record<string, { data: Float32Array | Int8Array | Uint8Array | Uint16Array; shape: number[] }>
const dtypes: Record<string, Dtype> = { Float32Array: 'F32', Int8Array: 'I8', Uint8Array: 'U8', Uint16Array: 'F16' }

/** The arrays as weights in files of their own, so that graphs stay small and ONNX Runtime maps them. */
function weightsOf(arrays: Arrays): Weights {
  const table = Object.entries(arrays).map(([name, { data, shape }]): [string, StoredTensor] => {
    writeFileSync(join(folder, name), new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    return [name, { file: name, offset: 0, length: data.byteLength, dtype: dtypes[data.constructor.name], shape }]
  })
  return new Weights(new Map(table))
}

/** Milliseconds of processor time of one run of what `build` makes of x: the best of five, after one to warm up. */
async function milliseconds(dims: number[], build: (x: Value) => Value, channelsLast = false): Promise<number> {
  const graph = new Graph('bench', { dialect: 'cpu', channelsLast })
  const picture = channelsLast ? [1, 'h', 'w', dims[3]] : [1, dims[1], 'h', 'w']
  const shape = dims.length === 2 ? [null, dims[1]] : picture
  graph.output('y', build(graph.input('x', 'f32', shape)))
  const path = join(folder, 'bench.onnx')
  writeFileSync(path, toOnnx(graph))
  const session = await InferenceSession.create(path, {
    intraOpNumThreads: 1,
    enableMemPattern: false,
    logSeverityLevel: 3,
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  })
  const feeds = { x: new Tensor('float32', numbers(dims.reduce((a, b) => a * b)), dims) }
  let best = Infinity
  for (let i = 0; i < 6; i++) {
    const start = process.cpuUsage()
    await session.run(feeds)
    const { user, system } = process.cpuUsage(start)
    if (i > 0) best = Math.min(best, (user + system) / 1000)
  }
  await session.release()
  return best
}

/** A row of a table: milliseconds of the first, then of the others with how many times as fast they are. */
function row(title: string, [first, ...others]: number[]): void {
  console.log(
    `| ${[title, first.toFixed(2), ...others.map((ms) => `${ms.toFixed(2)} (${(first / ms).toFixed(2)})`)].join(' | ')} |`,
  )
}

function header(...columns: string[]): void {
  console.log(`\n| ${columns.join(' | ')} |\n|${columns.map(() => '---').join('|')}|`)
}

/** Random weights [n, k] in each stored form. */
function forms(n: number, k: number) {
  const floats = numbers(n * k).map((value) => value * 0.02)
  const group = groupOf(k)
  const count = groupCount(k, group)
  const byBits = ([4, 8] as const).map((bits) => quantizeGroups(floats, { n, k, bits, group }))
  const { columns, scales } = toColumns(floats, { n, k })
  const rank = 32
  const w = weightsOf({
    floats: { data: floats, shape: [n, k] },
    bias: { data: numbers(n), shape: [n] },
    q4: { data: byBits[0].codes, shape: [n, count, group / 2] },
    q8: { data: byBits[1].codes, shape: [n, count, group] },
    scales4: { data: byBits[0].scales, shape: [n, count] },
    scales8: { data: byBits[1].scales, shape: [n, count] },
    columns: { data: columns, shape: [k, n] },
    column_scales: { data: scales, shape: [n] },
    down: { data: numbers(rank * k), shape: [rank, k] },
    up: { data: numbers(n * rank), shape: [n, rank] },
  })
  const bias = (graph: Graph) => graph.weight(w, 'bias', [n])
  const nbits = (graph: Graph, bits: Bits) => ({
    codes: graph.weight(w, `q${bits}`, [n, count, (group * bits) / 8]),
    scales: graph.weight(w, `scales${bits}`, [n, count]),
    ...{ bits, group, k, n },
  })
  const bytes = (graph: Graph) => ({
    columns: graph.weight(w, 'columns', [k, n]),
    scales: graph.weight(w, 'column_scales', [n]),
  })
  const branch = (graph: Graph) => [graph.weight(w, 'down', [rank, k]), graph.weight(w, 'up', [n, rank])] as const
  return { w, bias, nbits, bytes, branch }
}

async function benchLinear(): Promise<void> {
  header(
    'rows x K -> N',
    'float32 ms',
    'bytes, per tensor',
    'bytes, per token',
    '4 bits',
    '4 bits + rank 32',
    '4 bits, accuracy_level 4',
    '8 bits',
    '8 bits, MatMulNBits level 4',
  )
  const sizes = [
    [4096, 320, 320],
    [4096, 320, 1280],
    [4096, 1280, 320],
    [1024, 640, 640],
    [1024, 2560, 640],
    [256, 1280, 1280],
    [64, 1280, 1280],
    [77, 768, 640],
    [1, 1280, 1280],
  ]
  for (const [m, k, n] of sizes) {
    const { w, bias, nbits, bytes, branch } = forms(n, k)
    const packed = (x: Value, bits: Bits) => linearNBits(x, nbits(x.graph, bits), bias(x.graph), 'layer')
    const level4 = (x: Value, bits: Bits) => {
      const { codes, scales, ...rest } = nbits(x.graph, bits)
      return matMulNBits(x, codes, cast(scales, 'f32'), bias(x.graph), { ...rest, accuracy: 4 })
    }
    const ways: ((x: Value) => Value)[] = [
      (x) => gemm(x, x.graph.weight(w, 'floats', [n, k]), bias(x.graph), { transB: true }),
      (x) => linearInt8(x, bytes(x.graph), bias(x.graph), { per: 'tensor', name: 'layer' }),
      (x) => linearInt8(x, bytes(x.graph), bias(x.graph), { per: 'token', name: 'layer' }),
      (x) => packed(x, 4),
      (x) => lowRank(x, ...branch(x.graph), packed(x, 4)),
      (x) => level4(x, 4),
      (x) => packed(x, 8),
      (x) => level4(x, 8),
    ]
    const times: number[] = []
    for (const way of ways) times.push(await milliseconds([m, k], way))
    row(`${m} x ${k} -> ${n}`, times)
  }
}

async function benchConv(): Promise<void> {
  header('channels @ side -> out', 'float32 Conv ms', 'bytes', '4 bits', '4 bits + rank 32')
  const sizes: [number, number, number, 1 | 2][] = [
    [320, 64, 320, 1],
    [960, 64, 320, 1],
    [640, 32, 640, 1],
    [1920, 32, 640, 1],
    [1280, 16, 1280, 1],
    [1280, 8, 1280, 1],
    [320, 64, 320, 2],
  ]
  for (const [c, side, out, stride] of sizes) {
    const { w, bias, nbits, bytes, branch } = forms(out, 9 * c)
    const shape = { stride, pads: [1, 1, 1, 1] as const }
    const [first, last] = [
      [1, c, side, side],
      [1, side, side, c],
    ]
    const strips = stripsFor(c, out)
    const rows = (x: Value, withBranch: boolean) => {
      const { graph } = x
      const [weights, shift, [down, up]] = [nbits(graph, 4), bias(graph), branch(graph)]
      return convolve(x, { ...shape, strips }, (part) => {
        const base = linearNBits(part, weights, shift, 'layer')
        return withBranch ? lowRank(part, down, up, base) : base
      })
    }
    row(`${c} @ ${side} -> ${out}${stride === 2 ? ', stride 2' : ''}`, [
      await milliseconds(first, (x) =>
        conv(x, x.graph.weight(w, 'floats', [out, 9 * c], [out, c, 3, 3]), bias(x.graph), { kernel: 3, ...shape }),
      ),
      await milliseconds(last, (x) => convInt8(x, bytes(x.graph), bias(x.graph), { ...shape, name: 'layer' }), true),
      await milliseconds(last, (x) => rows(x, false), true),
      await milliseconds(last, (x) => rows(x, true), true),
    ])
  }
}

async function benchNorm(): Promise<void> {
  header('channels @ side, GroupNorm and SiLU', '[n, c, h, w] ms', '[n, h, w, c]')
  for (const [c, side] of [
    [320, 64],
    [960, 64],
    [640, 32],
    [1280, 16],
  ]) {
    const vector = { data: numbers(c), shape: [c] }
    const w = weightsOf({ weight: vector, bias: vector })
    const norm = (x: Value) => silu(groupNorm(w, x, 32, 1e-5))
    row(`${c} @ ${side}`, [
      await milliseconds([1, c, side, side], norm),
      await milliseconds([1, side, side, c], norm, true),
    ])
  }
}

/** Nanoseconds for each weight of the plain JavaScript that reads and writes the formats, 1280 x 11520. */
function benchPack(): void {
  const [n, k] = [1280, 11520]
  const values = numbers(n * k)
  const each = (work: () => unknown) => {
    let best = Infinity
    for (let i = 0; i < 4; i++) {
      const start = process.cpuUsage()
      work()
      const { user, system } = process.cpuUsage(start)
      best = Math.min(best, user + system)
    }
    return `${((best * 1000) / (n * k)).toFixed(2)} ns`
  }
  header('', '4 bits', '8 bits')
  const shape = (bits: Bits) => ({ n, k, bits, group: 64 })
  const packed = ([4, 8] as const).map((bits) => quantizeGroups(values, shape(bits)))
  const plain = unpackCodes(packed[0].codes)
  console.log(
    `| quantizeGroups | ${each(() => quantizeGroups(values, shape(4)))} | ${each(() => quantizeGroups(values, shape(8)))} |`,
  )
  console.log(
    `| quantizeGroups, scale searched | ${each(() => quantizeGroups(values, { ...shape(4), search: true }))} | |`,
  )
  console.log(
    `| dequantizeGroups | ${each(() => dequantizeGroups(packed[0], shape(4)))} | ${each(() => dequantizeGroups(packed[1], shape(8)))} |`,
  )
  console.log(
    `| packCodes, unpackCodes | ${each(() => packCodes(plain))}, ${each(() => unpackCodes(packed[0].codes))} | |`,
  )
  console.log(`| toColumns | | ${each(() => toColumns(values, { n, k }))} |`)
}

const sections: Record<string, () => Promise<void> | void> = {
  linear: benchLinear,
  conv: benchConv,
  norm: benchNorm,
  pack: benchPack,
}
const wanted = process.argv.slice(2)
if (wanted.some((name) => !(name in sections))) {
  console.error(`Sections: ${Object.keys(sections).join(', ')}`)
  process.exit(1)
}
console.log(
  `${cpus()[0].model}, one thread. Milliseconds of processor time, times as fast as the first column in brackets.`,
)
for (const name of wanted.length > 0 ? wanted : Object.keys(sections)) await sections[name]()
