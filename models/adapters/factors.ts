import type { LayerShape, Numbers, PartNumbers } from './numbers.ts'
import { layerShape, misfit, need, scaleOf } from './numbers.ts'
import type { AdapterPart, TensorRole } from './types.ts'

// Parts of adapters as products of two thin matrices, for the kinds that are one. Formulas: formats.md, section 5.5.
// Products are summed in float64.

/** ΔW = upᵀ · down: down [r, k], up [r, n] with the part's own scale in it. */
export type Factors = { rank: number; down: Float32Array; up: Float32Array }

/** Most that one part may add to the rank of a layer. */
export const maxRank = 1024

/**
 * The change that a part makes to a weight of this shape as factors, exact but for rounding to float32; k in the order
 * (y, x, channel) for convolutions. Undefined where it is no product, or one so long that the whole weights do less work.
 * `base` [n, k] is needed for GLoRA alone, whose change depends on the weights.
 */
export function factorsOf(
  part: AdapterPart,
  numbers: PartNumbers,
  shape: readonly number[],
  base?: Float32Array,
): Factors | undefined {
  if (shape.length < 2 || numbers.tensors.magnitude) return undefined
  const layer = layerShape(shape)
  const found = productOf(part, numbers, layer, base)
  if (!found) return undefined
  const rows = found.up.length / found.rank
  const placed = { ...found, up: placeRows(part, found.up, found.rank, rows, layer.n) }
  const fitting = placed.rank > Math.min(layer.n, layer.k) ? shortened(placed, layer) : placed
  return { ...fitting, down: tapsFirst(fitting.down, fitting.rank, layer) }
}

/** Whether a kind is taken as factors of this rank (lora: always) rather than as whole weights. */
function isShort(kind: AdapterPart['kind'], rank: number, { n, k }: LayerShape): boolean {
  const shortest = Math.min(rank, n, k)
  if (shortest > maxRank) return false
  // A quarter more work than a second matrix is the most: then there is nothing to gain from factors.
  return kind === 'lora' || shortest * (n + k) <= 1.25 * n * k
}

/** Factors with k in the file's order and with the rows that the part has; undefined when there are none worth having. */
function productOf(
  part: AdapterPart,
  numbers: PartNumbers,
  layer: LayerShape,
  base: Float32Array | undefined,
): Factors | undefined {
  switch (part.kind) {
    case 'lora': {
      if (!numbers.tensors.down && !numbers.tensors.up) return undefined // a bias alone
      const { rank, down, up } = loraFactors(part, numbers, layer)
      if (!isShort('lora', rank, layer)) return undefined
      return { rank, down, up: turned(up, up.length / rank, rank, scaleOf(part, numbers, rank)) }
    }
    case 'loha': {
      const one = hadamardFactors(part, numbers, layer, 1)
      const two = hadamardFactors(part, numbers, layer, 2)
      if (!isShort('loha', one.rank * two.rank, layer)) return undefined
      return faceSplit(one, two, scaleOf(part, numbers, one.rank))
    }
    case 'lokr': {
      const kron = kroneckerFactors(part, numbers, layer)
      const [one, two] = [asProduct(kron.one), asProduct(kron.two)]
      if (!isShort('lokr', one.rank * two.rank, layer)) return undefined
      return kronecker(one, two, kron.two.inner, scaleOf(part, numbers, kron.rank))
    }
    case 'glora': {
      if (!base || layer.taps > 1) return undefined
      const rank = need(part, numbers, 'a2').shape[0]
      if (!isShort('glora', 2 * rank, layer)) return undefined
      return gloraFactors(part, numbers, layer, base)
    }
    case 'diff': {
      const change = numbers.tensors.diff
      if (!change) return undefined // a bias alone
      const rows = change.data.length / layer.k
      if (!isShort('diff', rows, { ...layer, n: rows })) return undefined
      return ofWhole(change.data, rows, layer.k)
    }
    default:
      return undefined
  }
}

