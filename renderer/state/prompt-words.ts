// Trigger words in a prompt: found as a person would see them, and put in without breaking what is there.

/** Whether the words stand in the prompt as words of their own, whatever their case. */
export function hasWords(prompt: string, words: string): boolean {
  const wanted = words.trim()
  if (wanted === '') return true
  const escaped = wanted.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\s+/g, '\\s+')
  return new RegExp(`(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])`, 'iu').test(prompt)
}

/** Puts words at the caret, between commas; those that stand there already are left out. */
export function insertWords(
  prompt: string,
  caret: number,
  words: readonly string[],
): { prompt: string; caret: number } {
  const missing = words
    .map((word) => word.trim())
    .filter((word, i, all) => !hasWords(prompt, word) && all.indexOf(word) === i)
  if (missing.length === 0) return { prompt, caret }
  let at = Math.min(caret, prompt.length)
  // In the middle of a word: after it.
  const isWord = (character: string | undefined) => character !== undefined && /[\p{L}\p{N}_]/u.test(character)
  if (isWord(prompt[at - 1])) while (isWord(prompt[at])) at++
  const before = prompt.slice(0, at)
  const after = prompt.slice(at)
  const left = before.trim() === '' || /[,\n(]\s+$/.test(before) ? '' : /,$/.test(before) ? ' ' : ', '
  const head = left === ', ' ? before.trimEnd() : before
  const right = after.trim() === '' || /^\s*[,)]/.test(after) ? '' : /^\s/.test(after) ? ',' : ', '
  const text = left + missing.join(', ')
  return { prompt: head + text + right + after, caret: head.length + text.length }
}
