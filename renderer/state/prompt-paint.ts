import { promptMarks, type PromptMark } from '../../preload/prompt-marks.ts'

export type Paint =
  | 'stronger'
  | 'weaker'
  | 'choice'
  | 'list'
  | 'handle'
  | 'trigger'
  | 'adapter'
  | 'comment'
  /** Names something that is not there. */
  | 'unknown'
  /** Beyond what the model reads. */
  | 'unread'
  /** A weight that has no effect. */
  | 'idle'

export type Painted = { text: string; paints: Paint[] }

export type PaintOptions = {
  unreadFrom?: number
  missingLists?: readonly string[]
  unknownHandles?: readonly string[]
  /** The model takes no weights: their marks are dimmed. */
  hasIdleWeights?: boolean
}

/** A prompt cut where its look changes, in order; together the parts are the text. */
export function paintPrompt(text: string, options: PaintOptions = {}): Painted[] {
  const { unreadFrom = text.length } = options
  const ranges = promptMarks(text).flatMap((mark) => rangesOf(mark, options))
  if (unreadFrom < text.length) ranges.push({ from: unreadFrom, to: text.length, paint: 'unread' })
  const cuts = [...new Set([0, text.length, ...ranges.flatMap(({ from, to }) => [from, to])])].sort((a, b) => a - b)
  return cuts.slice(1).map((to, i) => {
    const from = cuts[i]
    const paints = ranges.filter((range) => range.from <= from && to <= range.to).map(({ paint }) => paint)
    return { text: text.slice(from, to), paints: [...new Set(paints)] }
  })
}

type PaintRange = { from: number; to: number; paint: Paint }

function rangesOf(mark: PromptMark, options: PaintOptions): PaintRange[] {
  const { from, to } = mark
  const whole = (paint: Paint): PaintRange => ({ from, to, paint })
  switch (mark.kind) {
    case 'emphasis': {
      const paint = mark.factor >= 1 ? 'stronger' : 'weaker'
      if (!options.hasIdleWeights) return [whole(paint)]
      return [
        { from, to: mark.inner.from, paint: 'idle' },
        { from: mark.inner.to, to, paint: 'idle' },
      ]
    }
    case 'list':
      return [whole(options.missingLists?.includes(mark.name) ? 'unknown' : 'list')]
    case 'handle':
      return [whole(options.unknownHandles?.includes(mark.name) ? 'unknown' : 'handle')]
    default:
      return [whole(mark.kind)]
  }
}
