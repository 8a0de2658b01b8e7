import { randomUUID } from 'node:crypto'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, extname, join, relative, resolve, sep } from 'node:path'
import type { BinnedAdapter } from '../../preload/contract/adapters.ts'
import { freeName } from './adapter-copy.ts'
import { sidecarsOf } from './adapter-places.ts'

/** Moves an adapter with its sidecars into the bin; the id that is returned brings them back. */
export async function moveToBin(file: string, home: string, bin: string): Promise<string> {
  const undoId = randomUUID()
  // Below it the place where it lay in its own folder, so that this is known without a list.
  const folder = join(bin, undoId, dirname(relative(home, file)))
  await mkdir(folder, { recursive: true })
  const sidecars = sidecarsOf(file, new Set(await readdir(dirname(file))))
  await rename(file, join(folder, basename(file)))
  for (const sidecar of sidecars) await rename(sidecar, join(folder, basename(sidecar))).catch(() => {})
  return undoId
}

/** Where in the bin an adapter lies, and what else does beside it. */
async function foundIn(top: string): Promise<{ folder: string; adapter: string; others: string[] } | undefined> {
  let folder = top
  for (;;) {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
    const adapter = entries.find(({ name }) => name.endsWith('.safetensors'))
    if (adapter) {
      const others = entries.filter((entry) => entry.isFile() && entry !== adapter).map(({ name }) => name)
      return { folder, adapter: adapter.name, others }
    }
    const next = entries.find((entry) => entry.isDirectory())
    if (!next) return undefined
    folder = join(folder, next.name)
  }
}

/** Brings it back, under another name where its own is taken by now; undefined when it is not in the bin. */
export async function takeFromBin(undoId: string, home: string, bin: string): Promise<string | undefined> {
  const top = resolve(bin, undoId)
  if (!top.startsWith(resolve(bin) + sep) || undoId.includes('..')) return undefined
  const found = await foundIn(top)
  if (!found) return undefined
  const { folder, adapter, others } = found
  const target = join(home, relative(top, folder))
  await mkdir(target, { recursive: true })
  const name = await freeName(adapter, target)
  const stem = (path: string) => path.slice(0, path.length - extname(path).length)
  await rename(join(folder, adapter), join(target, name))
  for (const other of others) {
    await rename(join(folder, other), join(target, stem(name) + other.slice(stem(adapter).length))).catch(() => {})
  }
  await rm(top, { recursive: true, force: true })
  return join(target, name)
}

/** What lies in the bin, the newest first. */
export async function listBin(bin: string): Promise<BinnedAdapter[]> {
  const all: BinnedAdapter[] = []
  for (const undoId of await readdir(bin).catch(() => [])) {
    const top = join(bin, undoId)
    const found = await foundIn(top)
    if (!found) continue
    const files = [found.adapter, ...found.others].map((name) => join(found.folder, name))
    const sizes = await Promise.all(
      files.map((file) =>
        stat(file)
          .then(({ size }) => size)
          .catch(() => 0),
      ),
    )
    // The folder was made when the file went into it.
    const { mtimeMs } = await stat(top)
    all.push({
      undoId,
      name: found.adapter.replace(/\.safetensors$/i, ''),
      bytes: sizes.reduce((sum, size) => sum + size, 0),
      removedAt: Math.round(mtimeMs),
    })
  }
  return all.sort((a, b) => b.removedAt - a.removedAt)
}

/** Deletes for good. */
export function emptyBin(bin: string): Promise<void> {
  return rm(bin, { recursive: true, force: true })
}
