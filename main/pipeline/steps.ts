import type { AdapterTarget } from '../../models/adapters/types.ts'
import type { AppliedAdapter, LoadedAdapter, Ramp } from './adapter-types.ts'

// When an adapter acts, and how strongly. Steps are those of the whole schedule, also where a start picture skips the
// first: what an adapter does belongs to noise levels, and they stay where they are.

/** What one picture's adapters weigh at one step; those that rest are not in it. */
export type Weights = ReadonlyMap<LoadedAdapter, number>

/** First step at which the adapter acts and the first at which it does no more, of `steps`. */
export function windowOf({ start, end }: Pick<AppliedAdapter, 'start' | 'end'>, steps: number): [number, number] {
  return [Math.round(start * steps), Math.round(end * steps)]
}

/** Weight of an adapter on the drawing network at `step` of `steps`, counted from 0; 0 outside its window. */
export function weightAt(applied: AppliedAdapter, step: number, steps: number): number {
  const [first, end] = windowOf(applied, steps)
  if (step < first || step >= end) return 0
  const place = end - first === 1 ? 0.5 : (step - first) / (end - 1 - first)
  return applied.weight * shareAt(applied.ramp, place)
}

const ramps: Record<Extract<Ramp, string>, Exclude<Ramp, string>> = {
  flat: [[0, 1]],
  'ease-in': [
    [0, 0],
    [1, 1],
  ],
  'ease-out': [
    [0, 1],
    [1, 0],
  ],
}

/** Value of a ramp at a place from 0 to 1: straight between its points, level before the first and after the last. */
export function shareAt(ramp: Ramp, place: number): number {
  const points = [...(typeof ramp === 'string' ? ramps[ramp] : ramp)].sort((a, b) => a[0] - b[0])
  const after = points.findIndex(([at]) => at > place)
  if (after === 0) return points[0][1]
  if (after < 0) return points[points.length - 1][1]
  const [[from, low], [to, high]] = [points[after - 1], points[after]]
  return low + ((place - from) / (to - from)) * (high - low)
}

/** Weights on the drawing network at one step. An adapter that was chosen twice weighs what both weigh together. */
export function weightsAt(adapters: readonly AppliedAdapter[], step: number, steps: number): Weights {
  return sum(adapters, (applied) => weightAt(applied, step, steps))
}

/** Weights on the text encoders, which run once: of every adapter whose window is open at all. */
export function textWeights(adapters: readonly AppliedAdapter[], steps: number): Weights {
  return sum(adapters, (applied) => (isOpen(applied, steps) ? applied.textWeight : 0))
}

/**
 * The adapters that change anything: those of no weight, or with a window in which no step lies, are left out before
 * anything else, so that such a picture is the one without them, to the byte.
 */
export function effective(adapters: readonly AppliedAdapter[], steps: number): AppliedAdapter[] {
  return adapters.filter((applied) => {
    if (!isOpen(applied, steps)) return false
    const { adapter } = applied
    const draws = Array.from({ length: steps }, (_, step) => weightAt(applied, step, steps)).some(
      (weight) => weight !== 0,
    )
    const isRead = changes(adapter, 'text_encoder') || changes(adapter, 'text_encoder_2') || adapter.embeddings?.size
    return (draws && changes(adapter, 'unet')) || (applied.textWeight !== 0 && Boolean(isRead))
  })
}

/** Whether an adapter changes a network at all. */
export function changes({ layers, live }: LoadedAdapter, target: AdapterTarget): boolean {
  return (layers[target]?.size ?? 0) > 0 || (live?.[target]?.size ?? 0) > 0
}

function isOpen(applied: AppliedAdapter, steps: number): boolean {
  const [first, end] = windowOf(applied, steps)
  return end > first
}

function sum(adapters: readonly AppliedAdapter[], weightOf: (applied: AppliedAdapter) => number): Weights {
  const weights = new Map<LoadedAdapter, number>()
  for (const applied of adapters) {
    weights.set(applied.adapter, (weights.get(applied.adapter) ?? 0) + weightOf(applied))
  }
  for (const [adapter, weight] of weights) if (weight === 0) weights.delete(adapter)
  return weights
}
