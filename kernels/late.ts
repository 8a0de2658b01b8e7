import type { ElementType, Graph, Value } from '../models/graph/graph.ts'
import { cast, expandTo, mul, shapeOf } from '../models/graph/ops.ts'
import { once } from './once.ts'

// ONNX Runtime orders nodes by their inputs alone: what needs constants only, such as a Cast of halves to floats, may run
// before everything else, for all layers at once, and its results lie in memory until their layers come (0.5 bits for each
// weight for scales of groups of 64, measured). So on the CPU such nodes get an input that depends on the activations.

/** An empty i64 vector that is there once `x` is. */
const emptyOf = once((x) => shapeOf(x, 0, 0))

/** [0] as i64, once `x` is there. */
export const zeroOf = once((x) => mul(shapeOf(x, 0, 1), x.graph.constant('i64', [1], [0])))

const casts = new WeakMap<Graph, Map<string, Value>>()

/**
 * A weight in another type, cast when `x` is there; the same value for each later layer. `x` must have a first size that
 * only the run knows: otherwise the runtime folds the cast when it loads, and the weight takes the memory of floats.
 */
export function castLate(weight: Value, x: Value, type: ElementType): Value {
  const { graph } = x
  if (weight.type === type || graph.dialect !== 'cpu') return cast(weight, type)
  const known = casts.get(graph) ?? new Map<string, Value>()
  casts.set(graph, known)
  // Expanding to no sizes at all leaves them as they are.
  const found = known.get(weight.name) ?? cast(expandTo(weight, emptyOf(x), weight.shape), type)
  known.set(weight.name, found)
  return found
}
