import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { contentHash } from '../../models/adapters/content-hash.ts'
import { inspectAdapter } from '../../models/adapters/read.ts'
import type { AdapterInfo, ModelShape } from '../../models/adapters/types.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'

/** How the library reads adapter files. */
export type AdapterReader = {
  /** Header, metadata and sidecars, against a model. */
  inspect(file: string, shape: ModelShape | undefined): Promise<AdapterInfo>
  /** A few kilobytes of the content: different ones are different adapters, equal ones are very likely the same. */
  fingerprint(file: string): Promise<string>
  /** All of the content. */
  hash(file: string, signal?: AbortSignal): Promise<string>
}

const sampleBytes = 256
const sampleCount = 4

export const adapterReader: AdapterReader = {
  inspect: inspectAdapter,
  async fingerprint(file) {
    const { tensors } = await readSafetensors(file)
    const hash = createHash('sha256')
    const names = [...tensors.keys()].sort()
    for (const name of names) hash.update(`${name} ${tensors.get(name)!.dtype} ${tensors.get(name)!.shape.join()}\n`)
    const handle = await open(file, 'r')
    try {
      for (const { offset, length } of samplesOf(names.map((name) => tensors.get(name)!))) {
        // From the middle: ends are more often zeros.
        const start = offset + Math.floor(Math.max(0, length - sampleBytes) / 2)
        const sample = Buffer.alloc(Math.min(sampleBytes, length))
        await handle.read(sample, 0, sample.length, start)
        hash.update(sample)
      }
    } finally {
      await handle.close()
    }
    return hash.digest('hex')
  },
  hash: async (file, signal) => contentHash((await readSafetensors(file)).tensors, signal),
}

/** A few of the tensors that hold weights and not a single number, evenly over the file. */
function samplesOf(tensors: readonly StoredTensor[]): StoredTensor[] {
  const large = tensors.filter(({ length }) => length >= sampleBytes)
  const from = large.length > 0 ? large : tensors
  const stride = Math.max(1, Math.floor(from.length / sampleCount))
  return from.filter((_, i) => i % stride === 0).slice(0, sampleCount + 1)
}
