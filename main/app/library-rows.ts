import type Database from 'libsql'
import { join } from 'node:path'
import type { ImageRecord, RecalledRecipe } from '../../preload/contract/images.ts'
import { bareName } from '../export/foreign.ts'
import { createdAt, idOf, isImported } from './library-files.ts'

/** A picture in the index. */
export type Row = {
  id: string
  file: string
  prompt: string
  seed: number
  width: number
  height: number
  created_at: number
  day: string
  bytes: number
  model: string
  origin: string
  adapters: string
  is_imported: number
  is_binned: number
  problem: string
}
type ShownRow = Row & { starred_at: number | null; alt: string | null }

export type RowFacts = {
  recipe?: RecalledRecipe
  width: number
  height: number
  bytes: number
  modifiedMs: number
  isBinned: boolean
  problem?: string
}

const columns = [
  ...['id', 'file', 'prompt', 'seed', 'width', 'height', 'created_at', 'day', 'bytes', 'model', 'origin', 'adapters'],
  ...['is_imported', 'is_binned', 'problem'],
] as const

/** What the index needs for a list; the rest is read from the file when one is opened. */
export const shownColumns = 'p.*, m.starred_at, m.alt'
export const shownFrom = 'pictures p LEFT JOIN own.marks m ON m.id = p.id'

export function rowOf(file: string, facts: RowFacts): Row {
  const { recipe, width, height, bytes, modifiedMs, isBinned, problem = '' } = facts
  const seed = recipe?.request?.seed ?? (isImported(file) ? 0 : Number(/-(\d+)\.[a-z]+$/.exec(file)?.[1] ?? 0))
  const at = createdAt(file, modifiedMs)
  return {
    ...{ id: idOf(file), file, prompt: recipe?.request?.prompt ?? '', seed, width, height },
    ...{ created_at: at, day: dayOf(at), bytes, problem },
    model: recipe?.model?.name ?? '',
    origin: recipe?.origin ?? '',
    adapters: recipe?.adapters.map(({ name }) => bareName(name)).join('\n') ?? '',
    is_imported: isImported(file) ? 1 : 0,
    is_binned: isBinned ? 1 : 0,
  }
}

/** `2026-11-25`, by the clock of the place. */
export function dayOf(ms: number): string {
  const date = new Date(ms)
  const pad = (value: number) => String(value).padStart(2, '0')
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`
}

/** Puts a row into the index, or in place of the one with its id. */
export function putRow(index: Database.Database, row: Row, recipe: RecalledRecipe | undefined): void {
  index.exec('BEGIN')
  try {
    const known = index.prepare('SELECT n FROM pictures WHERE id = ?').get(row.id) as { n: number } | undefined
    if (known) dropRow(index, known.n)
    const { lastInsertRowid } = index
      .prepare(`INSERT INTO pictures (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`)
      .run(...columns.map((name) => row[name]))
    const n = Number(lastInsertRowid)
    const adapter = index.prepare('INSERT INTO picture_adapters (picture, name, sha256) VALUES (?, ?, ?)')
    for (const { name, sha256 } of recipe?.adapters ?? []) adapter.run(n, bareName(name), sha256 ?? '')
    putWords(index, n, row)
    index.exec('COMMIT')
  } catch (error) {
    index.exec('ROLLBACK')
    throw error
  }
}

export function dropRow(index: Database.Database, n: number): void {
  index.prepare('DELETE FROM pictures WHERE n = ?').run(n)
  index.prepare('DELETE FROM picture_adapters WHERE picture = ?').run(n)
  index.prepare('DELETE FROM words WHERE rowid = ?').run(n)
}

/** What the words of a search are looked for in: the prompt, names, and what the person wrote. */
export function putWords(
  index: Database.Database,
  n: number,
  row: Pick<Row, 'id' | 'prompt' | 'model' | 'adapters' | 'origin' | 'file' | 'is_imported'>,
): void {
  const mark = index.prepare('SELECT alt, note FROM own.marks WHERE id = ?').get(row.id) as
    { alt: string | null; note: string | null } | undefined
  const tags = index.prepare('SELECT tag FROM own.tags WHERE id = ?').raw().all(row.id) as string[][]
  const own = [mark?.alt, mark?.note, ...tags.flat()].filter(Boolean).join('\n')
  const names = [row.model, row.adapters, ...(row.is_imported ? [row.origin, row.file] : [])].join('\n')
  index.prepare('INSERT INTO words (rowid, prompt, names, own) VALUES (?, ?, ?, ?)').run(n, row.prompt, names, own)
}

export function recordOf(row: ShownRow, folder: string): ImageRecord {
  const { id, prompt, seed, width, height } = row
  return {
    id,
    url: `vignette-image://${id}`,
    thumb: `vignette-image://${id}/thumb`,
    file: join(folder, row.file),
    ...{ prompt, seed, width, height },
    createdAt: row.created_at,
    ...(row.starred_at === null ? {} : { isStarred: true }),
    ...(row.alt === null ? {} : { alt: row.alt }),
    ...(row.is_imported ? { importedFrom: row.origin } : {}),
    ...(row.problem === '' ? {} : { problem: row.problem }),
  }
}

/** The rows of some ids, in their order, a few hundred a time: a statement takes only so many values. */
export function shownRows(index: Database.Database, ids: readonly string[]): ShownRow[] {
  const byId = new Map<string, ShownRow>()
  for (let at = 0; at < ids.length; at += 500) {
    const some = ids.slice(at, at + 500)
    const marks = some.map(() => '?').join(', ')
    const rows = index.prepare(`SELECT ${shownColumns} FROM ${shownFrom} WHERE p.id IN (${marks})`).all(...some)
    for (const row of rows as ShownRow[]) byId.set(row.id, row)
  }
  return ids.flatMap((id) => byId.get(id) ?? [])
}

export type { ShownRow }
