import type Database from 'libsql'
import { randomUUID } from 'node:crypto'
import { VignetteError } from '../../models/errors.ts'
import type { Album } from '../../preload/contract/images.ts'
import { putWords, type Row } from './library-rows.ts'

/** What the person adds to pictures: stars, tags, words, albums. Each change is on the disk when its call returns. */
export class LibraryMarks {
  readonly #index: Database.Database
  readonly #now: () => Date
  /** Told which pictures look different now. */
  readonly #onChange: (ids: readonly string[]) => void
  readonly #onAlbums: () => void

  constructor(
    index: Database.Database,
    now: () => Date,
    onChange: (ids: readonly string[]) => void,
    onAlbums: () => void,
  ) {
    this.#index = index
    this.#now = now
    this.#onChange = onChange
    this.#onAlbums = onAlbums
  }

  star(ids: readonly string[], isStarred: boolean): void {
    const put = this.#index.prepare(`INSERT INTO own.marks (id, starred_at) VALUES (?, ?)
      ON CONFLICT (id) DO UPDATE SET starred_at = coalesce(starred_at, excluded.starred_at)`)
    const take = this.#index.prepare('UPDATE own.marks SET starred_at = NULL WHERE id = ?')
    const at = this.#now().getTime()
    this.#together(() => ids.forEach((id) => (isStarred ? put.run(id, at) : take.run(id))))
    this.#onChange(ids)
  }

  tag(ids: readonly string[], add: readonly string[], remove: readonly string[]): void {
    const put = this.#index.prepare('INSERT OR IGNORE INTO own.tags (id, tag) VALUES (?, ?)')
    const take = this.#index.prepare('DELETE FROM own.tags WHERE id = ? AND tag = ?')
    this.#together(() => {
      for (const id of ids) {
        for (const tag of remove) take.run(id, tag)
        for (const tag of add) put.run(id, tag.normalize('NFC'))
      }
      this.#reindex(ids)
    })
    this.#onChange(ids)
  }

  describe(id: string, { alt, note }: { alt?: string; note?: string }): void {
    this.#together(() => {
      this.#index.prepare('INSERT OR IGNORE INTO own.marks (id) VALUES (?)').run(id)
      const set = (column: 'alt' | 'note', text: string | undefined) => {
        if (text === undefined) return
        this.#index.prepare(`UPDATE own.marks SET ${column} = ? WHERE id = ?`).run(text.trim() === '' ? null : text, id)
      }
      set('alt', alt)
      set('note', note)
      this.#reindex([id])
    })
    this.#onChange([id])
  }

  /** Of one picture. */
  of(id: string): { tags: string[]; albums: string[]; note: string } {
    const column = (sql: string) => (this.#index.prepare(sql).raw().all(id) as string[][]).flat()
    const mark = this.#index.prepare('SELECT note FROM own.marks WHERE id = ?').get(id) as
      { note: string | null } | undefined
    return {
      tags: column('SELECT tag FROM own.tags WHERE id = ? ORDER BY tag'),
      albums: column('SELECT album FROM own.album_pictures WHERE id = ? ORDER BY added_at'),
      note: mark?.note ?? '',
    }
  }

  /** Those of pictures outside the bin, the most used first. */
  tags(): { tag: string; count: number }[] {
    return this.#index
      .prepare(
        `SELECT t.tag AS tag, count(*) AS count FROM own.tags t JOIN pictures p ON p.id = t.id
         WHERE p.is_binned = 0 GROUP BY t.tag ORDER BY count DESC, t.tag`,
      )
      .all() as { tag: string; count: number }[]
  }

  albums(): Album[] {
    const rows = this.#index
      .prepare(
        `SELECT a.id, a.name, count(p.n) AS pictures,
           (SELECT x.id FROM own.album_pictures y JOIN pictures x ON x.id = y.id
            WHERE y.album = a.id AND x.is_binned = 0 ORDER BY y.added_at DESC, x.created_at DESC LIMIT 1) AS cover
         FROM own.albums a
         LEFT JOIN own.album_pictures ap ON ap.album = a.id
         LEFT JOIN pictures p ON p.id = ap.id AND p.is_binned = 0
         GROUP BY a.id ORDER BY a.name COLLATE NOCASE, a.created_at`,
      )
      .all() as { id: string; name: string; pictures: number; cover: string | null }[]
    return rows.map(({ id, name, pictures, cover }) => ({
      ...{ id, name, pictures },
      ...(cover === null ? {} : { cover: `vignette-image://${cover}/thumb` }),
    }))
  }

  createAlbum(name: string): Album {
    const id = randomUUID()
    this.#index
      .prepare('INSERT INTO own.albums (id, name, created_at) VALUES (?, ?, ?)')
      .run(id, name, this.#now().getTime())
    this.#onAlbums()
    return { id, name, pictures: 0 }
  }

  renameAlbum(id: string, name: string): void {
    this.#expectAlbum(id)
    this.#index.prepare('UPDATE own.albums SET name = ? WHERE id = ?').run(name, id)
    this.#onAlbums()
  }

  /** Resolves with the pictures that were in it, in the order they came. */
  removeAlbum(id: string): string[] {
    this.#expectAlbum(id)
    const rows = this.#index.prepare('SELECT id FROM own.album_pictures WHERE album = ? ORDER BY added_at').raw()
    const pictures = (rows.all(id) as string[][]).flat()
    this.#together(() => {
      this.#index.prepare('DELETE FROM own.album_pictures WHERE album = ?').run(id)
      this.#index.prepare('DELETE FROM own.albums WHERE id = ?').run(id)
    })
    this.#onAlbums()
    return pictures
  }

  restoreAlbum(id: string, name: string, pictures: readonly string[]): void {
    this.#index
      .prepare('INSERT OR IGNORE INTO own.albums (id, name, created_at) VALUES (?, ?, ?)')
      .run(id, name, this.#now().getTime())
    if (pictures.length > 0) this.put(id, pictures)
    else this.#onAlbums()
  }

  put(album: string, ids: readonly string[]): void {
    this.#expectAlbum(album)
    const put = this.#index.prepare('INSERT OR IGNORE INTO own.album_pictures (album, id, added_at) VALUES (?, ?, ?)')
    const at = this.#now().getTime()
    this.#together(() => ids.forEach((id, i) => put.run(album, id, at + i)))
    this.#onAlbums()
  }

  take(album: string, ids: readonly string[]): void {
    const take = this.#index.prepare('DELETE FROM own.album_pictures WHERE album = ? AND id = ?')
    this.#together(() => ids.forEach((id) => take.run(album, id)))
    this.#onAlbums()
  }

  #expectAlbum(id: string): void {
    if (!this.#index.prepare('SELECT id FROM own.albums WHERE id = ?').get(id))
      throw new VignetteError('bad-request', 'This album is not there any more.')
  }

  #reindex(ids: readonly string[]): void {
    const find = this.#index.prepare('SELECT * FROM pictures WHERE id = ?')
    const forget = this.#index.prepare('DELETE FROM words WHERE rowid = ?')
    for (const id of ids) {
      const row = find.get(id) as (Row & { n: number }) | undefined
      if (!row) continue
      forget.run(row.n)
      putWords(this.#index, row.n, row)
    }
  }

  #together(change: () => void): void {
    this.#index.exec('BEGIN')
    try {
      change()
      this.#index.exec('COMMIT')
    } catch (error) {
      this.#index.exec('ROLLBACK')
      throw error
    }
  }
}
