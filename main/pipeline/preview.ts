import { toByte, type RgbImage } from './image.ts'
import type { FloatTensor } from './tensor.ts'

/**
 * A small picture, one pixel a latent position, by one matrix multiplication: rgb = Mᵀ·[latents, 1]. `latents` is the
 * denoised estimate [c, h, w]; `matrix` [c + 1][3] gives −1…1, its last row is the bias.
 */
export function preview(latents: Float32Array, [c, h, w]: readonly number[], matrix: readonly number[][]): RgbImage {
  const plane = h * w
  const data = new Uint8Array(3 * plane)
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) {
      let value = matrix[c][channel]
      for (let k = 0; k < c; k++) value += matrix[k][channel] * latents[k * plane + i]
      data[3 * i + channel] = toByte(value)
    }
  }
  return { data, width: w, height: h }
}

/**
 * The matrix for `preview` that fits pairs of latents [n, c, h, w] and pictures [n, 3, f·h, f·w] (−1…1) best, by least
 * squares on the mean colour of every position.
 */
export function fitPreviewMatrix(latents: FloatTensor, pixels: FloatTensor): number[][] {
  const [n, c, h, w] = latents.shape
  const colours = poolTo(pixels, h, w)
  const plane = h * w
  const size = c + 1
  const normal = Array.from({ length: size }, () => new Float64Array(size))
  const right = Array.from({ length: size }, () => new Float64Array(3))
  const row = new Float64Array(size)
  for (let image = 0; image < n; image++) {
    for (let i = 0; i < plane; i++) {
      for (let k = 0; k < c; k++) row[k] = latents.data[(image * c + k) * plane + i]
      row[c] = 1
      for (let a = 0; a < size; a++) {
        for (let b = 0; b < size; b++) normal[a][b] += row[a] * row[b]
        for (let channel = 0; channel < 3; channel++)
          right[a][channel] += row[a] * colours[(image * 3 + channel) * plane + i]
      }
    }
  }
  for (let a = 0; a < size; a++) normal[a][a] += 1e-6 * n * plane // keeps channels that never vary harmless
  return solve(normal, right).map((values) => Array.from(values))
}

/** Mean over blocks: [n, 3, f·h, f·w] -> [n, 3, h, w]. */
function poolTo({ data, shape }: FloatTensor, h: number, w: number): Float32Array {
  const [n, channels, height, width] = shape
  const factor = height / h
  const result = new Float32Array(n * channels * h * w)
  for (let i = 0; i < data.length; i++) {
    const x = Math.floor((i % width) / factor)
    const y = Math.floor((Math.floor(i / width) % height) / factor)
    const image = Math.floor(i / (width * height))
    result[(image * h + y) * w + x] += data[i] / (factor * factor)
  }
  return result
}

/** Gaussian elimination with row pivots; changes its arguments. */
function solve(matrix: Float64Array[], right: Float64Array[]): Float64Array[] {
  const size = matrix.length
  for (let k = 0; k < size; k++) {
    let pivot = k
    for (let row = k + 1; row < size; row++) if (Math.abs(matrix[row][k]) > Math.abs(matrix[pivot][k])) pivot = row
    ;[matrix[k], matrix[pivot]] = [matrix[pivot], matrix[k]]
    ;[right[k], right[pivot]] = [right[pivot], right[k]]
    for (let row = 0; row < size; row++) {
      if (row === k) continue
      const factor = matrix[row][k] / matrix[k][k]
      matrix[row].forEach((_, column) => (matrix[row][column] -= factor * matrix[k][column]))
      right[row].forEach((_, column) => (right[row][column] -= factor * right[k][column]))
    }
  }
  return right.map((values, k) => values.map((value) => value / matrix[k][k]))
}
