/* eslint-disable svelte/prefer-svelte-reactivity -- sets here are replaced whole */
import type { AppEvent } from '../../preload/contract.ts'
import type {
  Album,
  ImageDetail,
  ImageQueryInput,
  ImageRecord,
  RecalledRecipe,
  ReplayResult,
} from '../../preload/contract/images.ts'
import { invoke } from '../api.ts'
import { t, tn } from '../strings.ts'
import { GalleryPages } from './gallery-pages.svelte.ts'
import type { RecallPart } from './recall.ts'
import type { ToastsState } from './toasts.svelte.ts'
import type { UndoState } from './undo.svelte.ts'

/** What part of the library is shown; an album by `album:` and its id. */
export type GalleryScope = 'all' | 'starred' | 'imported' | 'bin' | `album:${string}`

export type GalleryParts = {
  toasts: ToastsState
  undo: UndoState
  /** Puts a recipe into the Studio and goes there. */
  recall: (recipe: RecalledRecipe, part: RecallPart) => void
  /** Says what went wrong where it belongs to nothing on screen. */
  onProblem: (error: unknown) => void
}

const undoMs = 10_000
const refreshDelayMs = 120
const searchDelayMs = 120

/** Everything ever made, as the Gallery shows it, and what can be done with pictures from any screen. */
export class GalleryState {
  readonly pages: GalleryPages
  search = $state('')
  scope = $state<GalleryScope>('all')
  order = $state<'newest' | 'oldest'>('newest')
  selected = $state.raw<ReadonlySet<string>>(new Set())
  activeId = $state<string | undefined>()
  albums = $state.raw<readonly Album[]>([])
  tags = $state.raw<readonly { tag: string; count: number }[]>([])
  days = $state.raw<readonly { day: string; count: number }[]>([])
  bin = $state.raw({ count: 0, bytes: 0 })
  /** By picture: what came of making it again, or that it is being made. */
  replays = $state.raw<Readonly<Record<string, ReplayResult | 'running'>>>({})
  /** Counts up with every change of what is added to pictures, so that what shows details reads them again. */
  revision = $state(0)
  /** Files that are being brought in: how many of how many. */
  importing = $state.raw<{ done: number; total: number } | undefined>()
  /** The index is made again from the files: how many of how many. */
  reading = $state.raw<{ done: number; total: number } | undefined>()
  /** An album that was just made and waits for its name. */
  unnamedAlbum = $state<string | undefined>()
  readonly #parts: GalleryParts
  /** The gallery is on the screen, and worth keeping up to date. */
  #isShown = false
  #isStale = true
  #timer: ReturnType<typeof setTimeout> | undefined
  #searchTimer: ReturnType<typeof setTimeout> | undefined
  #anchor = 0

  constructor(parts: GalleryParts) {
    this.#parts = parts
    this.pages = new GalleryPages(parts.onProblem)
  }

  readonly album = $derived(
    this.scope.startsWith('album:') ? this.albums.find(({ id }) => `album:${id}` === this.scope) : undefined,
  )
  readonly query = $derived.by((): ImageQueryInput => {
    const { scope, search, order } = this
    const state = scope === 'starred' ? 'is:starred ' : scope === 'imported' ? 'is:imported ' : ''
    const album = scope.startsWith('album:') ? { album: scope.slice('album:'.length) } : {}
    return { search: state + search, order, isBin: scope === 'bin', ...album }
  })
  readonly selectedIds = $derived([...this.selected])
  readonly active = $derived.by(() => this.pages.find(this.activeId))

  apply(event: AppEvent): void {
    switch (event.type) {
      case 'images:changed':
        this.pages.patch(event.images)
        this.revision++
        this.#changed()
        break
      case 'images:gone':
        this.selected = new Set([...this.selected].filter((id) => !event.ids.includes(id)))
        this.#changed()
        break
      case 'image:added':
        if (this.importing && event.image.importedFrom !== undefined)
          this.importing = { ...this.importing, done: this.importing.done + 1 }
        this.#changed()
        break
      case 'library:reading':
        this.reading = event.reading
        this.#changed()
        break
      case 'albums:changed':
        this.albums = event.albums
        this.revision++
        if (this.scope.startsWith('album:')) {
          if (!this.album) void this.show('all')
          else this.#changed()
        }
        break
      case 'images:replayed':
        this.replays = { ...this.replays, [event.result.id]: event.result }
        break
    }
  }