/** Factors of a LoRA or LoCon as the file has them: down [r, k] with a Tucker core folded in, up [n, r] without scale. */
export function loraFactors(part: AdapterPart, numbers: PartNumbers, layer: LayerShape): Factors {
  const [down, up] = [need(part, numbers, 'down'), need(part, numbers, 'up')]
  const { mid } = numbers.tensors
  const rank = mid ? mid.shape[0] : down.shape[0]
  if (up.data.length % rank !== 0 || up.shape[1] !== rank) throw misfit(part, 'its two factors are of different ranks')
  const whole = mid ? tuckerRows(mid, down.data, down.shape[0], layer.channels) : down.data
  return { rank, down: widened(part, whole, rank, layer), up: up.data }
}

/** One of the two factors of a LoHa as a product a [n, r] · b [r, k]. */
export type PlainProduct = { rank: number; a: Float32Array; b: Float32Array }

export function hadamardFactors(
  part: AdapterPart,
  numbers: PartNumbers,
  layer: LayerShape,
  which: 1 | 2,
): PlainProduct {
  const get = (end: string) => need(part, numbers, `hada_w${which}_${end}` as TensorRole)
  const [a, b] = [get('a'), get('b')]
  const core = numbers.tensors[`hada_t${which}`]
  const rank = b.shape[0]
  // With a core w_a is [r, n], the other way round than without one.
  if (core) {
    const rows = core.shape[0]
    const left = turned(a.data, rows, a.data.length / rows)
    return { rank: rows, a: left, b: tuckerRows(core, b.data, rank, layer.channels) }
  }
  if (a.shape[1] !== rank || b.data.length !== rank * layer.k) throw misfit(part, 'its factors are of other sizes')
  return { rank, a: a.data, b: b.data }
}

/** A factor of a Kronecker product as a matrix [outer, inner · taps], and as the product it is stored as. */
export type KroneckerFactor = {
  outer: number
  inner: number
  taps: number
  whole: Float32Array
  product?: PlainProduct
}

export function kroneckerFactors(
  part: AdapterPart,
  numbers: PartNumbers,
  layer: LayerShape,
): { one: KroneckerFactor; two: KroneckerFactor; rank: number | undefined } {
  const { lokr_w1: w1, lokr_w2: w2, lokr_t2: core } = numbers.tensors
  const pair = (which: 1 | 2): PlainProduct => {
    const a = need(part, numbers, `lokr_w${which}_a` as TensorRole)
    const b = need(part, numbers, `lokr_w${which}_b` as TensorRole)
    if (which === 2 && core) {
      const rows = core.shape[0]
      const left = turned(a.data, rows, a.data.length / rows)
      const channels = b.data.length / b.shape[0]
      return { rank: rows, a: left, b: tuckerRows(core, b.data, b.shape[0], channels) }
    }
    return { rank: b.shape[0], a: a.data, b: b.data }
  }
  const make = (whole: Numbers | undefined, which: 1 | 2, taps: number): KroneckerFactor => {
    if (whole) {
      const outer = whole.shape[0]
      return { outer, inner: whole.data.length / outer / taps, taps, whole: whole.data }
    }
    const product = pair(which)
    const outer = product.a.length / product.rank
    const width = product.b.length / product.rank
    return {
      outer,
      inner: width / taps,
      taps,
      whole: multiply(product.a, outer, product.rank, product.b, width),
      product,
    }
  }
  const [one, two] = [make(w1, 1, 1), make(w2, 2, layer.taps)]
  if (one.inner * two.inner !== layer.channels) throw misfit(part, 'its factors are of other sizes')
  return { one, two, rank: two.product?.rank ?? one.product?.rank }
}

/** A matrix of few rows or columns is a product with the identity. */
function asProduct({ outer, inner, taps, whole, product }: KroneckerFactor): PlainProduct {
  const width = inner * taps
  const least = Math.min(outer, width)
  if (product && product.rank <= least) return product
  return outer <= width ? { rank: outer, a: identity(outer), b: whole } : { rank: width, a: whole, b: identity(width) }
}

