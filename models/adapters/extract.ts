import { VignetteError } from '../errors.ts'
import type { MatMul } from '../quantize/algebra.ts'
import { plainMatMul } from '../quantize/algebra.ts'
import { truncatedSvd } from '../quantize/svd.ts'
import { layerShape } from './numbers.ts'
import type { ModelWeights } from './model-weights.ts'
import { maskPlaces, sparsify, weightCrc, type SparseLayer, type SparseMask } from './sparse.ts'
import type { AdapterTarget } from './types.ts'
import type { LayerDelta } from './write.ts'

// Adapters out of what is there already: the difference of two models as low-rank factors, a low-rank adapter as a sparse
// one.

export type LayerError = { target: AdapterTarget; path: string; rank: number; error: number }

export type Extracted = {
  layers: LayerDelta[]
  /** ‖ΔW − ΔW'‖ / ‖ΔW‖, over all layers and by layer. */
  error: number
  errors: LayerError[]
  /** Layers that are alike in both models. */
  unchanged: number
  /** What differs and is in no adapter: biases, norms, embeddings; with the size of the difference. */
  leftOut: { path: string; size: number }[]
}

export type ExtractOptions = {
  rank: number
  matMul?: MatMul
  signal?: AbortSignal
  onProgress?: (fraction: number) => void
}

/**
 * A low-rank adapter that makes `base` into `tuned` as far as its rank goes: singular value decomposition of every layer's
 * difference. The rank is less where the difference itself has less.
 */
export async function extractLora(
  base: ModelWeights,
  tuned: ModelWeights,
  { rank, matMul = plainMatMul, signal, onProgress }: ExtractOptions,
): Promise<Extracted> {
  checkSameShape(base, tuned)
  const places = (Object.entries(base.shape.layers) as [AdapterTarget, ReadonlyMap<string, Shapes>][]).flatMap(
    ([target, layers]) => [...layers].map(([path, shapes]) => ({ target, path, ...shapes })),
  )
  const found: Extracted = { layers: [], error: 0, errors: [], unchanged: 0, leftOut: [] }
  let [all, lost] = [0, 0]
  for (const [i, { target, path, weight, bias }] of places.entries()) {
    signal?.throwIfAborted()
    onProgress?.(i / places.length)
    const delta = await difference(base, tuned, target, path, 'weight')
    const power = delta ? squares(delta) : 0
    const change = bias ? await difference(base, tuned, target, path, 'bias') : undefined
    if (change && squares(change) > 0) found.leftOut.push({ path: `${path}.bias`, size: Math.sqrt(squares(change)) })
    if (!delta || power === 0) {
      found.unchanged++
      continue
    }
    if (weight.length < 2 || path.includes('embeddings.')) {
      found.leftOut.push({ path: `${path}.weight`, size: Math.sqrt(power) })
      continue
    }
    const cut = await lowRank(delta, weight, rank, matMul)
    if (!cut) continue
    found.layers.push({ target, path, weight, ...cut.factors })
    found.errors.push({ target, path, rank: cut.factors.rank, error: cut.error })
    all += power
    lost += power * cut.error ** 2
  }
  if (found.layers.length === 0)
    throw new VignetteError('adapter-mismatch', `${tuned.name} does not differ from ${base.name} in any layer.`, {
      hint: 'Check that --tuned is the other model.',
    })
  found.error = Math.sqrt(lost / all)
  return found
}

/**
 * The best factors of a whole ΔW of this shape, of at most `rank`, their relative error, and ‖ΔW‖²; undefined where there
 * is no change. Directions that are a millionth of the first are what float32 makes of nothing.
 */
export async function lowRank(
  delta: Float32Array,
  weight: readonly number[],
  rank: number,
  matMul: MatMul,
): Promise<{ factors: Pick<LayerDelta, 'rank' | 'down' | 'up'>; error: number; power: number } | undefined> {
  const power = squares(delta)
  if (power === 0) return undefined
  const { n, k } = layerShape(weight)
  const { down, up, values } = await truncatedSvd(delta, n, k, { rank, matMul })
  const kept = Math.max(1, values.filter((value) => value > 1e-6 * values[0]).length)
  const least = Math.max(0, power - values.subarray(0, kept).reduce((sum, value) => sum + value * value, 0))
  const factors = { rank: kept, ...halved(down, up, values, kept, n, k) }
  return { factors, error: Math.sqrt(least / power), power }
}

