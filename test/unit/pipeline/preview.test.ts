import { expect, test } from 'vitest'
import { fitPreviewMatrix, preview } from '../../../main/pipeline/preview.ts'
import { normalNoise } from '../../../main/pipeline/rng.ts'
import { tensor } from '../../../main/pipeline/tensor.ts'
import { expectClose } from '../../expect-close.ts'

const matrix = [
  [0.3, -0.1, 0.05],
  [0, 0.2, 0.1],
  [-0.2, 0.1, 0.3],
  [0.1, 0.1, 0.1],
  [0.05, -0.02, 0.3],
]

/** Pictures that are exactly the matrix times the latents, each position a block of 4 × 4 pixels with noise of mean 0. */
function pair(n: number) {
  const latents = tensor(normalNoise(1)(n * 4 * 6 * 5), [n, 4, 6, 5])
  const pixels = new Float32Array(n * 3 * 24 * 20)
  for (let i = 0; i < pixels.length; i++) {
    const [x, y] = [i % 20, Math.floor(i / 20) % 24]
    const [channel, image] = [Math.floor(i / 480) % 3, Math.floor(i / 1440)]
    const value = matrix.reduce(
      (sum, row, k) =>
        sum +
        row[channel] * (k === 4 ? 1 : latents.data[(image * 4 + k) * 30 + Math.floor(y / 4) * 5 + Math.floor(x / 4)]),
      0,
    )
    pixels[i] = value + ((x + y) % 2 === 0 ? 0.1 : -0.1)
  }
  return { latents, pixels: tensor(pixels, [n, 3, 24, 20]) }
}

test('finds the matrix that made the pictures', () => {
  const { latents, pixels } = pair(3)
  expectClose(fitPreviewMatrix(latents, pixels).flat(), matrix.flat(), { abs: 1e-5 })
})

test('a channel that never varies does no harm', () => {
  const { latents, pixels } = pair(2)
  for (let i = 0; i < latents.data.length; i++) if (Math.floor(i / 30) % 4 === 2) latents.data[i] = 0
  expect(fitPreviewMatrix(latents, pixels).flat().every(Number.isFinite)).toBe(true)
})

test('draws one pixel a position, clamped to bytes', () => {
  const image = preview(
    Float32Array.of(-9, 0, 0.5, 9),
    [1, 2, 2],
    [
      [1, 0, -1],
      [0, 0.5, 0],
    ],
  )
  expect([image.width, image.height]).toEqual([2, 2])
  expect(Array.from(image.data)).toEqual([0, 191, 255, 128, 191, 128, 191, 191, 64, 255, 191, 0])
})
