import { orthonormalizeRows, smallSvd } from '../quantize/algebra.ts'
import type { LayerDelta } from './write.ts'

// One basis for what several adapters do to a layer, and a small core for each of them (reversible model merging;
// methods.md, section 9.13): ΔWᵢ ≈ Lᵀ · coreᵢ · R with L [p, n] and R [p, k] of orthonormal rows.

export type CommonBasis = {
  /** Σ weightᵢ ΔWᵢ in the basis: up = Lᵀ√σ, down = √σ R, since the basis is turned until that sum is diagonal. */
  merged: LayerDelta
  /** `all` is ‖ΔWᵢ‖², `lost` ‖ΔWᵢ − Lᵀ coreᵢ R‖². */
  cores: { core: Float32Array; all: number; lost: number }[]
  /** The same of the weighted sum. */
  all: number
  lost: number
}

/** Smallest σ of the merged layer: its column is a direction of the basis, whatever the adapters together make of it. */
const leastShare = 1e-6

/**
 * The basis of at most `rank` directions on either side that keeps most of all adapters, each counted by its own size, and
 * as much again of their sum: the principal components of their rows and of their columns (De Lathauwer et al. 2000, the
 * truncated HOSVD).
 */
export function commonBasis(members: readonly { layer: LayerDelta; weight: number }[], rank: number): CommonBasis {
  const { target, path, weight: shape } = members[0].layer
  const n = shape[0]
  const k = members[0].layer.down.length / members[0].layer.rank
  const total = members.reduce((sum, { layer }) => sum + layer.rank, 0)
  const p = Math.min(rank, total, n, k)

  // Orthonormal rows that span everything: ΔWᵢ = upRowsᵀ · Cᵢ · downRows with Cᵢ [total, total].
  const downRows = new Float64Array(total * k)
  const upRows = new Float64Array(total * n)
  let first = 0
  for (const { layer } of members) {
    downRows.set(layer.down, first * k)
    for (let i = 0; i < layer.rank; i++)
      for (let row = 0; row < n; row++) upRows[(first + i) * n + row] = layer.up[row * layer.rank + i]
    first += layer.rank
  }
  const rDown = orthonormalizeRows(downRows, total, k)
  const rUp = orthonormalizeRows(upRows, total, n)
  first = 0
  const squares = members.map(({ layer }) => {
    const rows = (r: Float64Array) => r.subarray(first * total, (first + layer.rank) * total)
    const c = multiply(rows(rUp), rows(rDown), layer.rank, total, total, { turnA: true })
    first += layer.rank
    return c
  })

  const sum = new Float64Array(total * total)
  squares.forEach((c, i) => add(sum, c, members[i].weight))
  const [left, right] = [new Float64Array(total * total), new Float64Array(total * total)]
  const shares = [...squares.map((c) => [c, 1] as const), [sum, squares.length] as const]
  for (const [c, share] of shares) {
    const size = dot(c, c) || 1
    add(left, multiply(c, c, total, total, total, { turnB: true }), share / size)
    add(right, multiply(c, c, total, total, total, { turnA: true }), share / size)
  }
  const l = smallSvd(left, total).left.subarray(0, p * total) // [p, total]
  const r = smallSvd(right, total).left.subarray(0, p * total)
  const inBasis = (c: Float64Array) => multiply(multiply(l, c, p, total, total), r, p, total, p, { turnB: true })
  const cores = squares.map(inBasis)

  const core = inBasis(sum)
  const { values, left: x, right: y } = smallSvd(core, p)
  const most = Math.max(values[0], ...cores.map((each) => Math.sqrt(dot(each, each))))
  completeRows(y, p, values, 1e-9 * most)
  const sigma = values.map((value) => Math.max(value, leastShare * most))
  const turnedL = multiply(multiply(x, l, p, p, total), upRows, p, total, n) // [p, n]
  const turnedR = multiply(multiply(y, r, p, p, total), downRows, p, total, k)
  const up = new Float32Array(n * p)
  const down = new Float32Array(p * k)
  for (let i = 0; i < p; i++) {
    const share = Math.sqrt(sigma[i])
    for (let row = 0; row < n; row++) up[row * p + i] = share * turnedL[i * n + row]
    for (let c = 0; c < k; c++) down[i * k + c] = share * turnedR[i * k + c]
  }
  const all = dot(sum, sum)
  return {
    merged: { target, path, weight: shape, rank: p, down, up },
    cores: cores.map((each, i) => {
      const size = dot(squares[i], squares[i])
      const turned = multiply(multiply(x, each, p, p, p), y, p, p, p, { turnB: true })
      return { core: Float32Array.from(turned), all: size, lost: Math.max(0, size - dot(each, each)) }
    }),
    all,
    lost: Math.max(0, all - dot(core, core)),
  }
}

