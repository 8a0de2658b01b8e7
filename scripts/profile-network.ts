// Where the time of one network goes, over random weights of full size:
//   npx tsx scripts/profile-network.ts sd15-unet [--storage fp16|int4|int8] [--height 64] [--batch 1] [--profile]
// int4 is a quantised UNet as its file lies (the low-memory mode), int8 the fast file made of it. Prints time to load, memory and CPU seconds per evaluation; with --profile also the time by operator. Sizes are those
// of the latents. The weights (3.4 GB for sd15-unet) stay in --folder for the next time.
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import type { Part } from '../models/build.ts'
import { buildNetworks, requiredTensors } from '../models/build.ts'
import { floatToHalf } from '../models/graph/half.ts'
import { clipL, openClipBigG, openClipH } from '../models/clip.ts'
import { readSafetensors } from '../models/checkpoint/safetensors.ts'
import { Graph } from '../models/graph/graph.ts'
import { toOnnx } from '../models/graph/onnx.ts'
import { matMul as product } from '../models/graph/ops.ts'
import type { StoredTensor } from '../models/graph/weights.ts'
import type { MatMul } from '../models/quantize/algebra.ts'
import { expandWeights, isExpandedFrom } from '../models/quantize/expand.ts'
import { taesd } from '../models/tiny-vae.ts'
import { sd15Unet, sd2Unet, sdxlUnet } from '../models/unet.ts'
import { sdVae } from '../models/vae.ts'
import { writeRandomQuantized } from './random-quantized.ts'

type Bare = Part extends infer P ? (P extends { tensors: unknown } ? Omit<P, 'tensors'> : never) : never

/** What can be profiled: a part, and which of its networks. */
const networks: Record<string, { part: Bare; network: string }> = {
  'sd15-unet': { part: { part: 'unet', config: sd15Unet }, network: 'unet' },
  'sd2-unet': { part: { part: 'unet', config: sd2Unet }, network: 'unet' },
  'sdxl-unet': { part: { part: 'unet', config: sdxlUnet }, network: 'unet' },
  'vae-decoder': { part: { part: 'vae', config: sdVae }, network: 'vae_decoder' },
  'vae-encoder': { part: { part: 'vae', config: sdVae }, network: 'vae_encoder' },
  'taesd-decoder': { part: { part: 'tiny_vae', config: taesd }, network: 'tiny_vae_decoder' },
  'clip-l': { part: { part: 'text_encoder', config: clipL }, network: 'text_encoder' },
  'openclip-h': { part: { part: 'text_encoder', config: openClipH }, network: 'text_encoder' },
  'openclip-bigg': { part: { part: 'text_encoder', config: openClipBigG }, network: 'text_encoder' },
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    folder: { type: 'string', default: join(tmpdir(), 'vignette-profile') },
    storage: { type: 'string', default: 'fp32' },
    height: { type: 'string', default: '64' },
    width: { type: 'string', default: '64' },
    batch: { type: 'string', default: '1' },
    threads: { type: 'string', default: '1' },
    runs: { type: 'string', default: '2' },
    arena: { type: 'string', default: 'on' },
    profile: { type: 'boolean', default: false },
  },
})
const chosen = networks[positionals[0]]
if (!chosen) {
  console.error(`Name a network: ${Object.keys(networks).join(', ')}`)
  process.exit(1)
}

