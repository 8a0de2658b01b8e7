import { copyFile, mkdir, open, readdir, stat, statfs, type FileHandle } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { replaceFile } from '../../models/replace-file.ts'
import { sidecarsOf } from './adapter-places.ts'

const chunkBytes = 4 << 20
/** What stays free, so that the next picture can still be saved. */
const reserveBytes = 256 << 20
const maxSidecarBytes = 10 << 20

export type CopyOptions = {
  signal?: AbortSignal
  onProgress?: (doneBytes: number, totalBytes: number) => void
  /** Bytes that are free in a folder; asked of the disk when left out. */
  freeBytes?: (folder: string) => Promise<number>
  /** What the copy is to be called; its own name otherwise. */
  name?: string
}

/**
 * Copies an adapter and what lies beside it into a folder, under its own name or the next free one, and resolves with
 * the copy's path. The copy appears whole or not at all: a full disk, a failure or `signal` leaves nothing behind.
 */
export async function copyAdapter(file: string, folder: string, options: CopyOptions = {}): Promise<string> {
  const { signal, onProgress, freeBytes = freeBytesIn, name = basename(file) } = options
  const { size } = await stat(file)
  await mkdir(folder, { recursive: true })
  const free = await freeBytes(folder)
  if (size + reserveBytes > free) {
    throw new VignetteError('disk-full', `"${basename(file)}" needs ${megabytes(size)}; ${megabytes(free)} are free.`, {
      hint: 'Free some space, or link the file where it lies instead of copying it.',
    })
  }
  const target = join(folder, await freeName(name, folder))
  const source = await open(file, 'r')
  try {
    await replaceFile(target, (copy) => copyBytes(source, copy, size, signal, onProgress))
  } finally {
    await source.close()
  }
  await copySidecars(file, target)
  return target
}

async function copyBytes(
  source: FileHandle,
  copy: FileHandle,
  size: number,
  signal: AbortSignal | undefined,
  onProgress: CopyOptions['onProgress'],
): Promise<void> {
  const buffer = Buffer.alloc(Math.min(chunkBytes, Math.max(size, 1)))
  for (let at = 0; at < size;) {
    signal?.throwIfAborted()
    const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, size - at), at)
    if (bytesRead === 0) throw new VignetteError('file-unreadable', 'The file became shorter while it was copied.')
    await copy.writeFile(buffer.subarray(0, bytesRead)) // goes on where the last write ended, and writes all of it
    at += bytesRead
    onProgress?.(at, size)
  }
  signal?.throwIfAborted()
}

/** Notes and previews are a help, not a need: one that cannot be copied is left. */
async function copySidecars(file: string, target: string): Promise<void> {
  const stem = (path: string) => path.slice(0, path.length - extname(path).length)
  for (const sidecar of sidecarsOf(file, new Set(await readdir(dirname(file)).catch(() => [])))) {
    const { size } = await stat(sidecar).catch(() => ({ size: Infinity }))
    if (size <= maxSidecarBytes)
      await copyFile(sidecar, stem(target) + sidecar.slice(stem(file).length)).catch(() => {})
  }
}

/** `ink.safetensors`, or `ink-2.safetensors` where that name, or one of its sidecars', is taken. */
export async function freeName(file: string, folder: string): Promise<string> {
  const taken = (await readdir(folder)).map((name) => name.toLowerCase())
  const base = basename(file)
    .replace(/\.safetensors$/i, '')
    .replace(/[\p{Cc}<>:"/\\|?*]/gu, '_') // what some system does not take in a name
    .replace(/^\.+/, '')
  const stem = base === '' ? 'adapter' : base
  for (let count = 1; ; count++) {
    const name = count === 1 ? stem : `${stem}-${count}`
    if (!taken.some((other) => other.startsWith(`${name.toLowerCase()}.`))) return `${name}.safetensors`
  }
}

async function freeBytesIn(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6).toLocaleString('en-GB')} MB`
}
