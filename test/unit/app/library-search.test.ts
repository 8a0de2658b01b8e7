import { describe, expect, it } from 'vitest'
import { parseSearch } from '../../../main/app/library-search.ts'

const now = new Date(2026, 10, 25, 15)
const day = (year: number, month = 1, date = 1) => new Date(year, month - 1, date).getTime()
const parse = (text: string) => parseSearch(text, now)

describe('the search box', () => {
  it('looks for all words, each as the beginning of one, and for phrases', () => {
    expect(parse('red "old barn"').values).toEqual(['"red"* AND "old barn"*'])
    expect(parse('  ')).toEqual({ where: [], values: [], unknown: [] })
  })

  it('takes nothing that is typed for a language of the index', () => {
    for (const text of ['a OR b', 'NEAR(a b)', 'prompt:x*', '"unclosed', "it's", 'a"b', '(((', '*', '-']) {
      const { where, values } = parse(text)
      expect(where.join(' ')).not.toContain('OR b')
      for (const value of values) expect(String(value)).toMatch(/^"(?:[^"]|"")*"\*(?: AND "(?:[^"]|"")*"\*)*$/)
    }
  })

  it.each([
    ['seed:7', 'p.seed = ?', [7]],
    ['model:tiny', "p.model LIKE ? ESCAPE '\\'", ['%tiny%']],
    ['model:50%', "p.model LIKE ? ESCAPE '\\'", ['%50\\%%']],
    ['story:whale', "p.story LIKE ? ESCAPE '\\'", ['%whale%']],
    ['character:@mira', "p.characters LIKE ? ESCAPE '\\'", ['%mira%']],
    ['size:512x768', 'p.width = ? AND p.height = ?', [512, 768]],
    ['size:512', '(p.width = ? OR p.height = ?)', [512, 512]],
    ['size:portrait', 'p.height > p.width', []],
    ['before:2026', 'p.created_at < ?', [day(2026)]],
    ['after:2026-11', 'p.created_at >= ?', [day(2026, 11)]],
    ['AFTER:2026-11-05', 'p.created_at >= ?', [day(2026, 11, 5)]],
    ['after:today', 'p.created_at >= ?', [day(2026, 11, 25)]],
    ['before:yesterday', 'p.created_at < ?', [day(2026, 11, 24)]],
    ['is:imported', 'p.is_imported = 1', []],
    ['is:watermarked', 'p.is_marked = 1', []],
    ['is:stale', 'p.is_stale = 1', []],
  ])('understands %s', (text, sql, values) => {
    expect(parse(text)).toEqual({ where: [sql], values, unknown: [] })
    expect(parse(`-${text}`).where).toEqual([`NOT (${sql})`])
  })

  it('finds stars, tags, albums and adapters by what the person added', () => {
    expect(parse('is:starred').where[0]).toContain('own.marks')
    expect(parse('tag:"two words"')).toMatchObject({ values: ['two words'] })
    expect(parse('album:sketches').where[0]).toContain('own.albums')
    expect(parse('adapter:Ink').values).toEqual(['%Ink%', 'ink%'])
  })

  it('says what it does not understand, and leaves a condition alone that is still being typed', () => {
    expect(parse('seed:blue barn is:nice before:soon')).toMatchObject({
      values: ['"barn"*'],
      unknown: ['seed:blue', 'is:nice', 'before:soon'],
    })
    expect(parse('before:2026-13').unknown).toEqual(['before:2026-13'])
    expect(parse('barn seed:')).toMatchObject({ values: ['"barn"*'], unknown: [] })
  })

  it('takes unknown keys for words', () => {
    expect(parse('9:16 https://x').values).toEqual(['"9:16"* AND "https://x"*'])
  })

  it('looks into scripts that have no spaces letter by letter', () => {
    expect(parse('灯台')).toMatchObject({ where: ["p.prompt LIKE ? ESCAPE '\\'"], values: ['%灯台%'] })
  })
})