/** Random weights that keep activations near unit size, written once per part and storage. */
function writeWeights(part: Bare, folder: string, storage: string): Map<string, StoredTensor> {
  const half = storage === 'fp16'
  const file = `${part.part}-${positionals[0].split('-')[0]}.${storage}.bin`
  const table = new Map<string, StoredTensor>()
  let offset = 0
  for (const [name, shape] of requiredTensors(part.part, part.config)) {
    const length = shape.reduce((product, size) => product * size, half ? 2 : 4)
    table.set(name, { file, offset, length, dtype: half ? 'F16' : 'F32', shape })
    offset = Math.ceil((offset + length) / 4096) * 4096
  }
  const path = join(folder, file)
  if (existsSync(path) && statSync(path).size >= offset - 4096) return table

  const size = 1 << 20
  const normals = Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  )
  const handle = openSync(path, 'w')
  for (const [name, tensor] of table) {
    const fan = tensor.shape.slice(1).reduce((product, n) => product * n, 1)
    const isNorm = tensor.shape.length === 1 && name.endsWith('weight')
    const scale = tensor.shape.length === 1 ? 0.02 : name.includes('embedding') ? 0.02 : 1 / Math.sqrt(fan)
    const floats = normals.subarray(0, tensor.length / (half ? 2 : 4)).map((value) => (isNorm ? 1 : 0) + value * scale)
    const bytes = new Uint8Array(half ? Uint16Array.from(floats, floatToHalf).buffer : floats.buffer)
    for (let at = 0; at < tensor.length; at += bytes.length) {
      writeSync(handle, bytes, 0, Math.min(bytes.length, tensor.length - at), tensor.offset + at)
    }
  }
  closeSync(handle)
  return table
}

function random(shape: number[]): Tensor {
  const size = shape.reduce((product, dim) => product * dim, 1)
  return new Tensor(
    'float32',
    Float32Array.from({ length: size }, () => 2 * Math.random() - 1),
    shape,
  )
}

function feedsOf(part: Bare, network: string): Record<string, Tensor> {
  const [n, h, w] = [options.batch, options.height, options.width].map(Number)
  if (part.part === 'unet') {
    const feeds: Record<string, Tensor> = {
      sample: random([n, part.config.inChannels, h, w]),
      timestep: new Tensor('float32', new Float32Array(n).fill(500), [n]),
      encoder_hidden_states: random([n, 77, part.config.crossAttentionDim]),
    }
    if (part.config.addition) Object.assign(feeds, { text_embeds: random([n, 1280]), time_ids: random([n, 6]) })
    return feeds
  }
  if (part.part === 'vae' || part.part === 'tiny_vae') {
    return network.endsWith('encoder')
      ? { sample: random([n, 3, 8 * h, 8 * w]) }
      : { latent_sample: random([n, 4, h, w]) }
  }
  return {
    input_ids: new Tensor(
      'int64',
      BigInt64Array.from({ length: n * 77 }, (_, i) => BigInt(i * 7)),
      [n, 77],
    ),
    eos_index: new Tensor('int64', new BigInt64Array(n).fill(10n), [n]),
  }
}

const cpuSeconds = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}
/** Resident and peak memory of this process in MB, from Linux's own books. */
function memory(): string {
  const status = readFileSync('/proc/self/status', 'utf8')
  const read = (field: string) => Math.round(Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024)
  return `resident ${read('VmRSS')} MB (anonymous ${read('RssAnon')}, mapped ${read('RssFile')}), peak ${read('VmHWM')} MB`
}

type KernelEvent = { cat: string; name: string; dur: number; args?: { op_name?: string; output_size?: string } }

/** Time by operator: of every node the least of all runs, which other programs on the machine disturb least. */
function printProfile(path: string): void {
  const events = JSON.parse(readFileSync(path, 'utf8')) as KernelEvent[]
  const nodes = new Map<string, KernelEvent>()
  for (const event of events) {
    if (event.cat !== 'Node' || !event.name.endsWith('_kernel_time')) continue
    const known = nodes.get(event.name)
    if (!known || event.dur < known.dur) nodes.set(event.name, event)
  }
  const total = [...nodes.values()].reduce((sum, event) => sum + event.dur, 0)
  const byOp = new Map<string, { us: number; count: number }>()
  for (const event of nodes.values()) {
    const entry = byOp.get(event.args?.op_name ?? '?') ?? { us: 0, count: 0 }
    byOp.set(event.args?.op_name ?? '?', { us: entry.us + event.dur, count: entry.count + 1 })
  }
  console.log(`${(total / 1e3).toFixed(0)} ms in ${nodes.size} nodes`)
  for (const [op, { us, count }] of [...byOp].sort((a, b) => b[1].us - a[1].us).slice(0, 20)) {
    console.log(
      `${op.padEnd(28)} ${(us / 1e3).toFixed(0).padStart(8)} ms  ${((100 * us) / total).toFixed(1).padStart(5)} %  ${count} nodes`,
    )
  }
  for (const event of [...nodes.values()].sort((a, b) => b.dur - a.dur).slice(0, 24)) {
    console.log(`  ${(event.dur / 1e3).toFixed(1).padStart(6)} ms  ${event.name.replace('_kernel_time', '')}`)
  }
}

