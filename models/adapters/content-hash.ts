import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import type { StoredTensor } from '../graph/weights.ts'

const chunkBytes = 4 << 20

/**
 * SHA-256 of what a file contains: name, type, shape and bytes of each tensor, in the order of the names. The header's
 * order, the notes in it and where the tensors lie do not count, so a renamed or described copy has the same.
 */
export async function contentHash(
  tensors: ReadonlyMap<string, StoredTensor>,
  signal?: AbortSignal,
  /** Where the tensors are read from when not from their files. */
  bytesOf?: (tensor: StoredTensor) => Uint8Array | Promise<Uint8Array>,
): Promise<string> {
  const hash = createHash('sha256')
  const names = [...tensors.keys()].sort()
  const buffer = Buffer.alloc(chunkBytes)
  const files = new Map<string, Awaited<ReturnType<typeof open>>>()
  try {
    for (const name of names) {
      const { file, offset, length, dtype, shape } = tensors.get(name)!
      hash.update(`${JSON.stringify([name, dtype, shape])}\n`)
      if (bytesOf) {
        signal?.throwIfAborted()
        hash.update(await bytesOf(tensors.get(name)!))
        continue
      }
      const handle = files.get(file) ?? (await open(file, 'r'))
      files.set(file, handle)
      for (let at = 0; at < length;) {
        signal?.throwIfAborted()
        const { bytesRead } = await handle.read(buffer, 0, Math.min(chunkBytes, length - at), offset + at)
        if (bytesRead === 0) throw new Error(`${file} ends inside "${name}"`)
        hash.update(buffer.subarray(0, bytesRead))
        at += bytesRead
      }
    }
  } finally {
    for (const handle of files.values()) await handle.close()
  }
  return hash.digest('hex')
}
