import { open, type FileHandle } from 'node:fs/promises'
import { readFully, readSafetensors } from '../checkpoint/safetensors.ts'
import type { Dtype, StoredTensor } from '../graph/weights.ts'
import type { Change } from './overlap.ts'
import { factorsOf, loraFactors, turned } from './factors.ts'
import { layerShape, readPart, scaleOf, type LayerShape, type PartNumbers } from './numbers.ts'
import { crcKey, type SparseLayer } from './sparse.ts'
import type { AdapterFile, AdapterPart, ModelShape } from './types.ts'
import type { LayerDelta } from './write.ts'

// What an adapter file changes, as numbers, for the tools that make new files of it. The engine has its own way
// (main/engine/adapters.ts), into the basis of quantised layers.

/** A tensor of a file by its name, as it is stored. */
export type SourceTensor = { name: string; dtype: Dtype; shape: readonly number[] }

/** A layer's factors with their scale beside them: ΔW = scale · up · down. */
export type RawLayer = LayerDelta & {
  scale: number
  /** The tensors that `down` and `up` are, number for number; `alpha` with its value. Only for plain factors. */
  source?: { down: SourceTensor; up: SourceTensor; alpha?: SourceTensor & { value: number } }
}

export type SparseChange = SparseLayer & { weight: readonly number[] }

export type AdapterChanges = {
  layers: RawLayer[]
  sparse: SparseChange[]
  /** Parts that are neither: DoRA, OFT and the like, which need the model's weights. */
  others: AdapterPart[]
  /** Paths of layers whose biases the file changes as well. */
  biases: string[]
}

/** Reads the numbers of a file. LoHa, LoKr and whole differences come as factors where those are worth having. */
export async function readChanges({ parts }: Pick<AdapterFile, 'parts'>, shape: ModelShape): Promise<AdapterChanges> {
  const changes: AdapterChanges = { layers: [], sparse: [], others: [], biases: [] }
  const files = await openAll(parts)
  try {
    for (const part of parts) {
      const weight = weightShape(shape, part)
      const numbers = await readPart(part, weight, files.bytesOf)
      const { tensors } = part
      if (tensors.diff_b || tensors.up_bias) changes.biases.push(part.path)
      if (part.kind === 'sparse') changes.sparse.push(sparseLayer(part, numbers, weight, files.metadataOf))
      else {
        const layer = rawLayer(part, numbers, weight, files.nameOf)
        if (layer) changes.layers.push(layer)
        else if (!isBiasOnly(part)) changes.others.push(part)
      }
    }
  } finally {
    await files.close()
  }
  return changes
}

/** A layer's weight as diffusers stores it. */
export function weightShape(
  shape: ModelShape,
  { target, path }: Pick<AdapterPart, 'target' | 'path'>,
): readonly number[] {
  const found = shape.layers[target]?.get(path)
  if (!found) throw new Error(`${target} ${path}: no such layer in this model`)
  return found.weight
}

/** With the scale in `up`. */
export function scaled({ scale, ...layer }: RawLayer): LayerDelta {
  const { target, path, weight, rank, down, up } = layer
  return { target, path, weight, rank, down, up: scale === 1 ? up : up.map((value) => value * scale) }
}

/** All of it as two adapters are compared by. */
export const comparable = ({ layers, sparse }: AdapterChanges): Change[] => [...layers.map(scaled), ...sparse]

const isBiasOnly = ({ kind, tensors }: AdapterPart) => kind === 'diff' && !tensors.diff

function rawLayer(
  part: AdapterPart,
  numbers: PartNumbers,
  weight: readonly number[],
  nameOf: (tensor: StoredTensor) => string,
): RawLayer | undefined {
  const { target, path, kind, tensors, scale } = part
  const { down: storedDown, up: storedUp } = tensors
  const place = { target, path, weight }
  const layer = weight.length > 1 ? layerShape(weight) : undefined
  const isPlain = kind === 'lora' && !tensors.mid && !tensors.magnitude && !part.rows
  if (layer && isPlain && storedDown && storedUp) {
    const { rank, down, up } = loraFactors(part, numbers, layer)
    if (down.length === rank * layer.k && up.length === layer.n * rank) {
      const source = (tensor: StoredTensor) => ({ name: nameOf(tensor), dtype: tensor.dtype, shape: tensor.shape })
      const alpha = scale.from === 'alpha' && { ...source(scale.tensor), value: numbers.stored ?? 0 }
      const isWhole = numbers.tensors.down?.data.length === down.length && scale.from !== 'scale'
      const from = { down: source(storedDown), up: source(storedUp), ...(alpha ? { alpha } : {}) }
      return { ...place, rank, down, up, scale: scaleOf(part, numbers, rank), ...(isWhole ? { source: from } : {}) }
    }
  }
  const factors = layer && factorsOf(part, numbers, weight)
  if (!layer || !factors) return undefined
  const { rank, down, up } = factors
  return { ...place, rank, scale: 1, down: channelsFirst(down, rank, layer), up: turned(up, rank, layer.n) }
}

/** [r, taps, channels] -> [r, channels, taps], as files have them. */
function channelsFirst(down: Float32Array, rank: number, { channels, taps, k }: LayerShape): Float32Array {
  if (taps === 1) return down
  const out = new Float32Array(rank * k)
  for (let r = 0; r < rank; r++) out.set(turned(down.subarray(r * k, (r + 1) * k), taps, channels), r * k)
  return out
}

function sparseLayer(
  { target, path, tensors }: AdapterPart,
  { places = new Int32Array(0), tensors: numbers }: PartNumbers,
  weight: readonly number[],
  metadataOf: (tensor: StoredTensor) => ReadonlyMap<string, string>,
): SparseChange {
  const values = numbers.sparse_delta?.data ?? new Float32Array(0)
  // Files of PEFT need not be in order.
  const order = Array.from(places.keys()).sort((a, b) => places[a] - places[b])
  const notes = tensors.sparse_delta && metadataOf(tensors.sparse_delta)
  const crc = notes?.get(crcKey({ target, path }))
  return {
    ...{ target, path, weight },
    index: Int32Array.from(order, (i) => places[i]),
    delta: Float32Array.from(order, (i) => values[i]),
    ...(crc === undefined ? {} : { crc }),
  }
}

/** The files of the parts, opened once. */
async function openAll(parts: readonly AdapterPart[]) {
  const names = new Set(parts.flatMap(({ tensors }) => Object.values(tensors).map(({ file }) => file)))
  const files = new Map<string, { handle: FileHandle; names: Map<string, string>; metadata: Map<string, string> }>()
  for (const file of names) {
    const { tensors, metadata } = await readSafetensors(file)
    const byPlace = new Map([...tensors].map(([name, { offset, length }]) => [`${offset} ${length}`, name]))
    files.set(file, { handle: await open(file, 'r'), names: byPlace, metadata })
  }
  return {
    async bytesOf({ file, offset, length }: StoredTensor): Promise<Uint8Array> {
      const bytes = new Uint8Array(length)
      await readFully(files.get(file)!.handle, bytes, offset, file)
      return bytes
    },
    nameOf: ({ file, offset, length }: StoredTensor) => files.get(file)?.names.get(`${offset} ${length}`) ?? '',
    metadataOf: ({ file }: StoredTensor) => files.get(file)!.metadata,
    async close() {
      for (const { handle } of files.values()) await handle.close()
    },
  }
}
