import Database from 'libsql'
import { existsSync } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import * as z from 'zod'
import { VignetteError } from '../../models/errors.ts'
import { readJson } from './files.ts'
import type { Log } from './log.ts'

// Two databases. The index lists and searches what lies in the picture files, and is made again from them whenever it is
// missing, damaged or of another version. What the person adds (stars, tags, albums, notes, the date in the bin) is in one
// of its own, keyed by picture, with a copy as JSON that it is made again from.

/** Another number, another index: it is then made again from the files. */
const indexVersion = 2

const indexSchema = `
  CREATE TABLE pictures (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, file TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL, seed INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, created_at INTEGER NOT NULL, day TEXT NOT NULL,
    bytes INTEGER NOT NULL, model TEXT NOT NULL, origin TEXT NOT NULL, adapters TEXT NOT NULL,
    is_imported INTEGER NOT NULL, is_binned INTEGER NOT NULL,
    is_marked INTEGER NOT NULL DEFAULT 0, is_stale INTEGER NOT NULL DEFAULT 0,
    story TEXT NOT NULL DEFAULT '', characters TEXT NOT NULL DEFAULT '', problem TEXT NOT NULL DEFAULT ''
  );
  CREATE INDEX pictures_by_age ON pictures (is_binned, created_at DESC, id DESC);
  CREATE INDEX pictures_by_day ON pictures (is_binned, day);
  CREATE INDEX pictures_by_seed ON pictures (seed);
  CREATE TABLE picture_adapters (picture INTEGER NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL);
  CREATE INDEX adapters_of_picture ON picture_adapters (picture);
  CREATE VIRTUAL TABLE words USING fts5 (
    prompt, names, own, content = '', contentless_delete = 1, prefix = '2 3', tokenize = 'unicode61 remove_diacritics 2'
  );
  PRAGMA user_version = ${indexVersion};
`

const ownSchema = `
  CREATE TABLE IF NOT EXISTS own.marks (id TEXT PRIMARY KEY, starred_at INTEGER, alt TEXT, note TEXT);
  CREATE TABLE IF NOT EXISTS own.tags (id TEXT NOT NULL, tag TEXT NOT NULL COLLATE NOCASE, PRIMARY KEY (id, tag));
  CREATE INDEX IF NOT EXISTS own.pictures_by_tag ON tags (tag);
  CREATE TABLE IF NOT EXISTS own.albums (id TEXT PRIMARY KEY, name TEXT NOT NULL, created_at INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS own.album_pictures (
    album TEXT NOT NULL, id TEXT NOT NULL, added_at INTEGER NOT NULL, PRIMARY KEY (album, id)
  );
  CREATE INDEX IF NOT EXISTS own.albums_by_picture ON album_pictures (id);
  CREATE TABLE IF NOT EXISTS own.bin (id TEXT PRIMARY KEY, binned_at INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS own.counters (day TEXT PRIMARY KEY, last INTEGER NOT NULL);
`

/** The tables of the person's own, as the JSON copy holds them: rows of values, in the order of the columns here. */
const ownTables = {
  marks: ['id', 'starred_at', 'alt', 'note'],
  tags: ['id', 'tag'],
  albums: ['id', 'name', 'created_at'],
  album_pictures: ['album', 'id', 'added_at'],
  bin: ['id', 'binned_at'],
  counters: ['day', 'last'],
} as const
type OwnTable = keyof typeof ownTables

const value = z.union([z.string(), z.number(), z.null()])
export const OwnCopy = z.object({ version: z.literal(1), tables: z.record(z.string(), z.array(z.array(value))) })
export type OwnCopy = z.infer<typeof OwnCopy>

export type LibraryFiles = { index: string; own: string; copy: string }

/** Opens both, mends what is damaged, and says so in the log. */
export async function openIndex(files: LibraryFiles, log: Log): Promise<Database.Database> {
  try {
    const isNew = !existsSync(files.own)
    const index = await openBoth(files, log)
    if (isNew) await fillFromCopy(index, files, log)
    return index
  } catch (cause) {
    throw new VignetteError('library-locked', `The library index cannot be opened (${files.index}).`, {
      hint: 'Another copy of Vignette may be using it, or the disk is read-only.',
      cause,
    })
  }
}

async function openBoth(files: LibraryFiles, log: Log): Promise<Database.Database> {
  let index: Database.Database
  try {
    index = prepareIndex(files.index)
  } catch (error) {
    log.warn('the library index was damaged and is made again from the pictures', error)
    await setAside(files.index)
    index = prepareIndex(files.index)
  }
  try {
    attachOwn(index, files.own)
  } catch (error) {
    log.warn('what was added to pictures (stars, tags, albums) was damaged; the last copy is used', error)
    index.close()
    await setAside(files.own)
    index = prepareIndex(files.index)
    attachOwn(index, files.own)
    await fillFromCopy(index, files, log)
  }
  return index
}

async function setAside(file: string): Promise<void> {
  await rename(file, `${file}.damaged`)
  for (const rest of ['-wal', '-shm']) await rm(file + rest, { force: true })
}

function prepareIndex(file: string): Database.Database {
  const index = new Database(file)
  try {
    index.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 2000;')
    const { user_version: version } = index.prepare('PRAGMA user_version').get() as { user_version: number }
    if (version !== indexVersion) {
      // Virtual tables first: they take their own tables with them.
      const tables = index.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all() as {
        name: string
        sql: string
      }[]
      const isVirtual = ({ sql }: { sql: string }) => /^CREATE VIRTUAL/i.test(sql)
      for (const { name } of tables.filter(isVirtual)) index.exec(`DROP TABLE "${name}"`)
      for (const { name } of tables.filter((one) => !isVirtual(one))) index.exec(`DROP TABLE IF EXISTS "${name}"`)
      index.exec(indexSchema)
    }
    index.prepare('SELECT count(*) FROM pictures').get()
    index.prepare('SELECT rowid FROM words LIMIT 1').get()
    return index
  } catch (error) {
    index.close()
    throw error
  }
}

function attachOwn(index: Database.Database, file: string): void {
  index.exec(`ATTACH DATABASE '${file.replaceAll("'", "''")}' AS own`)
  // Flushed with every change: it is all that is not in the picture files.
  index.exec('PRAGMA own.journal_mode = WAL; PRAGMA own.synchronous = FULL;')
  index.exec(ownSchema)
  for (const table of Object.keys(ownTables)) index.prepare(`SELECT count(*) FROM own.${table}`).get()
}

/** All of the person's own, to be written as JSON. */
export function copyOwn(index: Database.Database): OwnCopy {
  const tables = Object.fromEntries(
    (Object.keys(ownTables) as OwnTable[]).map((table) => [
      table,
      index
        .prepare(`SELECT ${ownTables[table].join(', ')} FROM own.${table}`)
        .raw()
        .all() as OwnCopy['tables'][string],
    ]),
  )
  return { version: 1, tables }
}

async function fillFromCopy(index: Database.Database, files: LibraryFiles, log: Log): Promise<void> {
  const copy = await readJson(files.copy, OwnCopy)
  if (!copy) return
  log.info('stars, tags and albums are taken from their copy')
  index.exec('BEGIN')
  for (const table of Object.keys(ownTables) as OwnTable[]) {
    const columns = ownTables[table]
    const insert = index.prepare(
      `INSERT OR REPLACE INTO own.${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`,
    )
    for (const row of copy.tables[table] ?? []) if (row.length === columns.length) insert.run(...row)
  }
  index.exec('COMMIT')
}
