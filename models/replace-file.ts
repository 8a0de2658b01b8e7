import { randomUUID } from 'node:crypto'
import { open, rename, rm, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** A name beside `path` that nothing has yet, hidden where a leading dot hides, for what is still being written. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`)
}

/**
 * Writes a file beside its target, flushes it and renames it: the target is the old file or the whole new one, never
 * half of it, and a failure leaves nothing behind. `content` is the bytes, or writes them into the open file itself.
 */
export async function replaceFile(
  path: string,
  content: Uint8Array | string | ((file: FileHandle) => Promise<void>),
): Promise<void> {
  const temporary = temporaryName(path)
  try {
    const file = await open(temporary, 'wx')
    try {
      await (typeof content === 'function' ? content(file) : file.writeFile(content))
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}
