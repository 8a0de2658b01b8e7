import { createHash } from 'node:crypto'
import { open, readFile, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { weightFiles } from '../../models/checkpoint/about.ts'
import { writeGraphs } from '../../models/checkpoint/graphs.ts'
import { openWorkFolder, tryLock } from '../../models/checkpoint/work-folder.ts'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { gigabytes } from './memory.ts'
import { readManifest } from './model-folder.ts'

const chunkBytes = 8 << 20

export type CopyModelOptions = {
  name: string
  signal?: AbortSignal
  onBytes?: (done: number, total: number) => void
}

/**
 * Copies a model folder of Vignette's own kind. Its graphs are built anew from its description: what comes from elsewhere
 * brings numbers, never programs. Killed, it goes on with the file it was at; cancelled or failed, it leaves nothing.
 */
export async function copyModel(
  source: string,
  folder: string,
  { name, signal, onBytes }: CopyModelOptions,
): Promise<ModelManifest> {
  const manifest = readManifest(source)
  const weights = await weightFiles(source)
  const sizes = await Promise.all(weights.map(async (file) => (await stat(join(source, file))).size))
  const total = sizes.reduce((sum, size) => sum + size, 0)
  await checkRoom(folder, manifest.name, total)
  const unlock = await tryLock(folder)
  if (!unlock) {
    throw new VignetteError('bad-request', `"${name}" is being imported at this moment by another Vignette.`, {
      hint: 'Wait until it is done.',
    })
  }
  const key = createHash('sha256').update(JSON.stringify([1, source, manifest, weights, sizes]))
  const work = await openWorkFolder(folder, key.digest('hex'))
  try {
    let done = 0
    for (const [i, file] of weights.entries()) {
      if (work.finished(file) === undefined) {
        await copyFile(join(source, file), join(work.path, file), signal, (bytes) => onBytes?.(done + bytes, total))
        await work.record({ step: file, value: sizes[i] })
      }
      done += sizes[i]
      onBytes?.(done, total)
    }
    for (const file of ['parts.json', 'about.json']) {
      const text = await readFile(join(source, file), 'utf8').catch(() => undefined)
      if (text !== undefined) await writeFile(join(work.path, file), text)
    }
    const networks = await writeGraphs(work.path)
    const copied = { ...manifest, id: basename(folder), name, networks }
    await writeFile(join(work.path, 'model.json'), `${JSON.stringify(copied, null, 2)}\n`)
    signal?.throwIfAborted()
    await work.finish()
    return copied
  } catch (error) {
    await work.discard()
    throw fromSystemError(error) ?? error
  } finally {
    await unlock()
  }
}

async function checkRoom(folder: string, name: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(folder))
  if (bavail * bsize >= needed + chunkBytes) return
  throw new VignetteError(
    'disk-full',
    `Copying "${name}" needs ${gigabytes(needed)}; ${gigabytes(bavail * bsize)} are free at ${dirname(folder)}.`,
    { hint: 'Free some space, or put the model on another disk.' },
  )
}

async function copyFile(
  from: string,
  to: string,
  signal: AbortSignal | undefined,
  onBytes: (bytes: number) => void,
): Promise<void> {
  await rm(to, { force: true })
  const source = await open(from, 'r')
  const target = await open(to, 'wx')
  try {
    const buffer = Buffer.alloc(chunkBytes)
    for (let at = 0; ;) {
      signal?.throwIfAborted()
      const { bytesRead } = await source.read(buffer, 0, chunkBytes, at)
      if (bytesRead === 0) break
      await target.writeFile(buffer.subarray(0, bytesRead))
      onBytes((at += bytesRead))
    }
    await target.sync()
  } finally {
    await source.close()
    await target.close()
  }
}
