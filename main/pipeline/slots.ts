import { VignetteError } from '../../models/errors.ts'
import type { AdapterTarget } from '../../models/adapters/types.ts'
import { limits } from '../../preload/limits.ts'
import type { LayerFactors, LiveWeights, LoadedAdapter, SlotLayer } from './adapter-types.ts'
import type { Weights } from './steps.ts'
import { tensor, type FloatTensor } from './tensor.ts'

/**
 * Adapters as inputs of one network. Those that are products of two thin matrices enter slots: the factors of all that act
 * are concatenated along the rank, and each row of the batch multiplies what lies between them by weights of its own, 0 for
 * the adapters that are not its (S-LoRA and FLoRA; methods.md, sections 9.14 and 9.15). The factors of a set of adapters are
 * joined once; a step then costs the small weights alone. What is no such product changes weights that are inputs themselves
 * (`LiveWeights`), the same for all rows of a run.
 */
export interface Slots {
  /**
   * Inputs for a run whose rows have these weights. Per layer `<path>.down` [r, k] and `<path>.up` [r, n], the same objects
   * as long as the same adapters act, and `<path>.scale`: [1, r], or [rows, r] where the network takes mixed rows.
   */
  inputs(rows: readonly Weights[]): Promise<Record<string, FloatTensor>>
  /** Rows for which this differs cannot be in one run. */
  apart(weights: Weights): string
  /** Refuses adapters that together are too much for one layer; says when they make drawing noticeably slower. */
  check(adapters: Iterable<LoadedAdapter>): string | undefined
}

/** Total rank of a layer above which the person is told (methods.md, section 11). */
const noticedRank = 256

/** Joined factors are kept for the sets that acted last: so many, and as long as their copies take no more than this. */
const keptSets = 8
const keptBytes = 1e9

export type SlotsOptions = {
  /** The network was built for rows of different weights. */
  isMixed?: boolean
  /** Modules whose weights the network takes as inputs, and who makes these. */
  live?: { paths: ReadonlySet<string>; weights: LiveWeights }
}

/** Slots of one network with these layers. */
export function createSlots(
  target: AdapterTarget,
  layers: readonly SlotLayer[],
  { isMixed = false, live }: SlotsOptions = {},
): Slots {
  const places = new Map(layers.map((layer) => [layer.path, layer]))
  const sets = new Map<string, FactorSet>()
  const numbers = new WeakMap<LoadedAdapter, number>()
  let counted = 0
  const numberOf = (adapter: LoadedAdapter) => {
    if (!numbers.has(adapter)) numbers.set(adapter, counted++)
    return numbers.get(adapter)
  }
  const zeros = new Map<number, FloatTensor>()
  const zeroRow = (length: number) => {
    const known = zeros.get(length) ?? tensor(new Float32Array(length), [1, length])
    zeros.set(length, known)
    return known
  }

  const setOf = (adapters: readonly LoadedAdapter[]): FactorSet => {
    const key = adapters.map(numberOf).join()
    const known = sets.get(key) ?? joinFactors(target, places, adapters, zeroRow)
    sets.delete(key)
    sets.set(key, known)
    let bytes = [...sets.values()].reduce((all, set) => all + set.bytes, 0)
    for (const [oldest, set] of sets) {
      if ((bytes <= keptBytes && sets.size <= keptSets) || set === known) break
      sets.delete(oldest)
      bytes -= set.bytes
    }
    return known
  }

  const liveOf = (weights: Weights): Weights =>
    new Map(
      inOrder([...weights.keys()])
        .filter((adapter) => (adapter.live?.[target]?.size ?? 0) > 0)
        .map((adapter) => [adapter, weights.get(adapter)!]),
    )

  const slotInputs = (rows: readonly Weights[]) => {
    const present = rows.flatMap((weights) => [...weights.keys()])
    const adapters = inOrder(present.filter(({ layers: own }) => (own[target]?.size ?? 0) > 0))
    const set = setOf(adapters)
    const table = (isMixed ? rows : rows.slice(0, 1)).map((weights) => adapters.map((one) => weights.get(one) ?? 0))
    const key = table.map((row) => row.join()).join(';')
    if (!isMixed && rows.some((weights) => adapters.some((one, i) => (weights.get(one) ?? 0) !== table[0][i]))) {
      throw new Error(`slots of ${target}: rows of different weights need a network for mixed rows`)
    }
    if (set.last?.key === key) return set.last.inputs
    const inputs = { ...set.factors }
    const scales = set.patterns.map((segments) => scaleOf(table, segments))
    for (const [path, pattern] of set.patternOf) inputs[`${path}.scale`] = scales[pattern]
    set.last = { key, inputs }
    return inputs
  }

  return {
    async inputs(rows) {
      const inputs = slotInputs(rows)
      return live ? { ...inputs, ...(await live.weights.inputs(target, live.paths, liveOf(rows[0]))) } : inputs
    },
    apart: (weights) => [...liveOf(weights)].map(([{ sha256 }, weight]) => `${sha256} ${weight}`).join(),
    check(adapters) {
      let [most, where] = [0, '']
      for (const { path } of layers) {
        const rank = [...new Set(adapters)].reduce(
          (all, { layers: own }) => all + (own[target]?.get(path)?.rank ?? 0),
          0,
        )
        if (rank > most) [most, where] = [rank, path]
      }
      if (most > limits.maxAdapterRank) {
        throw new VignetteError(
          'bad-request',
          `The adapters have rank ${most} together (${where}); ${limits.maxAdapterRank} is the most.`,
          { hint: 'Use fewer adapters at a time, or give the large ones a rank budget.' },
        )
      }
      if (most <= noticedRank) return undefined
      return `The adapters have rank ${most} together, and every step takes longer for it; ${noticedRank} is usual.`
    },
  }
}

