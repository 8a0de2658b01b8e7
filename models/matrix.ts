import { linearInt8, onesFor } from '../kernels/linear-int8.ts'
import { linearNBits } from '../kernels/linear-nbits.ts'
import { lowRank } from '../kernels/low-rank.ts'
import { slotAdd, slotAddWithBias, slotHidden, type Slot } from '../kernels/slot.ts'
import type { Graph, SlotGroup, Value } from './graph/graph.ts'
import { cast, gemm, reshape, slice } from './graph/ops.ts'
import { once } from './graph/sizes.ts'
import type { Weights } from './graph/weights.ts'

// A matrix of weights in whichever form the table of tensors holds it: floats, codes of 4 or 8 bits, or columns of bytes.

/**
 * A weight in the type that the graph computes in; ONNX Runtime folds the Cast away when it loads the graph. Where the
 * module is live it is an input of the graph, [shape], by the name of the tensor.
 */
export function weight(
  graph: Graph,
  w: Weights,
  name: string,
  shape: readonly number[],
  dims?: readonly number[],
  rows?: readonly [number, number],
  type = graph.computeType,
): Value {
  if (!isLive(graph, w)) return cast(graph.weight(w, name, shape, dims, rows), type)
  const whole = cast(graph.inputOnce(w.nameOf(name), 'f32', shape), type)
  const shaped = dims && dims.join() !== shape.join() ? reshape(whole, dims) : whole
  return rows ? slice(shaped, 0, ...rows) : shaped
}

/** Whether the module's weights are the graph's inputs, whatever form the table holds them in. */
export const isLive = (graph: Graph, w: Weights): boolean => graph.live.has(w.path)

export type StoredForm = 'floats' | 'q4' | 'q8' | 'columns'

/** How the matrix at `w` is stored. */
export function storedForm(w: Weights): StoredForm {
  if (w.has('weight.columns')) return 'columns'
  if (w.has('weight.q4')) return 'q4'
  return w.has('weight.q8') ? 'q8' : 'floats'
}

export type MatrixOptions = {
  out: number
  bias: boolean
  /** The shape in which a matrix of floats is stored; [out, in] when left out. */
  shape?: readonly number[]
  /** These outputs only, of `out` in all. */
  rows?: readonly [number, number]
  /** Where columns of bytes lie when they are not at the layer's own path: those of `rows`, bias included. */
  columns?: Weights
  /** Columns of bytes: one scale for all of x (from a norm: tokens alike) instead of one for each row. */
  per?: 'tensor' | 'token'
}

/**
 * The matrix at `w` over k inputs as a function of rows: x [m, k] -> x · Wᵀ + bias [m, out], plus the low-rank branch that
 * is stored beside it and the adapters in its slot. Its weights are in the graph once, however often it is called.
 */
export function matrix(graph: Graph, w: Weights, k: number, options: MatrixOptions): (x: Value) => Value {
  const { out, rows, bias } = options
  const isBytes = !isLive(graph, w) && storedForm(options.columns ?? w) === 'columns'
  const slot = slotOf(graph, w.path, k, out, isBytes)
  const isPerToken = isBytes && options.per !== 'tensor'
  const hasBiasInSlot = slot && isPerToken && bias
  const main = mainMatrix(graph, w, k, hasBiasInSlot ? { ...options, bias: false } : options)
  const branch = isLive(graph, w) ? undefined : storedBranch(graph, w, k, options)
  const withBranch = branch ? (x: Value) => lowRank(x, branch.down, branch.up, main(x), w.path) : main
  if (!slot) return withBranch
  const part = rows ? { ...slot, up: slice(slot.up, 1, ...rows) } : slot
  // Halves of one layer read the same rows.
  const hidden = (x: Value) => once(graph, `slot ${w.path} ${x.name}`, () => slotHidden(x, slot, options.per, w.path))
  if (!hasBiasInSlot) return (x) => slotAdd(hidden(x), part, withBranch(x), w.path)
  const shift = weight(graph, w, 'bias', [out])
  return (x) => slotAddWithBias(hidden(x), part, withBranch(x), shift, onesFor(x), w.path)
}