/** A UNet in the 4-bit format, or the fast file made of it, written once. */
async function writeQuantized(part: Bare, folder: string, storage: string): Promise<Map<string, StoredTensor>> {
  if (part.part !== 'unet') throw new Error('only UNets are quantised')
  const { config } = part
  const source = `${positionals[0]}.int4.safetensors`
  if (!existsSync(join(folder, source))) await writeRandomQuantized(join(folder, source), config)
  const file = storage === 'int4' ? source : `${positionals[0]}.int8.safetensors`
  if (storage === 'int8' && !(await isExpandedFrom(join(folder, file), join(folder, source)))) {
    const before = [performance.now(), cpuSeconds()]
    await expandWeights(join(folder, source), join(folder, file), { config, matMul })
    const [seconds, cpu] = [(performance.now() - before[0]) / 1e3, cpuSeconds() - before[1]]
    console.log(`fast file: ${seconds.toFixed(1)} s, ${cpu.toFixed(1)} CPU-s; ${memory()}`)
  }
  const { tensors } = await readSafetensors(join(folder, file))
  return new Map([...tensors].map(([name, tensor]) => [name, { ...tensor, file }]))
}

/** Products of the runtime; a session takes about a millisecond to make. */
const matMul: MatMul = async (a, [m, k], b, [, n]) => {
  const graph = new Graph('product', { dialect: 'cpu' })
  graph.output('y', product(graph.input('a', 'f32', [m, k]), graph.input('b', 'f32', [k, n])))
  const session = await InferenceSession.create(toOnnx(graph), { intraOpNumThreads: 1 })
  const { y } = await session.run({ a: new Tensor('float32', a, [m, k]), b: new Tensor('float32', b, [k, n]) })
  await session.release()
  return y.data as Float32Array
}

mkdirSync(options.folder, { recursive: true })
const tensors = options.storage.startsWith('int')
  ? await writeQuantized(chosen.part, options.folder, options.storage)
  : writeWeights(chosen.part, options.folder, options.storage)
const built = buildNetworks([{ ...chosen.part, tensors } as Part], { dialect: 'cpu' }).find(
  ({ name }) => name === chosen.network,
)!
const graphPath = join(options.folder, `${positionals[0]}.${options.storage}.onnx`)
writeFileSync(graphPath, built.onnx)

const before = [performance.now(), cpuSeconds()]
const session = await InferenceSession.create(graphPath, {
  graphOptimizationLevel: 'all',
  intraOpNumThreads: Number(options.threads),
  interOpNumThreads: 1,
  enableCpuMemArena: options.arena === 'on',
  enableMemPattern: options.arena === 'on',
  enableProfiling: options.profile,
  profileFilePrefix: join(options.folder, 'profile'),
  extra: { session: { intra_op: { allow_spinning: '0' } } },
} as InferenceSession.SessionOptions)
console.log(
  `load: ${((performance.now() - before[0]) / 1e3).toFixed(1)} s, ${(cpuSeconds() - before[1]).toFixed(1)} CPU-s; ${memory()}`,
)

for (let run = 0; run < Number(options.runs); run++) {
  const start = [performance.now(), cpuSeconds()]
  const outputs = await session.run(feedsOf(chosen.part, chosen.network))
  const finite = Object.values(outputs).every((tensor) => (tensor.data as Float32Array).every(Number.isFinite))
  console.log(
    `run ${run}: ${((performance.now() - start[0]) / 1e3).toFixed(2)} s, ${(cpuSeconds() - start[1]).toFixed(2)} CPU-s; ${memory()}${finite ? '' : '; NOT FINITE'}`,
  )
}
if (options.profile) {
  session.endProfiling()
  const files = readdirSync(options.folder).filter((file) => file.startsWith('profile'))
  printProfile(join(options.folder, files.sort().at(-1)!))
  for (const file of files) rmSync(join(options.folder, file))
}
