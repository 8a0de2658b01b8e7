import { VignetteError } from '../errors.ts'
import type { MatMul } from '../quantize/algebra.ts'
import { plainMatMul } from '../quantize/algebra.ts'
import { commonBasis } from './basis.ts'
import { scaled, type RawLayer } from './deltas.ts'
import { turned } from './factors.ts'
import { correctionOf, isRestorable, type Inverse } from './inverse.ts'
import { truncateFactors } from './truncate.ts'
import { withOneAlpha, type LayerDelta } from './write.ts'

/** One adapter of several that become one. */
export type Member = {
  name: string
  layers: readonly RawLayer[]
  weight: number
  /** Of the text encoders' layers; `weight` when left out. */
  textWeight?: number
  /** Hash of its content, and the notes of its file: what `split` gives back. */
  sha256?: string
  metadata?: Readonly<Record<string, string>>
}

export type MergeOptions = {
  /** Most ranks of a layer; all of them, and no error but rounding, when left out. */
  rank?: number
  /** Keep what is needed to take each adapter out again. */
  keepInverse?: boolean
  matMul?: MatMul
  signal?: AbortSignal
  onProgress?: (fraction: number) => void
}

export type Merged = {
  layers: LayerDelta[]
  /** ‖ΔW − ΔW'‖ / ‖ΔW‖ over all layers of what the adapters make together; 0 where nothing was cut. */
  error: number
  /** The layer that lost most. */
  worst?: { path: string; error: number }
  inverse?: Inverse
}

/**
 * One adapter that does what several do together, each with its weight: their factors side by side, or the best of a given
 * rank. With `keepInverse` the concatenation gives every adapter back bit for bit, and the compressed form, a common basis
 * of all and a small core for each (after RMM; methods.md, section 9.13), within the error that its `inverse` states.
 */
export async function mergeAdapters(members: readonly Member[], options: MergeOptions = {}): Promise<Merged> {
  const { rank, keepInverse = false, matMul = plainMatMul, signal, onProgress } = options
  checkWeights(members, keepInverse)
  const places = layerPlaces(members)
  const inverse = keepInverse ? emptyInverse(members, rank === undefined ? 'concatenated' : 'compressed') : undefined
  const layers: LayerDelta[] = []
  const sums = { all: 0, lost: 0 }
  const lost = members.map(() => ({ all: 0, lost: 0 }))
  let worst: Merged['worst']
  let done = 0
  for (const place of places.values()) {
    signal?.throwIfAborted()
    const { path } = place[0].layer
    let error = 0
    if (rank === undefined || (!keepInverse && totalRank(place) <= rank)) {
      const whole = concatenate(place)
      layers.push(whole)
      if (rank !== undefined) sums.all += squaredNorm(whole) // what is kept counts as well
    } else if (inverse) {
      const basis = commonBasis(
        place.map(({ layer, weight }) => ({ layer: scaled(layer), weight })),
        rank,
      )
      layers.push(basis.merged)
      place.forEach(({ member, layer }, i) => {
        const { target, source } = layer
        const { core, all, lost: left } = basis.cores[i]
        inverse.members[member].layers.push({ target, path, rank: layer.rank, scale: layer.scale, source, core })
        lost[member].all += all
        lost[member].lost += left
      })
      error = Math.sqrt(basis.lost / (basis.all || 1))
      sums.all += basis.all
      sums.lost += basis.lost
    } else {
      const whole = concatenate(place)
      const cut = await truncate(whole, rank, matMul)
      layers.push(cut.layer)
      error = cut.error
      sums.all += cut.all
      sums.lost += cut.all * cut.error ** 2
    }
    if (error > (worst?.error ?? 0)) worst = { path, error }
    onProgress?.(++done / places.size)
  }
  if (inverse?.form === 'concatenated') keepExactly(inverse, [...places.values()], layers)
  inverse?.members.forEach((member, i) => (member.error = Math.sqrt(lost[i].lost / (lost[i].all || 1))))
  const error = Math.sqrt(sums.lost / (sums.all || 1))
  return { layers, error, ...(worst ? { worst } : {}), ...(inverse ? { inverse } : {}) }
}

/** The best layer of at most `rank`, what it leaves out (‖ΔW − ΔW'‖ / ‖ΔW‖), and ‖ΔW‖². */
export async function truncate(
  layer: LayerDelta,
  rank: number,
  matMul: MatMul = plainMatMul,
): Promise<{ layer: LayerDelta; error: number; all: number }> {
  const n = layer.weight[0]
  const { factors, error } = await truncateFactors(
    { rank: layer.rank, down: layer.down, up: turned(layer.up, n, layer.rank) },
    rank,
    matMul,
  )
  const up = turned(factors.up, factors.rank, n)
  return { layer: { ...layer, rank: factors.rank, down: factors.down, up }, error, all: squaredNorm(layer) }
}

