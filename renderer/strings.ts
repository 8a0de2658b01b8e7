import { language } from './strings/language.svelte.ts'
import { pseudo } from './strings/pseudo.ts'

/**
 * Words of one language: the English text as written in the code -> its translation. Of a text that depends on a count, the
 * key is the English for many, and the value holds one text for each of the language's plural forms.
 */
export type Catalogue = Readonly<Record<string, string | Readonly<Partial<Record<Intl.LDMLPluralRule, string>>>>>
type Values = Readonly<Record<string, string | number>>

/** Languages there are words for; the pseudo-languages are for tests: English with accents, longer, and its mirror. */
const languages: Readonly<Record<string, { name: string; load: () => Promise<Catalogue>; isTest?: true }>> = {
  en: { name: 'English', load: () => Promise.resolve({}) },
  qps: { name: 'Pseudo', load: () => Promise.resolve({}), isTest: true },
  'qps-rtl': { name: 'Pseudo, right to left', load: () => Promise.resolve({}), isTest: true },
}

/** For the choice of language: those that people speak. */
export const languageNames: readonly { id: string; name: string }[] = Object.entries(languages)
  .filter(([, { isTest }]) => !isTest)
  .map(([id, { name }]) => ({ id, name }))

const rightToLeft = ['ar', 'he', 'fa', 'ur', 'qps-rtl']

let wanted = 'en'

/** The language to use: the one chosen, or for 'system' the first of the system's that there are words for. */
export function languageFor(chosen: string, system: readonly string[]): string {
  const wanted = chosen === 'system' ? system : [chosen]
  for (const one of wanted) {
    const found = [one, one.split('-')[0]].find((id) => id in languages)
    if (found) return found
  }
  return 'en'
}

export function directionOf(id: string): 'ltr' | 'rtl' {
  return rightToLeft.includes(id) ? 'rtl' : 'ltr'
}

/** Reads the words of a language; from then on all texts are in it. */
export async function useLanguage(id: string): Promise<void> {
  wanted = id
  const words = await (languages[id] ?? languages.en).load()
  if (wanted === id) useCatalogue(words, id) // and not one that was chosen before and came late
}

/** As `useLanguage`, with words at hand. */
export function useCatalogue(words: Catalogue, id = 'en'): void {
  language.id = id
  language.words = words
}

/** A text for the screen. `{name}` is replaced by `values.name` as it is; values are never read as markup or as marks. */
export function t(text: string, values: Values = {}): string {
  const found = language.words[text]
  return filled(typeof found === 'string' ? found : text, values)
}

/** A text that depends on a count, which is `{n}` in it, as the language writes large numbers. */
export function tn(n: number, one: string, many: string, values: Values = {}): string {
  const found = language.words[many]
  const forms = typeof found === 'object' ? found : undefined
  const text = forms ? (forms[language.plurals.select(n)] ?? forms.other ?? many) : n === 1 ? one : many
  return filled(text, { n: language.numbers.format(n), ...values })
}

/** Marks a text that is shown later through `t(variable)`, so that it is found for the catalogues. */
export function marked<T extends string>(text: T): T {
  return text
}

function filled(text: string, values: Values): string {
  const shown = language.isPseudo ? pseudo(text) : text
  return shown.replace(/\{(\w+)\}/g, (mark, name: string) => {
    const value = values[name]
    return value === undefined ? mark : String(value)
  })
}
