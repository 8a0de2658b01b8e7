import type { FloatTensor } from './tensor.ts'

/** What one text encoder made of one chunk of 77 tokens: states [77, d] of one block, and the pooled vector [p]. */
export type EncodedChunk = { states: FloatTensor; pooled: FloatTensor }

/** Results of one model's text encoders, by all that decides them. The tensors are shared: nobody may write to them. */
export interface TextCache {
  get(key: string): EncodedChunk | undefined
  put(key: string, chunk: EncodedChunk): void
}

/** Forgets what was unused longest when the tensors take more than `maxBytes`: 64 MB are 240 chunks of SD 1.5, 90 of SDXL. */
export function createTextCache(maxBytes = 64e6): TextCache {
  // A Map keeps insertion order; what is read is put back at the end.
  const chunks = new Map<string, EncodedChunk>()
  let bytes = 0
  return {
    get(key) {
      const found = chunks.get(key)
      if (found) {
        chunks.delete(key)
        chunks.set(key, found)
      }
      return found
    },
    put(key, chunk) {
      const known = chunks.get(key)
      if (known) bytes -= bytesOf(known)
      chunks.delete(key)
      chunks.set(key, chunk)
      bytes += bytesOf(chunk)
      for (const [oldest, old] of chunks) {
        if (bytes <= maxBytes) break
        chunks.delete(oldest)
        bytes -= bytesOf(old)
      }
    },
  }
}

const bytesOf = ({ states, pooled }: EncodedChunk) => states.data.byteLength + pooled.data.byteLength
