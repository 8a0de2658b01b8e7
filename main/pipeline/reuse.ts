import type { SpeedName } from '../../preload/limits.ts'
import { tensor, type FloatTensor } from './tensor.ts'

/**
 * Between two noise levels the inner layers of a UNet change little (DeepCache, Ma et al. 2024): most evaluations can
 * run its outer layers alone (`unet_shallow`) on a guess of what the inner ones would hand up (`deep`). Three things are
 * ours. The guess follows the line through the last two whole runs over log σ, as TaylorSeer does (Liu et al. 2025), not
 * the last one alone: 1 to 7 dB nearer to the exact picture. When to run the whole network is not a fixed interval: every
 * whole run shows how wrong the guess for it would have been, from which the error of the next follows, and it is kept
 * below a tolerance. That error is the right measure: in the starter, one guessed step of twenty moves the pixels by 7 to
 * 20 grey levels (root mean square) per unit of it, whichever step it is.
 */
export type ReuseLimits = {
  /** Mean absolute error of the guess allowed, as a share of the mean absolute feature. */
  tolerance: number
  /** Most evaluations in a row without a whole run. */
  longest: number
}

export const reuseLimits: Record<SpeedName, ReuseLimits | undefined> = {
  exact: undefined,
  faster: { tolerance: 0.12, longest: 3 },
  fastest: { tolerance: 0.3, longest: 3 },
}

/** What one picture remembers of whole runs. An evaluation may take several runs (guidance): each has its `key`. */
export interface Reuse {
  /** Whether the evaluation at σ needs the whole network; asked once for each, in order. */
  needsAll(sigma: number): boolean
  /** Learns from a whole run; `deep` is kept, not copied. */
  keep(key: number, sigma: number, deep: FloatTensor): void
  /** The deep feature to run the outer layers with at σ, in the shape it was kept in. */
  guess(key: number, sigma: number): FloatTensor
}

type Known = { place: number; deep: FloatTensor }

/**
 * Reuse for one picture that goes through `sigmas` (largest first, last 0). First and last level always run whole: the
 * first has nothing to go by, the last writes the finest detail into the picture. Samplers may ask for levels in between
 * and for one level twice; only σ counts.
 */
export function createReuse({ tolerance, longest }: ReuseLimits, sigmas: readonly number[]): Reuse {
  const [first, last] = [sigmas[0], sigmas[sigmas.length - 2]]
  const known = new Map<number, Known[]>() // the last two whole runs, newest first
  const curves = new Map<number, number>() // how strongly each feature bends over its place
  let guesses = 0

  const worst = (place: number) =>
    Math.max(...[...known].map(([key, runs]) => expectedError(curves.get(key), runs, place)))

  return {
    needsAll(sigma) {
      const isEdge = sigma >= first || sigma <= last
      const all = isEdge || known.size === 0 || guesses >= longest || !(worst(placeOf(sigma)) <= tolerance)
      guesses = all ? 0 : guesses + 1
      return all
    },
    keep(key, sigma, deep) {
      const place = placeOf(sigma)
      const runs = (known.get(key) ?? []).filter((run) => run.place !== place)
      if (runs.length > 1) {
        const [near, far] = runs.map((run) => Math.abs(place - run.place))
        // A point far away tells nothing of the bend between the near ones: it counts as if it lay at twice their distance.
        curves.set(key, (2 * guessError(runs, place, deep)) / (near * Math.min(far, 3 * near)))
      }
      known.set(key, [{ place, deep }, ...runs].slice(0, 2))
    },
    guess(key, sigma) {
      const runs = known.get(key)
      if (!runs) throw new Error(`reuse: no run ${key} to go by`)
      const { data, shape } = runs[0].deep
      const share = slope(runs, placeOf(sigma))
      if (share === 0) return runs[0].deep
      const before = runs[1].deep.data
      return tensor(
        data.map((value, i) => value + share * (value - before[i])),
        shape,
      )
    },
  }
}

/**
 * Over log σ features change about evenly. Above σ = 100 there is little but noise, so that the levels of pure noise
 * (σ = 4096) lie near the others.
 */
function placeOf(sigma: number): number {
  return -Math.log(1 / sigma + 1 / 100)
}

/** How far beyond the newest run `place` lies, in units of the distance from the run before. 0 with one run only. */
function slope(runs: readonly Known[], place: number): number {
  return runs.length > 1 ? (place - runs[0].place) / (runs[0].place - runs[1].place) : 0
}

/** Error of a line through two points of a curve: half its second derivative times both distances. */
function expectedError(curve: number | undefined, runs: readonly Known[], place: number): number {
  if (place === runs[0].place) return 0
  if (curve === undefined || runs.length < 2) return Infinity
  return 0.5 * curve * Math.abs(place - runs[0].place) * Math.abs(place - runs[1].place)
}

/** How wrong the guess at `place` is, measured on every seventh number. */
function guessError(runs: readonly Known[], place: number, { data }: FloatTensor): number {
  const share = slope(runs, place)
  const [newest, before] = runs.map(({ deep }) => deep.data)
  let [error, size] = [0, 0]
  for (let i = 0; i < data.length; i += 7) {
    error += Math.abs(newest[i] + share * (newest[i] - before[i]) - data[i])
    size += Math.abs(data[i])
  }
  return error / (size || 1)
}
