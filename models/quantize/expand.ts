import { toColumns } from '../../kernels/columns.ts'
import { dequantizeGroups } from '../../kernels/int4.ts'
import { requiredTensors } from '../build.ts'
import { toFloat32 } from '../checkpoint/dtypes.ts'
import type { PlannedTensor, SafetensorsFile } from '../checkpoint/safetensors.ts'
import { isFile, readSafetensors, readTensor, writeSafetensors } from '../checkpoint/safetensors.ts'
import type { UnetConfig } from '../unet.ts'
import type { MatMul } from './algebra.ts'

// The fast file of a quantised network: every matrix as bytes with a scale per output, its low-rank branch included.
// Derived, so it may be thrown away at any time; quick enough (15 s for SD 1.5) to start over after an interruption.

export type ExpandOptions = {
  /** Of the network whose weights these are. */
  config: UnetConfig
  matMul: MatMul
  /** Share of the weights that is done, 0 to 1. */
  onProgress?: (share: number) => void
  signal?: AbortSignal
}

/** Changed whenever the same source would give another fast file. */
const version = '1'

/** True when `target` is the whole fast file of the quantised `source`. Reads headers only. */
export async function isExpandedFrom(target: string, source: string): Promise<boolean> {
  if (!(await isFile(target))) return false
  try {
    const made = await readSafetensors(target) // refuses a file of another size than its header says
    const seal = sealOf(await readSafetensors(source))
    return Object.entries(seal).every(([key, value]) => made.metadata.get(key) === value)
  } catch {
    return false
  }
}

/**
 * Writes the fast file of the quantised weights `source` to `target`, one layer at a time; what lay there is replaced in
 * one step. A layer `p` with codes becomes `p.weight.columns` I8 [k, n] and `p.weight.column_scales` F32 [n]; the halves
 * of a GEGLU become layers of their own, `p.value` and `p.gate`. Everything else is copied.
 */
export async function expandWeights(source: string, target: string, options: ExpandOptions): Promise<void> {
  const file = await readSafetensors(source)
  const shapes = requiredTensors('unet', options.config)
  const layers = [...file.tensors.keys()].flatMap((name) => layerOf(file, name, shapes) ?? [])
  const parts = new Map(layers.flatMap((layer) => partsOf(layer).map((part) => [part.path, part] as const)))
  const dropped = new Set(layers.flatMap(({ path, halves }) => sourcesOf(path, halves)))
  const copied = [...file.tensors].filter(([name]) => !dropped.has(name))
  const planned: PlannedTensor[] = [
    ...copied.map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
    ...[...parts.values()].flatMap((part) => plan(file, part)),
  ]

  // Both tensors of a layer come from one computation; whichever the file takes later waits here, and so do the
  // columns of a GEGLU's second half.
  const ready = new Map<string, Uint8Array>()
  let done = 0
  const total = layers.reduce((sum, { n, k }) => sum + n * k, 0)
  const expand = async (layer: Layer) => {
    options.signal?.throwIfAborted()
    const weights = await weightsOf(file, layer, options.matMul)
    for (const { path, from, n } of partsOf(layer)) {
      const { columns, scales } = toColumns(weights.subarray(from * layer.k, (from + n) * layer.k), { n, k: layer.k })
      ready.set(`${path}.weight.columns`, bytesOf(columns))
      ready.set(`${path}.weight.column_scales`, bytesOf(scales))
    }
    done += layer.n * layer.k
    options.onProgress?.(done / total)
  }
  await writeSafetensors(
    target,
    planned,
    async function* ({ name }) {
      const part = parts.get(name.replace(/\.(weight\.columns|weight\.column_scales|bias)$/, ''))
      const stored = file.tensors.get(name)
      if (stored && !dropped.has(name)) yield await readTensor(stored)
      else if (part && name.endsWith('.bias')) yield await rowsOf(file, `${part.layer.path}.bias`, part)
      else if (part) {
        if (!ready.has(name)) await expand(part.layer)
        yield ready.get(name)!
        ready.delete(name)
      } else throw new Error(`${name}: planned but not given`)
    },
    { format: 'pt', ...sealOf(file) },
  )
}

