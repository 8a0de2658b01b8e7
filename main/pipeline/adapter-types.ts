import type { LivePart } from '../../models/adapters/live.ts'
import type { AdapterTarget } from '../../models/adapters/types.ts'
import type { FloatTensor } from './tensor.ts'

// Adapters as the pipeline feeds them: numbers for the slots of a network, and when they act.

/** One layer's change as a product: down [r, k], up [r, n]; k is 9 · in ordered (y, x, channel) for a 3 × 3 convolution. */
export type LayerFactors = { rank: number; down: FloatTensor; up: FloatTensor }

/** An adapter made ready for one model: its own scales, and the smoothing of quantised layers, are in the factors. */
export type LoadedAdapter = {
  name: string
  /** Hash of its content: what caches go by. */
  sha256: string
  layers: Partial<Record<AdapterTarget, ReadonlyMap<string, LayerFactors>>>
  /** What is no product, by module: the weights of these must be inputs (`GraphVariant.live`), see `LiveWeights`. */
  live?: Partial<Record<AdapterTarget, ReadonlyMap<string, LivePart>>>
  /** Words that stand for vectors [count, width], for each text encoder. */
  embeddings?: ReadonlyMap<string, Partial<Record<'text_encoder' | 'text_encoder_2', FloatTensor>>>
}

/** Weight over the steps: a share of it at places 0 (the adapter's first step) to 1 (its last), straight between them. */
export type Ramp = 'flat' | 'ease-in' | 'ease-out' | readonly (readonly [place: number, share: number])[]

/** The weights of modules as inputs of a network, for what adapters change otherwise than by factors. */
export interface LiveWeights {
  /** Modules of a network that any of these adapters changes so. */
  paths(target: AdapterTarget, adapters: Iterable<LoadedAdapter>): ReadonlySet<string>
  /**
   * `<path>.weight` and `<path>.bias` of those modules at these weights; adapters that weigh nothing are not in the map.
   * The arrays are the same from call to call and change with the next one: they are for the next run of the network.
   */
  inputs(
    target: AdapterTarget,
    paths: ReadonlySet<string>,
    weights: ReadonlyMap<LoadedAdapter, number>,
  ): Promise<Record<string, FloatTensor>>
}

/** One adapter in one picture. */
export type AppliedAdapter = {
  adapter: LoadedAdapter
  weight: number
  textWeight: number
  /** Shares of the steps, 0 to 1, rounded to whole steps: it acts from the first on and stops before the second. */
  start: number
  end: number
  ramp: Ramp
}

/** A layer that takes adapters, by the inputs `<path>.down`, `<path>.up`, `<path>.scale` of its network. */
export type SlotLayer = { path: string; inputs: number; outputs: number; isConv: boolean }

/** A guidance-distillation adapter ready to feed: see `GuidanceFile`. */
export type LoadedGuidance = {
  name: string
  sha256: string
  width: number
  guidanceRange: readonly [number, number]
  /** Inputs that stay the same for the whole picture, by their names in the graph. */
  inputs: Record<string, FloatTensor>
  /** Token of a guidance scale: g(w) [h]. */
  tokenOf(guidanceScale: number): Float32Array
}
