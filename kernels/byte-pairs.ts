import { Graph } from '../models/graph/graph.ts'
import { linearInt8 } from './linear-int8.ts'

// x64 processors without VNNI (before about 2019, AMD before Zen 4) multiply unsigned by signed bytes with an instruction
// that adds two products in 16 bits and cuts off what does not fit: 255 · 127 + 255 · 127 becomes 32767. ONNX Runtime's
// way around (session.x64quantprecision) turns all weights into unsigned ones when it loads them, and fails in 1.30 where
// two products share their weights. Weights of 7 bits need neither.

const [m, k, n] = [8, 64, 16]
const exact = k * 255 * 127

/** A graph x [8, 64] -> y [8, 16] over the largest bytes there are, and what to feed it. */
export function bytePairsProbe(): { graph: Graph; x: Float32Array; dims: readonly [number, number] } {
  const graph = new Graph('byte-pairs', { dialect: 'cpu' })
  const columns = graph.constant('i8', [k, n], new Array<number>(k * n).fill(127))
  const weights = { columns, scales: graph.constant('f32', [n], new Array<number>(n).fill(1)) }
  const product = linearInt8(graph.input('x', 'f32', [m, k]), weights, undefined, { per: 'tensor', name: 'probe' })
  graph.output('y', product)
  return { graph, x: new Float32Array(m * k).fill(255), dims: [m, k] }
}

/** The range of codes (see columns.ts) whose products this processor adds exactly, by what the probe gave for y. */
export function columnRange(y: ArrayLike<number>): 127 | 63 {
  return Array.from(y).every((sum) => sum === exact) ? 127 : 63
}