function mainMatrix(graph: Graph, w: Weights, k: number, options: MatrixOptions): (x: Value) => Value {
  const { out, rows, shape = [out, k], per = 'token', columns = w } = options
  const n = rows ? rows[1] - rows[0] : out
  const name = w.path
  const live = isLive(graph, w)
  if (!live && storedForm(columns) === 'columns') {
    const bytes = columnsOf(graph, columns, k, n)
    const bias = options.bias ? weight(graph, columns, 'bias', [n]) : undefined
    return (x) => linearInt8(x, bytes, bias, { per, name })
  }
  const bias = options.bias ? weight(graph, w, 'bias', [out], undefined, rows) : undefined
  const form = live ? 'floats' : storedForm(w)
  if (form === 'q4' || form === 'q8') {
    const bits = form === 'q4' ? 4 : 8
    const [, groups, bytes] = w.tensor(`weight.${form}`).shape
    const codes = graph.weight(w, `weight.${form}`, [out, groups, bytes], undefined, rows)
    const scales = graph.weight(w, 'weight.scales', [out, groups], undefined, rows)
    return (x) => linearNBits(x, { codes, scales, bits, group: (bytes * 8) / bits, k, n }, bias, name)
  }
  const floats = weight(graph, w, 'weight', shape, [out, k], rows)
  return (x) => gemm(x, floats, bias, { transB: true, name })
}

/** Factors of the low-rank branch in the file: down [r, k] and up [n, r], or only some rows of it. */
function storedBranch(graph: Graph, w: Weights, k: number, { out, rows }: MatrixOptions) {
  if (!w.has('weight.down')) return undefined
  const rank = w.tensor('weight.down').shape[0]
  return {
    down: graph.weight(w, 'weight.down', [rank, k]),
    up: graph.weight(w, 'weight.up', [out, rank], undefined, rows),
  }
}

/** Columns of bytes [k, n] and their scales. */
export function columnsOf(graph: Graph, w: Weights, k: number, n: number): { columns: Value; scales: Value } {
  return { columns: graph.weight(w, 'weight.columns', [k, n]), scales: graph.weight(w, 'weight.column_scales', [n]) }
}

/** The group of layers that the one at `path` belongs to; norms have none, for they are no products. */
export function slotGroupOf(path: string): SlotGroup {
  if (/\battn\d\.|\bself_attn\./.test(path)) return 'attention'
  if (/\b(time_embedding|time_emb_proj|add_embedding)\b/.test(path)) return 'time'
  return /\.ff\.|\.proj_in$|\.proj_out$|\.mlp\.|^text_projection$/.test(path) ? 'mlp' : 'conv'
}

/**
 * The graph's inputs for adapters of the layer at `path`, where it has a slot: k inputs, n outputs. A layer over bytes takes
 * `down` as bytes, too: columns i8 [k, r] and their `down_scales` [r], which the engine makes of floats.
 */
export function slotOf(graph: Graph, path: string, k: number, n: number, isBytes = false): Slot | undefined {
  if (!graph.slots?.groups.has(slotGroupOf(path))) return undefined
  const factor = (name: string, shape: (number | null)[]) =>
    cast(graph.inputOnce(`${path}.${name}`, 'f32', shape), graph.computeType)
  const columns = isBytes && {
    columns: graph.inputOnce(`${path}.down`, 'i8', [k, null]),
    scales: graph.inputOnce(`${path}.down_scales`, 'f32', [null]),
  }
  return {
    down: columns || factor('down', [null, k]),
    up: factor('up', [null, n]),
    scale: factor('scale', [null, null]),
    mixed: graph.slots.mixed ?? false,
  }
}
