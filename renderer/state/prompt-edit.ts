import { promptMarks, type PromptMark } from '../../preload/prompt-marks.ts'

// What keys do to a prompt: emphasis up and down, a tag to the left and right. All return the whole text and what is selected.

export type Edited = { text: string; start: number; end: number }

const emphasisStep = 0.1
/** Weights of adapters are finer. */
const adapterStep = 0.05

type Emphasis = Extract<PromptMark, { kind: 'emphasis' }>

/**
 * Changes the weight of what is selected, or of the word at the caret, by a step up (1) or down (−1). Inside `<lora:…>` it is
 * the weight of the adapter. At weight 1 the brackets go.
 */
export function changeEmphasis(text: string, start: number, end: number, direction: 1 | -1): Edited {
  const marks = promptMarks(text)
  const adapter = marks.find((mark) => mark.kind === 'adapter' && mark.from <= start && end <= mark.to)
  if (adapter?.kind === 'adapter') {
    const tag = text.slice(adapter.from, adapter.to)
    const weight = numberText(adapter.weight + direction * adapterStep)
    const changed = tag.replace(/^(<\w+:[^:>]+)(?::[-+.\d]+)?((?::[-+.\d]+)?)(@[^>]*)?>$/, (_, head, second, lane) =>
      // Of two weights the second is that of the network.
      second ? `${head}:${numberText(adapter.textWeight)}:${weight}${lane ?? ''}>` : `${head}:${weight}${lane ?? ''}>`,
    )
    return replaced(text, adapter.from, adapter.to, changed, start, start)
  }
  const [from, to] = start === end ? wordAt(text, start) : trimmed(text, start, end)
  if (from === to) return { text, start, end }
  const around = marks
    .filter((mark): mark is Emphasis => mark.kind === 'emphasis')
    .filter(({ from: left, to: right, inner }) => {
      const isWhole = left === from && right === to
      return (
        isWhole ||
        (inner.from <= from &&
          to <= inner.to &&
          text.slice(inner.from, inner.to).trim() === text.slice(from, to).trim())
      )
    })
    .at(-1)
  const weight = Math.round(((around?.factor ?? 1) + direction * emphasisStep) * 100) / 100
  const [outerFrom, outerTo] = around ? [around.from, around.to] : [from, to]
  const inner = around ? text.slice(around.inner.from, around.inner.to) : text.slice(from, to)
  if (weight < 0) return { text, start, end }
  const isPlain = Math.abs(weight - 1) < 0.001
  const made = isPlain ? inner : `(${inner}:${numberText(weight)})`
  const first = outerFrom + (isPlain ? 0 : 1)
  return { ...replaced(text, outerFrom, outerTo, made, 0, 0), start: first, end: first + inner.length }
}

/** Moves the tag at the caret, which commas divide, before the one to its left (−1) or behind the one to its right (1). */
export function moveTag(text: string, caret: number, direction: 1 | -1): Edited {
  const tags = tagsOf(text)
  const index = tags.findIndex(({ from, to }) => from <= caret && caret <= to)
  const other = index + direction
  if (index < 0 || other < 0 || other >= tags.length) return { text, start: caret, end: caret }
  const [left, right] = direction < 0 ? [tags[other], tags[index]] : [tags[index], tags[other]]
  // The blanks stay where they are; only the words change places.
  const [a, b] = [core(text, left), core(text, right)]
  const moved =
    text.slice(0, a.from) +
    text.slice(b.from, b.to) +
    text.slice(a.to, b.from) +
    text.slice(a.from, a.to) +
    text.slice(b.to)
  const own = core(text, tags[index])
  const inside = Math.min(Math.max(caret - own.from, 0), own.to - own.from)
  const start = direction < 0 ? a.from : b.to - (own.to - own.from)
  return { text: moved, start: start + inside, end: start + inside }
}

/** Parts between the commas that divide the prompt, not those in brackets. */
function tagsOf(text: string): { from: number; to: number }[] {
  const marks = promptMarks(text)
  const commas = Array.from(text.matchAll(/[,\n]/g), ({ index }) => index).filter(
    (at) => !marks.some(({ from, to }) => from < at && at < to),
  )
  const edges = [-1, ...commas, text.length]
  return edges.slice(1).map((to, i) => ({ from: edges[i] + 1, to }))
}

function core(text: string, { from, to }: { from: number; to: number }): { from: number; to: number } {
  const part = text.slice(from, to)
  const left = part.length - part.trimStart().length
  return { from: from + left, to: Math.max(from + left, to - (part.length - part.trimEnd().length)) }
}

function wordAt(text: string, caret: number): [number, number] {
  const isWord = (character: string | undefined) => character !== undefined && /[\p{L}\p{N}_'’-]/u.test(character)
  let [from, to] = [caret, caret]
  while (isWord(text[from - 1])) from--
  while (isWord(text[to])) to++
  return [from, to]
}

function trimmed(text: string, start: number, end: number): [number, number] {
  const { from, to } = core(text, { from: start, to: end })
  return [from, to]
}

function replaced(text: string, from: number, to: number, by: string, start: number, end: number): Edited {
  return { text: text.slice(0, from) + by + text.slice(to), start, end }
}

/** 1.1, 0.7, 1: without floating point's tail. */
function numberText(value: number): string {
  return String(Math.round(value * 100) / 100)
}
