import { describe, expect, it } from 'vitest'
import { bounded, fitZoom, Viewport, zoomedAt } from '../../../renderer/state/viewport.svelte.ts'

const room = { width: 824, height: 624 } // 800 × 600 within its margin

describe('the view of a picture', () => {
  it('fits the room, and never enlarges beyond three times', () => {
    expect(fitZoom(room, { width: 1600, height: 600 })).toBe(0.5)
    expect(fitZoom(room, { width: 100, height: 100 })).toBe(3)
  })

  it('keeps under the pointer what lies there', () => {
    const before = { zoom: 2, x: 30, y: -10 }
    const at = { x: 120, y: 80 }
    const after = zoomedAt(before, 1.5, at, 0.1)
    const under = ({ zoom, x, y }: typeof before) => [(at.x - x) / zoom, (at.y - y) / zoom]
    const [px, py] = under(after)
    expect(px).toBeCloseTo(under(before)[0])
    expect(py).toBeCloseTo(under(before)[1])
  })

  it('leaves no gap at a side while the picture is larger than the room', () => {
    const picture = { width: 400, height: 400 }
    expect(bounded({ zoom: 4, x: 9999, y: -9999 }, room, picture)).toEqual({ zoom: 4, x: 388, y: -488 })
    expect(bounded({ zoom: 1, x: 50, y: 50 }, room, picture)).toEqual({ zoom: 1, x: 0, y: 0 })
  })

  it('follows the room until it is zoomed, and again when it is back', () => {
    const viewport = new Viewport()
    viewport.room = room
    viewport.picture = { width: 400, height: 400 }
    expect([viewport.isFit, viewport.percent, viewport.canPan]).toEqual([true, 150, false])
    viewport.room = { width: 424, height: 424 }
    expect(viewport.percent).toBe(100)
    viewport.zoomBy(2, { x: 100, y: 0 })
    expect([viewport.isFit, viewport.percent, viewport.canPan]).toEqual([false, 200, true])
    expect(viewport.view.x).toBe(-100)
    viewport.panBy(1000, 0)
    expect(viewport.view.x).toBe(188)
    viewport.zoomBy(0.001)
    expect([viewport.isFit, viewport.percent]).toEqual([true, 100])
    viewport.actual()
    expect([viewport.isFit, viewport.percent]).toEqual([false, 100])
    viewport.fit()
    expect(viewport.isFit).toBe(true)
  })
})
