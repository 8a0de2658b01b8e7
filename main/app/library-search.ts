/** What the search box asks for, as conditions on the index. `unknown` are words that looked like a condition and are none. */
export type Search = { where: string[]; values: (string | number)[]; unknown: string[] }

/** A word, a "phrase", or key:value, each with a minus in front when it must not be. */
const part = /(-?)(?:([a-z]+):("[^"]*"|[^\s"]*)|("[^"]*"|[^\s"]+))/giu

type Condition = { sql: string; values: (string | number)[] } | undefined

const dayMs = 86_400_000
const starred = 'p.id IN (SELECT id FROM own.marks WHERE starred_at IS NOT NULL)'
const states: Record<string, string> = {
  starred,
  star: starred,
  imported: 'p.is_imported = 1',
  watermarked: 'p.is_marked = 1',
  stale: 'p.is_stale = 1',
  damaged: "p.problem <> ''",
}
const shapes: Record<string, string> = {
  portrait: 'p.height > p.width',
  landscape: 'p.width > p.height',
  square: 'p.width = p.height',
}

/**
 * The language of the search box: words, seed:, model:, adapter:, character:, story:, size:, before:, after:, is:, tag:,
 * album:. All conditions hold together. What is being typed counts as the beginning of a word.
 */
export function parseSearch(text: string, now = new Date()): Search {
  const search: Search = { where: [], values: [], unknown: [] }
  const words: string[] = []
  const put = (condition: Condition, isNot: boolean) => {
    if (!condition) return
    search.where.push(isNot ? `NOT (${condition.sql})` : condition.sql)
    search.values.push(...condition.values)
  }
  for (const [all, minus, key, keyed, word] of text.normalize('NFC').matchAll(part)) {
    const value = (keyed ?? word).replace(/^"|"$/g, '')
    const isNot = minus !== ''
    const name = key?.toLowerCase()
    if (name !== undefined && name in conditions) {
      if (value === '') continue // still being typed
      const condition = conditions[name](value, now)
      if (condition) put(condition, isNot)
      else search.unknown.push(all)
      continue
    }
    // Unknown keys are words like any other: 9:16, http://…
    const written = key === undefined ? value : `${key}:${value}`
    if (!/[\p{L}\p{N}]/u.test(written)) continue
    if (isNot) put(wordCondition(written), true)
    else words.push(written)
  }
  const [unspaced, indexed] = [words.filter(isUnspaced), words.filter((word) => !isUnspaced(word))]
  for (const word of unspaced) put(wordCondition(word), false)
  if (indexed.length > 0) put(match(indexed), false)
  return search
}

const conditions: Record<string, (value: string, now: Date) => Condition> = {
  seed: (value) => (/^\d+$/.test(value) ? { sql: 'p.seed = ?', values: [Number(value)] } : undefined),
  model: (value) => contains('p.model', value),
  adapter: (value) => ({
    sql: `p.n IN (SELECT picture FROM picture_adapters WHERE name LIKE ? ESCAPE '\\' OR sha256 LIKE ? ESCAPE '\\')`,
    values: [`%${escapeLike(value)}%`, `${escapeLike(value.toLowerCase())}%`],
  }),
  character: (value) => contains('p.characters', value.replace(/^@/, '')),
  story: (value) => contains('p.story', value),
  size(value) {
    const shape = shapes[value.toLowerCase()]
    if (shape) return { sql: shape, values: [] }
    const [, width, height] = /^(\d+)(?:[x×*](\d+))?$/iu.exec(value) ?? []
    if (width === undefined) return undefined
    if (height === undefined) return { sql: '(p.width = ? OR p.height = ?)', values: [Number(width), Number(width)] }
    return { sql: 'p.width = ? AND p.height = ?', values: [Number(width), Number(height)] }
  },
  before(value, now) {
    const start = startOf(value, now)
    return start === undefined ? undefined : { sql: 'p.created_at < ?', values: [start] }
  },
  after(value, now) {
    const start = startOf(value, now)
    return start === undefined ? undefined : { sql: 'p.created_at >= ?', values: [start] }
  },
  is(value) {
    const sql = states[value.toLowerCase()]
    return sql ? { sql, values: [] } : undefined
  },
  tag: (value) => ({ sql: 'p.id IN (SELECT id FROM own.tags WHERE tag = ? COLLATE NOCASE)', values: [value] }),
  album: (value) => ({
    sql: `p.id IN (SELECT id FROM own.album_pictures JOIN own.albums ON albums.id = album WHERE albums.name LIKE ? ESCAPE '\\')`,
    values: [`%${escapeLike(value)}%`],
  }),
}

function contains(column: string, value: string): Condition {
  return { sql: `${column} LIKE ? ESCAPE '\\'`, values: [`%${escapeLike(value)}%`] }
}

function escapeLike(value: string): string {
  return value.replace(/[\\%_]/g, '\\$&')
}

/** Scripts without spaces between words, which the index of words cannot take apart. */
function isUnspaced(word: string): boolean {
  return /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}]/u.test(
    word,
  )
}

function wordCondition(word: string): Condition {
  return isUnspaced(word) ? contains('p.prompt', word) : match([word])
}

function match(words: readonly string[]): Condition {
  // Quoted: nothing of what is typed is taken for the index's own language. The star makes it a beginning.
  const query = words.map((word) => `"${word.replaceAll('"', '""')}"*`).join(' AND ')
  return { sql: 'p.n IN (SELECT rowid FROM words WHERE words MATCH ?)', values: [query] }
}

/** The first moment of 2026, 2026-11, 2026-11-25, today or yesterday; undefined for what is no date. */
function startOf(value: string, now: Date): number | undefined {
  const today = new Date(now.getFullYear(), now.getMonth(), now.getDate())
  if (value === 'today') return today.getTime()
  if (value === 'yesterday') return new Date(today.getTime() - dayMs / 2).setHours(0, 0, 0, 0)
  const [, year, month = '1', day = '1'] = /^(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?$/.exec(value) ?? []
  if (year === undefined) return undefined
  const date = new Date(Number(year), Number(month) - 1, Number(day))
  const isReal = date.getMonth() === Number(month) - 1 && date.getDate() === Number(day)
  return isReal ? date.getTime() : undefined
}