/** (a₁·b₁) ⊙ (a₂·b₂): every row of one beside every row of the other. */
function faceSplit(one: PlainProduct, two: PlainProduct, scale: number): Factors {
  const rank = one.rank * two.rank
  const n = one.a.length / one.rank
  const k = one.b.length / one.rank
  const [down, up] = [new Float32Array(rank * k), new Float32Array(rank * n)]
  for (let i = 0; i < one.rank; i++) {
    for (let j = 0; j < two.rank; j++) {
      const at = i * two.rank + j
      for (let c = 0; c < k; c++) down[at * k + c] = one.b[i * k + c] * two.b[j * k + c]
      for (let o = 0; o < n; o++) up[at * n + o] = scale * one.a[o * one.rank + i] * two.a[o * two.rank + j]
    }
  }
  return { rank, down, up }
}

/** (a₁·b₁) ⊗ (a₂·b₂) = (a₁⊗a₂)·(b₁⊗b₂); the taps of the second factor stay innermost. */
function kronecker(one: PlainProduct, two: PlainProduct, inner: number, scale: number): Factors {
  const rank = one.rank * two.rank
  const [outerOne, outerTwo] = [one.a.length / one.rank, two.a.length / two.rank]
  const [widthOne, widthTwo] = [one.b.length / one.rank, two.b.length / two.rank]
  if (widthTwo % inner !== 0) throw new Error('kronecker: taps do not fill the second factor')
  const n = outerOne * outerTwo
  const k = widthOne * widthTwo
  const [down, up] = [new Float32Array(rank * k), new Float32Array(rank * n)]
  for (let i = 0; i < one.rank; i++) {
    for (let j = 0; j < two.rank; j++) {
      const at = i * two.rank + j
      for (let x = 0; x < widthOne; x++) {
        const left = one.b[i * widthOne + x]
        for (let y = 0; y < widthTwo; y++) down[at * k + x * widthTwo + y] = left * two.b[j * widthTwo + y]
      }
      for (let x = 0; x < outerOne; x++) {
        const left = scale * one.a[x * one.rank + i]
        for (let y = 0; y < outerTwo; y++) up[at * n + x * outerTwo + y] = left * two.a[y * two.rank + j]
      }
    }
  }
  return { rank, down, up }
}

/** W·a1·a2 + b1·b2 of a matrix W [n, k]: rank 2r. */
function gloraFactors(part: AdapterPart, numbers: PartNumbers, { n, k }: LayerShape, base: Float32Array): Factors {
  const [a1, a2, b1, b2] = (['a1', 'a2', 'b1', 'b2'] as const).map((role) => need(part, numbers, role))
  const r = a2.shape[0]
  if (a1.data.length !== k * r || b2.data.length !== r * k) throw misfit(part, 'its factors are of other sizes')
  const scale = scaleOf(part, numbers, r)
  const through = multiply(base, n, k, a1.data, r)
  const down = new Float32Array(2 * r * k)
  down.set(a2.data)
  down.set(b2.data, r * k)
  const up = new Float32Array(2 * r * n)
  up.set(turned(through, n, r, scale))
  up.set(turned(b1.data, n, r, scale), r * n)
  return { rank: 2 * r, down, up }
}

/** A whole matrix [n, k] as a product with the identity on its shorter side. */
function ofWhole(whole: Float32Array, n: number, k: number): Factors {
  return n <= k ? { rank: n, down: whole, up: identity(n) } : { rank: k, down: identity(k), up: turned(whole, n, k) }
}

/** The same product with the least rank that a matrix of this size needs. */
function shortened({ rank, down, up }: Factors, { n, k }: LayerShape): Factors {
  return ofWhole(multiply(turned(up, rank, n), n, rank, down, k), n, k)
}

/**
 * Rows that a Tucker core [p, q, taps] makes of x [q, channels]: Σ core[p, q, tap] · x[q, c], [p, channels, taps].
 */
