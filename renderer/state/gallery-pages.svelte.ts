/* eslint-disable svelte/prefer-svelte-reactivity -- maps and sets here are replaced whole, or are not shown */
import type { ImageQueryInput, ImageRecord } from '../../preload/contract/images.ts'
import { invoke } from '../api.ts'

const pageSize = 120
/** Pages that stay when the list is read anew; the others are asked for when they come into view again. */
const keptPages = 4

/** A long list of pictures of which only the parts that were looked at are here. */
export class GalleryPages {
  total = $state(0)
  isLoaded = $state(false)
  unknown = $state.raw<string[]>([])
  #pages = $state.raw<ReadonlyMap<number, readonly ImageRecord[]>>(new Map())
  /** By recent use. */
  #wanted: number[] = []
  #asked = new Set<number>()
  #generation = 0
  #query: ImageQueryInput = {}
  readonly #onProblem: (error: unknown) => void

  constructor(onProblem: (error: unknown) => void) {
    this.#onProblem = onProblem
  }

  readonly items = $derived(Array.from({ length: this.total }, (_, i) => i))

  /** Another list. What was shown stays until the new one has come. */
  async show(query: ImageQueryInput): Promise<void> {
    this.#query = query
    this.#wanted = [0]
    await this.#load(true)
  }

  /** The same list, which may have changed. */
  async refresh(): Promise<void> {
    await this.#load(false)
  }

  /** A picture by its place; undefined while it is not here, and then it is asked for. */
  at(index: number): ImageRecord | undefined {
    const page = Math.floor(index / pageSize)
    const found = this.#pages.get(page)?.[index % pageSize]
    this.#want(page)
    return found
  }

  /** As `at`, without asking for it. */
  peek(index: number): ImageRecord | undefined {
    return this.#pages.get(Math.floor(index / pageSize))?.[index % pageSize]
  }

  /** Resolves when the picture at this place is here. */
  async ensure(index: number): Promise<void> {
    const page = Math.floor(index / pageSize)
    if (!this.#pages.has(page)) await this.#loadPage(page, this.#generation)
  }

  find(id: string | undefined): ImageRecord | undefined {
    if (id === undefined) return undefined
    for (const page of this.#pages.values()) for (const image of page) if (image.id === id) return image
    return undefined
  }

  indexOf(id: string): number {
    for (const [page, images] of this.#pages) {
      const at = images.findIndex((image) => image.id === id)
      if (at >= 0) return page * pageSize + at
    }
    return -1
  }

  /** Those that are here. */
  known(): ImageRecord[] {
    return [...this.#pages.keys()].sort((a, b) => a - b).flatMap((page) => [...this.#pages.get(page)!])
  }

  /** New words for pictures that are shown. */
  patch(changed: readonly ImageRecord[]): void {
    const byId = new Map(changed.map((image) => [image.id, image]))
    this.#pages = new Map(
      [...this.#pages].map(([page, images]) => [page, images.map((image) => byId.get(image.id) ?? image)]),
    )
  }

  #want(page: number): void {
    if (this.#wanted[0] !== page)
      this.#wanted = [page, ...this.#wanted.filter((one) => one !== page)].slice(0, keptPages)
    if (this.#pages.has(page) || this.#asked.has(page)) return
    this.#asked.add(page)
    // Asked while the page is being drawn: what comes of it is for later.
    queueMicrotask(() => void this.#loadPage(page, this.#generation))
  }

  async #load(isNew: boolean): Promise<void> {
    const generation = ++this.#generation
    const pages = isNew ? [0] : [...this.#wanted]
    try {
      const parts = await Promise.all(pages.map((page) => this.#ask(page)))
      if (generation !== this.#generation) return
      this.#asked = new Set(pages)
      this.#pages = new Map(parts.map(({ images }, i) => [pages[i], images]))
      this.total = parts[0]?.total ?? 0
      this.unknown = parts[0]?.unknown ?? []
      this.isLoaded = true
    } catch (error) {
      this.#onProblem(error)
    }
  }

  async #loadPage(page: number, generation: number): Promise<void> {
    try {
      const { images, total } = await this.#ask(page)
      if (generation !== this.#generation) return
      this.#pages = new Map([...this.#pages, [page, images]])
      if (total !== this.total) this.total = total
    } catch (error) {
      this.#asked.delete(page)
      this.#onProblem(error)
    }
  }

  #ask(page: number) {
    return invoke('images:query', { ...this.#query, offset: page * pageSize, limit: pageSize })
  }
}
