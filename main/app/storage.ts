import { lstat, readdir, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { StoragePart } from '../../preload/contract/app.ts'
import type { Log } from './log.ts'
import { binName } from './model-bin.ts'

type PartId = StoragePart['id']

/** What lies in the home folder, by the names at its top; the rest is `other`. */
const namesOf: { id: PartId; names: RegExp }[] = [
  { id: 'pictures', names: /^pictures$/ },
  { id: 'adapters', names: /^adapters$/ },
  { id: 'models', names: /^models$/ },
  { id: 'bin', names: /^bin$/ },
  { id: 'stories', names: /^(stories|characters)$/ },
  { id: 'queue', names: /^(queue.*|checkpoints)$/ },
  { id: 'index', names: /^(library\.db.*|own\.db.*|cache|adapter.*)$/ },
  { id: 'logs', names: /^logs$/ },
  { id: 'window', names: /^window$/ },
]
const reportEveryMs = 200
/** File names looked at before other work has its turn. */
const atOnce = 200

/**
 * How much room everything takes. Counting goes on in the background, in small pieces, and can be stopped; what is
 * found so far is told as it goes.
 */
export class Storage {
  readonly #options: StorageOptions
  #run: AbortController | undefined

  constructor(options: StorageOptions) {
    this.#options = options
  }

  /** Begins, or begins again. Resolves when all is counted or it was stopped. */
  async measure(): Promise<void> {
    this.#run?.abort()
    const run = (this.#run = new AbortController())
    const { home, modelsFolder, emit, log } = this.#options
    const parts: StoragePart[] = namesOf
      .map(({ id }) => ({ id, path: this.pathOf(id), bytes: 0, files: 0, isMeasured: false }))
      .concat({ id: 'other', path: home, bytes: 0, files: 0, isMeasured: false })
    const freeBytes = await freeBytesOf(home)
    let told = 0
    const tell = (isMeasuring: boolean) => {
      if (this.#run !== run) return
      told = Date.now()
      emit({ parts: parts.map((part) => ({ ...part })), isMeasuring, freeBytes })
    }
    tell(true)
    try {
      const places = await placesOf(home, modelsFolder)
      for (const part of parts) {
        for (const place of places.filter(({ id }) => id === part.id)) {
          for await (const bytes of sizesIn(place.path, run.signal)) {
            part.bytes += bytes
            part.files++
            if (Date.now() - told > reportEveryMs) tell(true)
          }
        }
        if (run.signal.aborted) break
        part.isMeasured = true
      }
    } catch (error) {
      log.warn('measuring the storage', error)
    }
    tell(false)
  }

  cancel(): void {
    this.#run?.abort()
  }

  /** The folder or file that stands for a part. */
  pathOf(id: PartId): string {
    const { home, modelsFolder } = this.#options
    const names: Record<PartId, string> = {
      ...{ pictures: 'pictures', adapters: 'adapters', models: '', bin: 'bin', stories: 'stories' },
      ...{ queue: 'queue.json', index: 'library.db', logs: 'logs', window: 'window', other: '' },
    }
    return id === 'models' ? modelsFolder : join(home, names[id])
  }
}

export type StorageOptions = {
  home: string
  /** May lie elsewhere. */
  modelsFolder: string
  emit: (state: { parts: StoragePart[]; isMeasuring: boolean; freeBytes?: number }) => void
  log: Log
}

async function placesOf(home: string, modelsFolder: string): Promise<{ id: PartId; path: string }[]> {
  const names = await readdir(home).catch(() => [])
  const places = names.map((name) => ({
    id: namesOf.find((one) => one.names.test(name))?.id ?? ('other' as const),
    path: join(home, name),
  }))
  // The models have a bin of their own, on their own disk.
  const models = (await readdir(modelsFolder).catch(() => [])).map((name) => ({
    id: name === binName ? ('bin' as const) : ('models' as const),
    path: join(modelsFolder, name),
  }))
  return [...places.filter(({ path }) => path !== modelsFolder), ...models]
}

/** The size of each file below a path. Links are not followed: what they point to lies elsewhere. */
async function* sizesIn(path: string, signal: AbortSignal): AsyncGenerator<number> {
  const info = await lstat(path).catch(() => undefined)
  if (!info || signal.aborted) return
  if (!info.isDirectory()) return yield info.size
  const folders = [path]
  for (let folder = folders.pop(); folder !== undefined && !signal.aborted; folder = folders.pop()) {
    const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
    for (let i = 0; i < entries.length && !signal.aborted; i += atOnce) {
      const files: string[] = []
      for (const entry of entries.slice(i, i + atOnce)) {
        if (entry.isDirectory()) folders.push(join(folder, entry.name))
        else if (entry.isFile()) files.push(join(folder, entry.name))
      }
      const sizes = await Promise.all(
        files.map((file) =>
          stat(file).then(
            ({ size }) => size,
            () => undefined,
          ),
        ),
      )
      for (const size of sizes) if (size !== undefined) yield size
    }
  }
}

/** Room left on the disk; undefined where the system does not tell. */
export async function freeBytesOf(path: string): Promise<number | undefined> {
  return statfs(path).then(
    ({ bavail, bsize }) => bavail * bsize,
    () => undefined,
  )
}

/** Deletes what lies in a bin folder for longer than `days`; 0 is everything. Each entry's own time is when it came. */
export async function clearBin(folder: string, days: number, now = Date.now()): Promise<number> {
  let removed = 0
  for (const name of await readdir(folder).catch(() => [])) {
    const entry = join(folder, name)
    const info = await lstat(entry).catch(() => undefined)
    if (!info || now - info.mtimeMs < days * 24 * 3600_000) continue
    await rm(entry, { recursive: true, force: true })
    removed++
  }
  return removed
}