/** ‖up · down‖² = ⟨upᵀup, down·downᵀ⟩. */
export function squaredNorm({ weight, rank, down, up }: LayerDelta): number {
  const n = weight[0]
  const k = down.length / rank
  let sum = 0
  for (let i = 0; i < rank; i++) {
    for (let j = 0; j <= i; j++) {
      let [ups, downs] = [0, 0]
      for (let row = 0; row < n; row++) ups += up[row * rank + i] * up[row * rank + j]
      for (let c = 0; c < k; c++) downs += down[i * k + c] * down[j * k + c]
      sum += (i === j ? 1 : 2) * ups * downs
    }
  }
  return sum
}

/** What several adapters do to one layer. */
type Place = { member: number; layer: RawLayer; weight: number }[]

const totalRank = (place: Place) => place.reduce((sum, { layer }) => sum + layer.rank, 0)

/** Layers in the order in which they come up. */
function layerPlaces(members: readonly Member[]): Map<string, Place> {
  const places = new Map<string, Place>()
  members.forEach(({ layers, weight, textWeight = weight }, member) => {
    for (const layer of layers) {
      const key = `${layer.target} ${layer.path}`
      const place = places.get(key) ?? []
      places.set(key, place)
      place.push({ member, layer, weight: layer.target === 'unet' ? weight : textWeight })
    }
  })
  return places
}

/** down: the rows of all, one under the other; up: their columns side by side, with scale and weight in them. */
function concatenate(place: Place): LayerDelta {
  const { target, path, weight: shape } = place[0].layer
  const n = shape[0]
  const rank = totalRank(place)
  const k = place[0].layer.down.length / place[0].layer.rank
  const [down, up] = [new Float32Array(rank * k), new Float32Array(n * rank)]
  let first = 0
  for (const { layer, weight } of place) {
    down.set(layer.down, first * k)
    const factor = layer.scale * weight
    for (let row = 0; row < n; row++)
      for (let i = 0; i < layer.rank; i++) up[row * rank + first + i] = layer.up[row * layer.rank + i] * factor
    first += layer.rank
  }
  return { target, path, weight: shape, rank, down, up }
}

/** What gives every adapter back, now that the scales of the merged file are known. */
function keepExactly(inverse: Inverse, places: readonly Place[], merged: readonly LayerDelta[]): void {
  const scales = withOneAlpha(merged).map(({ scale }) => scale)
  places.forEach((place, i) => {
    for (const { member, layer, weight } of place) {
      const { target, path, rank, scale, source } = layer
      const correction = correctionOf(layer, weight, scales[i])
      inverse.members[member].layers.push({ target, path, rank, scale, source, ...(correction ? { correction } : {}) })
    }
  })
}

function emptyInverse(members: readonly Member[], form: Inverse['form']): Inverse {
  return {
    form,
    members: members.map(({ name, weight, textWeight = weight, sha256, metadata }) => ({
      ...{ name, weight, textWeight, error: 0, layers: [] },
      ...(sha256 === undefined ? {} : { sha256 }),
      ...(metadata === undefined ? {} : { metadata }),
    })),
  }
}

function checkWeights(members: readonly Member[], keepInverse: boolean): void {
  if (members.every(({ layers }) => layers.length === 0))
    throw new VignetteError('adapter-mismatch', 'None of these adapters has layers that can be merged.', {
      hint: 'Convert them first: npm run adapter -- convert FILE --to vignette --rank 32 --model MODEL',
    })
  if (!keepInverse) return
  for (const { name, weight, textWeight = weight, layers } of members) {
    if (![weight, textWeight].every((value) => Math.abs(value) >= 1e-3))
      throw new VignetteError('bad-request', `"${name}" has weight ${weight}: it could not be taken out again.`, {
        hint: 'Give it a weight of at least 0.001, or leave out --keep-inverse.',
      })
    const odd = layers.find((layer) => !isRestorable(layer))
    if (odd)
      throw new VignetteError('adapter-mismatch', `"${name}" has a scale of ${odd.scale} at ${odd.path}.`, {
        hint: 'A layer without effect cannot be taken out again. Leave out --keep-inverse.',
      })
  }
}
