import { randomUUID } from 'node:crypto'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, extname, join, relative, resolve, sep } from 'node:path'
import { sidecarsOf } from './adapter-places.ts'
import { freeName } from './adapter-copy.ts'

/** Moves an adapter with its sidecars into the bin; the id that is returned brings them back. */
export async function moveToBin(file: string, home: string, bin: string): Promise<string> {
  const undoId = randomUUID()
  // Below it the place where it lay in its own folder, so that this is known without a list.
  const folder = join(bin, undoId, dirname(relative(home, file)))
  await mkdir(folder, { recursive: true })
  const sidecars = sidecarsOf(file, await readdir(dirname(file)))
  await rename(file, join(folder, basename(file)))
  for (const sidecar of sidecars) await rename(sidecar, join(folder, basename(sidecar))).catch(() => {})
  return undoId
}

/** Brings it back, under another name where its own is taken by now; undefined when it is not in the bin. */
export async function takeFromBin(undoId: string, home: string, bin: string): Promise<string | undefined> {
  const top = resolve(bin, undoId)
  if (!top.startsWith(resolve(bin) + sep) || undoId.includes('..')) return undefined
  let folder = top
  for (;;) {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
    const adapter = entries.find(({ name }) => name.endsWith('.safetensors'))
    if (adapter) {
      const target = join(home, relative(top, folder))
      await mkdir(target, { recursive: true })
      const name = await freeName(adapter.name, target)
      const stem = (path: string) => path.slice(0, path.length - extname(path).length)
      await rename(join(folder, adapter.name), join(target, name))
      for (const { name: other } of entries) {
        if (other === adapter.name) continue
        await rename(join(folder, other), join(target, stem(name) + other.slice(stem(adapter.name).length))).catch(
          () => {},
        )
      }
      await rm(top, { recursive: true, force: true })
      return join(target, name)
    }
    const next = entries.find((entry) => entry.isDirectory())
    if (!next) return undefined
    folder = join(folder, next.name)
  }
}
