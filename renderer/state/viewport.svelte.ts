/** Zoom in pixels of the screen for each of the picture, and where the picture's middle lies off the middle of the room. */
export type View = { zoom: number; x: number; y: number }
type Size = { width: number; height: number }
type Point = { x: number; y: number }

export const zoomLimits = { max: 16, step: 1.25, pan: 48, fitted: 3 }

/** Left free around a picture that fits, for its shadow. */
const margin = 12

/** As large as there is room, and never more than three times its size. */
export function fitZoom(room: Size, picture: Size): number {
  const [across, down] = [room.width, room.height].map((side) => Math.max(1, side - 2 * margin))
  return Math.min(across / picture.width, down / picture.height, zoomLimits.fitted)
}

/** Zooms so that what lies under `at`, measured from the middle of the room, stays under it. */
export function zoomedAt(view: View, factor: number, at: Point, least: number): View {
  const zoom = Math.min(zoomLimits.max, Math.max(least, view.zoom * factor))
  const share = zoom / view.zoom
  return { zoom, x: at.x - (at.x - view.x) * share, y: at.y - (at.y - view.y) * share }
}

/** Keeps a picture that is larger than the room over all of it, and a smaller one inside. */
export function bounded(view: View, room: Size, picture: Size): View {
  const slack = (across: number, inside: number) => Math.abs(across * view.zoom - inside) / 2
  const [most, highest] = [slack(picture.width, room.width), slack(picture.height, room.height)]
  const isIn = (across: number, inside: number) => across * view.zoom <= inside
  return {
    zoom: view.zoom,
    x: isIn(picture.width, room.width) ? 0 : Math.min(most, Math.max(-most, view.x)),
    y: isIn(picture.height, room.height) ? 0 : Math.min(highest, Math.max(-highest, view.y)),
  }
}

/** How the picture on the canvas is looked at. Until it is zoomed it follows the room. */
export class Viewport {
  room = $state.raw<Size>({ width: 1, height: 1 })
  picture = $state.raw<Size>({ width: 1, height: 1 })
  #view = $state.raw<View | undefined>()

  readonly fitted = $derived(fitZoom(this.room, this.picture))
  readonly isFit = $derived(this.#view === undefined)
  readonly view = $derived<View>(
    this.#view ? bounded(this.#view, this.room, this.picture) : { zoom: this.fitted, x: 0, y: 0 },
  )
  readonly percent = $derived(Math.round(this.view.zoom * 100))
  readonly canPan = $derived(
    this.picture.width * this.view.zoom > this.room.width + 0.5 ||
      this.picture.height * this.view.zoom > this.room.height + 0.5,
  )

  fit(): void {
    this.#view = undefined
  }

  /** One pixel of the picture on one of the screen. */
  actual(): void {
    this.#view = { ...this.view, zoom: 1 }
  }

  /** Nearer or farther around a point; back at the size that fits it follows the room again. */
  zoomBy(factor: number, at: Point = { x: 0, y: 0 }): void {
    const least = Math.min(this.fitted, 1)
    const next = zoomedAt(this.view, factor, at, least)
    const isBack = factor < 1 && Math.abs(next.zoom - this.fitted) < 1e-6
    this.#view = isBack ? undefined : bounded(next, this.room, this.picture)
  }

  panBy(x: number, y: number): void {
    if (!this.canPan) return
    this.#view = bounded({ ...this.view, x: this.view.x + x, y: this.view.y + y }, this.room, this.picture)
  }
}
