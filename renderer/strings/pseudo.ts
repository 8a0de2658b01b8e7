const accents: Readonly<Record<string, string>> = Object.fromEntries(
  [...'aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPrRsStTuUvVwWyYzZ'].map((letter, i) => [
    letter,
    [...'åÅƀƁçÇðÐéÉƒƑĝĜĥĤîÎĵĴķĶļĻɱṀñÑöÖþÞŕŔšŠţŢûÛṽṼŵŴýÝžŽ'][i],
  ]),
)

/**
 * A text as it might be in a longer language: accented, a third longer and in brackets, so that what is cut off, put
 * together from pieces or not translated shows. Marks such as {count} stay.
 */
export function pseudo(text: string): string {
  const parts = text.split(/(\{\w+\})/)
  const accented = parts.map((part, i) =>
    i % 2 === 1 ? part : part.replace(/[a-zA-Z]/g, (one) => accents[one] ?? one),
  )
  const length = Math.ceil(text.replace(/\{\w+\}/g, '').length * 0.3)
  return `[${accented.join('')}${'·'.repeat(length)}]`
}
