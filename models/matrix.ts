import { linearInt8 } from '../kernels/linear-int8.ts'
import { linearNBits } from '../kernels/linear-nbits.ts'
import { lowRank } from '../kernels/low-rank.ts'
import type { Graph, Value } from './graph/graph.ts'
import { cast, gemm, slice } from './graph/ops.ts'
import type { Weights } from './graph/weights.ts'

// A matrix of weights in whichever form the table of tensors holds it: floats, codes of 4 or 8 bits, or columns of bytes.

/** A weight in the type that the graph computes in; ONNX Runtime folds the Cast away when it loads the graph. */
export function weight(
  graph: Graph,
  w: Weights,
  name: string,
  shape: readonly number[],
  dims?: readonly number[],
  rows?: readonly [number, number],
): Value {
  return cast(graph.weight(w, name, shape, dims, rows), graph.computeType)
}

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
  /** Whether adapters may enter here: see `GraphOptions.slots`. */
  hasSlot?: boolean
}

/**
 * The matrix at `w` over k inputs as a function of rows: x [m, k] -> x · Wᵀ + bias [m, out], plus the low-rank branch that
 * is stored beside it or enters by a slot. Its weights are in the graph once, however often it is called.
 */
export function matrix(graph: Graph, w: Weights, k: number, options: MatrixOptions): (x: Value) => Value {
  const { out, rows, hasSlot = false } = options
  const main = mainMatrix(graph, w, k, options)
  const branch = graph.slots && hasSlot ? slotOf(graph, w.path, k, out) : storedBranch(graph, w, k, out)
  if (!branch) return main
  const { down, up } = branch
  const factor = up(rows)
  return (x) => lowRank(x, down, factor, main(x), w.path)
}

function mainMatrix(graph: Graph, w: Weights, k: number, options: MatrixOptions): (x: Value) => Value {
  const { out, rows, shape = [out, k], per = 'token', columns = w } = options
  const n = rows ? rows[1] - rows[0] : out
  const name = w.path
  if (storedForm(columns) === 'columns') {
    const bytes = columnsOf(graph, columns, k, n)
    const bias = options.bias ? weight(graph, columns, 'bias', [n]) : undefined
    return (x) => linearInt8(x, bytes, bias, { per, name })
  }
  const bias = options.bias ? weight(graph, w, 'bias', [out], undefined, rows) : undefined
  const form = storedForm(w)
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

/** Factors of a low-rank branch: down [r, k] and up [n, r], or only some rows of it. */
type Factors = { down: Value; up: (rows?: readonly [number, number]) => Value }

function storedBranch(graph: Graph, w: Weights, k: number, n: number): Factors | undefined {
  if (!w.has('weight.down')) return undefined
  const rank = w.tensor('weight.down').shape[0]
  return {
    down: graph.weight(w, 'weight.down', [rank, k]),
    up: (rows) => graph.weight(w, 'weight.up', [n, rank], undefined, rows),
  }
}

/** Columns of bytes [k, n] and their scales. */
export function columnsOf(graph: Graph, w: Weights, k: number, n: number): { columns: Value; scales: Value } {
  return { columns: graph.weight(w, 'weight.columns', [k, n]), scales: graph.weight(w, 'weight.column_scales', [n]) }
}

/** The graph's inputs for adapters of the layer at `path`: down [r, k] and up [n, r] with any rank r, 0 included. */
function slotOf(graph: Graph, path: string, k: number, n: number): Factors {
  const known = (name: string, shape: (number | null)[]) =>
    graph.inputs.find((input) => input.name === name) ?? graph.input(name, 'f32', shape)
  const down = cast(known(`${path}.down`, [null, k]), graph.computeType)
  const up = cast(known(`${path}.up`, [n, null]), graph.computeType)
  return { down, up: (rows) => (rows ? slice(up, 0, ...rows) : up) }
}