/** What a fast file must say to belong to a source. */
function sealOf(source: SafetensorsFile): Record<string, string> {
  const sha256 = source.metadata.get('sha256')
  if (sha256 === undefined) throw new Error(`${source.path}: no sha256 in its notes`)
  return { vignette_fast: version, expanded_from: sha256 }
}

type Layer = { path: string; bits: 4 | 8; n: number; k: number; group: number; halves: boolean }
/** Outputs from … from + n − 1 of a layer, under their own name. */
type Part = { path: string; layer: Layer; from: number; n: number }

/** The layer whose codes are the tensor `name`; undefined for every other tensor. */
function layerOf(
  { tensors }: SafetensorsFile,
  name: string,
  shapes: ReadonlyMap<string, readonly number[]>,
): Layer | undefined {
  const found = /^(.*)\.weight\.q([48])$/.exec(name)
  if (!found) return undefined
  const [, path] = found
  const bits = Number(found[2]) as 4 | 8
  const [n, , bytes] = tensors.get(name)!.shape
  // The codes alone do not tell how far the last group is filled.
  const shape = shapes.get(`${path}.weight`)
  if (!shape) throw new Error(`${path}: the network has no such layer`)
  const k = shape.slice(1).reduce((product, size) => product * size, 1)
  return { path, bits, n, k, group: (bytes * 8) / bits, halves: path.endsWith('ff.net.0.proj') }
}

function partsOf(layer: Layer): Part[] {
  const { path, n, halves } = layer
  if (!halves) return [{ path, layer, from: 0, n }]
  return [
    { path: `${path}.value`, layer, from: 0, n: n / 2 },
    { path: `${path}.gate`, layer, from: n / 2, n: n / 2 },
  ]
}

/** Tensors of a layer that the fast file has in another form. */
function sourcesOf(path: string, halves: boolean): string[] {
  const names = ['q4', 'q8', 'scales', 'down', 'up'].map((kind) => `${path}.weight.${kind}`)
  return halves ? [...names, `${path}.bias`] : names
}

function plan(file: SafetensorsFile, { path, layer, n }: Part): PlannedTensor[] {
  const bias = layer.halves && file.tensors.get(`${layer.path}.bias`)
  return [
    { name: `${path}.weight.columns`, dtype: 'I8', shape: [layer.k, n] },
    { name: `${path}.weight.column_scales`, dtype: 'F32', shape: [n] },
    ...(bias ? [{ name: `${path}.bias`, dtype: bias.dtype, shape: [n] }] : []),
  ]
}

/** dequant(codes) + up · down, [n, k]. */
async function weightsOf(
  file: SafetensorsFile,
  { path, bits, n, k, group }: Layer,
  matMul: MatMul,
): Promise<Float32Array> {
  const read = (kind: string) => readTensor(file.tensors.get(`${path}.weight.${kind}`)!)
  const codes = await read(`q${bits}`)
  const halves = (bytes: Uint8Array) => new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
  const scales = halves(await read('scales'))
  const weights = dequantizeGroups({ codes, scales }, { n, k, bits, group })
  const branch = file.tensors.get(`${path}.weight.down`)
  if (!branch) return weights
  const rank = branch.shape[0]
  const [down, up] = [toFloat32(await read('down'), 'F16'), toFloat32(await read('up'), 'F16')]
  const product = await matMul(up, [n, rank], down, [rank, k])
  for (let i = 0; i < weights.length; i++) weights[i] += product[i]
  return weights
}

async function rowsOf(file: SafetensorsFile, name: string, { from, n }: Part): Promise<Uint8Array> {
  const bytes = await readTensor(file.tensors.get(name)!)
  const size = bytes.length / file.tensors.get(name)!.shape[0]
  return bytes.subarray(from * size, (from + n) * size)
}

const bytesOf = (array: Int8Array | Float32Array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
