export type FileKind = 'adapter' | 'model' | 'image' | 'text' | 'recipe' | 'folder' | 'unknown'
export type DroppedFile = { file: string; name: string }

/** A place to drop files on, and what it does with them. */
export type DropTarget = {
  id: string
  label: string
  note?: string
  kinds: readonly FileKind[]
  take: (files: DroppedFile[], options: { isLink: boolean }) => void
}

/** What can be done with files that are dragged, pasted or chosen. */
export class DropsState {
  all = $state.raw<DropTarget[]>([])

  /** Returns what takes it away again. */
  register(target: DropTarget): () => void {
    this.all = [...this.all.filter(({ id }) => id !== target.id), target]
    return () => (this.all = this.all.filter((one) => one !== target))
  }
}
