import { describe, expect, it } from 'vitest'
import { shareAt as drawnShareAt, windowOf } from '../../../main/pipeline/steps.ts'
import { AdapterUse } from '../../../preload/contract/generate.ts'
import {
  addPoint,
  customOf,
  moved,
  movePoint,
  pointsOf,
  rampPolygon,
  removePoint,
  rulerMarks,
  shareAt,
  shareOf,
  stepOf,
  tidyShare,
  widestGap,
  withEnd,
  withStart,
  type Lane,
} from '../../../renderer/state/lanes.ts'

const lane = (start: number, end: number): Lane => ({ start, end, ramp: 'flat' })

describe('ends of a lane', () => {
  it('keep shares from which the engine finds the same steps, for every number of steps', () => {
    for (let steps = 1; steps <= 150; steps++) {
      for (let step = 0; step <= steps; step++) {
        const share = shareOf(step, steps)
        expect(stepOf(share, steps)).toBe(step)
        expect(windowOf({ start: share, end: 1 }, steps)[0]).toBe(step)
        expect(tidyShare(share, steps)).toBe(share) // what the table writes is what a drag writes
      }
    }
  })

  it('stay on the ruler and leave at least one step between them', () => {
    expect(withStart(lane(0, 1), 5, 20)).toEqual({ start: 0.25, end: 1 })
    expect(withStart(lane(0, 0.5), 14, 20)).toEqual({ start: 0.7, end: 0.75 })
    expect(withStart(lane(0, 1), 99, 20)).toEqual({ start: 0.95, end: 1 })
    expect(withEnd(lane(0, 1), 10, 20)).toEqual({ start: 0, end: 0.5 })
    expect(withEnd(lane(0.5, 1), 4, 20)).toEqual({ start: 0.15, end: 0.2 })
    expect(withEnd(lane(0, 1), -3, 20)).toEqual({ start: 0, end: 0.05 })
  })

  it('move together and stop at the ends of the ruler', () => {
    expect(moved(lane(0.25, 0.5), 10, 20)).toEqual({ start: 0.5, end: 0.75 })
    expect(moved(lane(0.25, 0.5), 40, 20)).toEqual({ start: 0.75, end: 1 })
    expect(moved(lane(0.25, 0.5), -4, 20)).toEqual({ start: 0, end: 0.25 })
    expect(moved(lane(0, 1), 7, 20)).toEqual({ start: 0, end: 1 })
    // What was typed between two steps is not rounded by a move that goes nowhere.
    expect(moved(lane(0.33, 0.66), 7, 20)).toEqual({ start: 0.33, end: 0.66 })
  })
})

describe('ramps', () => {
  it('have the weights that are drawn', () => {
    for (const ramp of ['flat', 'ease-in', 'ease-out'] as const)
      for (const place of [0, 0.2, 0.5, 1]) expect(shareAt(pointsOf(ramp), place)).toBe(drawnShareAt(ramp, place))
    const custom = customOf('ease-in')
    expect(custom).toEqual([
      [0, 0],
      [0.5, 0.5],
      [1, 1],
    ])
    expect(AdapterUse.safeParse({ file: 'a', ramp: custom }).success).toBe(true)
  })

  it('take up to six points, in order, each between its neighbours', () => {
    let points = customOf('flat')
    for (let i = 0; i < 9; i++) points = addPoint(points, widestGap(points))
    expect(points).toHaveLength(6)
    expect(points.map(([place]) => place)).toEqual([...points.map(([place]) => place)].sort((a, b) => a - b))
    expect(movePoint(points, 2, 5, 0.2)[2]).toEqual([points[3][0], 0.2])
    expect(movePoint(points, 2, -5, 9)[2]).toEqual([points[1][0], 4])
    expect(movePoint(points, 0, 0.1, Number.NaN)[0][1]).toBe(1)
    for (let i = 0; i < 9; i++) points = removePoint(points, 0)
    expect(points).toHaveLength(2)
  })

  it('are drawn to the whole width, level outside their points', () => {
    expect(rampPolygon('flat')).toBe('polygon(0% 100%, 0% 0%, 100% 0%, 100% 100%)')
    const points: [number, number][] = [
      [0.2, 0.5],
      [0.8, 3],
    ]
    expect(rampPolygon(points)).toBe('polygon(0% 100%, 0% 50%, 20% 50%, 80% 0%, 100% 0%, 100% 100%)')
  })
})

it('numbers the ruler as room allows, its last step always', () => {
  expect(rulerMarks(4, 12)).toEqual([0, 1, 2, 3, 4])
  expect(rulerMarks(20, 12)).toEqual([0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20])
  expect(rulerMarks(24, 8)).toEqual([0, 5, 10, 15, 20, 24])
  expect(rulerMarks(52, 8)).toEqual([0, 10, 20, 30, 40, 52])
})
