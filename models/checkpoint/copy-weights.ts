import { open, stat } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { VignetteError } from '../errors.ts'
import type { StorageDtype } from './dtypes.ts'
import { bytesPerElement, convertElements } from './dtypes.ts'
import type { PlannedPart } from './plan.ts'
import type { Layout } from './safetensors.ts'
import { layOut, readFully, writeFully } from './safetensors.ts'
import type { TensorSource } from './single-file.ts'
import type { WorkFolder } from './work-folder.ts'

export type CopyJob = {
  plan: PlannedPart
  /** Name of the weight file in the work folder. */
  file: string
  storage: StorageDtype
  label: string
}

const chunkBytes = 4 << 20
/** How much may have to be done again after a crash. */
const recordEveryBytes = 128 << 20

/** The weight file that a job writes. Tensors known to be too large for 16 bits keep 32. */
export function layoutOf({ plan, storage }: CopyJob, widened: ReadonlySet<string> = new Set()): Layout {
  const planned = [...plan.tensors].map(([name, tensor]) => ({
    name,
    shape: tensor.shape,
    dtype: storage === 'F16' && widened.has(name) ? ('F32' as const) : storage,
  }))
  return layOut(planned, { format: 'pt' })
}

/**
 * Writes one part's weights in the wanted storage, a few megabytes at a time, going on where an earlier run stopped.
 * `onBytes` hears how much of the source is done. Refuses values that are not numbers, naming the tensor.
 */
export async function copyWeights(
  job: CopyJob,
  work: WorkFolder,
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  for (;;) {
    const { widened } = work.done(job.file)
    const overflowed = await copyOnce(job, work, widened, onBytes, signal)
    if (overflowed === undefined) return
    // Rare: a value of 65520 or more in a float32 or bfloat16 file. The layout changes, so the part starts anew.
    await work.record({ file: job.file, widened: overflowed })
    await work.record({ file: job.file, tensors: 0 })
  }
}

/** Returns the name of a tensor that does not fit into 16 bits, or undefined when all is written. */
async function copyOnce(
  job: CopyJob,
  work: WorkFolder,
  widened: ReadonlySet<string>,
  onBytes: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const layout = layoutOf(job, widened)
  const path = join(work.path, job.file)
  const resumed = await stat(path).then(
    (info) => (info.size === layout.bytes ? work.done(job.file).tensors : 0),
    () => 0,
  )
  const target = await open(path, resumed > 0 ? 'r+' : 'w')
  const sources = new Map<string, FileHandle>()
  let recording: Promise<void> = Promise.resolve()
  try {
    if (resumed === 0) {
      await writeFully(target, layout.header, 0)
      await target.truncate(layout.bytes)
    }
    let unrecorded = 0
    for (let i = 0; i < layout.tensors.length; i++) {
      const { name, dtype, offset } = layout.tensors[i]
      const tensor = job.plan.tensors.get(name)
      if (!tensor) throw new Error(`${name}: planned but not given`)
      if (i >= resumed) {
        const source = sources.get(tensor.file) ?? (await open(tensor.file, 'r'))
        sources.set(tensor.file, source)
        const fits = await copyTensor({
          job,
          name,
          tensor,
          source,
          target,
          offset,
          dtype: dtype as StorageDtype,
          signal,
          onBytes,
        })
        if (!fits) return name
        unrecorded += tensor.length
      } else onBytes(tensor.length)
      if (unrecorded >= recordEveryBytes || (i === layout.tensors.length - 1 && unrecorded > 0)) {
        // The disk works on what is written while the next tensors are read.
        await recording
        recording = target.datasync().then(() => work.record({ file: job.file, tensors: i + 1 }))
        recording.catch(() => undefined) // reported where it is awaited
        unrecorded = 0
      }
    }
    await recording
    return undefined
  } finally {
    await recording.catch(() => undefined) // a file must not be closed while it is being synced
    await target.close()
    for (const source of sources.values()) await source.close()
  }
}

type TensorCopy = {
  job: CopyJob
  name: string
  tensor: TensorSource
  source: FileHandle
  target: FileHandle
  /** Where in the target. */
  offset: number
  dtype: StorageDtype
  signal: AbortSignal | undefined
  onBytes: (bytes: number) => void
}

/** False when a value is too large for 16 bits. */
async function copyTensor({
  job,
  name,
  tensor,
  source,
  target,
  offset,
  dtype,
  signal,
  onBytes,
}: TensorCopy): Promise<boolean> {
  const size = bytesPerElement[tensor.dtype]
  // A matrix that is turned is read whole: the largest is 1280 × 1280.
  const step = tensor.transpose ? tensor.length : chunkBytes
  const buffer = new Uint8Array(Math.min(step, tensor.length))
  let written = offset
  for (let at = 0; at < tensor.length; at += step) {
    signal?.throwIfAborted()
    const read = buffer.subarray(0, Math.min(step, tensor.length - at))
    await readFully(source, read, tensor.offset + at, tensor.file)
    const chunk = tensor.transpose ? transposed(read, tensor.shape[1], tensor.shape[0], size) : read
    const { bytes, nonFinite, overflowed } = convertElements(chunk, tensor.dtype, dtype, tensor.scale)
    if (nonFinite > 0) throw notNumbers(job.label, tensor, name, nonFinite)
    if (overflowed > 0) return false
    await writeFully(target, bytes, written)
    written += bytes.length
    onBytes(chunk.length)
  }
  return true
}

/** Elements of a [rows, columns] matrix in the order of its transpose. */
function transposed(bytes: Uint8Array, rows: number, columns: number, size: number): Uint8Array {
  const out = new Uint8Array(bytes.length)
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const from = (r * columns + c) * size
      out.set(bytes.subarray(from, from + size), (c * rows + r) * size)
    }
  }
  return out
}

function notNumbers(label: string, tensor: TensorSource, name: string, count: number): VignetteError {
  return new VignetteError(
    'file-unreadable',
    `${label} is damaged: ${count === 1 ? 'a value' : `${count} values`} of "${tensor.origin}" (${name}) in ${basename(tensor.file)} ${count === 1 ? 'is' : 'are'} not a number or infinite.`,
    { hint: 'The merge or training that made it went wrong. Look for another version of the model.' },
  )
}
