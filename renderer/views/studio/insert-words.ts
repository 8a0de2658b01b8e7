import { tick } from 'svelte'
import type { FormState } from '../../state/form.svelte.ts'
import { insertWords } from '../../state/prompt-words.ts'

/** Puts words into the prompt where its caret is, and leaves the caret behind them. */
export async function insertAtCaret(form: FormState, words: readonly string[]): Promise<void> {
  const field = document.getElementById('prompt') as HTMLTextAreaElement | null
  // After what is selected: the sample sentence is as a whole when the window opens, and must not be lost.
  const { prompt, caret } = insertWords(form.prompt, field?.selectionEnd ?? form.prompt.length, words)
  if (prompt === form.prompt) return
  form.prompt = prompt
  await tick()
  field?.setSelectionRange(caret, caret)
}
