import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import type { AdapterFiles } from '../../main/engine/adapters.ts'
import type { OpenNetworks } from '../../main/engine/networks.ts'
import type { LoadedAdapter } from '../../main/pipeline/adapter-types.ts'
import { createSlots } from '../../main/pipeline/slots.ts'
import type { FloatTensor, IdTensor } from '../../main/pipeline/tensor.ts'
import { writeGraphs } from '../../models/checkpoint/graphs.ts'
import { writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import { floatToHalf } from '../../models/graph/half.ts'
import type { Dtype } from '../../models/graph/weights.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { configOf, feedsOf, hashed, readCases, weightsOf, type Case, type Run } from './networks-cases.ts'

// The adapters of adapter-kinds.py made again as files, a model folder of the two tiny networks, and a run of one of them
// with adapters in it the way the engine does it.

type Target = 'unet' | 'text_encoder'
type Packed = { shape: number[]; f32: string }
type Stored = [name: string, dtype: Dtype, shape: number[], { scale: number; shift: number } | { bytes: string }]

export type Kind = {
  name: string
  target: Target
  weight: number
  tensors: Stored[]
  output: Packed
  /** Of the text encoder, where the file changes both. */
  text?: Packed
  metadata?: Record<string, string>
  /** PEFT's adapter_config.json. */
  config?: Record<string, unknown>
  /** The header as the program wrote it. */
  header?: string
}

export type Kinds = { cases: Kind[]; plain: Record<Target, Packed>; ids: number[][]; eos: number }

export function readKinds(): Kinds {
  const packed = readFileSync(new URL('adapter-kinds.json.gz', import.meta.url))
  return JSON.parse(gunzipSync(packed).toString()) as Kinds
}

const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1)

function bytesOf([name, dtype, shape, numbers]: Stored): Uint8Array {
  if ('bytes' in numbers) return new Uint8Array(Buffer.from(numbers.bytes, 'base64'))
  const values = Float32Array.from(
    hashed(name, sizeOf(shape)),
    (value) => value * numbers.scale + numbers.shift,
  )
  return new Uint8Array(dtype === 'F16' ? Uint16Array.from(values, floatToHalf).buffer : values.buffer)
}

/** Writes an adapter into `folder` as the program that makes such ones does; gives the path to read. */
export async function writeKind(folder: string, kind: Kind): Promise<string> {
  const stem = join(folder, kind.name.replace(/\W+/g, '-'))
  if (kind.header !== undefined) {
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(Buffer.byteLength(kind.header)))
    const data = kind.tensors.map(bytesOf) // in the order of the names already
    writeFileSync(`${stem}.safetensors`, Buffer.concat([length, Buffer.from(kind.header), ...data]))
    return `${stem}.safetensors`
  }
  const byName = new Map(kind.tensors.map((stored) => [stored[0], stored]))
  const planned = kind.tensors.map(([name, dtype, shape]) => ({ name, dtype, shape }))
  const dataOf = ({ name }: { name: string }) => [bytesOf(byName.get(name)!)]
  if (!kind.config) {
    await writeSafetensors(`${stem}.safetensors`, planned, dataOf, kind.metadata)
    return `${stem}.safetensors`
  }
  mkdirSync(stem, { recursive: true })
  await writeSafetensors(join(stem, 'adapter_model.safetensors'), planned, dataOf, { format: 'pt' })
  writeFileSync(join(stem, 'adapter_config.json'), JSON.stringify(kind.config))
  return stem
}

const cases = readCases()
/** The networks that the adapters are made for. */
export const unetCase = cases.find(({ name }) => name === 'sd1')!
export const textCase = cases.find(({ name }) => name === 'clip-l')!

