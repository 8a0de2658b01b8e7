import { normalNoise } from '../../../main/pipeline/rng.ts'

/** Normal numbers of spread 1, the same for the same seed. */
export function gaussians(size: number, seed: number): Float32Array {
  return normalNoise(seed)(size)
}

/** Rows of `k` numbers with two columns of them 20 and 50 times as large, as activations of trained networks have. */
export function withOutliers(values: Float32Array, k: number): Float32Array {
  return values.map((value, i) => {
    if (i % k === Math.floor(k / 3)) return value * 20
    return i % k === k - 2 ? value * 50 : value
  })
}
