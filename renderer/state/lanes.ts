import type { Ramp } from '../../preload/contract/generate.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import { limits, type RampName } from '../../preload/limits.ts'

// When an adapter acts, as lanes over the step ruler. Every way of changing a lane, by pointer, keys or numbers, goes
// through these functions, so that the same edit is the same recipe.

export type Lane = Pick<StudioSlot, 'start' | 'end' | 'ramp'>
/** Place within the window, 0 its first step and 1 its last, and share of the weight there. */
export type RampPoint = [place: number, share: number]

/** A share of the steps as it is kept: in whole percents, in tenths of one where steps are closer together than that. */
export function tidyShare(share: number, steps: number): number {
  const parts = steps > 99 ? 1000 : 100
  return Math.min(1, Math.max(0, Math.round(share * parts) / parts))
}

/** The border between steps that a share stands for. As main/pipeline/steps.ts rounds them. */
export function stepOf(share: number, steps: number): number {
  return Math.round(share * steps)
}

/** The share at which `step` begins. */
export function shareOf(step: number, steps: number): number {
  return tidyShare(Math.min(steps, Math.max(0, step)) / steps, steps)
}

/** Puts the first step somewhere else; the end gives way, so that at least one step stays. */
export function withStart(lane: Lane, step: number, steps: number): Pick<Lane, 'start' | 'end'> {
  const first = Math.min(steps - 1, Math.max(0, Math.round(step)))
  const end = stepOf(lane.end, steps)
  return { start: shareOf(first, steps), end: end > first ? lane.end : shareOf(first + 1, steps) }
}

export function withEnd(lane: Lane, step: number, steps: number): Pick<Lane, 'start' | 'end'> {
  const end = Math.min(steps, Math.max(1, Math.round(step)))
  const first = stepOf(lane.start, steps)
  return { start: first < end ? lane.start : shareOf(end - 1, steps), end: shareOf(end, steps) }
}

/** Moves the whole window to begin at `step`, as far as the ruler goes. */
export function moved(lane: Lane, step: number, steps: number): Pick<Lane, 'start' | 'end'> {
  const first = stepOf(lane.start, steps)
  const length = Math.max(1, stepOf(lane.end, steps) - first)
  const to = Math.min(steps - length, Math.max(0, Math.round(step)))
  if (to === first) return { start: lane.start, end: lane.end }
  return { start: shareOf(to, steps), end: shareOf(to + length, steps) }
}

const shapes: Record<RampName, RampPoint[]> = {
  flat: [
    [0, 1],
    [1, 1],
  ],
  'ease-in': [
    [0, 0],
    [1, 1],
  ],
  'ease-out': [
    [0, 1],
    [1, 0],
  ],
}

/** The points of a ramp, in order of their places. */
export function pointsOf(ramp: Ramp): RampPoint[] {
  const points = typeof ramp === 'string' ? shapes[ramp] : ramp
  return points.map(([place, share]): RampPoint => [place, share]).sort((a, b) => a[0] - b[0])
}

/** What choosing Custom begins with: the ramp as it is, and a point in the middle to take hold of. */
export function customOf(ramp: Ramp): RampPoint[] {
  const points = pointsOf(ramp)
  return points.length > 2 ? points : addPoint(points, 0.5)
}

/** Share of the weight at a place: straight between points, level before the first and after the last. */
export function shareAt(points: readonly RampPoint[], place: number): number {
  const after = points.findIndex(([at]) => at > place)
  if (after === 0) return points[0][1]
  if (after < 0) return points[points.length - 1][1]
  const [[from, low], [to, high]] = [points[after - 1], points[after]]
  return low + ((place - from) / (to - from)) * (high - low)
}

const tidy = (value: number) => Math.round(value * 100) / 100 + 0

/** Moves one point between its neighbours. The first and the last move freely along their end. */
export function movePoint(points: readonly RampPoint[], index: number, place: number, share: number): RampPoint[] {
  const low = points[index - 1]?.[0] ?? 0
  const high = points[index + 1]?.[0] ?? 1
  const { maxAdapterWeight: most } = limits
  const moved: RampPoint = [
    tidy(Math.min(high, Math.max(low, place))),
    tidy(Math.min(most, Math.max(-most, Number.isFinite(share) ? share : points[index][1]))),
  ]
  return points.map((point, i) => (i === index ? moved : point))
}

/** Adds a point on the line where it is, unless there are as many as may be. */
export function addPoint(points: readonly RampPoint[], place: number): RampPoint[] {
  if (points.length >= limits.maxRampPoints) return [...points]
  const at = tidy(Math.min(1, Math.max(0, place)))
  const point: RampPoint = [at, tidy(shareAt(points, at))]
  return [...points, point].sort((a, b) => a[0] - b[0])
}

/** Where a new point is most useful: in the middle of the widest gap. */
export function widestGap(points: readonly RampPoint[]): number {
  const stops = [0, ...points.map(([place]) => place), 1]
  let best = 0
  for (let i = 1; i + 1 < stops.length; i++) if (stops[i + 1] - stops[i] > stops[best + 1] - stops[best]) best = i
  return (stops[best] + stops[best + 1]) / 2
}

/** Takes a point out; two stay. */
export function removePoint(points: readonly RampPoint[], index: number): RampPoint[] {
  return points.length <= 2 ? [...points] : points.filter((_, i) => i !== index)
}

/** The area under a ramp as a CSS polygon in percents of its box. What lies beyond 0 and 1 is drawn at the edge. */
export function rampPolygon(ramp: Ramp): string {
  const points = pointsOf(ramp)
  const at = (place: number, share: number) =>
    `${round(100 * place)}% ${round(100 * (1 - Math.min(1, Math.max(0, share))))}%`
  const line = points.map(([place, share]) => at(place, share))
  const [first, last] = [points[0], points[points.length - 1]]
  if (first[0] > 0) line.unshift(at(0, first[1]))
  if (last[0] < 1) line.push(at(1, last[1]))
  return `polygon(0% 100%, ${line.join(', ')}, 100% 100%)`
}

const round = (value: number) => Math.round(value * 100) / 100

/** Which steps carry a number under the ruler: all of a few, else every fifth, tenth or so. */
export function rulerMarks(steps: number, room: number): number[] {
  const every = [1, 2, 5, 10, 20, 50].find((step) => steps / step <= room) ?? 50
  const marks = Array.from({ length: Math.floor(steps / every) + 1 }, (_, i) => i * every)
  // The last step is always said; the one before it makes room when both would touch.
  if (marks[marks.length - 1] === steps) return marks
  return steps - marks[marks.length - 1] < every / 2 ? [...marks.slice(0, -1), steps] : [...marks, steps]
}
