import { readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'

/**
 * `2026/11/25/00001-7.png`, or `imported/2026/11/25/00001-name.jpg`: what the library writes, and all that it takes for a
 * picture of its own. Lower case throughout: ids become hosts of URLs.
 */
const ourName = /^(imported\/)?(\d{4})\/(\d{2})\/(\d{2})\/(\d{5,})-[a-z0-9-]{1,40}\.(png|jpg|webp|avif|gif)$/

export function isOurFile(file: string): boolean {
  return ourName.test(file)
}

export function isImported(file: string): boolean {
  return file.startsWith('imported/')
}

/** `2026/11/25/00001-7.png` -> `2026-11-25-00001-7`: the same whenever the index is made again, and fit for a URL. */
export function idOf(file: string): string {
  return file.replaceAll('/', '-').replace(/\.[a-z]+$/, '')
}

/** `2026/11/25`, by the clock of the place. */
export function dayFolder(date: Date): string {
  const pad = (value: number, length: number) => String(value).padStart(length, '0')
  return [pad(date.getFullYear(), 4), pad(date.getMonth() + 1, 2), pad(date.getDate(), 2)].join('/')
}

export function fileName(number: number, ending: string): string {
  return `${String(number).padStart(5, '0')}-${ending}`
}

/** What remains of the name of an imported file: enough to know it again. */
export function plainName(path: string): string {
  const bare = basename(path).replace(/\.[^.]*$/, '')
  const plain = bare
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
  return plain.slice(0, 32).replace(/-+$/, '') || 'picture'
}

/** When a picture was made, from its file's date where that agrees with the day it lies under. */
export function createdAt(file: string, modifiedMs: number): number {
  const [, , year, month, day, number] = ourName.exec(file)!
  const date = new Date(modifiedMs)
  if (file.includes(dayFolder(date))) return Math.round(modifiedMs)
  // Copied since: noon, in the order of the numbers.
  return new Date(Number(year), Number(month) - 1, Number(day), 12).getTime() + Math.min(Number(number), 40_000) * 1000
}

/** The highest number in a folder of one day; 0 when there is none. */
export async function lastNumber(folder: string): Promise<number> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.reduce((most, name) => Math.max(most, Number(/^(\d{5,})-/.exec(name)?.[1] ?? 0)), 0)
}

/** Every picture file below the library's folder, or its bin. */
export async function filesIn(folder: string): Promise<string[]> {
  const own = await level(folder, '', 4)
  const imported = await level(folder, 'imported', 4)
  return [...own, ...imported].filter(isOurFile)
}

/** Level by level: Node 18, inside older Electron, cannot list a tree in one call. */
async function level(folder: string, start: string, depth: number): Promise<string[]> {
  let found = [start]
  for (let at = 1; at <= depth; at++) {
    const next: string[] = []
    for (const path of found) {
      const entries = await readdir(join(folder, path), { withFileTypes: true }).catch(() => [])
      for (const entry of entries) {
        const isWanted = at === depth ? entry.isFile() : entry.isDirectory() && /^\d+$/.test(entry.name)
        if (isWanted) next.push(path === '' ? entry.name : `${path}/${entry.name}`)
      }
    }
    found = next
  }
  return found
}
