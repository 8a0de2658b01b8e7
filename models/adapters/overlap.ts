import type { SparseLayer } from './sparse.ts'
import type { LayerDelta } from './write.ts'

// How far two adapters change the same things. A change ΔW reads its inputs through ΔWᵀΔW and writes its outputs through
// ΔWΔWᵀ; the cosine between those of two changes is 0 for directions that never meet and 1 for the same ones in the same
// proportions. Unlike ‖A₁A₂ᵀ‖ / ‖A₁‖‖A₂‖ of the bare factors it does not depend on how a file splits ΔW into A and B, and
// it is 1, not 1/√r, for an adapter and itself. Nothing larger than a factor is ever formed.

export type Change = LayerDelta | (SparseLayer & { weight: readonly number[] })

export type LayerOverlap = {
  /** 0 to 1: the same inputs are listened to, the same outputs are moved. */
  input: number
  output: number
  /** −1 to 1: ⟨ΔW₁, ΔW₂⟩ over their norms; below 0 they pull against each other. */
  agreement: number
  /** |v₁ · v₂| of the inputs that each reacts to most (Arrow, Ostapenko et al. 2024). */
  top: number
  /** ‖ΔW‖ of each. */
  norms: readonly [number, number]
}

/** How two changes of one layer meet. */
export function layerOverlap(a: Change, b: Change): LayerOverlap {
  const [x, y] = [asFactors(a), asFactors(b)]
  const cosine = (inner: (p: Factors, q: Factors) => number) => ratio(inner(x, y), Math.sqrt(inner(x, x) * inner(y, y)))
  const norms = [Math.sqrt(Math.max(0, product(x, x))), Math.sqrt(Math.max(0, product(y, y)))] as const
  return {
    input: cosine((p, q) => gramProduct(p, q, 'down')),
    output: cosine((p, q) => gramProduct(p, q, 'up')),
    agreement: ratio(product(x, y), norms[0] * norms[1]),
    top: Math.min(1, Math.abs(dot(topDirection(x), topDirection(y)))),
    norms,
  }
}

/** value / by within −1 to 1; 0 where there is nothing to divide by. */
export const ratio = (value: number, by: number) => (by === 0 ? 0 : Math.max(-1, Math.min(1, value / by)))

/** ΔW = Σ up[i] ⊗ down[i], each vector as its places and values; a sparse ΔW is one term a row that it touches. */
type Vector = { index?: Int32Array; values: ArrayLike<number>; length: number }
type Factors = { down: Vector[]; up: Vector[] }

function asFactors(change: Change): Factors {
  const n = change.weight[0]
  const k = change.weight.slice(1).reduce((size, dim) => size * dim, 1)
  if ('down' in change) {
    const { rank, down, up } = change
    const column = (i: number) => Float32Array.from({ length: n }, (_, row) => up[row * rank + i])
    return {
      down: Array.from({ length: rank }, (_, i) => ({ values: down.subarray(i * k, (i + 1) * k), length: k })),
      up: Array.from({ length: rank }, (_, i) => ({ values: column(i), length: n })),
    }
  }
  const factors: Factors = { down: [], up: [] }
  for (let from = 0; from < change.index.length;) {
    const row = Math.floor(change.index[from] / k)
    let to = from
    while (to < change.index.length && change.index[to] < (row + 1) * k) to++
    const index = change.index.slice(from, to).map((place) => place - row * k)
    factors.down.push({ index, values: change.delta.subarray(from, to), length: k })
    factors.up.push({ index: Int32Array.of(row), values: [1], length: n })
    from = to
  }
  return factors
}

function dot(a: Vector, b: Vector): number {
  let sum = 0
  if (!a.index && !b.index) {
    for (let i = 0; i < a.length; i++) sum += a.values[i] * b.values[i]
    return sum
  }
  if (!a.index) return dot(b, a)
  if (!b.index) {
    for (let i = 0; i < a.index.length; i++) sum += a.values[i] * b.values[a.index[i]]
    return sum
  }
  for (let i = 0, j = 0; i < a.index.length && j < b.index.length;) {
    if (a.index[i] === b.index[j]) sum += a.values[i++] * b.values[j++]
    else if (a.index[i] < b.index[j]) i++
    else j++
  }
  return sum
}

/** [a, b] products of all vectors of one list with all of another, row by row. */
function products(a: readonly Vector[], b: readonly Vector[]): Float64Array {
  const out = new Float64Array(a.length * b.length)
  a.forEach((x, i) => b.forEach((y, j) => (out[i * b.length + j] = dot(x, y))))
  return out
}

/** ⟨ΔW₁, ΔW₂⟩ = Σᵢⱼ (up₁ᵢ · up₂ⱼ)(down₁ᵢ · down₂ⱼ). */
function product(x: Factors, y: Factors): number {
  const [ups, downs] = [products(x.up, y.up), products(x.down, y.down)]
  return ups.reduce((sum, value, i) => sum + value * downs[i], 0)
}

