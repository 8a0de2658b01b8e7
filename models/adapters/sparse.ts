import { toFloat16 } from '../checkpoint/dtypes.ts'
import { readSafetensors } from '../checkpoint/safetensors.ts'
import { VignetteError } from '../errors.ts'
import { halfToFloat } from '../graph/half.ts'
import { toBytes, type NamedBytes } from './write.ts'
import type { AdapterFile, AdapterTarget } from './types.ts'

// Sparse adapters (SHiRA; methods.md, section 8): a few weights of a layer, each with what is added to it. In a file:
// `<module>.sparse_index` I32 [K], places in the flattened weight, ascending; `<module>.sparse_delta` F16 [K]; and in its
// metadata `vignette_crc:<module>`, a check on the layer they were taken from. `module` is `unet.` or `text_encoder.` and the
// path.

/** What is added to one layer: `index` ascending places in its weight as diffusers stores it, `delta` as many numbers. */
export type SparseLayer = {
  target: AdapterTarget
  path: string
  index: Int32Array
  delta: Float32Array
  /** Of the layer's weight before: see `weightCrc`. */
  crc?: string
}

/** Name of a layer in a sparse file. */
export const sparseModule = ({ target, path }: Pick<SparseLayer, 'target' | 'path'>): string => `${target}.${path}`

/** Key of a layer's check value in the notes of its file. */
export const crcKey = (layer: Pick<SparseLayer, 'target' | 'path'>): string => `vignette_crc:${sparseModule(layer)}`

/** The tensors and notes of a sparse file; `writeTensors` writes them. */
export function sparseTensors(layers: readonly SparseLayer[]): {
  tensors: NamedBytes[]
  metadata: Record<string, string>
} {
  const metadata: Record<string, string> = { format: 'pt', vignette_kind: 'sparse' }
  const tensors = layers.flatMap((layer): NamedBytes[] => {
    const { index, delta, crc } = layer
    if (index.length !== delta.length || index.some((place, i) => i > 0 && place <= index[i - 1]))
      throw new Error(`${layer.path}: a sparse layer's places must ascend, one for each change`)
    if (crc !== undefined) metadata[crcKey(layer)] = crc
    const places = new Uint8Array(index.buffer, index.byteOffset, index.byteLength)
    const module = sparseModule(layer)
    return [
      { name: `${module}.sparse_index`, dtype: 'I32', shape: [index.length], bytes: places },
      { name: `${module}.sparse_delta`, dtype: 'F16', shape: [delta.length], bytes: toBytes(delta, 'F16') },
    ]
  })
  return { tensors, metadata }
}

/**
 * Check value of a layer's weight: CRC-32 of its numbers rounded to halves, so that models imported in 16 and in 32 bits
 * from one checkpoint agree. Eight hexadecimal digits.
 */
export function weightCrc(weight: Float32Array): string {
  const halves = toFloat16(weight)
  return crc32(new Uint8Array(halves.buffer)).toString(16).padStart(8, '0')
}

/**
 * The layer's weight with the changes in it, times `strength`; `weight` stays as it is, so that taking the adapter off
 * again is to go back to it. Throws `adapter-mismatch` when the check value says that this is another weight.
 */
export function applySparse(weight: Float32Array, layer: SparseLayer, strength = 1): Float32Array {
  checkBase(weight, layer)
  const changed = weight.slice()
  for (let i = 0; i < layer.index.length; i++) changed[layer.index[i]] += strength * layer.delta[i]
  return changed
}

/** Throws `adapter-mismatch` unless the layer belongs to this weight. */
export function checkBase(weight: Float32Array, { path, index, crc }: SparseLayer): void {
  const found = crc === undefined ? undefined : weightCrc(weight)
  const last = index.length === 0 ? -1 : index[index.length - 1]
  if (found === crc && last < weight.length && (index.length === 0 || index[0] >= 0)) return
  const message =
    found === crc
      ? `The sparse adapter changes weight ${last} of ${path}, which has ${weight.length}.`
      : `The sparse adapter was made for another model: ${path} has check value ${found}, not ${crc}.`
  throw new VignetteError('adapter-mismatch', message, {
    hint: 'Choose the model that it was made for; a sparse adapter only fits that very one.',
  })
}

/**
 * Throws `adapter-mismatch` unless the sparse parts of a file belong to this model, by the check values in its notes; parts
 * without one are believed. `read` gives a layer's weight as it was before anything was done to it.
 */
