import { existsSync } from 'node:fs'
import { open, readFile, type FileHandle } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { isQuantized } from '../build.ts'
import { toFloat32 } from '../checkpoint/dtypes.ts'
import { readParts } from '../checkpoint/graphs.ts'
import { planImport } from '../checkpoint/plan.ts'
import { readFully } from '../checkpoint/safetensors.ts'
import type { TensorSource } from '../checkpoint/single-file.ts'
import { VignetteError } from '../errors.ts'
import type { ModelManifest } from '../manifest.ts'
import { turned } from './factors.ts'
import { modelShape } from './shape.ts'
import type { AdapterTarget, ModelShape } from './types.ts'

/** The weights of a model, one at a time. */
export type ModelWeights = {
  name: string
  shape: ModelShape
  /** Of the file that the model was made from, where that is known. */
  sha256?: string
  /** `<path>.weight` or `.bias` of a layer, as diffusers orders it; undefined where the model has none. */
  read(target: AdapterTarget, path: string, leaf?: 'weight' | 'bias'): Promise<Float32Array | undefined>
  close(): Promise<void>
}

type Table = ReadonlyMap<string, TensorSource>

/** Opens an installed model's folder, a checkpoint file, or a folder as diffusers writes it. Nothing is imported. */
export async function openModelWeights(source: string): Promise<ModelWeights> {
  const root = resolve(source)
  return existsSync(join(root, 'model.json')) ? openInstalled(root) : openCheckpoint(root)
}

async function openInstalled(folder: string): Promise<ModelWeights> {
  const manifest = JSON.parse(await readFile(join(folder, 'model.json'), 'utf8')) as ModelManifest
  const parts = await readParts(folder)
  if (parts.some(({ tensors }) => isQuantized(tensors)))
    throw new VignetteError('checkpoint-unsupported', `${manifest.name} is stored in four bits.`, {
      hint: 'Take the model that it was made from: its weights are needed as they were.',
    })
  const tables = parts.flatMap(({ part, tensors }) => {
    if (part === 'vae' || part === 'tiny_vae') return []
    const placed = [...tensors].map(([name, tensor]): [string, TensorSource] => [
      name,
      { ...tensor, origin: name, file: join(folder, tensor.file) },
    ])
    return [[part, new Map(placed)] as const]
  })
  const shape = modelShape(manifest.family, parts)
  return reader(manifest.name, shape, new Map(tables), manifest.source.sha256)
}

async function openCheckpoint(root: string): Promise<ModelWeights> {
  const { label, family, parts } = await planImport(root)
  const tables = parts.flatMap(({ part, tensors }) => (part === 'vae' ? [] : [[part, tensors] as const]))
  return reader(label, modelShape(family, parts), new Map(tables))
}

function reader(
  name: string,
  shape: ModelShape,
  tables: ReadonlyMap<AdapterTarget, Table>,
  sha256?: string,
): ModelWeights {
  const files = new Map<string, FileHandle>()
  return {
    name,
    shape,
    ...(sha256 === undefined ? {} : { sha256 }),
    async read(target, path, leaf = 'weight') {
      const tensor = tables.get(target)?.get(`${path}.${leaf}`)
      if (!tensor) return undefined
      const file = files.get(tensor.file) ?? (await open(tensor.file, 'r'))
      files.set(tensor.file, file)
      const bytes = new Uint8Array(tensor.length)
      await readFully(file, bytes, tensor.offset, tensor.file)
      const values = toFloat32(bytes, tensor.dtype)
      if (tensor.scale !== undefined) for (let i = 0; i < values.length; i++) values[i] *= tensor.scale
      if (!values.every(Number.isFinite))
        throw new VignetteError('file-unreadable', `${basename(tensor.file)} is damaged at "${tensor.origin}".`, {
          hint: 'Look for another version of the model.',
        })
      return tensor.transpose ? turned(values, tensor.shape[1], tensor.shape[0]) : values
    },
    async close() {
      for (const file of files.values()) await file.close()
      files.clear()
    },
  }
}