/**
 * ⟨ΔW₁ᵀΔW₁, ΔW₂ᵀΔW₂⟩ on the side of the inputs ('down'), with G = upᵀup and C = down₁ · down₂ᵀ: tr(G₁ C G₂ Cᵀ); on the
 * other side the roles change.
 */
function gramProduct(x: Factors, y: Factors, side: 'down' | 'up'): number {
  const other = side === 'down' ? 'up' : 'down'
  const [rows, columns] = [x[side].length, y[side].length]
  const c = products(x[side], y[side])
  const left = times(products(x[other], x[other]), c, rows, rows, columns) // G₁ C [rows, columns]
  const right = times(c, products(y[other], y[other]), rows, columns, columns) // C G₂
  return left.reduce((sum, value, i) => sum + value * right[i], 0)
}

/** a [m, inner] · b [inner, n]; zeros of a, most of it for sparse changes, cost nothing. */
function times(a: Float64Array, b: Float64Array, m: number, inner: number, n: number): Float64Array<ArrayBuffer> {
  const out = new Float64Array(m * n)
  for (let i = 0; i < m; i++) {
    for (let p = 0; p < inner; p++) {
      const value = a[i * inner + p]
      if (value !== 0) for (let j = 0; j < n; j++) out[i * n + j] += value * b[p * n + j]
    }
  }
  return out
}

/** Arrow takes 15; directions of nearly equal strength need more, and here they cost next to nothing. */
const mostIterations = 100

/** First right singular vector of ΔW, by power iterations on Aᵀ(BᵀB)A in the span of A's rows. */
function topDirection({ down, up }: Factors): Vector {
  const k = down[0]?.length ?? 0
  const r = down.length
  const gram = products(up, up)
  const inner = products(down, down)
  // v = Aᵀw: the iteration is w <- BᵀB (AAᵀ) w, with numbers of the rank's size only. It begins with the longest row.
  let w = new Float64Array(r)
  if (r > 0) w[Array.from({ length: r }, (_, i) => gram[i * r + i] * inner[i * r + i]).reduce(indexOfLargest, 0)] = 1
  for (let i = 0; i < mostIterations; i++) {
    const next = times(gram, times(inner, w, r, r, 1), r, r, 1)
    const size = Math.sqrt(next.reduce((sum, value) => sum + value * value, 0))
    if (size === 0) break
    const moved = next.reduce((most, value, at) => Math.max(most, Math.abs(value / size - w[at])), 0)
    w = next.map((value) => value / size)
    if (moved < 1e-7) break
  }
  const v = new Float64Array(k)
  down.forEach(({ index, values, length }, i) => {
    if (w[i] === 0) return
    if (index) index.forEach((place, j) => (v[place] += w[i] * values[j]))
    else for (let j = 0; j < length; j++) v[j] += w[i] * values[j]
  })
  const length = Math.sqrt(v.reduce((sum, value) => sum + value * value, 0))
  return { values: length === 0 ? v : v.map((value) => value / length), length: k }
}

function indexOfLargest(best: number, value: number, i: number, all: readonly number[]): number {
  return value > all[best] ? i : best
}

/** SHiRA's measures of two sparse changes of one layer: ‖S₁ᵀS₂‖ and the share of S₁ᵀS₂ [k, k] that is zero. */
export function sparseOrthogonality(
  a: SparseLayer & { weight: readonly number[] },
  b: SparseLayer & { weight: readonly number[] },
): { awom: number; awor: number } {
  const k = a.weight.slice(1).reduce((size, dim) => size * dim, 1)
  const byRow = new Map<number, [column: number, value: number][]>()
  b.index.forEach((place, i) => {
    const row = Math.floor(place / k)
    byRow.set(row, [...(byRow.get(row) ?? []), [place % k, b.delta[i]]])
  })
  // Column by column of S₁, so that one row of the product is held at a time.
  const order = Array.from(a.index, (place, i) => ({
    column: place % k,
    row: Math.floor(place / k),
    value: a.delta[i],
  }))
  order.sort((p, q) => p.column - q.column)
  let [squares, filled] = [0, 0]
  for (let from = 0; from < order.length;) {
    const sums = new Map<number, number>()
    const { column } = order[from]
    for (; from < order.length && order[from].column === column; from++) {
      const { row, value } = order[from]
      for (const [other, size] of byRow.get(row) ?? []) sums.set(other, (sums.get(other) ?? 0) + value * size)
    }
    for (const value of sums.values()) if (value !== 0) [squares, filled] = [squares + value * value, filled + 1]
  }
  return { awom: Math.sqrt(squares), awor: 1 - filled / (k * k) }
}