export async function expectSparseBase(
  { info, parts }: Pick<AdapterFile, 'info' | 'parts'>,
  read: (target: AdapterTarget, path: string) => Promise<Float32Array | undefined>,
): Promise<void> {
  const sparse = parts.filter(({ kind }) => kind === 'sparse')
  if (sparse.length === 0) return
  const file = sparse[0].tensors.sparse_delta?.file ?? info.file
  const { metadata } = await readSafetensors(file)
  for (const { target, path } of sparse) {
    const crc = metadata.get(crcKey({ target, path }))
    const weight = crc === undefined ? undefined : await read(target, path)
    if (weight) checkBase(weight, { target, path, index: new Int32Array(0), delta: new Float32Array(0), crc })
  }
}

/** How a mask chooses the weights that may change (SHiRA, section 3.1 and appendix B). */
export type SparseMask = 'struct' | 'rand' | 'wm' | 'largest'

export const sparseMasks: readonly SparseMask[] = ['struct', 'rand', 'wm', 'largest']

export type MaskSource = {
  /** Rows and columns of the weight, a convolution flattened to [n, c · 9]. */
  n: number
  k: number
  /** How many places; n + k times 32 is what a low-rank adapter of rank 32 has. */
  count: number
  /** For `wm`. */
  weight?: Float32Array
  /** For `largest`. */
  delta?: Float32Array
  seed?: number
}

/**
 * Places that a mask chooses, ascending. `struct`: whole rows at even distances and the diagonal; `rand`: each as likely
 * as any other; `wm`: the largest weights; `largest`: where the change is largest, the least error for the number.
 */
export function maskPlaces(mask: SparseMask, source: MaskSource): Int32Array {
  const { n, k, weight, delta, seed = 1 } = source
  const count = Math.min(source.count, n * k)
  if (mask === 'wm' || mask === 'largest') {
    const values = mask === 'wm' ? weight : delta
    if (!values || values.length !== n * k) throw new Error(`a mask "${mask}" needs ${n * k} numbers to choose by`)
    return topPlaces(values, count)
  }
  if (mask === 'rand') return randomPlaces(n * k, count, seed)
  // The diagonal goes first, whole rows take what is left of the budget: rank 1 for each of them, as in the paper.
  const diagonal = Math.min(n, k)
  const rows = Math.max(0, Math.min(n, Math.floor((count - diagonal) / Math.max(1, k - 1))))
  const chosen = new Set<number>(Array.from({ length: rows }, (_, i) => Math.floor(((i + 0.5) * n) / rows)))
  const places: number[] = []
  for (let row = 0; row < n; row++) {
    if (chosen.has(row)) for (let column = 0; column < k; column++) places.push(row * k + column)
    else if (row < k && places.length < count) places.push(row * k + row)
  }
  return Int32Array.from(places)
}

/** Places of the largest magnitudes, ascending; of equal ones the first. */
function topPlaces(values: Float32Array, count: number): Int32Array {
  if (count === 0) return new Int32Array(0)
  const sorted = values.map(Math.abs).sort()
  const least = sorted[sorted.length - count]
  let equal = count // how many of the size `least` are still wanted
  for (let i = sorted.length - 1; i >= 0 && sorted[i] > least; i--) equal--
  const places = new Int32Array(count)
  let at = 0
  for (let i = 0; i < values.length && at < count; i++) {
    const size = Math.abs(values[i])
    if (size > least || (size === least && equal-- > 0)) places[at++] = i
  }
  return places
}

/** `count` of `total` places, by walking them once (Knuth, algorithm 3.4.2 S), over mulberry32. */
function randomPlaces(total: number, count: number, seed: number): Int32Array {
  let state = seed >>> 0
  const places = new Int32Array(count)
  let at = 0
  for (let i = 0; i < total && at < count; i++) {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    const uniform = ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
    if (uniform * (total - i) < count - at) places[at++] = i
  }
  return places
}

/** The changes of a dense ΔW at some places, rounded as the file will have them; and how much of ΔW they leave out. */
export function sparsify(delta: Float32Array, index: Int32Array): { delta: Float32Array; error: number } {
  const halves = toFloat16(Float32Array.from(index, (place) => delta[place]))
  const kept = Float32Array.from(halves, halfToFloat)
  let all = 0
  for (const value of delta) all += value * value
  let left = all
  for (let i = 0; i < index.length; i++) {
    const value = delta[index[i]]
    left += (value - kept[i]) ** 2 - value * value
  }
  return { delta: kept, error: all === 0 ? 0 : Math.sqrt(Math.max(0, left) / all) }
}

let crcTable: Uint32Array | undefined

/** CRC-32 of ISO 3309, as in PNG and zip; Node 18 has none of its own. */
function crc32(bytes: Uint8Array): number {
  crcTable ??= Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1
    return value >>> 0
  })
  let crc = 0xffffffff
  for (let i = 0; i < bytes.length; i++) crc = crcTable[(crc ^ bytes[i]) & 0xff] ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}
