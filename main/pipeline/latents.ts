import type { RgbImage } from './image.ts'
import { normalNoise, type NoiseSource } from './rng.ts'

/** One source for several pictures: picture i gets the noise of its own seed, so a batch equals the pictures made alone. */
export function batchNoise(seeds: readonly number[]): NoiseSource {
  const sources = seeds.map(normalNoise)
  return (size) => {
    const each = size / sources.length
    const data = new Float32Array(size)
    sources.forEach((source, i) => data.set(source(each), i * each))
    return data
  }
}

/**
 * The levels that run at a strength of 0…1: the last `floor(steps · strength)` steps, as in diffusers. At 0 only the
 * final 0 is left and the picture stays.
 */
export function sigmasForStrength(sigmas: readonly number[], strength: number): readonly number[] {
  const steps = sigmas.length - 1
  return sigmas.slice(steps - Math.min(Math.floor(steps * strength), steps))
}

/**
 * Latents at the first level: pure noise of variance 1 + σ², which the network sees as variance 1, or the start picture's
 * `clean` latents under noise of deviation σ.
 */
export function startLatents(noise: Float32Array, sigma: number, clean?: Float32Array): Float32Array {
  if (!clean) return noise.map((value) => value * Math.sqrt(1 + sigma * sigma))
  return clean.map((value, i) => value + sigma * noise[i])
}

/** n copies of one picture's latents. */
export function repeatLatents(latents: Float32Array, n: number): Float32Array {
  const data = new Float32Array(latents.length * n)
  for (let i = 0; i < n; i++) data.set(latents, i * latents.length)
  return data
}

/**
 * Mask in pixels (255 = may change) -> one number for each latent position, 1 where any of its pixels may change. What a
 * position covers beyond the mask is put back by `pasteOutside`.
 */
export function latentMask(mask: Uint8Array, width: number, height: number, factor: number): Float32Array {
  const [w, h] = [width / factor, height / factor]
  const result = new Float32Array(w * h)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (mask[y * width + x] > 0) result[Math.floor(y / factor) * w + Math.floor(x / factor)] = 1
    }
  }
  return result
}

/**
 * Puts the known region back after a step: outside the mask x becomes clean + σ·noise, with the noise of the start, so that
 * it carries the same noise at every level. x [n, c, h, w] in place, mask [h, w]. Blended diffusion (Avrahami et al. 2022).
 */
export function keepKnown(
  x: Float32Array,
  sigma: number,
  clean: Float32Array,
  noise: Float32Array,
  mask: Float32Array,
): void {
  for (let i = 0; i < x.length; i++) {
    if (mask[i % mask.length] === 0) x[i] = clean[i] + sigma * noise[i]
  }
}

/** The original's pixels wherever the mask (0…255) does not let them change; greys mix. */
export function pasteOutside(image: RgbImage, original: RgbImage, mask: Uint8Array): RgbImage {
  const data = image.data.map((value, i) => {
    const share = mask[Math.floor(i / 3)] / 255
    return Math.round(share * value + (1 - share) * original.data[i])
  })
  return { ...image, data }
}