/** A model folder over weight files that lie in it already, or over the plain float32 weights. */
export async function writeModelFolder(folder: string, storage: ModelManifest['storage'] = 'fp32'): Promise<string> {
  mkdirSync(folder, { recursive: true })
  if (storage === 'fp32') await writeWeights(join(folder, 'unet.safetensors'), unetCase, weightsOf(unetCase))
  await writeWeights(join(folder, 'text_encoder.safetensors'), textCase, weightsOf(textCase))
  const parts = [unetCase, textCase].map((item) => ({
    part: item.part,
    weights: `${item.part}.safetensors`,
    config: configOf(item),
  }))
  writeFileSync(join(folder, 'parts.json'), JSON.stringify({ version: 1, parts }))
  const manifest: Partial<ModelManifest> = {
    version: 1,
    id: 'tiny',
    name: 'Tiny',
    family: 'sd15',
    latents: { channels: 4, scale: 1, shift: 0, spatialFactor: 8 },
    networks: ['text_encoder', 'unet'],
    storage,
  }
  writeFileSync(join(folder, 'model.json'), JSON.stringify(manifest))
  await writeGraphs(folder)
  return folder
}

/** Writes weights of a case in float32. */
export async function writeWeights(
  path: string,
  item: Case,
  weights: ReadonlyMap<string, Float32Array>,
): Promise<void> {
  const shapes = new Map(item.tensors)
  const planned = [...weights.keys()].map((name) => ({ name, dtype: 'F32' as const, shape: shapes.get(name)! }))
  await writeSafetensors(path, planned, ({ name }) => {
    const { buffer, byteOffset, byteLength } = weights.get(name)!
    return [new Uint8Array(buffer, byteOffset, byteLength)]
  })
}

function inputsOf(target: Target, { ids, eos }: Kinds): Record<string, FloatTensor | IdTensor> {
  const run: Partial<Run> =
    target === 'text_encoder'
      ? { ids, eosIndex: [eos] }
      : {
          inputs: {
            sample: { shape: [1, 4, 8, 8], scale: 1.7, shift: 0 },
            timestep: { shape: [1], scale: 499, shift: 499 },
            encoder_hidden_states: { shape: [1, 77, 24], scale: 1.7, shift: 0 },
          },
        }
  return Object.fromEntries(
    Object.entries(feedsOf({ network: target, inputs: {}, outputs: {}, ...run })).map(([name, { data, dims }]) => [
      name,
      { data, shape: dims } as FloatTensor | IdTensor,
    ]),
  )
}

/**
 * Output of a network with these adapters at these weights: the noise, or the last normed state of the text. Where any of
 * them needs live weights, those of `widerLive` are so, too: fewer graphs to open.
 */
export async function evaluate(
  target: Target,
  networks: OpenNetworks,
  files: AdapterFiles,
  weights: readonly (readonly [LoadedAdapter, number])[],
  kinds: Kinds,
  widerLive: ReadonlySet<string> = new Set(),
): Promise<Float32Array> {
  const acting = new Map<LoadedAdapter, number>()
  for (const [adapter, weight] of weights) acting.set(adapter, (acting.get(adapter) ?? 0) + weight)
  for (const [adapter, weight] of acting) if (weight === 0) acting.delete(adapter)
  const inputs = inputsOf(target, kinds)
  if (acting.size === 0) await networks.use(target)
  else {
    const needed = files.live.paths(target, acting.keys())
    const live = needed.size > 0 ? new Set([...needed, ...widerLive]) : needed
    const groups = new Set(['attention', 'mlp', 'time', 'conv'] as const)
    const places = await networks.use(target, { slots: groups, live })
    const slots = createSlots(target, places, { live: { paths: live, weights: files.live } })
    Object.assign(inputs, await slots.inputs([acting]))
    if (target === 'text_encoder') {
      const d = textCase.config.hidden_size as number
      inputs.token_vectors = { data: new Float32Array(77 * d), shape: [1, 77, d] }
      inputs.token_mask = { data: new Float32Array(77), shape: [1, 77] }
    }
  }
  const output = target === 'unet' ? 'out_sample' : 'normed_states'
  const { data, shape } = (await networks.run(target, inputs, [output]))[output]
  return target === 'unet' ? data : data.slice(-(data.length / shape[0]))
}
