import type { ImageRecord } from '../../preload/contract/images.ts'

/** Saved pictures, newest first, and the one on the canvas. */
export class LibraryState {
  images = $state.raw<ImageRecord[]>([])
  /** undefined: the canvas follows the queue and shows what comes. */
  selectedId = $state<string | undefined>()

  readonly newest = $derived(this.images.at(0))
  readonly selected = $derived(this.images.find((image) => image.id === this.selectedId))

  replace(images: ImageRecord[]): void {
    this.images = images
  }

  add(image: ImageRecord): void {
    const others = this.images.filter((one) => one.id !== image.id)
    this.images = [image, ...others].sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1))
  }

  select(id: string): void {
    this.selectedId = id
  }

  /** Back to showing what is being made. */
  follow(): void {
    this.selectedId = undefined
  }
}