/**
 * Factors of one adapter out of the merged layer and its core: up · down = Lᵀ core R. The basis is read off the merged
 * factors, whose columns and rows are its directions but for their length.
 */
export function fromBasis(merged: LayerDelta, core: Float32Array, rank: number): LayerDelta {
  const { target, path, weight, rank: p, down, up } = merged
  const n = weight[0]
  const k = down.length / p
  const [l, r] = [new Float64Array(p * n), Float64Array.from(down)]
  for (let i = 0; i < p; i++) for (let row = 0; row < n; row++) l[i * n + row] = up[row * p + i]
  normalizeRows(l, p, n)
  normalizeRows(r, p, k)
  const { values, left, right } = smallSvd(Float64Array.from(core), p)
  const kept = Math.min(rank, p)
  const outUp = multiply(left.subarray(0, kept * p), l, kept, p, n)
  const outDown = multiply(right.subarray(0, kept * p), r, kept, p, k)
  const share = (i: number) => Math.sqrt(values[i])
  return {
    ...{ target, path, weight },
    rank: kept,
    down: Float32Array.from(outDown, (value, at) => value * share(Math.floor(at / k))),
    up: Float32Array.from(
      { length: n * kept },
      (_, at) => outUp[(at % kept) * n + Math.floor(at / kept)] * share(at % kept),
    ),
  }
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i]
  return sum
}

function add(into: Float64Array, a: Float64Array, factor: number): void {
  for (let i = 0; i < a.length; i++) into[i] += factor * a[i]
}

function normalizeRows(rows: Float64Array, count: number, length: number): void {
  for (let i = 0; i < count; i++) {
    const row = rows.subarray(i * length, (i + 1) * length)
    const size = Math.sqrt(dot(row, row)) || 1
    for (let j = 0; j < length; j++) row[j] /= size
  }
}

/** a [m, inner] · b [inner, n]; b lies as [n, inner] with `turnB`; with `turnA` it is aᵀ [inner, m] · b [m, n]. */
function multiply(
  a: Float64Array,
  b: Float64Array,
  m: number,
  inner: number,
  n: number,
  { turnA = false, turnB = false }: { turnA?: boolean; turnB?: boolean } = {},
): Float64Array {
  const [rows, depth] = turnA ? [inner, m] : [m, inner]
  const out = new Float64Array(rows * n)
  for (let i = 0; i < rows; i++) {
    for (let p = 0; p < depth; p++) {
      const value = turnA ? a[p * inner + i] : a[i * inner + p]
      if (value === 0) continue
      if (turnB) for (let j = 0; j < n; j++) out[i * n + j] += value * b[j * depth + p]
      else for (let j = 0; j < n; j++) out[i * n + j] += value * b[p * n + j]
    }
  }
  return out
}

/** Rows [p, p] whose singular value is no more than `least` become directions that the others leave free. */
function completeRows(rows: Float64Array, p: number, values: Float64Array, least: number): void {
  for (let i = 0; i < p; i++) {
    if (values[i] > least) continue
    const row = rows.subarray(i * p, (i + 1) * p)
    for (let unit = 0; unit < p; unit++) {
      row.fill(0)
      row[unit] = 1
      // Twice, so that what rounding left of the others is gone as well.
      for (let pass = 0; pass < 2; pass++) {
        for (let j = 0; j < i; j++) {
          const other = rows.subarray(j * p, (j + 1) * p)
          add(row, other, -dot(row, other))
        }
      }
      const size = Math.sqrt(dot(row, row))
      if (size < 0.5 / Math.sqrt(p)) continue
      for (let j = 0; j < p; j++) row[j] /= size
      break
    }
  }
}
