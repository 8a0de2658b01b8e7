/** Words of one language: the English text as written in the code -> its translation. */
export type Catalogue = Readonly<Record<string, string>>

let catalogue: Catalogue = {}

/** Before anything is shown. An empty catalogue is English. */
export function useCatalogue(words: Catalogue): void {
  catalogue = words
}

/** A text for the screen. `{name}` is replaced by `values.name`. */
export function t(text: string, values: Readonly<Record<string, string | number>> = {}): string {
  return (catalogue[text] ?? text).replace(/\{(\w+)\}/g, (mark, name: string) => String(values[name] ?? mark))
}

/** A text that depends on a count, which is `{n}` in it. */
export function tn(
  n: number,
  one: string,
  many: string,
  values: Readonly<Record<string, string | number>> = {},
): string {
  return t(n === 1 ? one : many, { n, ...values })
}
