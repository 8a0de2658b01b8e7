import type Database from 'libsql'
import { createHash } from 'node:crypto'
import { mkdir, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import { reportError, VignetteError } from '../../models/errors.ts'
import { replaceFile } from '../../models/replace-file.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { ImageQuery, ImageRecord, RecalledRecipe } from '../../preload/contract/images.ts'
import type { PictureClient, PictureFacts } from '../engine/picture-client.ts'
import { readPng } from '../export/png.ts'
import { recallFrom } from '../export/recall.ts'
import { JsonFile, writeAtomic } from './files.ts'
import { LibraryBin } from './library-bin.ts'
import { dayFolder, fileName, filesIn, idOf, isImported, isOurFile, lastNumber, plainName } from './library-files.ts'
import { copyOwn, openIndex, type OwnCopy } from './library-index.ts'
import { LibraryMarks } from './library-marks.ts'
import { dropRow, putRow, recordOf, rowOf, shownColumns, shownFrom, shownRows, type ShownRow } from './library-rows.ts'
import { parseSearch } from './library-search.ts'
import type { Log } from './log.ts'

type Picture = { prompt: string; seed: number; width: number; height: number }

export type LibraryOptions = {
  folder: string
  /** What the person adds lies beside it, and the bin and the small versions beside the folder. */
  indexFile: string
  /** Reads what others wrote, and makes small versions. */
  pictures: Pick<PictureClient, 'look' | 'thumb'>
  log: Log
  emit?: (event: AppEvent) => void
  now?: () => Date
}

const copyDelayMs = 5000
/** How often the window hears how far reading the files is. */
const tellEveryMs = 800

/**
 * The saved pictures. The files are the truth: the index beside them is only there to list and search quickly, and is
 * made again from the recipes inside the files whenever it is missing, damaged or behind.
 */
export class Library {
  readonly marks: LibraryMarks
  readonly #bin: LibraryBin
  readonly #folder: string
  readonly #binFolder: string
  readonly #thumbs: string
  readonly #options: LibraryOptions
  readonly #now: () => Date
  readonly #emit: (event: AppEvent) => void
  readonly #index: Database.Database
  readonly #copy: JsonFile<OwnCopy>
  #copying: NodeJS.Timeout | undefined
  /** Pictures are saved one after the other, so that two never take the same number. */
  #last: Promise<unknown> = Promise.resolve()
  readonly #makingThumbs = new Map<string, Promise<string | undefined>>()
  #counted: { key: string; days: { day: string; count: number }[] } | undefined
  #isClosed = false

  private constructor(options: LibraryOptions, index: Database.Database, copyPath: string) {
    const { folder, now = () => new Date(), emit = () => {} } = options
    this.#options = options
    this.#folder = resolve(folder)
    this.#binFolder = join(dirname(this.#folder), 'bin', 'pictures')
    this.#thumbs = join(dirname(this.#folder), 'cache', 'thumbs')
    this.#index = index
    this.#now = now
    this.#emit = emit
    this.#copy = new JsonFile(copyPath, () => copyOwn(index))
    const changed = (ids: readonly string[]) => this.#changed(ids)
    this.marks = new LibraryMarks(index, now, changed, () => this.#albumsChanged())
    this.#bin = new LibraryBin(index, this.#folder, this.#binFolder, now)
  }

  static async open(options: LibraryOptions): Promise<Library> {
    const { folder, indexFile, log } = options
    await mkdir(folder, { recursive: true })
    await mkdir(dirname(indexFile), { recursive: true })
    const base = indexFile.replace(/\.db$/, '')
    const files = { index: indexFile, own: `${base}-own.db`, copy: `${base}-own.json` }
    return new Library(options, await openIndex(files, log), files.copy)
  }

  /** Saves a finished picture under the next number of the day. It is on the disk when this resolves. */
  add(png: Uint8Array, picture: Picture, thumb?: Uint8Array): Promise<ImageRecord> {
    return this.#inTurn(async () => {
      const file = await this.#nextFile('', `${picture.seed}.png`)
      await writeAtomic(join(this.#folder, file), png)
      const id = idOf(file)
      // A small version that cannot be kept is made again when it is wanted.
      if (thumb) await this.#keepThumb(id, thumb).catch(() => {})
      const recipe = recipeIn(png)
      const facts = { recipe, ...picture, bytes: png.length, modifiedMs: this.#now().getTime(), isBinned: false }
      const row = rowOf(file, facts)
      return this.#put({ ...row, prompt: picture.prompt, seed: picture.seed }, recipe)
    })
  }

  /** Copies a picture of another program, or computer, into the library. One that is there already is not added again. */
  async import(source: string): Promise<{ image: ImageRecord; isNew: boolean }> {
    const facts = await this.#options.pictures.look(source)
    return this.#inTurn(async () => {
      const bytes = await readFile(source)
      const twin = await this.#twinOf(bytes)
      if (twin) return { image: twin, isNew: false }
      const file = await this.#nextFile('imported/', `${plainName(source)}.${facts.format}`)
      await writeAtomic(join(this.#folder, file), bytes)
      const { recipe, width, height } = facts
      const modifiedMs = this.#now().getTime()
      const row = rowOf(file, { recipe, width, height, bytes: bytes.length, modifiedMs, isBinned: false })
      const image = this.#put(row, recipe)
      this.#emit({ type: 'image:added', image })
      return { image, isNew: true }
    })
  }

  /** The newest outside the bin. */
  list(limit = 500): ImageRecord[] {
    return this.query({ search: '', isBin: false, order: 'newest' }, 0, limit).images
  }

  query(query: ImageQuery, offset: number, limit: number): { images: ImageRecord[]; total: number; unknown: string[] } {
    const { where, values, unknown } = this.#conditions(query)
    const total = this.#days(query).reduce((sum, { count }) => sum + count, 0)
    const rows = this.#index
      .prepare(`SELECT ${shownColumns} FROM ${shownFrom} WHERE ${where} ORDER BY ${orderOf(query)} LIMIT ? OFFSET ?`)
      .all(...values, limit, offset) as ShownRow[]
    return { images: rows.map((row) => this.#record(row)), total, unknown }
  }

  days(query: ImageQuery): { day: string; count: number }[] {
    const days = this.#days(query)
    return query.order === 'oldest' ? [...days].reverse() : days
  }

  /** Newest first, and kept for the pages that follow: of a large library, counting is what takes its time. */
  #days(query: ImageQuery): { day: string; count: number }[] {
    const { where, values, isPlain } = this.#conditions(query)
    const key = JSON.stringify([where, values])
    if (this.#counted?.key !== key) {
      // The plus keeps the index by day out of it where another one leaves fewer pictures to count.
      const group = isPlain ? 'p.day' : '+p.day'
      const rows = this.#index
        .prepare(`SELECT p.day, count(*) FROM pictures p WHERE ${where} GROUP BY ${group} ORDER BY ${group} DESC`)
        .raw()
        .all(...values) as [string, number][]
      this.#counted = { key, days: rows.map(([day, count]) => ({ day, count })) }
    }
    return this.#counted.days
  }

  ids(query: ImageQuery, offset: number, limit: number): string[] {
    const { where, values } = this.#conditions(query)
    const rows = this.#index
      .prepare(`SELECT p.id FROM pictures p WHERE ${where} ORDER BY ${orderOf(query)} LIMIT ? OFFSET ?`)
      .raw()
      .all(...values, limit, offset) as string[][]
    return rows.flat()
  }

  /** Of one picture, in or out of the bin; throws when there is none. */
  get(id: string): { image: ImageRecord; bytes: number; isBinned: boolean } {
    const [row] = shownRows(this.#index, [id])
    if (!row) throw new VignetteError('file-unreadable', 'This picture is not in the library any more.')
    return { image: this.#record(row), bytes: row.bytes, isBinned: row.is_binned === 1 }
  }

  /** The file of a picture, or undefined when the id is not one of ours: an id never reaches outside the folder. */
  fileOf(id: string): string | undefined {
    return this.#placeOf(id)?.path
  }

  /** As `fileOf`; throws when there is none. */
  pathOf(id: string): string {
    return this.#expect(id).path
  }

  #placeOf(id: string): { file: string; path: string; isBinned: boolean } | undefined {
    const row = this.#index.prepare('SELECT file, is_binned FROM pictures WHERE id = ?').get(id) as
      { file: string; is_binned: number } | undefined
    if (row === undefined || !isOurFile(row.file)) return undefined
    const isBinned = row.is_binned === 1
    const base = isBinned ? this.#binFolder : this.#folder
    const path = resolve(base, row.file)
    return path.startsWith(base + sep) ? { file: row.file, path, isBinned } : undefined
  }

  #expect(id: string): { file: string; path: string; isBinned: boolean } {
    const place = this.#placeOf(id)
    if (!place) throw new VignetteError('file-unreadable', 'This picture is not in the library any more.')
    return place
  }

  /** A small version of a picture, made when there is none yet; undefined when that cannot be done. */
  async thumbOf(id: string): Promise<string | undefined> {
    const file = this.fileOf(id)
    if (file === undefined) return undefined
    const thumb = this.#thumbPath(id)
    if (await exists(thumb)) return thumb
    const making = this.#makingThumbs.get(id) ?? this.#makeThumb(id, file, thumb)
    this.#makingThumbs.set(id, making)
    return making.finally(() => this.#makingThumbs.delete(id))
  }

  /** Reads the file anew, for one that was damaged and may be whole again. Throws when it still is. */
  async rebuildThumb(id: string): Promise<void> {
    const { file, path, isBinned } = this.#expect(id)
    const facts = await this.#options.pictures.look(path, this.#thumbPath(id)).catch((error: unknown) => {
      this.#setProblem(id, reportError(error).message)
      throw error
    })
    await this.#putRead(file, facts, isBinned)
    this.#changed([id])
  }

  /** How a picture was made, as its file says. Names are not looked for. */
  async recipeOf(id: string): Promise<{ recipe?: RecalledRecipe; text?: string }> {
    const { file, path } = this.#expect(id)
    // Others write their texts anywhere; ours come first.
    if (isImported(file)) return this.#options.pictures.look(path)
    const { texts } = readPng(await readFile(path), { isHeadOnly: true })
    const recipe = recallFrom(texts)
    const text = texts.get('parameters')
    return { ...(recipe ? { recipe } : {}), ...(text ? { text } : {}) }
  }

  /** To the bin. */
  async bin(ids: readonly string[]): Promise<void> {
    const moved = await this.#inTurn(() => this.#bin.put(ids))
    this.#listChanged()
    this.#emit({ type: 'images:gone', ids: moved })
    this.#albumsChanged()
  }

  async restore(ids: readonly string[]): Promise<void> {
    const moved = await this.#inTurn(() => this.#bin.restore(ids))
    this.#changed(moved)
    this.#albumsChanged()
  }

  binSize(): { count: number; bytes: number } {
    return this.#bin.size()
  }

  /** For good. `days`: only what has been in the bin for so long. */
  async emptyBin(days?: number): Promise<{ count: number }> {
    const gone = await this.#inTurn(() => this.#bin.empty(days))
    for (const id of gone) await rm(this.#thumbPath(id), { force: true })
    if (gone.length > 0) {
      this.#listChanged()
      this.#emit({ type: 'images:gone', ids: gone })
    }
    return { count: gone.length }
  }

  /** Makes the index agree with the files: adds what it lacks, drops what is gone. Resolves with what was added. */
  async reconcile(): Promise<ImageRecord[]> {
    const places = [
      { isBinned: false, files: new Set(await filesIn(this.#folder)) },
      { isBinned: true, files: new Set(await filesIn(this.#binFolder)) },
    ]
    const indexed = new Set<string>()
    for await (const { n, file, is_binned: isBinned } of this.#allRows()) {
      indexed.add(file)
      const [out, binned] = places.map(({ files }) => files.has(file))
      if (!out && !binned && !(await exists(join(this.#folder, file)))) dropRow(this.#index, n)
      // It went down between moving a file and saying so.
      else if (out !== binned && binned !== (isBinned === 1))
        this.#index.prepare('UPDATE pictures SET is_binned = ? WHERE n = ?').run(binned ? 1 : 0, n)
    }
    this.#listChanged()
    for (const file of places[1].files) this.#bin.date(idOf(file))
    const missing = places.flatMap(({ isBinned, files }) =>
      [...files].filter((file) => !indexed.has(file)).map((file) => ({ file, isBinned })),
    )
    // The newest first: they are what is looked at.
    missing.sort((a, b) => (a.file < b.file ? 1 : -1))
    const added: ImageRecord[] = []
    let toldAt = performance.now()
    for (const [done, { file, isBinned }] of missing.entries()) {
      if (this.#isClosed) return added // the next start goes on from here
      const image = await this.#readBack(file, isBinned)
      if (image && !isBinned) added.push(image)
      if (performance.now() - toldAt < tellEveryMs) continue
      toldAt = performance.now()
      this.#emit({ type: 'library:reading', reading: { done, total: missing.length } })
    }
    if (missing.length > 0) this.#emit({ type: 'library:reading' })
    return added
  }

  /** A part at a time, so that the window is not held up by a large library. */
  async *#allRows(): AsyncGenerator<{ n: number; file: string; is_binned: number }> {
    const next = this.#index.prepare('SELECT n, file, is_binned FROM pictures WHERE n > ? ORDER BY n LIMIT 500')
    for (let last = 0; !this.#isClosed;) {
      const rows = next.all(last) as { n: number; file: string; is_binned: number }[]
      if (rows.length === 0) return
      yield* rows
      last = rows[rows.length - 1].n
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }

  /** For measuring: the next query counts anew. */
  forgetCounts(): void {
    this.#listChanged()
  }

  /** Writes the copy of what the person added. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#copying)
    await this.#last.catch(() => {})
    if (this.#copying) await this.#copy.save().catch((error: unknown) => this.#options.log.warn('no copy', error))
    this.#index.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    this.#index.close()
  }

  async #readBack(file: string, isBinned: boolean): Promise<ImageRecord | undefined> {
    const path = join(isBinned ? this.#binFolder : this.#folder, file)
    try {
      const facts = await this.#options.pictures.look(path)
      return this.#isClosed ? undefined : await this.#putRead(file, facts, isBinned)
    } catch (error) {
      if (this.#isClosed) return undefined
      // Listed with what is wrong, so that it can be mended or removed; it must not hide the others.
      this.#options.log.warn(`${file} is damaged`, error)
      const found = await stat(path).catch(() => undefined)
      if (!found) return undefined
      const facts = { width: 0, height: 0, bytes: found.size, modifiedMs: found.mtimeMs, isBinned }
      return this.#put(rowOf(file, { ...facts, problem: reportError(error).message }), undefined)
    }
  }

  async #putRead(file: string, { recipe, width, height }: PictureFacts, isBinned: boolean): Promise<ImageRecord> {
    const { size, mtimeMs } = await stat(join(isBinned ? this.#binFolder : this.#folder, file))
    return this.#put(rowOf(file, { recipe, width, height, bytes: size, modifiedMs: mtimeMs, isBinned }), recipe)
  }

  #put(row: ReturnType<typeof rowOf>, recipe: RecalledRecipe | undefined): ImageRecord {
    putRow(this.#index, row, recipe)
    this.#listChanged()
    return this.#record(shownRows(this.#index, [row.id])[0])
  }

  #record(row: ShownRow): ImageRecord {
    return recordOf(row, row.is_binned ? this.#binFolder : this.#folder)
  }

  /** A picture of the library by its bytes, for recipes that name what they started from. */
  async byContent(sha256: string, name: string): Promise<{ id: string; file: string } | undefined> {
    const rows = this.#index
      .prepare(`SELECT id, file FROM pictures WHERE is_binned = 0 AND file LIKE ?`)
      .all(`%/${name}`)
    for (const { id, file } of rows as { id: string; file: string }[]) {
      const path = join(this.#folder, file)
      const bytes = await readFile(path).catch(() => undefined)
      if (bytes && createHash('sha256').update(bytes).digest('hex') === sha256) return { id, file: path }
    }
    return undefined
  }

  async #twinOf(bytes: Buffer): Promise<ImageRecord | undefined> {
    const rows = this.#index.prepare('SELECT id FROM pictures WHERE bytes = ? AND is_binned = 0').all(bytes.length)
    for (const { id } of rows as { id: string }[]) {
      const other = await readFile(this.fileOf(id)!).catch(() => undefined)
      if (other?.equals(bytes)) return this.get(id).image
    }
    return undefined
  }

  /** A number is never used twice on one day, also when the picture that had it is gone: its address stays its own. */
  async #nextFile(prefix: string, ending: string): Promise<string> {
    const day = prefix + dayFolder(this.#now())
    await mkdir(join(this.#folder, day), { recursive: true })
    const counter = this.#index.prepare('SELECT last FROM own.counters WHERE day = ?').get(day) as
      { last: number } | undefined
    const inFolder = await lastNumber(join(this.#folder, day))
    const number = Math.max(inFolder, await lastNumber(join(this.#binFolder, day)), counter?.last ?? 0) + 1
    this.#index.prepare('INSERT OR REPLACE INTO own.counters (day, last) VALUES (?, ?)').run(day, number)
    return `${day}/${fileName(number, ending)}`
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const done = this.#last.catch(() => {}).then(action)
    this.#last = done
    return done
  }

  #conditions({ search, album, isBin }: ImageQuery) {
    const { where, values, unknown } = parseSearch(search, this.#now())
    const inAlbum = album === undefined ? [] : ['p.id IN (SELECT id FROM own.album_pictures WHERE album = ?)']
    return {
      where: ['p.is_binned = ?', ...inAlbum, ...where].join(' AND '),
      values: [isBin ? 1 : 0, ...(album === undefined ? [] : [album]), ...values],
      unknown,
      isPlain: where.length === 0 && album === undefined,
    }
  }

  #thumbPath(id: string): string {
    return join(this.#thumbs, `${id}.webp`)
  }

  async #keepThumb(id: string, thumb: Uint8Array): Promise<void> {
    await mkdir(this.#thumbs, { recursive: true })
    await replaceFile(this.#thumbPath(id), thumb)
  }

  async #makeThumb(id: string, file: string, thumb: string): Promise<string | undefined> {
    try {
      await this.#options.pictures.thumb(file, thumb)
      return thumb
    } catch (error) {
      if (this.#isClosed) return undefined
      this.#options.log.warn(`no small version of ${id}`, error)
      if (reportError(error).code === 'file-unreadable') this.#setProblem(id, reportError(error).message)
      return undefined
    }
  }

  #setProblem(id: string, problem: string): void {
    this.#index.prepare('UPDATE pictures SET problem = ? WHERE id = ?').run(problem, id)
    this.#changed([id])
  }

  /** Of what is shown of some pictures; of many only that they changed matters to a list. */
  #changed(ids: readonly string[]): void {
    this.#listChanged()
    const images = shownRows(this.#index, ids.slice(0, 1000)).map((row) => this.#record(row))
    if (images.length > 0) this.#emit({ type: 'images:changed', images })
    this.#copySoon()
  }

  #albumsChanged(): void {
    this.#listChanged()
    this.#emit({ type: 'albums:changed', albums: this.marks.albums() })
    this.#copySoon()
  }

  #listChanged(): void {
    this.#counted = undefined
  }

  #copySoon(): void {
    this.#copying ??= setTimeout(() => {
      this.#copying = undefined
      this.#copy.save().catch((error: unknown) => this.#options.log.warn('stars and albums have no copy', error))
    }, copyDelayMs)
  }
}

function orderOf({ order }: ImageQuery): string {
  return order === 'oldest' ? 'p.created_at, p.id' : 'p.created_at DESC, p.id DESC'
}

/** The recipe of a picture that was just made; a file without one is kept all the same. */
function recipeIn(png: Uint8Array): RecalledRecipe | undefined {
  try {
    return recallFrom(readPng(png, { isHeadOnly: true }).texts)
  } catch {
    return undefined
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}
