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
  /** A picture beside it that shows what it does. */
  preview?: { path: string; bytes: number }
}

/** Pictures that programs put beside an adapter, the one that says most first. */
const previewEndings = [
  '.preview.png',
  '.preview.jpg',
  '.preview.jpeg',
  '.preview.webp',
  '.png',
  '.jpg',
  '.jpeg',
  '.webp',
]
/** All that they put there: read when the adapter is, and taken along when it is copied. */
const sidecarEndings = ['.json', '.civitai.info', '.cm-info.json', '.metadata.json', ...previewEndings]
const maxDepth = 8
/** A folder that was linked by mistake may be a whole disk. */
const maxFiles = 50_000
/** Asked of the disk at once. */
const looksAtOnce = 32

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

/** Where the file lies, in words: below its place, and with the name of a linked one. */
export function folderOf({ kind, path }: AdapterPlace, file: string): string {
  const inside = isAdapterName(path) ? '' : relative(path, dirname(file)).split(sep).join('/')
  if (kind !== 'linked') return inside
  const name = basename(isAdapterName(path) ? dirname(path) : path)
  return inside === '' ? name : `${name}/${inside}`
}

/** The place that a path lies in, whether there is a file or not. */
export function placeOfFile(places: readonly AdapterPlace[], file: string): AdapterPlace | undefined {
  return places.find(({ path }) => path === file || (!isAdapterName(path) && file.startsWith(path + sep)))
}

/** Every file of a place that may be an adapter. A place that is gone, an unplugged disk say, has none. */
export async function filesIn(place: AdapterPlace, signal?: AbortSignal): Promise<FoundFile[]> {
  if (isAdapterName(place.path)) {
    const siblings = await readdir(dirname(place.path)).catch(() => [])
    const found = await look(place, place.path, new Set(siblings))
    return found ? [found] : []
  }
  const found: FoundFile[] = []
  // Level by level: Node 18, inside older Electron, cannot list a tree in one call.
  let folders = [place.path]
  for (let depth = 0; depth < maxDepth && folders.length > 0; depth++) {
    const next: string[] = []
    for (const folder of folders) {
      const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
      const names = new Set(entries.map(({ name }) => name))
      next.push(
        ...entries
          .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
          .map(({ name }) => join(folder, name)),
      )
      const files = entries.filter((entry) => !entry.isDirectory() && isAdapterName(entry.name))
      for (let i = 0; i < files.length && found.length < maxFiles; i += looksAtOnce) {
        signal?.throwIfAborted()
        const some = files.slice(i, i + looksAtOnce)
        const looked = await Promise.all(some.map(({ name }) => look(place, join(folder, name), names)))
        for (const file of looked) if (file) found.push(file)
      }
    }
    folders = next
  }
  return found
}

/** One file, also one that no scan has come to yet; undefined when it is not there. */
export async function look(
  place: AdapterPlace,
  file: string,
  siblings?: ReadonlySet<string>,
): Promise<FoundFile | undefined> {
  const own = await stat(file).catch(() => undefined)
  if (!own?.isFile()) return undefined
  const beside = sidecarsOf(file, siblings ?? new Set(await readdir(dirname(file)).catch(() => [])))
  const stats = await Promise.all(beside.map((path) => stat(path).catch(() => undefined)))
  const stamp = [own, ...stats].map((one) => (one ? `${one.size}-${Math.round(one.mtimeMs)}` : '')).join(' ')
  const found = { id: idOfFile(place, file), file, place, bytes: own.size, modifiedAt: Math.round(own.mtimeMs), stamp }
  const stem = stemOf(file)
  for (const ending of previewEndings) {
    const i = beside.indexOf(stem + ending)
    if (i >= 0 && stats[i]?.isFile()) return { ...found, preview: { path: beside[i], bytes: stats[i].size } }
  }
  return found
}

/** Those of the names beside a file that say something about it. */
export function sidecarsOf(file: string, siblings: ReadonlySet<string>): string[] {
  const stem = stemOf(file)
  return sidecarEndings.filter((ending) => siblings.has(basename(stem) + ending)).map((ending) => stem + ending)
}

const stemOf = (file: string) => file.slice(0, file.length - extname(file).length)

export function missingAdapter(id: string): VignetteError {
  return new VignetteError('file-unreadable', `The adapter "${basename(id)}" is not in the library any more.`, {
    hint: 'Take it out of the strip, or put the file back.',
  })
}
