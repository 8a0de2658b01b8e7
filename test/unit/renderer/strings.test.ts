import { afterEach, describe, expect, it } from 'vitest'
import { directionOf, languageFor, languageNames, t, tn, useCatalogue, useLanguage } from '../../../renderer/strings.ts'
import { appearanceOf } from '../../../renderer/views/shell/appearance.ts'

afterEach(() => useCatalogue({}))

describe('texts', () => {
  it('are English without a catalogue, with their values in place', () => {
    expect(t('Made for {family}.', { family: 'sdxl' })).toBe('Made for sdxl.')
    expect(t('No {such} value')).toBe('No {such} value')
    expect(tn(1, '{n} picture', '{n} pictures')).toBe('1 picture')
    expect(tn(12_000, '{n} picture', '{n} pictures')).toBe('12,000 pictures')
  })

  it('do not read marks in their values', () => {
    expect(t('{a} and {b}', { a: '{b}', b: '<img src=x onerror=alert(1)>' })).toBe(
      '{b} and <img src=x onerror=alert(1)>',
    )
  })

  it('take the plural form that the language has for a count', () => {
    useCatalogue({ '{n} pictures': { one: '{n} obrázek', few: '{n} obrázky', other: '{n} obrázků' } }, 'cs')
    const forms = [1, 3, 7].map((n) => tn(n, '{n} picture', '{n} pictures'))
    expect(forms).toEqual(['1 obrázek', '3 obrázky', '7 obrázků'])
  })

  it('are a third longer, with accents and whole marks, in the language for tests', async () => {
    await useLanguage('qps')
    const text = t('Open {name} in the Gallery', { name: 'fox' })
    expect(text).toContain(' fox ')
    expect(text.length).toBeGreaterThan('Open fox in the Gallery'.length * 1.25)
    expect(text).not.toMatch(/Open|Gallery/)
  })
})

describe('the language', () => {
  it('is the one chosen, else the first of the system that there are words for, else English', () => {
    expect(languageFor('qps', ['en-GB'])).toBe('qps')
    expect(languageFor('system', ['tlh', 'en-GB'])).toBe('en')
    expect(languageFor('system', [])).toBe('en')
    expect(languageFor('tlh', ['en'])).toBe('en')
  })

  it('says in which direction it runs', () => {
    expect([directionOf('en'), directionOf('ar'), directionOf('qps-rtl')]).toEqual(['ltr', 'rtl', 'rtl'])
    expect(languageNames.map(({ id }) => id)).not.toContain('qps')
  })
})

describe('the look of the window', () => {
  const chosen = {
    theme: 'system',
    textScale: 100,
    density: 'comfortable',
    hasLargerTargets: false,
    reducedMotion: 'system',
    language: 'system',
  } as const
  const system = { isDark: false, wantsContrast: false, wantsLessMotion: false, languages: ['en'] }

  it('follows the system where nothing was chosen', () => {
    expect(appearanceOf(chosen, system)).toMatchObject({ theme: 'light', motion: 'full', direction: 'ltr' })
    expect(appearanceOf(chosen, { ...system, isDark: true }).theme).toBe('dark')
    expect(appearanceOf(chosen, { ...system, isDark: true, wantsContrast: true }).theme).toBe('contrast')
    expect(appearanceOf(chosen, { ...system, wantsLessMotion: true }).motion).toBe('reduced')
  })

  it('is what was chosen whatever the system says', () => {
    const look = appearanceOf(
      { ...chosen, theme: 'light', reducedMotion: 'on', textScale: 150, hasLargerTargets: true, language: 'qps-rtl' },
      { ...system, isDark: true, wantsContrast: true },
    )
    expect(look).toMatchObject({
      theme: 'light',
      motion: 'reduced',
      textScale: 150,
      targets: 'large',
      language: 'qps-rtl',
      direction: 'rtl',
    })
  })
})
