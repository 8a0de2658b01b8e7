import { open, type FileHandle } from 'node:fs/promises'
import { contentHash } from '../../models/adapters/content-hash.ts'
import { inspectAdapter } from '../../models/adapters/read.ts'
import type { AdapterInfo, ModelShape } from '../../models/adapters/types.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'

/** How the library reads adapter files. */
export type AdapterReader = {
  /** Header, metadata and sidecars, against a model. */
  inspect(file: string, shape: ModelShape | undefined): Promise<AdapterInfo>
  /**
   * Compares others with this file by a few bytes of a few tensors, without reading their headers as JSON: a thousand
   * files take less than a second. Those that look the same very likely are; `hash` says.
   */
  resemblance(file: string): Promise<(other: string) => Promise<boolean>>
  /** All of the content. */
  hash(file: string, signal?: AbortSignal): Promise<string>
}

const sampleBytes = 256
const sampleCount = 4
const maxHeaderBytes = 100_000_000

export const adapterReader: AdapterReader = {
  inspect: inspectAdapter,
  async resemblance(file) {
    const { tensors } = await readSafetensors(file)
    const samples = samplesOf(tensors)
    const total = [...tensors.values()].reduce((sum, { length }) => sum + length, 0)
    const own = await opened(file, (handle) =>
      Promise.all(samples.map(([, { offset, length }]) => middleOf(handle, offset, length))),
    )
    return (other) =>
      opened(other, async (handle) => {
        const { size } = await handle.stat()
        const start = Buffer.alloc(8)
        await handle.read(start, 0, 8, 0)
        const headerBytes = Number(start.readBigUInt64LE())
        if (headerBytes > maxHeaderBytes || size - 8 - headerBytes !== total) return false
        const bytes = Buffer.alloc(headerBytes)
        await handle.read(bytes, 0, headerBytes, 8)
        const header = bytes.toString('utf8')
        for (const [i, [name, { length }]] of samples.entries()) {
          const place = placeIn(header, name)
          if (!place || place[1] - place[0] !== length) return false
          if (!own[i].equals(await middleOf(handle, 8 + headerBytes + place[0], length))) return false
        }
        return true
      })
  },
  hash: async (file, signal) => contentHash((await readSafetensors(file)).tensors, signal),
}

/** A few of the tensors that hold weights and not a single number, evenly over the names in their order. */
function samplesOf(tensors: ReadonlyMap<string, StoredTensor>): [string, StoredTensor][] {
  const all = [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))
  const large = all.filter(([, { length }]) => length >= sampleBytes)
  const from = large.length > 0 ? large : all
  const stride = Math.max(1, Math.floor(from.length / sampleCount))
  return from.filter((_, i) => i % stride === 0).slice(0, sampleCount + 1)
}

/** Where the header says that a tensor lies, found as text. */
function placeIn(header: string, name: string): [number, number] | undefined {
  const key = JSON.stringify(name)
  const at = header.indexOf(key)
  if (at < 0) return undefined
  const entry = header.slice(at + key.length, at + key.length + 400)
  const [, begin, end] = /"data_offsets"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*\]/.exec(entry) ?? []
  return begin === undefined ? undefined : [Number(begin), Number(end)]
}

/** From the middle of a tensor: its ends are more often zeros. */
async function middleOf(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const sample = Buffer.alloc(Math.min(sampleBytes, length))
  await handle.read(sample, 0, sample.length, offset + Math.floor((length - sample.length) / 2))
  return sample
}

async function opened<T>(file: string, use: (handle: FileHandle) => Promise<T>): Promise<T> {
  const handle = await open(file, 'r')
  try {
    return await use(handle)
  } finally {
    await handle.close()
  }
}
