import { createHash } from 'node:crypto'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { groupCount } from '../../kernels/int4.ts'
import type { Layout, PlannedTensor } from '../checkpoint/safetensors.ts'
import { layOut, readFully, readSafetensors, writeFully } from '../checkpoint/safetensors.ts'
import { VignetteError } from '../errors.ts'
import type { StoredTensor, TensorTable } from '../graph/weights.ts'
import type { LayerPlan, QuantizeStep } from './policy.ts'

// `unet.safetensors` of a model kept in four bits. A quantised layer `p` has, in place of `p.weight`,
//   p.weight.q4 or .q8         U8  [n, groups, group / 2 or group]   codes (kernels/int4.ts)
//   p.weight.scales            F16 [n, groups]
//   p.weight.down, .up         F16 [r, k], [n, r]                    low-rank branch, where there is one
//   p.weight.input_scale       F32 [k]   the layer reads x / input_scale: whoever makes x has divided already
//   p.weight.output_scale      F32 [n]   what the layer puts out is times this; its bias, too
// and everything else is as it was, but for the norms that divide: those are F32.

/** Version of the format, in the file's notes as `vignette_int4`. */
const formatVersion = '1'
const unsealed = '0'.repeat(64)
const chunkBytes = 8 << 20

/** Shapes that a layer has in the file, by the ends of their names. */
export function plannedLayer(plan: LayerPlan, scaled: { input: boolean; output: boolean }): PlannedTensor[] {
  const { path, n, k, bits, group, rank } = plan
  const groups = groupCount(k, group)
  const tensors: PlannedTensor[] = [
    { name: `${path}.weight.q${bits}`, dtype: 'U8', shape: [n, groups, (group * bits) / 8] },
    { name: `${path}.weight.scales`, dtype: 'F16', shape: [n, groups] },
  ]
  if (rank > 0) {
    tensors.push({ name: `${path}.weight.down`, dtype: 'F16', shape: [rank, k] })
    tensors.push({ name: `${path}.weight.up`, dtype: 'F16', shape: [n, rank] })
  }
  if (scaled.input) tensors.push({ name: `${path}.weight.input_scale`, dtype: 'F32', shape: [k] })
  if (scaled.output) tensors.push({ name: `${path}.weight.output_scale`, dtype: 'F32', shape: [n] })
  return tensors
}

/** Everything in the file for a network whose weights are `tensors` now. Without smoothing nothing is scaled. */
export function plannedFile(
  steps: readonly QuantizeStep[],
  tensors: TensorTable,
  isSmoothed: boolean,
): { layers: PlannedTensor[]; rest: PlannedTensor[] } {
  const smoothers = steps.flatMap(({ smoother }) => (smoother && isSmoothed ? [smoother] : []))
  const scaledLayers = new Set(smoothers.flatMap((smoother) => ('layer' in smoother ? [smoother.layer] : [])))
  const norms = new Set(smoothers.flatMap((smoother) => ('norm' in smoother ? [smoother.norm] : [])))
  const layers = steps.flatMap(({ layers: plans, smoother }) =>
    plans.flatMap((plan) =>
      plannedLayer(plan, { input: isSmoothed && smoother !== undefined, output: scaledLayers.has(plan.path) }),
    ),
  )
  const replaced = new Set(steps.flatMap(({ layers: plans }) => plans.map(({ path }) => `${path}.weight`)))
  const rest = [...tensors]
    .filter(([name]) => !replaced.has(name))
    .map(([name, { dtype, shape }]) => {
      const isDividing = norms.has(name.replace(/\.(weight|bias)$/, ''))
      return { name, dtype: isDividing ? ('F32' as const) : dtype, shape: [...shape] }
    })
  return { layers, rest }
}

/** A file that is filled in any order and sealed when every tensor is in its place. */
export type QuantizedFile = {
  readonly bytes: number
  /** True when nothing of an earlier run is in it. */
  readonly isFresh: boolean
  /** Puts a tensor in its place and returns the SHA-256 of its bytes. */
  write(name: string, data: Uint8Array | Uint16Array | Float32Array): Promise<string>
  read(name: string): Promise<Uint8Array>
  /** Waits until what was written is on the disk. */
  sync(): Promise<void>
  /**
   * Reads everything back, compares each tensor with the hash that `write` gave, and notes the hash of all tensor bytes
   * in the header. Returns it.
   */
  seal(digests: ReadonlyMap<string, string>, onBytes: (bytes: number) => void, signal?: AbortSignal): Promise<string>
  close(): Promise<void>
}

export type FileNotes = {
  /** SHA-256 of the weight file that was quantised. */
  sourceSha256: string
  /** How it was done. */
  policy: unknown
}

