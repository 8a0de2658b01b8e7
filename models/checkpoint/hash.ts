import { createHash } from 'node:crypto'
import { open, stat } from 'node:fs/promises'
import { relative } from 'node:path'

const chunkBytes = 8 << 20

/** SHA-256 of a file, in hex, read in pieces; `onBytes` hears of each. */
export async function sha256OfFile(
  path: string,
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  const hash = createHash('sha256')
  const file = await open(path, 'r')
  try {
    const buffer = new Uint8Array(chunkBytes)
    for (;;) {
      signal?.throwIfAborted()
      const { bytesRead } = await file.read(buffer, 0, chunkBytes)
      if (bytesRead === 0) return hash.digest('hex')
      hash.update(buffer.subarray(0, bytesRead))
      onBytes(bytesRead)
    }
  } finally {
    await file.close()
  }
}

/** For a single file its own SHA-256, as model sites list it; for several the SHA-256 of their names and hashes. */
export async function sha256OfSource(
  root: string,
  files: readonly string[],
  onBytes: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<string> {
  if (files.length === 1 && files[0] === root) return sha256OfFile(root, onBytes, signal)
  const all = createHash('sha256')
  for (const file of files)
    all.update(`${await sha256OfFile(file, onBytes, signal)}  ${relative(root, file).replaceAll('\\', '/')}\n`)
  return all.digest('hex')
}

export async function bytesOf(files: readonly string[]): Promise<number> {
  const sizes = await Promise.all(files.map((file) => stat(file)))
  return sizes.reduce((sum, info) => sum + info.size, 0)
}
