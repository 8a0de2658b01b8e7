import type { SpeedName } from '../../preload/limits.ts'
import { tensor, type FloatTensor } from './tensor.ts'

/**
 * Between two noise levels the inner layers of a UNet change little (DeepCache, Ma et al. 2024): most evaluations can
 * run its outer layers alone (`unet_shallow`) on a guess of what the inner ones would hand up (`deep`). Three things are
 * ours. The guess follows the line through the last two whole runs over log σ, as TaylorSeer does (Liu et al. 2025), where
 * that was nearer than the last run alone: 1 to 7 dB towards the exact picture. When to run the whole network is not a fixed interval: every
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

/** What a speed means. */
export const speeds: Record<SpeedName, { reuse?: ReuseLimits; thinsKeys: boolean }> = {
  exact: { thinsKeys: false },
  faster: { reuse: { tolerance: 0.12, longest: 3 }, thinsKeys: false },
  fastest: { reuse: { tolerance: 0.3, longest: 3 }, thinsKeys: true },
}

/**
 * Pixels of latents from which on keys may be thinned out (ToDo, Smith et al. 2024): below, attention is not what takes
 * the time, and every key counts.
 */
const leastForThinning = 64 * 64

/** Which pixels of latents are keys: all (1), or every other one each way (2). */
export function keyStride(pixels: number, speed: SpeedName = 'exact'): 1 | 2 {
  return speeds[speed].thinsKeys && pixels >= leastForThinning ? 2 : 1
}

/** What one picture remembers of whole runs. An evaluation may take several runs (guidance): each has its `key`. */
export interface Reuse {
  /** Whether the evaluation at σ needs the whole network; asked once for each, in order. */
  needsAll(sigma: number): boolean
  /** Learns from a whole run; `deep` is kept, not copied. */
  keep(key: number, sigma: number, deep: FloatTensor): void
  /** Adapters came or went: what whole runs gave before says nothing of the network as it is now. */
  forget(): void
  /** The deep feature to run the outer layers with at σ, in the shape it was kept in. */
  guess(key: number, sigma: number): FloatTensor
}

type Run = { place: number; deep: FloatTensor }
/**
 * The last two whole runs, newest first, and how wrong two guesses for the newest would have been: the line through the
 * two before, and the one before as it was. Samplers that add noise make features jump rather than bend; then the second
 * is nearer, and is what is guessed.
 */
type Known = {
  runs: Run[]
  line?: { error: number; near: number; far: number }
  held?: { error: number; near: number }
}

/**
 * Reuse for one picture that goes through `sigmas` (largest first, last 0). First and last level always run whole: the
 * first has nothing to go by, the last writes the finest detail into the picture. Samplers may ask for levels in between
 * and for one level twice; only σ counts.
 */
export function createReuse({ tolerance, longest }: ReuseLimits, sigmas: readonly number[]): Reuse {
  const [first, last] = [sigmas[0], sigmas[sigmas.length - 2]]
  const all = new Map<number, Known>()
  let guesses = 0

  return {
    needsAll(sigma) {
      const isEdge = sigma >= first || sigma <= last || all.size === 0
      const error = Math.max(...[...all.values()].map((known) => guessAt(known, placeOf(sigma)).error))
      const isWhole = isEdge || guesses >= longest || !(error <= tolerance)
      guesses = isWhole ? 0 : guesses + 1
      return isWhole
    },
    keep(key, sigma, deep) {
      const place = placeOf(sigma)
      const known = all.get(key) ?? { runs: [] }
      const runs = known.runs.filter((run) => run.place !== place)
      const [near, far] = runs.map((run) => Math.abs(place - run.place))
      if (runs.length > 1) {
        known.held = { error: errorOf(runs, 0, deep), near }
        // A point far away tells nothing of the bend between near ones: it counts as if it lay at thrice their distance.
        const error = errorOf(runs, shareOfLine(runs, place), deep)
        known.line = { error, near, far: Math.min(far, 3 * near) }
      }
      known.runs = [{ place, deep }, ...runs].slice(0, 2)
      all.set(key, known)
    },
    forget() {
      all.clear()
    },
    guess(key, sigma) {
      const known = all.get(key)
      if (!known) throw new Error(`reuse: no run ${key} to go by`)
      const { share } = guessAt(known, placeOf(sigma))
      const [newest, before] = known.runs.map(({ deep }) => deep)
      if (share === 0) return newest
      return tensor(
        newest.data.map((value, i) => value + share * (value - before.data[i])),
        newest.shape,
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

/** How far beyond the newest of two runs `place` lies, in units of their distance. */
function shareOfLine([newest, before]: readonly Run[], place: number): number {
  return (place - newest.place) / (newest.place - before.place)
}

/**
 * The guess newest + share · (newest - before) at `place`, and its expected error: a line's is half the second derivative
 * times both distances; what wanders changes by the root of the way, what goes straight by the way, whichever is more.
 */
function guessAt({ runs, line, held }: Known, place: number): { share: number; error: number } {
  const [near, far] = runs.map((run) => Math.abs(place - run.place))
  if (near === 0) return { share: 0, error: 0 }
  if (line === undefined || held === undefined) return { share: 0, error: Infinity }
  if (line.error < held.error)
    return { share: shareOfLine(runs, place), error: (line.error * near * far) / (line.near * line.far) }
  const stretch = near / held.near
  return { share: 0, error: held.error * Math.max(stretch, Math.sqrt(stretch)) }
}

/** How wrong a guess with this share would have been, measured on every seventh number. */
function errorOf(runs: readonly Run[], share: number, { data }: FloatTensor): number {
  const newest = runs[0].deep.data
  const before = share === 0 ? newest : runs[1].deep.data
  let [error, size] = [0, 0]
  for (let i = 0; i < data.length; i += 7) {
    error += Math.abs(newest[i] + share * (newest[i] - before[i]) - data[i])
    size += Math.abs(data[i])
  }
  return error / (size || 1)
}
