import { describe, expect, it } from 'vitest'
import { allTexts, gapsOf, textsIn } from '../../../scripts/strings.ts'

describe('the texts of the window', () => {
  it('are found wherever they go through t() or tn()', () => {
    const source = `
      <p title={t('Close')}>{t("It's here: {name}", { name })}</p>
      {tn(list.length, '1 file', '{n} files')} {tn(count(of, that), \`one\`, '{n} more')}
      {format('not this')} {t(variable)}`
    expect(textsIn(source).map(({ text, one }) => [text, one])).toEqual([
      ['Close', undefined],
      ["It's here: {name}", undefined],
      ['{n} files', '1 file'],
      ['{n} more', 'one'],
    ])
  })

  it('are many, each once, and none of them is empty', async () => {
    const all = (await allTexts()).map(({ text }) => text)
    expect(all.length).toBeGreaterThan(300)
    expect(new Set(all).size).toBe(all.length)
    expect(all.every((text) => text.trim() === text && text !== '')).toBe(true)
    expect(all).toContain('Skip to the screen')
  })

  it('say what a catalogue lacks, holds for nothing, or has with other marks', () => {
    const all = textsIn(`t('Close') t('Open {name}') tn(1, '1 file', '{n} files')`)
    const gaps = gapsOf(
      { 'Open {name}': 'Öffnen', '{n} files': { one: 'eine Datei', other: '{n} Dateien' }, Gone: 'Weg' },
      all,
    )
    expect(gaps.missing.map(({ text }) => text)).toEqual(['Close'])
    expect(gaps.unused).toEqual(['Gone'])
    expect(gaps.marks).toEqual(['Open {name}'])
  })
})