  /** The gallery came on the screen. Returns what tells that it is gone. */
  enter(): () => void {
    this.#isShown = true
    if (this.#isStale || !this.pages.isLoaded) void this.#reload(!this.pages.isLoaded)
    return () => (this.#isShown = false)
  }

  async show(scope: GalleryScope): Promise<void> {
    this.scope = scope
    this.activeId = undefined
    this.selectNone()
    await this.#reload(true)
  }

  /** Chooses one picture, wherever in the library it is; resolves with its place, or undefined when it is not there. */
  async goTo(id: string): Promise<number | undefined> {
    if (this.scope !== 'all' || this.search !== '') {
      this.search = ''
      await this.show('all')
    }
    let index = this.pages.indexOf(id)
    if (index < 0) {
      const limit = Math.max(1, this.pages.total)
      const ids = await this.#attempt(() => invoke('images:ids', { ...this.query, limit }))
      index = ids?.indexOf(id) ?? -1
    }
    if (index < 0) return undefined
    await this.pages.ensure(index)
    await this.select(index)
    return index
  }

  setOrder(order: 'newest' | 'oldest'): void {
    this.order = order
    void this.#reload(true)
  }

  /** As it is typed. */
  setSearch(search: string): void {
    this.search = search
    clearTimeout(this.#searchTimer)
    this.#searchTimer = setTimeout(() => void this.#reload(true), searchDelayMs)
  }

  #changed(): void {
    this.#isStale = true
    if (!this.#isShown) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#reload(false), refreshDelayMs)
  }

  async #reload(isNew: boolean): Promise<void> {
    this.#isStale = false
    const found = await this.#attempt(() =>
      Promise.all([
        invoke('images:days', this.query),
        invoke('albums:list', undefined),
        invoke('images:tags', undefined),
        invoke('images:binSize', undefined),
        isNew ? this.pages.show(this.query) : this.pages.refresh(),
      ]),
    )
    if (found) [this.days, this.albums, this.tags, this.bin] = found
  }

  // Choosing

  /** `toggle`: this one too, or not; `range`: all from the last one chosen alone to this one. */
  async select(index: number, how: 'only' | 'toggle' | 'range' = 'only'): Promise<void> {
    const image = this.pages.at(index)
    if (!image) return
    this.activeId = image.id
    if (how === 'range') {
      const [from, to] = [Math.min(this.#anchor, index), Math.max(this.#anchor, index)]
      const ids = await this.#attempt(() => invoke('images:ids', { ...this.query, offset: from, limit: to - from + 1 }))
      this.selected = new Set(ids)
      return
    }
    this.#anchor = index
    const next = new Set(how === 'toggle' ? this.selected : [])
    if (how === 'toggle' && next.has(image.id)) next.delete(image.id)
    else next.add(image.id)
    this.selected = next
  }

  async selectAll(): Promise<void> {
    if (this.pages.total === 0) return
    const ids = await this.#attempt(() => invoke('images:ids', { ...this.query, limit: this.pages.total }))
    this.selected = new Set(ids)
  }

  selectNone(): void {
    this.selected = new Set()
  }

  /** What an action is for: the chosen ones, else the one with the focus. */
  targets(): string[] {
    return this.selected.size > 0 ? [...this.selected] : this.activeId === undefined ? [] : [this.activeId]
  }

  // What the person adds

  async star(ids: readonly string[], isStarred: boolean): Promise<void> {
    if (ids.length === 0) return
    const set = (to: boolean) => this.#attempt(() => invoke('images:star', { ids: [...ids], isStarred: to }))
    await set(isStarred)
    this.#parts.undo.push({
      label: isStarred ? t('Star') : t('Take the star away'),
      scope: 'library',
      undo: () => set(!isStarred),
      redo: () => set(isStarred),
    })
  }

  async tag(ids: readonly string[], add: readonly string[], remove: readonly string[] = []): Promise<void> {
    if (ids.length === 0 || add.length + remove.length === 0) return
    const change = (plus: readonly string[], minus: readonly string[]) =>
      this.#attempt(() => invoke('images:tag', { ids: [...ids], add: [...plus], remove: [...minus] }))
    await change(add, remove)
    this.#parts.undo.push({
      label: t('Tags'),
      scope: 'library',
      undo: () => change(remove, add),
      redo: () => change(add, remove),
    })
  }

  async describe(id: string, part: { alt?: string; note?: string }): Promise<void> {
    await this.#attempt(() => invoke('images:describe', { id, ...part }))
  }

  // Albums

  async createAlbum(name: string, ids: readonly string[] = []): Promise<Album | undefined> {
    const album = await this.#attempt(() => invoke('albums:create', { name }))
    if (album && ids.length > 0) await this.putInAlbum(album.id, ids)
    return album
  }

  /** An album of these; its name is asked for in the list of albums. */
  async gather(ids: readonly string[]): Promise<void> {
    const album = await this.#attempt(() => invoke('albums:create', { name: t('New album') }))
    if (!album) return
    this.unnamedAlbum = album.id
    await this.putInAlbum(album.id, ids)
  }

  async renameAlbum(id: string, name: string): Promise<void> {
    await this.#attempt(() => invoke('albums:rename', { id, name }))
  }

  async removeAlbum({ id, name }: Album): Promise<void> {
    const removed = await this.#attempt(() => invoke('albums:remove', { id }))
    if (!removed) return
    if (this.scope === `album:${id}`) await this.show('all')
    const { pictures } = removed
    this.#withUndo(t('The album "{name}" is gone; its pictures stay.', { name }), t('Remove album'), {
      undo: () => invoke('albums:restore', { id, name, pictures }),
      redo: () => invoke('albums:remove', { id }),
    })
  }

  async putInAlbum(id: string, ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    const put = () => this.#attempt(() => invoke('albums:put', { id, ids: [...ids] }))
    await put()
    const take = () => this.#attempt(() => invoke('albums:take', { id, ids: [...ids] }))
    this.#parts.undo.push({ label: t('Put into an album'), scope: 'library', undo: take, redo: put })
  }

  async takeFromAlbum(id: string, ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    await this.#attempt(() => invoke('albums:take', { id, ids: [...ids] }))
    const put = () => invoke('albums:put', { id, ids: [...ids] })
    const take = () => invoke('albums:take', { id, ids: [...ids] })
    const text = tn(ids.length, 'Taken out of the album.', '{n} pictures were taken out of the album.')
    this.#withUndo(text, t('Take out of an album'), { undo: put, redo: take })
  }

  // The bin

  async moveToBin(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    const all = [...ids]
    const next = this.#neighbourOf(all)
    const moved = await this.#attempt(async () => (await invoke('images:bin', { ids: all }), true))
    if (!moved) return
    this.selectNone()
    this.activeId = next
    this.#withUndo(tn(all.length, 'One picture is in the bin.', '{n} pictures are in the bin.'), t('Move to bin'), {
      undo: () => invoke('images:restore', { ids: all }),
      redo: () => invoke('images:bin', { ids: all }),
    })
  }

  async restore(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    const done = await this.#attempt(async () => (await invoke('images:restore', { ids: [...ids] }), true))
    this.selectNone()
    if (done) {
      const text = tn(ids.length, 'One picture is back where it was.', '{n} pictures are back where they were.')
      this.#parts.toasts.show({ text, tone: 'good' })
    }
  }

  async emptyBin(): Promise<void> {
    const done = await this.#attempt(() => invoke('images:emptyBin', undefined))
    if (done)
      this.#parts.toasts.show({ text: tn(done.count, 'One picture was deleted.', '{n} pictures were deleted.') })
  }

  /** Where the focus goes when these are gone: the first after them, else the last before. */
  #neighbourOf(ids: readonly string[]): string | undefined {
    const known = this.pages.known()
    const places = known.flatMap(({ id }, i) => (ids.includes(id) ? [i] : []))
    if (places.length === 0) return undefined
    return (known[places[places.length - 1] + 1] ?? known[places[0] - 1])?.id
  }

  // Files

  /** Files of this computer; asks for them when none are named. */
  async import(files?: readonly string[]): Promise<void> {
    const chosen = files ?? (await this.#attempt(() => invoke('images:choose', undefined))) ?? []
    if (chosen.length === 0) return
    this.importing = { done: 0, total: chosen.length }
    const done = await this.#attempt(() => invoke('images:import', { files: [...chosen] }))
    this.importing = undefined
    if (!done) return
    const { images, refused } = done
    if (images.length > 0) {
      this.#parts.toasts.show({
        text: tn(images.length, 'One picture is in the gallery.', '{n} pictures are in the gallery.'),
        tone: 'good',
      })
      this.activeId = images.at(-1)!.id
      this.selected = new Set(images.map(({ id }) => id))
    }
    for (const { name, error } of refused) {
      const text = [`${name}: ${error.message}`, error.hint].filter(Boolean).join(' ')
      this.#parts.toasts.show({ text, tone: 'bad', ms: undoMs })
    }
  }

  async reveal(id: string): Promise<void> {
    await this.#attempt(() => invoke('images:reveal', { id }))
  }

  async copyImage(id: string): Promise<void> {
    const done = await this.#attempt(async () => (await invoke('images:copy', { id }), true))
    if (done) this.#parts.toasts.show({ text: t('The picture is on the clipboard.') })
  }

  async copyText(text: string, what: string): Promise<void> {
    await this.#attempt(() => navigator.clipboard.writeText(text))
    this.#parts.toasts.show({ text: t('{what} copied.', { what }) })
  }

  /** As text that other programs read, where the file has it, else as JSON. */
  async copyRecipe(id: string): Promise<void> {
    const detail = await this.detail(id)
    if (!detail) return
    await this.copyText(detail.text ?? JSON.stringify(detail.recipe ?? {}, null, 1), t('Recipe'))
  }

  async rebuild(id: string): Promise<void> {
    const done = await this.#attempt(async () => (await invoke('images:rebuildThumb', { id }), true))
    if (done) this.#parts.toasts.show({ text: t('The picture is whole again.'), tone: 'good' })
  }

  /** Out of the window, as files. */
  async dragOut(ids: readonly string[]): Promise<void> {
    await this.#attempt(() => invoke('images:drag', { ids: [...ids] }))
  }

  // Recipes

  detail(id: string): Promise<ImageDetail | undefined> {
    return this.#attempt(() => invoke('images:detail', { id }))
  }

  /** Puts what a picture was made with into the Studio. */
  async recall(of: { id: string } | { file: string }, part: RecallPart): Promise<void> {
    const recipe = await this.#attempt(() => invoke('images:recipe', of))
    if (!recipe) return
    if (!recipe.request && recipe.adapters.length === 0) {
      this.#parts.toasts.show({ text: t('The file does not say how the picture was made.'), tone: 'warn' })
    } else this.#parts.recall(recipe, part)
  }

  async replay(id: string): Promise<void> {
    const started = await this.#attempt(() => invoke('images:replay', { id }))
    if (started) this.replays = { ...this.replays, [id]: 'running' }
  }

  /** Told for ten seconds, and can be taken back for longer. */
  #withUndo(text: string, label: string, step: { undo: () => Promise<unknown>; redo: () => Promise<unknown> }): void {
    const undo = () => this.#attempt(step.undo)
    this.#parts.undo.push({ label, scope: 'library', undo, redo: () => this.#attempt(step.redo) })
    this.#parts.toasts.show({ text, ms: undoMs, action: { label: t('Undo'), run: () => void undo() } })
  }

  async #attempt<T>(action: () => Promise<T>): Promise<T | undefined> {
    try {
      return await action()
    } catch (error) {
      this.#parts.onProblem(error)
      return undefined
    }
  }
}

/** What a screen reader says of a picture, and what stands in for it. */
export function altOf(image: ImageRecord): string {
  return image.alt ?? (image.prompt || t('A picture without a prompt'))
}
