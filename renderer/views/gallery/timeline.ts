/** Days under each other, each with a heading and rows of pictures below it. All in pixels. */
export type TimelineRow =
  | { kind: 'day'; day: string; count: number; top: number }
  | { kind: 'pictures'; day: string; from: number; count: number; top: number }

export type TimelineLayout = { rows: TimelineRow[]; height: number }

export function timelineRows(
  days: readonly { day: string; count: number }[],
  columns: number,
  sizes: { heading: number; row: number; gap: number },
): TimelineLayout {
  const rows: TimelineRow[] = []
  let top = 0
  let from = 0
  for (const { day, count } of days) {
    rows.push({ kind: 'day', day, count, top })
    top += sizes.heading
    for (let at = 0; at < count; at += columns) {
      rows.push({ kind: 'pictures', day, from: from + at, count: Math.min(columns, count - at), top })
      top += sizes.row + sizes.gap
    }
    from += count
  }
  return { rows, height: top }
}

/** The first row that reaches below `top`: rows are in order. */
export function firstRowBelow(rows: readonly TimelineRow[], top: number): number {
  let low = 0
  let high = rows.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (rows[middle].top <= top) low = middle + 1
    else high = middle
  }
  return Math.max(0, low - 1)
}

/** Where a key moves the focus to, from picture to picture across the days; undefined for other keys. */
export function movedInTimeline(rows: readonly TimelineRow[], index: number, key: string): number | undefined {
  const lines = rows.filter((row) => row.kind === 'pictures')
  if (lines.length === 0) return undefined
  const last = lines[lines.length - 1].from + lines[lines.length - 1].count - 1
  const line = lines.findIndex(({ from, count }) => index >= from && index < from + count)
  const along = (step: number) => {
    const next = lines[Math.min(lines.length - 1, Math.max(0, line + step))]
    return next.from + Math.min(next.count - 1, index - lines[line].from)
  }
  switch (key) {
    case 'ArrowRight':
      return Math.min(last, index + 1)
    case 'ArrowLeft':
      return Math.max(0, index - 1)
    case 'ArrowDown':
      return line < 0 ? 0 : along(1)
    case 'ArrowUp':
      return line < 0 ? 0 : along(-1)
    case 'PageDown':
      return line < 0 ? 0 : along(4)
    case 'PageUp':
      return line < 0 ? 0 : along(-4)
    case 'Home':
      return 0
    case 'End':
      return last
  }
  return undefined
}
