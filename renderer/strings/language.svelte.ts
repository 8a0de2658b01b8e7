import type { Catalogue } from '../strings.ts'

/** The words in use. A signal, so that what reads them in markup, a derived value or an effect follows a change. */
export class Language {
  id = $state('en')
  words = $state.raw<Catalogue>({})

  readonly isPseudo = $derived(this.id.startsWith('qps'))
  readonly plurals = $derived(new Intl.PluralRules(this.isPseudo ? 'en' : this.id))
  readonly numbers = $derived(new Intl.NumberFormat(this.isPseudo ? 'en' : this.id))
}

export const language = new Language()
