import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname, extname, join, relative, resolve, sep } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import type { AdapterRecord } from '../../preload/contract/adapters.ts'

// Where adapters lie, and the ids that stand for them. An id is readable and names a place, `own/ink.safetensors`, so a
// queue or a form that was stored means the same file after a restart, and no request of the window holds a path.

/** A folder, or one file, that adapters are listed from. */
export type AdapterPlace = { kind: AdapterRecord['place']; path: string; prefix: string }

/** A file that may be an adapter. `stamp` changes when it or one of its sidecars does. */
export type FoundFile = {
  id: string
  file: string
  place: AdapterPlace
  bytes: number
  modifiedAt: number
  stamp: string
}

/** What other programs put beside an adapter: read when it is, and taken along when the adapter is copied. */
const sidecarEndings = ['.json', '.civitai.info', '.cm-info.json', '.metadata.json']
const maxDepth = 8

export function ownPlace(folder: string): AdapterPlace {
  return { kind: 'own', path: resolve(folder), prefix: 'own' }
}

export function starterPlace(folder: string): AdapterPlace {
  return { kind: 'starter', path: resolve(folder), prefix: 'starter' }
}

/** The hash keeps two folders with the same name apart. */
export function linkedPlace(path: string): AdapterPlace {
  const hash = createHash('sha256').update(resolve(path)).digest('hex').slice(0, 8)
  return { kind: 'linked', path: resolve(path), prefix: `linked-${hash}` }
}

/** The file that an id stands for, or undefined: an id never reaches outside its place. */
export function fileOfId(
  places: readonly AdapterPlace[],
  id: string,
): { file: string; place: AdapterPlace } | undefined {
  const cut = id.indexOf('/')
  const place = places.find(({ prefix }) => prefix === id.slice(0, cut))
  if (place === undefined || cut < 0) return undefined
  const inside = id.slice(cut + 1)
  // A linked file is its own place.
  if (isAdapterName(place.path)) return inside === basename(place.path) ? { file: place.path, place } : undefined
  const file = resolve(place.path, inside)
  return file.startsWith(place.path + sep) ? { file, place } : undefined
}

export function idOfFile({ prefix, path }: AdapterPlace, file: string): string {
  const inside = isAdapterName(path) ? basename(path) : relative(path, file)
  return `${prefix}/${inside.split(sep).join('/')}`
}

/** Hidden names are files that are still being copied. */
export function isAdapterName(name: string): boolean {
  return extname(name).toLowerCase() === '.safetensors' && !basename(name).startsWith('.')
}

/** Every file of a place that may be an adapter. A place that is gone, an unplugged disk say, has none. */
export async function filesIn(place: AdapterPlace): Promise<FoundFile[]> {
  if (isAdapterName(place.path)) {
    const siblings = await readdir(dirname(place.path)).catch(() => [])
    const found = await look(place, place.path, siblings)
    return found ? [found] : []
  }
  const found: FoundFile[] = []
  // Level by level: Node 18, inside older Electron, cannot list a tree in one call.
  let folders = [place.path]
  for (let depth = 0; depth < maxDepth && folders.length > 0; depth++) {
    const next: string[] = []
    for (const folder of folders) {
      const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
      const names = entries.map(({ name }) => name)
      next.push(
        ...entries
          .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
          .map(({ name }) => join(folder, name)),
      )
      const files = entries.filter((entry) => !entry.isDirectory() && isAdapterName(entry.name))
      const looked = await Promise.all(files.map(({ name }) => look(place, join(folder, name), names)))
      found.push(...looked.filter((file) => file !== undefined))
    }
    folders = next
  }
  return found
}

/** One file, also one that no scan has come to yet; undefined when it is not there. */
export async function look(
  place: AdapterPlace,
  file: string,
  siblings?: readonly string[],
): Promise<FoundFile | undefined> {
  const own = await stat(file).catch(() => undefined)
  if (!own?.isFile()) return undefined
  const beside = sidecarsOf(file, siblings ?? (await readdir(dirname(file)).catch(() => [])))
  const stats = await Promise.all(beside.map((path) => stat(path).catch(() => undefined)))
  const stamp = [own, ...stats].map((one) => (one ? `${one.size}-${Math.round(one.mtimeMs)}` : '')).join(' ')
  return { id: idOfFile(place, file), file, place, bytes: own.size, modifiedAt: Math.round(own.mtimeMs), stamp }
}

/** Those of the names beside a file that say something about it. */
export function sidecarsOf(file: string, siblings: readonly string[]): string[] {
  const stem = basename(file, extname(file))
  return siblings
    .filter((name) => name.startsWith(stem) && isSidecarEnding(name.slice(stem.length)))
    .map((name) => join(dirname(file), name))
}

/** `stem.preview.png` and the like are pictures of what it does. */
export function isSidecarEnding(ending: string): boolean {
  return sidecarEndings.includes(ending) || /^\.preview\.(png|jpe?g|webp)$/.test(ending)
}

export function missingAdapter(id: string): VignetteError {
  return new VignetteError('file-unreadable', `The adapter "${basename(id)}" is not in the library any more.`, {
    hint: 'Take it out of the strip, or put the file back.',
  })
}
