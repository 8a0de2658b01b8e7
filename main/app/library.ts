import Database from 'libsql'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, stat } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import type { ImageRecord } from '../../preload/contract/images.ts'
import { recipeOf } from '../export/metadata.ts'
import { readPng } from '../export/png.ts'
import { writeAtomic } from './files.ts'
import type { Log } from './log.ts'

type Row = { id: string; file: string; prompt: string; seed: number; width: number; height: number; created_at: number }
type Picture = { prompt: string; seed: number; width: number; height: number }

/** `2026/11/25/00001-7.png`: what `add` writes, and all that `reconcile` takes for a picture of ours. */
const ourName = /^\d{4}\/\d{2}\/\d{2}\/\d{5,}-\d+\.png$/

/**
 * The saved pictures. The files are the truth: the index beside them is only there to list and search quickly, and is
 * made again from the recipes inside the PNGs whenever it is missing, damaged or behind.
 */
export class Library {
  readonly #folder: string
  readonly #log: Log
  readonly #now: () => Date
  readonly #index: Database.Database
  /** Pictures are saved one after the other, so that two never take the same number. */
  #last: Promise<unknown> = Promise.resolve()
  #isClosed = false

  private constructor(folder: string, index: Database.Database, log: Log, now: () => Date) {
    this.#folder = folder
    this.#index = index
    this.#log = log
    this.#now = now
  }

  static async open(options: { folder: string; indexFile: string; log: Log; now?: () => Date }): Promise<Library> {
    const { folder, indexFile, log, now = () => new Date() } = options
    await mkdir(folder, { recursive: true })
    await mkdir(dirname(indexFile), { recursive: true })
    return new Library(resolve(folder), await openIndex(indexFile, log), log, now)
  }

  /** Saves a finished picture under the next number of the day. It is on the disk when this resolves. */
  add(png: Uint8Array, picture: Picture): Promise<ImageRecord> {
    const saved = this.#last.catch(() => {}).then(() => this.#add(png, picture))
    this.#last = saved
    return saved
  }

