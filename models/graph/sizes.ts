import type { Dim, Graph, Value } from './graph.ts'
import { add, concat, div, mul, shapeOf } from './ops.ts'

// Sizes that only the run knows go by names: 'h' is an input's, 'h/2' half of it rounded up, 'n·h·w' a product. What is
// worked out of them is in a graph once, not once for each layer: ONNX Runtime's time to load a graph grows with the
// square of its number of values (SD 1.5's UNet for the fast mode: 3.0 instead of 3.9 CPU seconds).

const made = new WeakMap<Graph, Map<string, Value>>()

/** The value called `key` in this graph, made when it is first asked for. */
export function once(graph: Graph, key: string, make: () => Value): Value {
  const known = made.get(graph) ?? new Map<string, Value>()
  made.set(graph, known)
  const value = known.get(key) ?? make()
  known.set(key, value)
  return value
}

/** Half of a size, rounded up. */
export function halfOf(dim: Dim): Dim {
  if (dim === null) return null
  return typeof dim === 'number' ? Math.ceil(dim / 2) : `${dim}/2`
}

/** The number of rows that pictures [n, h, w, …] have as rows of pixels. */
export function productOf(dims: readonly Dim[]): Dim {
  if (dims.every((dim) => typeof dim === 'number')) return dims.reduce((product, dim) => product * dim, 1)
  return dims.every((dim) => dim !== null && !String(dim).includes('·')) ? dims.join('·') : null
}

/** One size of `x` as an i64 vector of one number. */
export function sizeOf(x: Value, axis: number): Value {
  const { graph } = x
  const dim = x.shape[axis]
  if (typeof dim === 'number') return graph.constant('i64', [1], [dim])
  if (dim === null) return shapeOf(x, axis, axis + 1)
  return once(graph, `size ${dim}`, () => named(x, axis, dim))
}

function named(x: Value, axis: number, name: string): Value {
  const { graph } = x
  const number = (value: number) => graph.constant('i64', [1], [value])
  const part = (dim: string): Value => {
    const own = /^\d+$/.test(dim) ? number(Number(dim)) : undefined
    return own ?? once(graph, `size ${dim}`, () => named(x, axis, dim))
  }
  if (name.includes('·')) return name.split('·').map(part).reduce(mul)
  if (name.endsWith('/2')) return div(add(part(name.slice(0, -2)), number(1)), number(2))
  const input = graph.inputs.find(({ shape }) => shape.includes(name))
  return input ? shapeOf(input, input.shape.indexOf(name), input.shape.indexOf(name) + 1) : shapeOf(x, axis, axis + 1)
}

/** The sizes of some axes of `x`, and then `last`, as an i64 vector: what `reshapeTo` wants. */
export function sizesOf(x: Value, axes: readonly number[], ...last: number[]): Value {
  const { graph } = x
  const make = () => {
    const own = axes.map((axis) => sizeOf(x, axis))
    return concat(last.length > 0 ? [...own, graph.constant('i64', [last.length], last)] : own, 0)
  }
  const dims = axes.map((axis) => x.shape[axis])
  return dims.includes(null) ? make() : once(graph, `sizes ${[...dims, ...last].join()}`, make)
}
