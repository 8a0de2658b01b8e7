/**
 * How well a text answers a query whose letters stand in it in order: higher is better, undefined when they do not. Letters
 * at the beginning of words and next to each other count more, so "gn" finds "Generate next" before "Signing".
 */
export function fuzzyScore(query: string, text: string): number | undefined {
  const wanted = plain(query).replace(/\s+/g, '')
  const hay = plain(text)
  if (wanted === '') return 0
  const whole = hay.indexOf(plain(query).trim())
  if (whole >= 0 && isStart(hay, whole)) return 1000 + (whole === 0 ? 200 : 100) - hay.length / 10
  let score = 0
  let from = 0
  for (const [i, letter] of [...wanted].entries()) {
    const starts = nextStart(hay, letter, from)
    const plainly = hay.indexOf(letter, from)
    if (plainly < 0) return undefined
    // The beginning of a word, unless that leaves too few letters for the rest.
    const at = starts >= 0 && canFollow([...wanted].slice(i + 1), hay, starts + 1) ? starts : plainly
    score += at === from && from > 0 ? 8 : isStart(hay, at) ? 6 : 1
    from = at + 1
  }
  return score + (whole >= 0 ? 2 : 0) - hay.length / 10
}

/** The best first; in the order given where they are equal. */
export function fuzzySort<T>(query: string, items: readonly T[], textOf: (item: T) => string): T[] {
  return items
    .map((item, i) => ({ item, i, score: fuzzyScore(query, textOf(item)) }))
    .filter(({ score }) => score !== undefined)
    .sort((a, b) => b.score! - a.score! || a.i - b.i)
    .map(({ item }) => item)
}

/** Without accents and capitals. */
function plain(text: string): string {
  return text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()
}

function isStart(text: string, at: number): boolean {
  return at === 0 || /[\s\-_/·:(]/.test(text[at - 1])
}

function nextStart(text: string, letter: string, from: number): number {
  for (let at = text.indexOf(letter, from); at >= 0; at = text.indexOf(letter, at + 1)) if (isStart(text, at)) return at
  return -1
}

function canFollow(rest: readonly string[], text: string, from: number): boolean {
  for (const letter of rest) {
    const at = text.indexOf(letter, from)
    if (at < 0) return false
    from = at + 1
  }
  return true
}