/** Adapter (by its place among those of the set) and how many of the layer's ranks are its. */
type Segments = readonly (readonly [adapter: number, rank: number])[]

type FactorSet = {
  /** `<path>.down` and `<path>.up` of every layer. */
  factors: Record<string, FloatTensor>
  /** Layers whose ranks are made up alike share their scale: there are few ways. */
  patterns: Segments[]
  patternOf: Map<string, number>
  /** What the copies take; the arrays of an adapter alone are its own. */
  bytes: number
  last?: { key: string; inputs: Record<string, FloatTensor> }
}

/** Without doubles, in an order that does not depend on how they were chosen: sums then agree to the last bit. */
function inOrder(adapters: readonly LoadedAdapter[]): LoadedAdapter[] {
  return [...new Set(adapters)].sort((a, b) => (a.sha256 < b.sha256 ? -1 : a.sha256 > b.sha256 ? 1 : 0))
}

function joinFactors(
  target: AdapterTarget,
  places: ReadonlyMap<string, SlotLayer>,
  adapters: readonly LoadedAdapter[],
  zeroRow: (length: number) => FloatTensor,
): FactorSet {
  for (const { name, layers } of adapters) {
    for (const path of layers[target]?.keys() ?? []) {
      if (!places.has(path)) throw new Error(`slots of ${target}: "${name}" changes ${path}, which takes no adapters`)
    }
  }
  const set: FactorSet = { factors: {}, patterns: [], patternOf: new Map(), bytes: 0 }
  const known = new Map<string, number>()
  for (const layer of places.values()) {
    const parts = adapters.flatMap(({ layers }, i) => {
      const factors = layers[target]?.get(layer.path)
      return factors && factors.rank > 0 ? [{ i, factors: expectFit(layer, factors) }] : []
    })
    const { path, inputs, outputs } = layer
    // Layers that nothing changes keep a rank of 1, of zeros: no kernel need know of products over nothing.
    const down = parts.length === 0 ? zeroRow(inputs) : along(parts.map(({ factors }) => factors.down))
    const up = parts.length === 0 ? zeroRow(outputs) : along(parts.map(({ factors }) => factors.up))
    set.factors[`${path}.down`] = down
    set.factors[`${path}.up`] = up
    if (parts.length > 1) set.bytes += down.data.byteLength + up.data.byteLength
    const segments = parts.map(({ i, factors }) => [i, factors.rank] as const)
    const key = segments.join(' ')
    const pattern = known.get(key) ?? set.patterns.push(segments) - 1
    known.set(key, pattern)
    set.patternOf.set(path, pattern)
  }
  return set
}

function expectFit({ path, inputs, outputs }: SlotLayer, factors: LayerFactors): LayerFactors {
  const { rank, down, up } = factors
  if (down.shape.join() === `${rank},${inputs}` && up.shape.join() === `${rank},${outputs}`) return factors
  const shapes = `[${down.shape.join(', ')}] and [${up.shape.join(', ')}]`
  throw new Error(`${path}: expected factors [${rank}, ${inputs}] and [${rank}, ${outputs}], got ${shapes}`)
}

/** Matrices of one width below each other; a single one is handed on as it is. */
function along(parts: readonly FloatTensor[]): FloatTensor {
  if (parts.length === 1) return parts[0]
  const rows = parts.reduce((all, { shape }) => all + shape[0], 0)
  const width = parts[0].shape[1]
  const data = new Float32Array(rows * width)
  let at = 0
  for (const part of parts) {
    data.set(part.data, at)
    at += part.data.length
  }
  return tensor(data, [rows, width])
}

/** Weights [rows][adapters] spread over the ranks of a layer: [rows, r]. */
function scaleOf(table: readonly (readonly number[])[], segments: Segments): FloatTensor {
  const rank = segments.reduce((all, [, ranks]) => all + ranks, 0)
  if (rank === 0) return tensor(new Float32Array(table.length), [table.length, 1])
  const data = table.flatMap((weights) =>
    segments.flatMap(([adapter, ranks]) => Array<number>(ranks).fill(weights[adapter])),
  )
  return tensor(Float32Array.from(data), [table.length, rank])
}
