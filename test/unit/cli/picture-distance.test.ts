import { describe, expect, it } from 'vitest'
import { psnr, structuralDistance } from '../../../main/cli/picture-distance.ts'
import type { RgbImage } from '../../../main/pipeline/image.ts'
import { normalNoise } from '../../../main/pipeline/rng.ts'

/** Soft blobs: a picture with structure at several scales. */
function blobs(side: number, change: (value: number, x: number, y: number) => number = (value) => value): RgbImage {
  const data = new Uint8Array(side * side * 3)
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++)
      for (let c = 0; c < 3; c++) {
        const value = 128 + 60 * Math.sin(x / (5 + 3 * c)) * Math.cos(y / 9) + 40 * Math.sin((x + y) / 23)
        data[(y * side + x) * 3 + c] = Math.max(0, Math.min(255, Math.round(change(value, x, y))))
      }
  return { width: side, height: side, data }
}

const noisy = (side: number, deviation: number) => {
  const noise = normalNoise(3)(side * side)
  return blobs(side, (value, x, y) => value + deviation * noise[y * side + x])
}

describe('psnr', () => {
  it('is what the definition says for a constant difference', () => {
    const a = blobs(32, () => 100)
    const b = blobs(32, () => 110)
    expect(psnr(a, b)).toBeCloseTo(20 * Math.log10(255 / 10), 10)
    expect(psnr(a, a)).toBe(Infinity)
  })
})

describe('structuralDistance', () => {
  it('is nothing for equal pictures and symmetric', () => {
    const [a, b] = [blobs(96), noisy(96, 20)]
    expect(structuralDistance(a, a)).toBeCloseTo(0, 12)
    expect(structuralDistance(a, b)).toBeCloseTo(structuralDistance(b, a), 12)
  })

  it('grows with noise and stays below one', () => {
    const [few, more, most] = [5, 20, 60].map((deviation) => structuralDistance(blobs(96), noisy(96, deviation)))
    expect(few).toBeGreaterThan(0)
    expect(more).toBeGreaterThan(few)
    expect(most).toBeGreaterThan(more)
    expect(most).toBeLessThan(1)
  })

  it('forgives a change of brightness more than lost structure of the same PSNR', () => {
    const a = blobs(96)
    const brighter = blobs(96, (value) => value + 12)
    const flatter = noisy(96, 12)
    expect(Math.abs(psnr(a, brighter) - psnr(a, flatter))).toBeLessThan(0.5)
    expect(structuralDistance(a, brighter)).toBeLessThan(0.3 * structuralDistance(a, flatter))
  })

  it('is the brightness term alone for flat pictures', () => {
    const expected = (2 * 100 * 110 + 6.5025) / (100 ** 2 + 110 ** 2 + 6.5025)
    const [a, b] = [blobs(16, () => 100), blobs(16, () => 110)]
    expect(structuralDistance(a, b)).toBeCloseTo(1 - expected, 10)
  })

  it('refuses pictures of different sizes', () => {
    expect(() => psnr(blobs(32), blobs(16))).toThrow(/cannot be compared/)
  })
})
