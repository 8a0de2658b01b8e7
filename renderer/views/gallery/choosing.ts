import type { GalleryPages } from '../../state/gallery-pages.svelte.ts'

/** What a click or a key press does to the choice: Shift extends it, Mod adds to it or takes from it. */
export function howOf(event: MouseEvent | KeyboardEvent): 'only' | 'toggle' | 'range' {
  if (event.shiftKey) return 'range'
  return event instanceof MouseEvent && (event.ctrlKey || event.metaKey) ? 'toggle' : 'only'
}

/** A picture by its id, and while it is not here by its place. */
export function keyOfIndex(pages: GalleryPages, index: number): string {
  return pages.peek(index)?.id ?? `#${index}`
}

/** Cells grow to fill their row: with a smaller least width they come out around the size that was chosen, not above it. */
export function leastCell(size: number): number {
  return Math.max(104, 0.82 * size)
}