/** Refuses a file of a version that this program does not know, and one that was never sealed. */
export async function expectKnownFormat(path: string): Promise<void> {
  const { metadata } = await readSafetensors(path)
  const version = metadata.get('vignette_int4')
  if (version === formatVersion && metadata.get('sha256') !== unsealed) return
  throw new VignetteError(
    'file-unreadable',
    version === undefined || version === formatVersion
      ? `The 4-bit weights in ${path} are not whole.`
      : `The 4-bit weights in ${path} are of version ${version}; this Vignette knows ${formatVersion}.`,
    { hint: 'Make the 4-bit model again, or use a newer Vignette.' },
  )
}

/** Bytes of the file, header included. */
export function quantizedFileBytes(planned: readonly PlannedTensor[], notes: FileNotes): number {
  return layOut(planned, metadataOf(notes)).bytes
}

/** Opens the file at `path` to be filled; one of the same length from an interrupted run is gone on with. */
export async function openQuantizedFile(
  path: string,
  planned: readonly PlannedTensor[],
  notes: FileNotes,
): Promise<QuantizedFile> {
  const layout = layOut(planned, metadataOf(notes))
  const places = new Map(layout.tensors.map((tensor) => [tensor.name, tensor]))
  const isFresh = await stat(path).then(
    ({ size }) => size !== layout.bytes,
    () => true,
  )
  const file = await open(path, isFresh ? 'w+' : 'r+')
  try {
    if (isFresh) {
      await writeFully(file, layout.header, 0)
      await file.truncate(layout.bytes)
    }
  } catch (error) {
    await file.close()
    throw error
  }
  const placeOf = (name: string) => {
    const place = places.get(name)
    if (!place) throw new Error(`${name}: not planned`)
    return place
  }
  return {
    bytes: layout.bytes,
    isFresh,
    async write(name, data) {
      const { offset, length } = placeOf(name)
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      if (bytes.length !== length) throw new Error(`${name}: ${bytes.length} bytes, ${length} planned`)
      await writeFully(file, bytes, offset)
      return createHash('sha256').update(bytes).digest('hex')
    },
    async read(name) {
      const { offset, length } = placeOf(name)
      const bytes = new Uint8Array(length)
      await readFully(file, bytes, offset, path)
      return bytes
    },
    sync: () => file.datasync(),
    async seal(digests, onBytes, signal) {
      const sha256 = await hashTensors(file, path, layout, digests, onBytes, signal)
      await writeFully(file, layOut(planned, metadataOf(notes, sha256)).header, 0)
      await file.sync()
      return sha256
    },
    close: () => file.close(),
  }
}

/** The hash stands in the header and must not change its length: until it is known there are zeros. */
function metadataOf({ sourceSha256, policy }: FileNotes, sha256 = unsealed): Record<string, string> {
  return {
    format: 'pt',
    vignette_int4: formatVersion,
    source_sha256: sourceSha256,
    policy: JSON.stringify(policy),
    sha256,
  }
}

async function hashTensors(
  file: FileHandle,
  path: string,
  layout: Layout,
  digests: ReadonlyMap<string, string>,
  onBytes: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<string> {
  const all = createHash('sha256')
  const buffer = new Uint8Array(chunkBytes)
  for (const { name, offset, length } of layout.tensors) {
    const own = createHash('sha256')
    for (let at = 0; at < length; at += chunkBytes) {
      signal?.throwIfAborted()
      const piece = buffer.subarray(0, Math.min(chunkBytes, length - at))
      await readFully(file, piece, offset + at, path)
      own.update(piece)
      all.update(piece)
      onBytes(piece.length)
    }
    const digest = digests.get(name)
    if (digest === undefined) throw new Error(`${name}: never written`)
    if (own.digest('hex') === digest) continue
    throw new VignetteError('file-unreadable', `The disk gave back other numbers for "${name}" than were written.`, {
      hint: 'The disk may be failing. Try again, or put the model on another disk.',
    })
  }
  return all.digest('hex')
}

/** SHA-256 of all tensor bytes of a file, in file order: what its note `sha256` must say. */
export async function sha256OfTensors(path: string, tensors: Iterable<StoredTensor>): Promise<string> {
  const hash = createHash('sha256')
  const file = await open(path, 'r')
  try {
    const buffer = new Uint8Array(chunkBytes)
    for (const { offset, length } of [...tensors].sort((a, b) => a.offset - b.offset)) {
      for (let at = 0; at < length; at += chunkBytes) {
        const piece = buffer.subarray(0, Math.min(chunkBytes, length - at))
        await readFully(file, piece, offset + at, path)
        hash.update(piece)
      }
    }
    return hash.digest('hex')
  } finally {
    await file.close()
  }
}
