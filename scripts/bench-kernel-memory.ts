// Memory that weights take once they are loaded, in bits for each weight, as a Markdown table:
//   npx tsx scripts/bench-kernel-memory.ts
// A chain of layers of 4096 x 4096 goes into a file; a fresh process opens it as each way says, runs it over 64 rows and
// reads /proc/self/status (Linux only). What 24 layers take more than 12 is put down to the 201 million weights between.
// Pages of mapped files count once they have been read; the system may drop them, pages of the process's own it may not.
import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import type { Bits } from '../kernels/int4.ts'
import { groupCount } from '../kernels/int4.ts'
import { linearNBits } from '../kernels/linear-nbits.ts'
import type { Value } from '../models/graph/graph.ts'
import { Graph } from '../models/graph/graph.ts'
import { floatToHalf } from '../models/graph/half.ts'
import { toOnnx } from '../models/graph/onnx.ts'
import { cast, matMulNBits } from '../models/graph/ops.ts'
import type { StoredTensor } from '../models/graph/weights.ts'
import { Weights } from '../models/graph/weights.ts'

type Form = { bits: Bits; group: number; scales: 'F16' | 'F32'; kernel: 'ours' | 1 | 4 }
type Opening = {
  /** Graph optimisations of ONNX Runtime: `all` folds the casts of constant halves to floats, `disabled` leaves them. */
  level: 'all' | 'disabled'
  /** Open it once to write the form that the kernels want, and measure how that form is opened. */
  prepared: boolean
}

const [side, rows] = [4096, 64]
const [few, many] = [12, 24]
const weights = (many - few) * side * side

function graphOf({ bits, group, scales, kernel }: Form, table: Map<string, StoredTensor>, layers: number): Graph {
  const graph = new Graph('memory', { dialect: 'cpu' })
  const count = groupCount(side, group)
  let x: Value = graph.input('x', 'f32', [null, side])
  for (let layer = 0; layer < layers; layer++) {
    const w = new Weights(table, String(layer))
    const codes = graph.weight(w, 'codes', [side, count, (group * bits) / 8])
    const stored = graph.weight(w, `scales${scales}`, [side, count])
    const shape = { bits, group, k: side, n: side }
    x =
      kernel === 'ours'
        ? linearNBits(x, { codes, scales: stored, ...shape }, undefined, 'layer')
        : matMulNBits(x, codes, cast(stored, 'f32'), undefined, { ...shape, accuracy: kernel })
  }
  graph.output('y', x)
  return graph
}

/** Writes one layer's worth of codes and scales, which all layers find at places of their own. */
function writeWeights(path: string, { bits, group, scales }: Form): Map<string, StoredTensor> {
  const table = new Map<string, StoredTensor>()
  const count = side * groupCount(side, group)
  const scale = (bits === 4 ? 0.22 : 0.0135) / Math.sqrt(side) // keeps activations near unit size
  const codes = new Uint8Array((side * side * bits) / 8)
  const half = scales === 'F16' ? new Uint16Array(count).fill(floatToHalf(scale)) : new Float32Array(count).fill(scale)
  const scaleBytes = new Uint8Array(half.buffer)
  const file = openSync(path, 'w')
  let offset = 0
  for (let layer = 0; layer < many; layer++) {
    for (let i = 0; i < codes.length; i++) codes[i] = Math.imul(i + layer, 2654435761) >>> 24
    const dims = [side, groupCount(side, group)]
    const place = (name: string, dtype: StoredTensor['dtype'], shape: number[], bytes: Uint8Array) => {
      table.set(`${layer}.${name}`, { file: 'weights.bin', offset, length: bytes.length, dtype, shape })
      writeSync(file, bytes)
      offset += bytes.length
    }
    place('codes', 'U8', [...dims, (group * bits) / 8], codes)
    place(`scales${scales}`, scales, dims, scaleBytes)
  }
  closeSync(file)
  return table
}

const preparedGraph = 'prepared.onnx'

async function openGraph(path: string, level: Opening['level'], save: boolean): Promise<InferenceSession> {
  return InferenceSession.create(path, {
    graphOptimizationLevel: level,
    intraOpNumThreads: 1,
    enableMemPattern: false,
    logSeverityLevel: 3,
    ...(save ? { optimizedModelFilePath: join(dirname(path), preparedGraph) } : {}),
    extra: {
      session: {
        intra_op: { allow_spinning: '0' },
        ...(save
          ? {
              save_external_prepacked_constant_initializers: '1',
              optimized_model_external_initializers_file_name: 'prepared.bin',
            }
          : {}),
      },
    },
  })
}

