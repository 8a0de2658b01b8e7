/** Weights as bytes, one scale for each output: w[n][k] ≈ columns[k · N + n] · scales[n]. */
export type Columns = {
  /** [k, n]: a column is an output, as MatMulIntegerToFloat takes its second factor. */
  columns: Int8Array
  /** [n]. */
  scales: Float32Array
}

/** Side of the squares in which the matrix is turned: 64 rows of 64 bytes stay in the first cache. */
const side = 64

/**
 * Weights [n, k] in -127 … 127, the largest magnitude of each output at the end, turned to [k, n]. An output of zeros gets
 * scale 1. Processors without VNNI add pairs of byte products in 16 bits, where two of 255 · 127 do not fit: see README.
 */
export function toColumns(weights: Float32Array, { n, k }: { n: number; k: number }): Columns {
  if (weights.length !== n * k) throw new Error(`${weights.length} weights are not ${n} x ${k}`)
  const columns = new Int8Array(k * n)
  const scales = new Float32Array(n)
  const strip = new Int8Array(side * k)
  for (let first = 0; first < n; first += side) {
    const rows = Math.min(side, n - first)
    for (let r = 0; r < rows; r++) {
      const from = (first + r) * k
      let largest = 0
      for (let i = from; i < from + k; i++) {
        const magnitude = Math.abs(weights[i])
        if (magnitude > largest) largest = magnitude
      }
      const scale = largest === 0 ? 1 : Math.fround(largest / 127)
      scales[first + r] = scale
      const inverse = 1 / scale
      // + 128.5 and cut off, - 128: the nearest whole number.
      for (let i = 0; i < k; i++) strip[r * k + i] = ((weights[from + i] * inverse + 128.5) | 0) - 128
    }
    for (let i0 = 0; i0 < k; i0 += side) {
      const end = Math.min(i0 + side, k)
      for (let r = 0; r < rows; r++) {
        for (let i = i0; i < end; i++) columns[i * n + first + r] = strip[r * k + i]
      }
    }
  }
  return { columns, scales }
}
