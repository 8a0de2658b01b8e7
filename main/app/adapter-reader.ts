import { createHash } from 'node:crypto'
import { open, type FileHandle } from 'node:fs/promises'
import { contentHash } from '../../models/adapters/content-hash.ts'
import { lookAtAdapter } from '../../models/adapters/read.ts'
import type { AdapterInfo, ModelShape } from '../../models/adapters/types.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'

/** A model to judge by; `key` changes when it does. */
export type Against = { key: string; shape?: ModelShape }

/** What one file told. Files with the same `print` very likely have the same content; `hash` of the reader says. */
export type AdapterReading = { info: AdapterInfo; print?: string }

/** How the library reads adapter files. */
export type AdapterReader = {
  /** Header, metadata and sidecars, against a model. */
  inspect(file: string, against: Against): Promise<AdapterReading>
  /** All of the content. */
  hash(file: string, signal?: AbortSignal): Promise<string>
  close?(): void
}

const sampleBytes = 256
const sampleCount = 8

/** Reads in this process: the work of adapter-worker.ts, and of tests. */
export const adapterReader: AdapterReader = {
  async inspect(file, { shape }) {
    const { info, tensors } = await lookAtAdapter(file, shape)
    if (!tensors || info.verdict.fit === 'refused') return { info }
    return { info, print: await printOf(tensors) }
  },
  hash: async (file, signal) => contentHash((await readSafetensors(file)).tensors, signal),
}

/**
 * A name for the content that costs a few reads: names, types and shapes of all tensors, and a few bytes out of the
 * middle of some. Notes in the header, the file's name and where the tensors lie do not count. 128 bits in hex.
 */
export async function printOf(tensors: ReadonlyMap<string, StoredTensor>): Promise<string> {
  const hash = createHash('sha256')
  const all = [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [name, { dtype, shape }] of all) hash.update(`${JSON.stringify([name, dtype, shape])}\n`)
  // Of those that hold weights and not a single number, evenly over the names in their order.
  const large = all.filter(([, { length }]) => length >= sampleBytes)
  const from = large.length > 0 ? large : all
  const stride = Math.max(1, Math.floor(from.length / sampleCount))
  const handles = new Map<string, FileHandle>()
  try {
    for (let i = 0; i < from.length; i += stride) {
      const { file, offset, length } = from[i][1]
      const handle = handles.get(file) ?? (await open(file, 'r'))
      handles.set(file, handle)
      hash.update(await middleOf(handle, offset, length))
    }
  } finally {
    for (const handle of handles.values()) await handle.close()
  }
  return hash.digest('hex').slice(0, 32)
}

/** From the middle of a tensor: its ends are more often zeros. */
async function middleOf(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const sample = Buffer.alloc(Math.min(sampleBytes, length))
  await handle.read(sample, 0, sample.length, offset + Math.floor((length - sample.length) / 2))
  return sample
}