/** Bytes of physical memory: of the process's own, and of files that it has mapped. */
function resident(): { own: number; mapped: number } {
  globalThis.gc?.() // what JavaScript has dropped is nobody's memory
  const status = readFileSync('/proc/self/status', 'utf8')
  const of = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024
  return { own: of('RssAnon'), mapped: of('RssFile') }
}

type Measured = { own: number; mapped: number; milliseconds: number; y: number }

/** In the fresh process: opens, runs twice, and tells what it took. */
async function measure(path: string, level: Opening['level']): Promise<Measured> {
  const x = Float32Array.from({ length: rows * side }, (_, i) => Math.sin(i))
  const feeds = { x: new Tensor('float32', x, [rows, side]) }
  const session = await openGraph(path, level, false)
  await session.run(feeds)
  const after = resident()
  const start = process.cpuUsage()
  const { y } = await session.run(feeds)
  const { user, system } = process.cpuUsage(start)
  return {
    ...after,
    milliseconds: (user + system) / 1000,
    y: (y.data as Float32Array)[0],
  }
}

function inFreshProcess(task: string, path: string, level: string): string {
  const loader = join(dirname(fileURLToPath(import.meta.url)), '../node_modules/tsx/dist/loader.mjs')
  const script = fileURLToPath(import.meta.url)
  return execFileSync(process.execPath, ['--expose-gc', '--import', `file://${loader}`, script, task, path, level], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
}

const opened: [string, Opening][] = [
  ['all', { level: 'all', prepared: false }],
  ['none', { level: 'disabled', prepared: false }],
  ['all, prepared', { level: 'all', prepared: true }],
]
const forms: Form[] = [
  { bits: 4, group: 64, scales: 'F32', kernel: 1 },
  { bits: 4, group: 64, scales: 'F32', kernel: 4 },
  { bits: 4, group: 64, scales: 'F16', kernel: 1 },
  { bits: 4, group: 64, scales: 'F16', kernel: 4 },
  { bits: 4, group: 64, scales: 'F16', kernel: 'ours' },
  { bits: 4, group: 128, scales: 'F16', kernel: 'ours' },
  { bits: 8, group: 64, scales: 'F16', kernel: 1 },
  { bits: 8, group: 64, scales: 'F16', kernel: 4 },
  { bits: 8, group: 64, scales: 'F16', kernel: 'ours' },
]

/** Opens and runs the graph in fresh processes. */
function measured(folder: string, graph: Graph, { level, prepared }: Opening): Measured {
  const path = join(folder, 'graph.onnx')
  writeFileSync(path, toOnnx(graph))
  if (!prepared) return JSON.parse(inFreshProcess('measure', path, level)) as Measured
  for (const old of [preparedGraph, 'prepared.bin']) rmSync(join(folder, old), { force: true })
  inFreshProcess('prepare', path, level)
  return JSON.parse(inFreshProcess('measure', join(folder, preparedGraph), 'disabled')) as Measured
}

function main(): void {
  const folder = mkdtempSync(join(tmpdir(), 'vignette-bench-memory-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  console.log(`${cpus()[0].model}, one thread, ${weights / 1e6} million weights, ${rows} rows.\n`)
  const columns = ['bits', 'group', 'scales', 'kernel', 'optimisations', 'own', 'mapped', 'both', 'ms', 'right']
  console.log(`| ${columns.join(' | ')} |\n|${columns.map(() => '---').join('|')}|`)
  for (const form of forms) {
    const table = writeWeights(join(folder, 'weights.bin'), form)
    let truth: number | undefined // of the first opening: where all is constant each kernel is right (engine tests)
    for (const [title, opening] of opened) {
      const [less, more] = [few, many].map((layers) => measured(folder, graphOf(form, table, layers), opening))
      truth ??= more.y
      const bits = ([less.own, less.mapped] as const).map(
        (bytes, i) => (([more.own, more.mapped][i] - bytes) * 8) / weights,
      )
      const kernel = form.kernel === 'ours' ? 'linearNBits' : `MatMulNBits level ${form.kernel}`
      const right = Math.abs(more.y / truth - 1) < 0.05 ? 'yes' : 'NO'
      const cells = [
        form.bits,
        form.group,
        form.scales,
        kernel,
        title,
        ...[...bits, bits[0] + bits[1]].map((b) => b.toFixed(2)),
      ]
      console.log(`| ${[...cells, (more.milliseconds - less.milliseconds).toFixed(0), right].join(' | ')} |`)
    }
  }
}

const [task, path, level] = process.argv.slice(2) as [string?, string?, Opening['level']?]
if (task === 'prepare') await (await openGraph(path!, level!, true)).release()
else if (task === 'measure') console.log(JSON.stringify(await measure(path!, level!)))
else main()
