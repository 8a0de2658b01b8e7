import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import type { BuildOptions, Part, PartConfigs, PartName } from '../../models/build.ts'
import { buildNetworks, requiredTensors } from '../../models/build.ts'
import { floatToHalf } from '../../models/graph/half.ts'
import { clipConfigFrom } from '../../models/clip.ts'
import type { ConfigJson } from '../../models/config-json.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import type { NetworkName } from '../../models/manifest.ts'
import { tinyVaeConfigFrom } from '../../models/tiny-vae.ts'
import { unetConfigFrom } from '../../models/unet.ts'
import { vaeConfigFrom } from '../../models/vae.ts'

// The tiny networks of networks.py: their weights made again from the same hash, and their outputs by diffusers.

type Packed = { shape: number[]; f32: string }
export type Run = {
  network: NetworkName
  /** Hashed inputs: hash · scale + shift. */
  inputs: Record<string, { shape: number[]; scale: number; shift: number }>
  ids?: number[][]
  eosIndex?: number[]
  outputs: Record<string, Packed>
}
export type Case = { name: string; part: PartName; config: ConfigJson; tensors: [string, number[]][]; runs: Run[] }

export function readCases(): Case[] {
  const packed = readFileSync(new URL('networks.json.gz', import.meta.url))
  return JSON.parse(gunzipSync(packed).toString()) as Case[]
}

/** Numbers in −1…1, as `hashed` of networks.py: FNV-1a of the name, then MurmurHash3's finaliser over a counter. */
export function hashed(name: string, count: number): Float64Array {
  let seed = 0x811c9dc5
  for (const byte of new TextEncoder().encode(name)) seed = Math.imul(seed ^ byte, 0x01000193)
  return Float64Array.from({ length: count }, (_, i) => {
    let x = (seed + Math.imul(i, 0x9e3779b9)) | 0
    x ^= x >>> 16
    x = Math.imul(x, 0x85ebca6b)
    x ^= x >>> 13
    x = Math.imul(x, 0xc2b2ae35)
    x ^= x >>> 16
    return (x >>> 0) / 2147483648 - 1
  })
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, dim) => product * dim, 1)

/** The case made last: its tests follow each other. */
let made: { item: Case; weights: Map<string, Float32Array> } | undefined

/** The weights of a case by their names. */
export function weightsOf(item: Case): Map<string, Float32Array> {
  if (made?.item !== item) {
    const required = requiredTensors(item.part, configOf(item))
    made = { item, weights: new Map([...required].map(([name, shape]) => [name, weightOf(name, shape)])) }
  }
  return made.weights
}

/** As `weight_of` of networks.py. */
export function weightOf(name: string, shape: readonly number[]): Float32Array {
  const u = hashed(name, sizeOf(shape))
  if (shape.length === 1)
    return Float32Array.from(u, (value) => (name.endsWith('weight') ? 1 + 0.3 * value : 0.2 * value))
  if (name.includes('embeddings.')) return Float32Array.from(u)
  const scale = Math.sqrt(3 / sizeOf(shape.slice(1)))
  return Float32Array.from(u, (value) => value * scale)
}

/** The case's config.json through the reader that the importer uses. */
export function configOf({ part, config }: Case): PartConfigs[PartName] {
  switch (part) {
    case 'text_encoder':
    case 'text_encoder_2':
      return clipConfigFrom(config)
    case 'unet':
      return unetConfigFrom(config)
    case 'vae':
      return vaeConfigFrom(config)
    case 'tiny_vae':
      return tinyVaeConfigFrom(config)
  }
}

/** Writes the weights of a case into `folder` and tells where they lie, relative to it. */
export function storeWeights(folder: string, item: Case, storage: 'fp32' | 'fp16'): Map<string, StoredTensor> {
  const config = configOf(item)
  const tensors = new Map<string, StoredTensor>()
  const weights = weightsOf(item)
  const pieces: Uint8Array[] = []
  let offset = 0
  for (const [name, shape] of requiredTensors(item.part, config)) {
    const floats = weights.get(name)!
    const piece = new Uint8Array(storage === 'fp16' ? Uint16Array.from(floats, floatToHalf).buffer : floats.buffer)
    const dtype = storage === 'fp16' ? 'F16' : 'F32'
    tensors.set(name, { file: 'weights.bin', offset, length: piece.length, dtype, shape })
    const padded = new Uint8Array(Math.ceil(piece.length / 64) * 64)
    padded.set(piece)
    pieces.push(padded)
    offset += padded.length
  }
  writeFileSync(join(folder, 'weights.bin'), Buffer.concat(pieces))
  return tensors
}

/** Writes weights and graphs of a case into `folder`; gives the path of each graph. */
export function writeModel(
  folder: string,
  item: Case,
  storage: 'fp32' | 'fp16',
  options: BuildOptions,
): Map<NetworkName, string> {
  const tensors = storeWeights(folder, item, storage)
  const built = buildNetworks([{ part: item.part, config: configOf(item), tensors } as Part], options)
  return new Map(
    built.map(({ name, onnx }) => {
      const path = join(folder, `${name}.onnx`)
      writeFileSync(path, onnx)
      return [name, path] as const
    }),
  )
}

export function feedsOf(run: Run): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {}
  for (const [name, { shape, scale, shift }] of Object.entries(run.inputs)) {
    const values = Float32Array.from(hashed(name, sizeOf(shape)), (value) => value * scale + shift)
    feeds[name] = new Tensor('float32', values, shape)
  }
  if (run.ids && run.eosIndex) {
    const ids = BigInt64Array.from(run.ids.flat(), BigInt)
    feeds.input_ids = new Tensor('int64', ids, [run.ids.length, run.ids[0].length])
    feeds.eos_index = new Tensor('int64', BigInt64Array.from(run.eosIndex, BigInt), [run.eosIndex.length])
  }
  return feeds
}

export function expectedOf(packed: Packed): Float32Array {
  return new Float32Array(new Uint8Array(Buffer.from(packed.f32, 'base64')).buffer)
}

/** Root mean square: the size of an output that a tolerance is relative to. */
export function scaleOf(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length)
}

export type Difference = { output: string; shape: readonly number[]; expectedShape: number[]; relative: number }

/**
 * The runs to make of a network. The outer layers of a UNet have no reference of their own: given `deep` of a run of the
 * whole network, they must give what that gives.
 */
export function runsOf(item: Case, network: NetworkName): Run[] {
  return item.runs.filter((run) => run.network === (network === 'unet_shallow' ? 'unet' : network))
}

/**
 * Runs one case and gives, per output, the largest difference in units of the output's size (NaN never is the smaller).
 * `deep` carries that output of a UNet from its run to that of its outer layers.
 */
export async function differences(
  session: InferenceSession,
  run: Run,
  deep: Map<Run, Tensor>,
): Promise<Difference[]> {
  const given: Record<string, Tensor> = session.inputNames.includes('deep') ? { deep: deep.get(run)! } : {}
  const results = await session.run({ ...feedsOf(run), ...given })
  if (session.outputNames.includes('deep')) deep.set(run, results.deep as Tensor)
  return Object.entries(run.outputs).map(([output, packed]) => {
    const expected = expectedOf(packed)
    const actual = results[output].data as Float32Array
    const relative = largestDifference(actual, expected) / scaleOf(expected)
    return { output, shape: results[output].dims, expectedShape: packed.shape, relative }
  })
}

function largestDifference(actual: Float32Array, expected: Float32Array): number {
  let largest = actual.length === expected.length ? 0 : Infinity
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i] - expected[i])
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference
  }
  return largest
}
