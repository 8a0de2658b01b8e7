import type { AppEvent } from '../../preload/contract.ts'
import type { ImageRecord } from '../../preload/contract/images.ts'

/** Saved pictures, newest first, and what of them is on the canvas. */
export class LibraryState {
  images = $state.raw<ImageRecord[]>([])
  /** undefined: the canvas follows the queue and shows what comes. */
  selectedId = $state<string | undefined>()
  /** Those made since this belong in the filmstrip. */
  launchedAt = $state(0)
  /** The one picture is marked, and the other is waited for; or both, side by side. */
  compared = $state.raw<readonly string[]>([])
  isComparing = $state(false)
  /** The chosen picture lies over everything else. */
  look = $state<'quick' | 'full' | undefined>()
  /** What the person has put away on the canvas, until something new is made. */
  closedBatch = $state<string | undefined>()

  readonly newest = $derived(this.images.at(0))
  readonly selected = $derived(this.find(this.selectedId))
  readonly recent = $derived(this.images.filter(({ createdAt }) => createdAt >= this.launchedAt))

  replace(images: ImageRecord[], launchedAt = this.launchedAt): void {
    this.images = images
    this.launchedAt = launchedAt
  }

  apply(event: AppEvent): void {
    if (event.type === 'image:added') this.add(event.image)
    else if (event.type === 'images:changed') {
      for (const image of event.images) if (this.find(image.id) || this.#wasHere.includes(image.id)) this.add(image)
    } else if (event.type === 'images:gone') this.remove(event.ids)
  }

  find(id: string | undefined): ImageRecord | undefined {
    return id === undefined ? undefined : this.images.find((image) => image.id === id)
  }

  add(image: ImageRecord): void {
    const others = this.images.filter((one) => one.id !== image.id)
    this.images = [image, ...others].sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1))
  }

  /** Removed pictures, so that those that come back from the bin are shown again. */
  #wasHere: string[] = []

  /** The canvas goes on to the neighbour of the one it showed. */
  remove(ids: readonly string[]): void {
    const at = this.images.findIndex(({ id }) => id === this.selectedId)
    const left = this.images.filter(({ id }) => !ids.includes(id))
    if (this.selectedId !== undefined && ids.includes(this.selectedId)) {
      const next = this.images.slice(at + 1).find(({ id }) => !ids.includes(id)) ?? left.at(-1)
      this.selectedId = next?.id
    }
    this.#wasHere = [...this.#wasHere, ...ids]
    this.compared = this.compared.filter((id) => !ids.includes(id))
    if (this.compared.length < 2) this.isComparing = false
    this.images = left
  }

  select(id: string): void {
    this.selectedId = id
  }

  /** Back to showing what is being made. */
  follow(): void {
    this.selectedId = undefined
    this.closedBatch = undefined
    this.isComparing = false
  }

  isCompared(id: string): boolean {
    return this.compared.includes(id)
  }

  /** The first picture is marked; with a second both are shown against each other. A marked one is let go. */
  compare(id: string): void {
    if (this.isComparing) this.endCompare()
    if (this.compared.includes(id)) this.compared = this.compared.filter((one) => one !== id)
    else this.compared = [...this.compared, id].slice(-2)
    this.isComparing = this.compared.length === 2
  }

  endCompare(): void {
    this.isComparing = false
    this.compared = []
  }
}
