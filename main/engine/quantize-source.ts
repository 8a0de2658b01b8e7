import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { copyFile, link, mkdir, open, rename, stat, type FileHandle } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { convertElements, isFloat, toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readFully, readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { VignetteError } from '../../models/errors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import type { LayerPlan } from '../../models/quantize/policy.ts'

const chunkBytes = 8 << 20

/** SHA-256 of a weight file, read once from end to end. On the way every weight is looked at: all must be numbers. */
export async function checkWeights(
  path: string,
  label: string,
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  const { tensors, bytes } = await readSafetensors(path)
  const inOrder = [...tensors].sort(([, a], [, b]) => a.offset - b.offset)
  const hash = createHash('sha256')
  const file = await open(path, 'r')
  const buffer = new Uint8Array(chunkBytes)
  try {
    const headerBytes = inOrder[0]?.[1].offset ?? bytes
    for (const [name, { offset, length, dtype }] of [['', header(headerBytes)] as const, ...inOrder]) {
      for (let at = 0; at < length; at += chunkBytes) {
        signal?.throwIfAborted()
        const piece = buffer.subarray(0, Math.min(chunkBytes, length - at))
        await readFully(file, piece, offset + at, path)
        hash.update(piece)
        onBytes(piece.length)
        if (name !== '' && isFloat(dtype) && convertElements(piece, dtype, 'F32').nonFinite > 0) {
          throw new VignetteError(
            'file-unreadable',
            `${label} is damaged: "${name}" in ${basename(path)} has values that are not a number or infinite.`,
            { hint: 'The merge or training that made it went wrong. Look for another version of the model.' },
          )
        }
      }
    }
    return hash.digest('hex')
  } finally {
    await file.close()
  }
}

const header = (length: number) => ({ offset: 0, length, dtype: 'U8' as const })

/** Reads matrices of one weight file as the quantiser wants them. */
export type WeightReader = {
  /** Raw bytes of a tensor. */
  bytes(name: string): Promise<Uint8Array>
  /** All elements as float32. */
  floats(name: string): Promise<Float32Array>
  /** [n, k]; the taps of a 3 × 3 convolution, [n, channel, ky, kx] in the file, come in the order (ky, kx, channel). */
  matrix(plan: LayerPlan): Promise<Float32Array>
  close(): Promise<void>
}

export async function openWeights(path: string, tensors: ReadonlyMap<string, StoredTensor>): Promise<WeightReader> {
  const file = await open(path, 'r')
  const placeOf = (name: string) => {
    const tensor = tensors.get(name)
    if (!tensor) throw new Error(`${name}: no such tensor in ${path}`)
    return tensor
  }
  const bytes = async (name: string) => {
    const { offset, length } = placeOf(name)
    const found = new Uint8Array(length)
    await readFully(file, found, offset, path)
    return found
  }
  return {
    bytes,
    floats: async (name) => toFloat32(await bytes(name), placeOf(name).dtype),
    matrix: (plan) => readMatrix(file, path, placeOf(`${plan.path}.weight`), plan),
    close: () => file.close(),
  }
}

/** A few rows at a time: the largest matrix has 118 MB, and there need not be two of it. */
async function readMatrix(
  file: FileHandle,
  path: string,
  { offset, length, dtype }: StoredTensor,
  { n, k, taps }: LayerPlan,
): Promise<Float32Array> {
  const out = new Float32Array(n * k)
  const rowBytes = length / n
  const step = Math.max(1, Math.floor(chunkBytes / rowBytes))
  const channels = k / taps
  for (let first = 0; first < n; first += step) {
    const rows = Math.min(step, n - first)
    const raw = new Uint8Array(rows * rowBytes)
    await readFully(file, raw, offset + first * rowBytes, path)
    const values = toFloat32(raw, dtype)
    if (taps === 1) out.set(values, first * k)
    else {
      for (let row = 0; row < rows; row++)
        for (let c = 0; c < channels; c++)
          for (let tap = 0; tap < taps; tap++)
            out[(first + row) * k + tap * channels + c] = values[row * k + c * taps + tap]
    }
  }
  return out
}

/** The same file under a second name where the file system has such links, else a copy. */
export async function linkOrCopy(from: string, to: string): Promise<void> {
  const [source, present] = await Promise.all([stat(from), stat(to).catch(() => undefined)])
  if (present?.size === source.size) return // by an interrupted run
  const linked = await link(from, to).then(
    () => true,
    () => false,
  )
  if (linked) return
  await copyFile(from, `${to}.part`, constants.COPYFILE_FICLONE)
  await rename(`${to}.part`, to)
}

/** Bytes that `linkOrCopy` would have to write: none on the same file system. */
export async function bytesToCopy(files: readonly string[], into: string): Promise<number> {
  const { dev } = await stat(into)
  const infos = await Promise.all(files.map((file) => stat(file)))
  return infos.reduce((sum, info) => sum + (info.dev === dev ? 0 : info.size), 0)
}

/** Weight files of a model in a folder where pieces of its networks can be opened. */
export async function linkWeights(model: string, files: readonly string[], folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  for (const file of files) await linkOrCopy(join(model, file), join(folder, file))
}