type Shapes = { weight: readonly number[]; bias?: readonly number[] }

function checkSameShape(base: ModelWeights, tuned: ModelWeights): void {
  const list = ({ shape }: ModelWeights) =>
    Object.entries(shape.layers)
      .flatMap(([target, layers]) => [...layers].map(([path, { weight }]) => `${target} ${path} ${weight.join('×')}`))
      .sort()
      .join('\n')
  if (base.shape.family === tuned.shape.family && list(base) === list(tuned)) return
  throw new VignetteError('adapter-mismatch', `${base.name} and ${tuned.name} are models of different kinds.`, {
    hint: 'An adapter is the difference between a model and one that was trained on from it.',
  })
}

async function difference(
  base: ModelWeights,
  tuned: ModelWeights,
  target: AdapterTarget,
  path: string,
  leaf: 'weight' | 'bias',
): Promise<Float32Array | undefined> {
  const [from, to] = [await base.read(target, path, leaf), await tuned.read(target, path, leaf)]
  return from && to?.map((value, i) => value - from[i])
}

function squares(values: Float32Array): number {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i]
  return sum
}

/** The first `count` of unit rows and of columns times σ, with √σ on either side, so that halves hold both well. */
function halved(down: Float32Array, up: Float32Array, values: Float64Array, count: number, n: number, k: number) {
  const rank = values.length
  const share = (i: number) => Math.sqrt(values[i]) || 1
  return {
    down: down.slice(0, count * k).map((value, at) => value * share(Math.floor(at / k))),
    up: Float32Array.from({ length: n * count }, (_, at) => {
      const i = at % count
      return up[Math.floor(at / count) * rank + i] / share(i)
    }),
  }
}

export type SparseOptions = {
  mask: SparseMask
  /** As many places as a low-rank adapter of this rank has numbers: rank · (n + k) a layer. */
  rank?: number
  /** The model that the adapter is for: what `wm` chooses by, and what the check values are made of. */
  base?: Pick<ModelWeights, 'read'>
  seed?: number
  matMul?: MatMul
  onProgress?: (fraction: number) => void
}

export type Sparse = { layers: SparseLayer[]; error: number; errors: (LayerError & { places: number })[] }

/** A sparse adapter out of low-rank layers: their ΔW at the places that a mask chooses (SHiRA; methods.md, section 8). */
export async function extractSparse(layers: readonly LayerDelta[], options: SparseOptions): Promise<Sparse> {
  const { mask, rank = 32, base, seed = 1, matMul = plainMatMul, onProgress } = options
  if (mask === 'wm' && !base)
    throw new VignetteError('bad-request', 'The mask "wm" chooses by the weights of the model.', {
      hint: 'Say which with --model.',
    })
  const found: Sparse = { layers: [], error: 0, errors: [] }
  let [all, lost] = [0, 0]
  for (const [i, layer] of layers.entries()) {
    onProgress?.(i / layers.length)
    const { target, path, weight: shape } = layer
    const { n, k } = layerShape(shape)
    const weight = await base?.read(target, path)
    if (weight && weight.length !== n * k) throw new Error(`${path}: the model's weight is of another size`)
    const dense = await matMul(layer.up, [n, layer.rank], layer.down, [layer.rank, k])
    const index = maskPlaces(mask, { n, k, count: rank * (n + k), weight, delta: dense, seed: seed + i })
    const { delta, error } = sparsify(dense, index)
    const power = squares(dense)
    found.layers.push({ target, path, index, delta, ...(weight ? { crc: weightCrc(weight) } : {}) })
    found.errors.push({ target, path, rank: layer.rank, error, places: index.length })
    all += power
    lost += power * error ** 2
  }
  found.error = Math.sqrt(lost / (all || 1))
  return found
}
