import type { Command } from '../../state/commands.svelte.ts'
import { changeEmphasis, moveTag, type Edited } from '../../state/prompt-edit.ts'
import type { PromptHistory } from '../../state/prompt-history.svelte.ts'
import { t } from '../../strings.ts'

// What keys do in a prompt. The field is changed as typing changes it, so that its own undo takes it back.

const isPrompt = (element: Element | null): element is HTMLTextAreaElement =>
  element instanceof HTMLTextAreaElement && (element.id === 'prompt' || element.id === 'prompt-negative')

/** The prompt that is being written in. */
function current(): HTMLTextAreaElement | undefined {
  const { activeElement } = document
  return isPrompt(activeElement) ? activeElement : undefined
}

function apply(field: HTMLTextAreaElement, { text, start, end }: Edited): void {
  const before = field.value
  if (text !== before) {
    let from = 0
    while (from < before.length && before[from] === text[from]) from++
    let tail = 0
    while (tail < Math.min(before.length, text.length) - from && before.at(-1 - tail) === text.at(-1 - tail)) tail++
    field.setSelectionRange(from, before.length - tail)
    const made = text.slice(from, text.length - tail)
    // Old, but the only way into the field's own list of what can be undone.
    document.execCommand(made === '' ? 'delete' : 'insertText', false, made)
  }
  field.setSelectionRange(start, end)
}

/** Commands that act only while a prompt has the focus. */
export function promptCommands(history: PromptHistory): Command[] {
  const inPrompt = (
    id: string,
    title: string,
    keys: string[],
    edit: (field: HTMLTextAreaElement) => Edited,
  ): Command => ({
    ...{ id, title, keys, group: t('Prompt'), isHidden: true },
    when: () => current() !== undefined,
    run: () => {
      const field = current()!
      apply(field, edit(field))
    },
  })
  const emphasis = (direction: 1 | -1) => (field: HTMLTextAreaElement) =>
    changeEmphasis(field.value, field.selectionStart, field.selectionEnd, direction)
  const move = (direction: 1 | -1) => (field: HTMLTextAreaElement) =>
    moveTag(field.value, field.selectionStart, direction)
  const past = (direction: 1 | -1) => (field: HTMLTextAreaElement) => {
    const text = (field.id === 'prompt' ? history.step(direction, field.value) : undefined) ?? field.value
    return { text, start: text.length, end: text.length }
  }
  return [
    inPrompt('emphasis-up', t('More emphasis'), ['Mod+ArrowUp'], emphasis(1)),
    inPrompt('emphasis-down', t('Less emphasis'), ['Mod+ArrowDown'], emphasis(-1)),
    inPrompt('tag-back', t('Move tag before'), ['Alt+ArrowLeft'], move(-1)),
    inPrompt('tag-forward', t('Move tag after'), ['Alt+ArrowRight'], move(1)),
    inPrompt('prompt-back', t('Older prompt'), ['Alt+ArrowUp'], past(1)),
    inPrompt('prompt-forward', t('Newer prompt'), ['Alt+ArrowDown'], past(-1)),
  ]
}

/** A tag for an adapter is in what was pasted. */
export function pastesAdapter(text: string): boolean {
  return /<(lora|lyco):/i.test(text)
}
