// The language of prompts, as the editor paints it and main resolves it: both read the same marks.

type Range = { from: number; to: number }

/** An adapter named in a prompt: `<lora:ink:0.7>`, with the text encoders' weight first where there are two, or ours with `@0.2-0.8`. */
export type AdapterMark = Range & {
  kind: 'adapter'
  name: string
  weight: number
  textWeight: number
  start: number
  end: number
}

/** Everything in a prompt that is more than a word, in order of `from`; what holds others comes before them. */
export type PromptMark =
  | AdapterMark
  /** `# …` to the end of the line. */
  | (Range & { kind: 'comment' })
  /** `{a|b}`: one of them, at random. */
  | (Range & { kind: 'choice'; options: Range[] })
  /** `__animals/cat__`: a line of that file. */
  | (Range & { kind: 'list'; name: string })
  /** `@mira` or `@mira:winter`. */
  | (Range & { kind: 'handle'; name: string; outfit?: string })
  /** `<words>`: a trigger of an adapter, or the word of an embedding. */
  | (Range & { kind: 'trigger'; words: string })
  /** `(x)`, `(x:1.3)` or `[x]`: `inner` is weighed by `factor`, which nested ones multiply. */
  | (Range & { kind: 'emphasis'; inner: Range; factor: number })

const numeral = String.raw`[-+]?\d*\.?\d+`
const adapterTag = new RegExp(
  String.raw`<(?:lora|lyco):([^<>:]{1,200})(?::(${numeral}))?(?::(${numeral}))?(?:@(${numeral})-(${numeral}))?>`,
  'y',
)
const triggerTag = /<([^<>:{}|\n]{1,200})>/y
const listName = /__([\p{L}\p{N}](?:[\p{L}\p{N} ./-]|_(?!_))*)__/uy
const handleName = /@([a-z0-9][a-z0-9-]*)(?::([a-z0-9][a-z0-9-]*))?/iy
const closingWeight = new RegExp(String.raw`:\s*(${numeral})\s*\)`, 'y')

type Open = { sign: '(' | '[' | '{'; from: number; bars: number[] }

/** Finds the marks of a prompt. A backslash makes a plain character of the one after it; what is not closed is plain text. */
export function promptMarks(text: string): PromptMark[] {
  const marks: PromptMark[] = []
  const open: Open[] = []
  /** Closes the innermost one of this sign; what was opened inside and not closed is plain text. */
  const close = (sign: Open['sign']): Open | undefined => {
    const index = open.map((one) => one.sign).lastIndexOf(sign)
    return index < 0 ? undefined : open.splice(index)[0]
  }
  const match = (pattern: RegExp, at: number): RegExpExecArray | null => {
    pattern.lastIndex = at
    return pattern.exec(text)
  }
  for (let at = 0; at < text.length;) {
    const sign = text[at]
    const before = text[at - 1]
    let length = 1
    if (sign === '\\') length = 2
    else if (sign === '#' && (before === undefined || /\s/.test(before))) {
      const end = text.indexOf('\n', at)
      const to = end < 0 ? text.length : end
      marks.push({ kind: 'comment', from: at, to })
      length = to - at
    } else if (sign === '<') {
      const adapter = match(adapterTag, at)
      const trigger = adapter ? null : match(triggerTag, at)
      if (adapter) {
        const [whole, name, first, second, start, end] = adapter
        const textWeight = Number(first ?? 1)
        marks.push({
          ...{ kind: 'adapter', from: at, to: at + whole.length, name: name.trim(), textWeight },
          ...{ weight: Number(second ?? textWeight), start: Number(start ?? 0), end: Number(end ?? 1) },
        })
        length = whole.length
      } else if (trigger) {
        marks.push({ kind: 'trigger', from: at, to: at + trigger[0].length, words: trigger[1].trim() })
        length = trigger[0].length
      }
    } else if (sign === '_') {
      const list = match(listName, at)
      if (list) {
        marks.push({ kind: 'list', from: at, to: at + list[0].length, name: list[1] })
        length = list[0].length
      }
    } else if (sign === '@' && (before === undefined || !/[\p{L}\p{N}_]/u.test(before))) {
      const handle = match(handleName, at)
      if (handle) {
        const [whole, name, outfit] = handle
        marks.push({ kind: 'handle', from: at, to: at + whole.length, name, ...(outfit ? { outfit } : {}) })
        length = whole.length
      }
    } else if (sign === '(' || sign === '[' || sign === '{') open.push({ sign, from: at, bars: [] })
    else if (sign === '|') {
      const inside = open.filter((one) => one.sign === '{').at(-1)
      if (inside) inside.bars.push(at)
    } else if (sign === '}') {
      const choice = close('{')
      if (choice && choice.bars.length > 0) {
        const edges = [choice.from, ...choice.bars, at]
        const options = edges.slice(1).map((to, i) => ({ from: edges[i] + 1, to }))
        marks.push({ kind: 'choice', from: choice.from, to: at + 1, options })
      }
    } else if (sign === ':' && open.at(-1)?.sign === '(') {
      const weight = match(closingWeight, at)
      if (weight && Number.isFinite(Number(weight[1]))) {
        const { from } = close('(')!
        const to = at + weight[0].length
        marks.push({ kind: 'emphasis', from, to, inner: { from: from + 1, to: at }, factor: Number(weight[1]) })
        length = weight[0].length
      }
    } else if (sign === ')' || sign === ']') {
      const emphasis = close(sign === ')' ? '(' : '[')
      const factor = sign === ')' ? 1.1 : 1 / 1.1
      if (emphasis) {
        const inner = { from: emphasis.from + 1, to: at }
        marks.push({ kind: 'emphasis', from: emphasis.from, to: at + 1, inner, factor })
      }
    }
    at += length
  }
  return marks.sort((a, b) => a.from - b.from || b.to - a.to)
}

/** True where what is drawn is not what stands there: something is chosen, looked up or left out. */
export function isTemplate(text: string): boolean {
  return promptMarks(text).some(({ kind }) => kind !== 'emphasis' && kind !== 'adapter')
}