function tuckerRows(core: Numbers, x: Float32Array, q: number, channels: number): Float32Array {
  const p = core.shape[0]
  const taps = core.data.length / (p * q)
  const out = new Float32Array(p * channels * taps)
  for (let row = 0; row < p; row++) {
    for (let c = 0; c < channels; c++) {
      for (let tap = 0; tap < taps; tap++) {
        let sum = 0
        for (let j = 0; j < q; j++) sum += core.data[(row * q + j) * taps + tap] * x[j * channels + c]
        out[(row * channels + c) * taps + tap] = sum
      }
    }
  }
  return out
}

/** A first convolution may have more channels than the adapter knows of (inpainting): those after its own stay 0. */
function widened(part: AdapterPart, down: Float32Array, rank: number, { k, taps }: LayerShape): Float32Array {
  const width = down.length / rank
  if (width === k) return down
  if (!(width < k && width % taps === 0 && part.path === 'conv_in')) {
    throw misfit(part, `it reads ${width} inputs where the layer has ${k}`)
  }
  const out = new Float32Array(rank * k)
  for (let r = 0; r < rank; r++) out.set(down.subarray(r * width, (r + 1) * width), r * k)
  return out
}

/** up [r, rows] of the part -> [r, n] of the layer: into some rows of a fused layer, or some rows out of a fused part. */
function placeRows(part: AdapterPart, up: Float32Array, rank: number, rows: number, n: number): Float32Array {
  if (rows === n) return up
  const [from, to] = part.rows ?? [0, 0]
  const out = new Float32Array(rank * n)
  for (let r = 0; r < rank; r++) {
    if (rows === to - from && to <= n) out.set(up.subarray(r * rows, (r + 1) * rows), r * n + from)
    else if (n === to - from && to <= rows) out.set(up.subarray(r * rows + from, r * rows + to), r * n)
    else throw misfit(part, `it has ${rows} outputs where the layer has ${n}`)
  }
  return out
}

/** [r, channels, taps] -> [r, taps, channels]. */
function tapsFirst(down: Float32Array, rank: number, { channels, taps, k }: LayerShape): Float32Array {
  if (taps === 1) return down
  const out = new Float32Array(rank * k)
  for (let r = 0; r < rank; r++) {
    for (let tap = 0; tap < taps; tap++) {
      const to = r * k + tap * channels
      for (let c = 0, from = r * k + tap; c < channels; c++, from += taps) out[to + c] = down[from]
    }
  }
  return out
}

/** Side of the squares in which matrices are turned: their rows stay in the first cache. */
const side = 32

/** a [rows, columns] turned, times `scale`. */
export function turned(a: Float32Array, rows: number, columns: number, scale = 1): Float32Array {
  const out = new Float32Array(rows * columns)
  for (let row = 0; row < rows; row += side) {
    const rowEnd = Math.min(row + side, rows)
    for (let column = 0; column < columns; column += side) {
      const columnEnd = Math.min(column + side, columns)
      for (let j = column; j < columnEnd; j++) {
        for (let i = row; i < rowEnd; i++) out[j * rows + i] = scale * a[i * columns + j]
      }
    }
  }
  return out
}

/** a [n, r] · b [r, k], sums in float64. */
function multiply(a: Float32Array, n: number, r: number, b: Float32Array, k: number): Float32Array {
  const out = new Float32Array(n * k)
  const sums = new Float64Array(k)
  for (let row = 0; row < n; row++) {
    sums.fill(0)
    for (let i = 0; i < r; i++) {
      const left = a[row * r + i]
      if (left === 0) continue
      for (let c = 0, at = i * k; c < k; c++, at++) sums[c] += left * b[at]
    }
    out.set(sums, row * k)
  }
  return out
}

function identity(n: number): Float32Array {
  const out = new Float32Array(n * n)
  for (let i = 0; i < n; i++) out[i * n + i] = 1
  return out
}
