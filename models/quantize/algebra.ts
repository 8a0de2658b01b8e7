// Small dense linear algebra in float64, and the one door to large products. Matrices are row-major; "rows" of a basis
// are its vectors, so that a tall matrix of few columns is kept as few long rows.

export type MatMulOptions = { transposeA?: boolean; transposeB?: boolean }

/** a · b in float32; shapes are those of the arrays as they lie, [rows, columns], before any transposition. */
export type MatMul = (
  a: Float32Array,
  aShape: readonly [number, number],
  b: Float32Array,
  bShape: readonly [number, number],
  options?: MatMulOptions,
) => Promise<Float32Array>

/**
 * x + whole - whole is the whole number nearest to x, halves to even, for magnitudes below 2^51: a third of the time of
 * Math.round, which rounding 860 million weights a few times over shows.
 */
export const whole = 1.5 * 2 ** 52

/** The same product in plain loops with float64 sums: for tests, and for where no runtime is at hand. */
export const plainMatMul: MatMul = async (a, [aRows, aColumns], b, [bRows, bColumns], options = {}) => {
  const { transposeA = false, transposeB = false } = options
  const m = transposeA ? aColumns : aRows
  const inner = transposeA ? aRows : aColumns
  const n = transposeB ? bRows : bColumns
  if (inner !== (transposeB ? bColumns : bRows))
    throw new Error(`matMul: [${aRows}, ${aColumns}] and [${bRows}, ${bColumns}] do not fit`)
  const out = new Float32Array(m * n)
  // Columns of b one after the other in memory, rows of a as well: every element is then one dot product.
  const left = transposeA ? turned(a, aRows, aColumns) : a
  const right = transposeB ? b : turned(b, bRows, bColumns)
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0
      for (let p = i * inner, q = j * inner; p < (i + 1) * inner; p++, q++) sum += left[p] * right[q]
      out[i * n + j] = sum
    }
  }
  return out
}

function turned(a: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(a.length)
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j]
  return out
}

/**
 * Makes the `count` rows [count, length] orthonormal in place by modified Gram-Schmidt. Returns R [count, count], lower
 * triangular, with old rows = R · new rows. Rows that depend on earlier ones become 0. One pass is enough for rows that
 * come from float32 products: what float64 loses is their condition, at most 1e7, times 1e-16.
 */
export function orthonormalizeRows(rows: Float64Array, count: number, length: number): Float64Array {
  const r = new Float64Array(count * count)
  for (let i = 0; i < count; i++) {
    const row = rows.subarray(i * length, (i + 1) * length)
    const before = Math.sqrt(dot(row, row))
    for (let j = 0; j < i; j++) {
      const other = rows.subarray(j * length, (j + 1) * length)
      const share = dot(row, other)
      r[i * count + j] = share
      for (let at = 0; at < length; at++) row[at] -= share * other[at]
    }
    const norm = Math.sqrt(dot(row, row))
    if (norm <= 1e-12 * before || norm === 0) {
      row.fill(0)
      continue
    }
    r[i * count + i] = norm
    for (let at = 0; at < length; at++) row[at] /= norm
  }
  return r
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i]
  return sum
}

/**
 * Singular values and vectors of a square a [n, n] (n up to about 60): a = Σ values[i] · left[i]ᵀ right[i], largest
 * first; rows of `left` and `right` are the vectors. One-sided Jacobi (Demmel and Veselić 1992), accurate for small values, too.
 */
export function smallSvd(
  a: Float64Array,
  n: number,
): { values: Float64Array; left: Float64Array; right: Float64Array } {
  const work = a.slice() // rows are rotated until they are orthogonal: turns · a = diag(values) · right
  const turns = new Float64Array(n * n)
  for (let i = 0; i < n; i++) turns[i * n + i] = 1
  for (let sweep = 0; sweep < 60; sweep++) {
    let rotated = false
    for (let p = 0; p < n - 1; p++) {
      for (let q = p + 1; q < n; q++) {
        let [pp, qq, pq] = [0, 0, 0]
        for (let k = 0; k < n; k++) {
          const [x, y] = [work[p * n + k], work[q * n + k]]
          pp += x * x
          qq += y * y
          pq += x * y
        }
        if (Math.abs(pq) <= 1e-15 * Math.sqrt(pp * qq) || pq === 0) continue
        rotated = true
        const zeta = (qq - pp) / (2 * pq)
        const t = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta))
        const c = 1 / Math.sqrt(1 + t * t)
        rotate(work, p * n, q * n, n, c, c * t)
        rotate(turns, p * n, q * n, n, c, c * t)
      }
    }
    if (!rotated) break
  }
  const norms = Float64Array.from({ length: n }, (_, i) => {
    const row = work.subarray(i * n, (i + 1) * n)
    return Math.sqrt(dot(row, row))
  })
  const order = Array.from(norms.keys()).sort((i, j) => norms[j] - norms[i])
  const left = new Float64Array(n * n)
  const right = new Float64Array(n * n)
  order.forEach((from, to) => {
    left.set(turns.subarray(from * n, (from + 1) * n), to * n)
    if (norms[from] > 0) for (let k = 0; k < n; k++) right[to * n + k] = work[from * n + k] / norms[from]
  })
  return { values: Float64Array.from(order, (i) => norms[i]), left, right }
}

function rotate(a: Float64Array, p: number, q: number, n: number, c: number, s: number): void {
  for (let k = 0; k < n; k++) {
    const [x, y] = [a[p + k], a[q + k]]
    a[p + k] = c * x - s * y
    a[q + k] = s * x + c * y
  }
}

/**
 * Upper triangular u [n, n] with a = u · uᵀ, the Cholesky factor from the last row up, or undefined when `a` is not
 * positive definite. `a` is overwritten. Blocks of 64: everything outside the diagonal blocks is updated by `matMul`.
 */
export async function upperCholesky(a: Float64Array, n: number, matMul: MatMul): Promise<Float64Array | undefined> {
  const block = 64
  for (let end = n; end > 0; end -= block) {
    const start = Math.max(0, end - block)
    // Diagonal block and the panel above it, column by column from the right.
    for (let j = end - 1; j >= start; j--) {
      const pivot = a[j * n + j]
      if (!(pivot > 0)) return undefined
      const root = Math.sqrt(pivot)
      a[j * n + j] = root
      for (let i = 0; i < j; i++) a[i * n + j] /= root
      for (let i = 0; i < j; i++) {
        const factor = a[i * n + j]
        if (factor === 0) continue
        // Columns left of j inside this block; those left of the block wait for the product below.
        for (let k = start; k < j; k++) a[i * n + k] -= factor * a[k * n + j]
      }
    }
    if (start === 0) break
    const width = end - start
    const panel = new Float32Array(start * width)
    for (let i = 0; i < start; i++) for (let k = 0; k < width; k++) panel[i * width + k] = a[i * n + start + k]
    const update = await matMul(panel, [start, width], panel, [start, width], { transposeB: true })
    for (let i = 0; i < start; i++) for (let k = 0; k < start; k++) a[i * n + k] -= update[i * start + k]
  }
  for (let i = 1; i < n; i++) a.fill(0, i * n, i * n + i)
  return a
}