  async #add(png: Uint8Array, picture: Picture): Promise<ImageRecord> {
    const date = this.#now()
    const pad = (value: number, length: number) => String(value).padStart(length, '0')
    const day = [pad(date.getFullYear(), 4), pad(date.getMonth() + 1, 2), pad(date.getDate(), 2)].join('/')
    await mkdir(join(this.#folder, day), { recursive: true })
    const numbers = (await readdir(join(this.#folder, day))).map((name) =>
      Number(/^(\d{5,})-\d+\.png$/.exec(name)?.[1] ?? 0),
    )
    const number = numbers.reduce((most, value) => Math.max(most, value), 0) + 1
    const file = `${day}/${pad(number, 5)}-${picture.seed}.png`
    await writeAtomic(join(this.#folder, file), png)
    const row = { ...picture, id: idOf(file), file, created_at: date.getTime() }
    this.#put(row)
    return this.#record(row)
  }

  /** Newest first. */
  list(limit = 500): ImageRecord[] {
    const rows = this.#index
      .prepare('SELECT * FROM images ORDER BY created_at DESC, id DESC LIMIT ?')
      .all(limit) as Row[]
    return rows.map((row) => this.#record(row))
  }

  /** The file of a picture, or undefined when the id is not one of ours: an id never reaches outside the folder. */
  fileOf(id: string): string | undefined {
    const row = this.#index.prepare('SELECT file FROM images WHERE id = ?').get(id) as { file: string } | undefined
    if (row === undefined || !ourName.test(row.file)) return undefined
    const path = resolve(this.#folder, row.file)
    return path.startsWith(this.#folder + sep) ? path : undefined
  }

  /** A small version of a picture, or the picture itself. */
  async thumbOf(id: string): Promise<string | undefined> {
    return this.fileOf(id)
  }

  /** Makes the index agree with the files: adds what it lacks, drops what is gone. Resolves with what was added. */
  async reconcile(): Promise<ImageRecord[]> {
    const onDisk = new Set(await this.#filesOnDisk())
    const indexed = new Set(
      (this.#index.prepare('SELECT file FROM images').all() as { file: string }[]).map((row) => row.file),
    )
    const remove = this.#index.prepare('DELETE FROM images WHERE file = ?')
    for (const file of indexed) if (!onDisk.has(file) && !existsSync(join(this.#folder, file))) remove.run(file)
    const added: ImageRecord[] = []
    for (const file of onDisk) {
      if (indexed.has(file)) continue
      try {
        const row = await this.#readBack(file)
        if (this.#isClosed) break // the next start goes on from here
        this.#put(row)
        added.push(this.#record(row))
      } catch (error) {
        this.#log.warn(`${file} was left out of the library`, error) // one damaged picture must not hide the others
      }
    }
    return added
  }

  close(): void {
    this.#isClosed = true
    this.#index.close()
  }

  async #filesOnDisk(): Promise<string[]> {
    // Level by level: Node 18, inside older Electron, cannot list a tree in one call.
    let found = ['']
    for (let depth = 0; depth < 4; depth++) {
      const next: string[] = []
      for (const path of found) {
        for (const entry of await readdir(join(this.#folder, path), { withFileTypes: true })) {
          const wanted = depth === 3 ? entry.isFile() : entry.isDirectory() && /^\d+$/.test(entry.name)
          if (wanted) next.push(path === '' ? entry.name : `${path}/${entry.name}`)
        }
      }
      found = next
    }
    return found.filter((file) => ourName.test(file))
  }

  async #readBack(file: string): Promise<Row> {
    const path = join(this.#folder, file)
    const png = await readFile(path)
    const { width, height } = readPng(png)
    const request = recipeOf(png)?.request
    const seed = request?.seed ?? Number(/-(\d+)\.png$/.exec(file)![1])
    const { mtimeMs } = await stat(path)
    return { id: idOf(file), file, prompt: request?.prompt ?? '', seed, width, height, created_at: Math.round(mtimeMs) }
  }

  #put(row: Row): void {
    this.#index
      .prepare(
        'INSERT OR REPLACE INTO images (id, file, prompt, seed, width, height, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)',
      )
      .run(row.id, row.file, row.prompt, row.seed, row.width, row.height, row.created_at)
  }

  #record(row: Row): ImageRecord {
    const { id, prompt, seed, width, height } = row
    return {
      id,
      url: `vignette-image://${id}`,
      thumb: `vignette-image://${id}/thumb`,
      file: join(this.#folder, row.file),
      prompt,
      seed,
      width,
      height,
      createdAt: row.created_at,
    }
  }
}

/** `2026/11/25/00001-7.png` -> `2026-11-25-00001-7`: the same whenever the index is made again, and fit for a URL. */
function idOf(file: string): string {
  return file.replaceAll('/', '-').replace(/\.png$/, '')
}

async function openIndex(file: string, log: Log): Promise<Database.Database> {
  try {
    return prepareIndex(file)
  } catch (error) {
    log.warn('the library index was damaged and is made again from the pictures', error)
    try {
      await rename(file, `${file}.damaged`)
      return prepareIndex(file)
    } catch (cause) {
      throw new VignetteError('file-unreadable', `The library index cannot be opened (${file}).`, {
        hint: 'Another copy of Vignette may be using it, or the disk is read-only.',
        cause,
      })
    }
  }
}

function prepareIndex(file: string): Database.Database {
  const index = new Database(file)
  index.exec(`
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS images (
      id TEXT PRIMARY KEY, file TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL, seed INTEGER NOT NULL,
      width INTEGER NOT NULL, height INTEGER NOT NULL, created_at INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS images_by_age ON images (created_at DESC);
  `)
  index.prepare('SELECT count(*) FROM images').get()
  return index
}
