import { promptMarks } from '../../preload/prompt-marks.ts'

/** Text that will be drawn, and the part of what was typed that it stands for. */
export type Piece = { text: string; from: number; to: number }

export type Expanded = {
  pieces: Piece[]
  /** `__lists__` that are not there, and `@handles` that nobody has: left out, each named once. */
  missingLists: string[]
  unknownHandles: string[]
  /** Something was chosen of several. */
  hasChoices: boolean
}

export type Choosing = {
  /** Which of these: 0 to their number − 1. */
  choose: (options: readonly string[]) => number
  /** The lines of a list; undefined when there is none of that name. */
  linesOf: (name: string) => readonly string[] | undefined
  /** Words that adapters listen to: `<words>` of another spelling stand for them. */
  triggers?: readonly string[]
}

/** Lists may name lists; one that names itself ends here. */
const maxDepth = 8

/**
 * Makes one prompt of a template: takes one of each `{a|b}`, a line of each `__list__`, and leaves comments and unknown
 * handles out. Emphasis and escapes stay for the encoder, so that expanding the result once more changes nothing.
 */
export function expandPrompt(template: string, choosing: Choosing): Expanded {
  const missingLists = new Set<string>()
  const unknownHandles = new Set<string>()
  let hasChoices = false
  const { choose, linesOf, triggers = [] } = choosing

  const expand = (text: string, depth: number): Piece[] => {
    const marks = promptMarks(text)
    /** `next` is the first mark that may begin in this part. */
    const walk = (from: number, to: number, next: number): Piece[] => {
      const pieces: Piece[] = []
      let at = from
      const plainTo = (end: number) => {
        if (end > at) pieces.push({ text: text.slice(at, end), from: at, to: end })
        at = Math.max(at, end)
      }
      for (let i = next; i < marks.length && marks[i].from < to; i++) {
        const mark = marks[i]
        if (mark.from < at || mark.to > to) continue
        if (mark.kind === 'emphasis' || mark.kind === 'adapter') continue
        if (mark.kind === 'trigger' && triggers.includes(`<${mark.words}>`)) continue // the word of an embedding
        plainTo(mark.from)
        const own = { from: mark.from, to: mark.to }
        at = mark.to
        if (mark.kind === 'comment') {
          // With the blanks before it, and its line when nothing else stands there.
          const last = pieces.at(-1)
          if (last) last.text = last.text.replace(/[^\S\n]+$/, '')
          const line = text.slice(text.lastIndexOf('\n', mark.from) + 1, mark.from)
          if (line.trim() === '' && text[at] === '\n') at++
        } else if (mark.kind === 'choice') {
          hasChoices = true
          const options = mark.options.map((range) => text.slice(range.from, range.to))
          const { from, to } = mark.options[choose(options)]
          pieces.push(...walk(from, to, i + 1))
          at = mark.to
        } else if (mark.kind === 'trigger') pieces.push({ ...own, text: spelledAs(mark.words, triggers) })
        else if (mark.kind === 'handle') unknownHandles.add(mark.name)
        else {
          const lines = depth < maxDepth ? linesOf(mark.name) : undefined
          if (!lines || lines.length === 0) missingLists.add(mark.name)
          else {
            hasChoices ||= lines.length > 1
            const line = lines[choose(lines)]
            pieces.push(...expand(line, depth + 1).map((piece) => ({ ...piece, ...own })))
          }
        }
      }
      plainTo(to)
      return pieces
    }
    return walk(0, text.length, 0)
  }

  const pieces = expand(template, 0).filter(({ text }) => text !== '')
  return { pieces, missingLists: [...missingLists], unknownHandles: [...unknownHandles], hasChoices }
}

export function textOf({ pieces }: Expanded): string {
  return pieces.map(({ text }) => text).join('')
}

/** Where a place in the expanded text stands in what was typed. */
export function placeInTemplate({ pieces }: Expanded, place: number): number {
  let before = 0
  for (const { text, from, to } of pieces) {
    // Inside a line of a list, or a trigger spelled otherwise, only the mark as a whole has a place.
    if (place < before + text.length) return text.length === to - from ? from + place - before : from
    before += text.length
  }
  return pieces.at(-1)?.to ?? 0
}

/** The longest of everything: what the model may have to read at most. */
export function chooseLongest(options: readonly string[]): number {
  return options.reduce((best, option, i) => (option.length > options[best].length ? i : best), 0)
}

/** Choices by the seed of a job: the same seed and template give the same words. SplitMix32 (Steele et al. 2014). */
export function seededChoice(seed: number, stream: number): (options: readonly string[]) => number {
  let state = (seed ^ Math.imul(stream + 1, 0x85ebca6b)) >>> 0
  return ({ length }) => {
    state = (state + 0x9e3779b9) >>> 0
    let bits = state
    bits = Math.imul(bits ^ (bits >>> 16), 0x21f0aaad)
    bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97)
    return Math.floor((((bits ^ (bits >>> 15)) >>> 0) / 2 ** 32) * length)
  }
}

function spelledAs(words: string, triggers: readonly string[]): string {
  return triggers.find((trigger) => trigger.toLowerCase() === words.toLowerCase()) ?? words
}
