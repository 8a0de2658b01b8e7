/** The part of a long list that is in the page: whole rows, a few more on both sides of what is seen. */
export function visibleRows(
  scrollTop: number,
  viewHeight: number,
  rowHeight: number,
  rowCount: number,
  spare: number,
): { first: number; end: number } {
  if (rowHeight <= 0 || rowCount === 0) return { first: 0, end: 0 }
  const top = Math.min(Math.max(0, scrollTop), Math.max(0, rowCount * rowHeight - viewHeight))
  const first = Math.max(0, Math.floor(top / rowHeight) - spare)
  const end = Math.min(rowCount, Math.ceil((top + viewHeight) / rowHeight) + spare)
  return { first, end }
}

/** How many cells stand side by side, and how wide each is. All in pixels. */
export function columnsOf(
  width: number,
  leastCell: number,
  gap: number,
  most = Infinity,
): { columns: number; cell: number } {
  const columns = Math.max(1, Math.min(most, Math.floor((width + gap) / (leastCell + gap))))
  return { columns, cell: Math.max(0, (width - gap * (columns - 1)) / columns) }
}

/**
 * Where a key moves the focus in a grid of `count` cells that fills its rows in order; undefined for other keys. Up and
 * down keep the column and stop at the ends; left and right go on in the row before or after, as reading does.
 */
export function movedIndex(
  key: string,
  index: number,
  {
    count,
    columns,
    pageRows,
    isRightToLeft = false,
  }: { count: number; columns: number; pageRows: number; isRightToLeft?: boolean },
): number | undefined {
  if (count === 0) return undefined
  const within = (next: number) => Math.min(count - 1, Math.max(0, next))
  const byRows = (rows: number) => {
    const next = index + rows * columns
    if (next < 0) return index - Math.floor(index / columns) * columns
    if (next < count) return next
    // In the last row, unless the focus is there already: its column, or the last cell where the row is shorter.
    const lastRow = Math.floor((count - 1) / columns)
    return Math.floor(index / columns) === lastRow ? index : within(lastRow * columns + (index % columns))
  }
  const sideways = isRightToLeft ? -1 : 1
  switch (key) {
    case 'ArrowUp':
      return byRows(-1)
    case 'ArrowDown':
      return byRows(1)
    case 'ArrowLeft':
      return columns === 1 ? undefined : within(index - sideways)
    case 'ArrowRight':
      return columns === 1 ? undefined : within(index + sideways)
    case 'PageUp':
      return byRows(-Math.max(1, pageRows))
    case 'PageDown':
      return byRows(Math.max(1, pageRows))
    case 'Home':
      return 0
    case 'End':
      return count - 1
  }
  return undefined
}
