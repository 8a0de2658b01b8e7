import type { Graph, Value } from '../models/graph/graph.ts'

/** A function of values that makes its nodes once for each value in each graph, however often it is called. */
export function once<T>(make: (x: Value) => T): (x: Value) => T {
  const made = new WeakMap<Graph, Map<string, T>>()
  return (x) => {
    const ofGraph = made.get(x.graph) ?? new Map<string, T>()
    made.set(x.graph, ofGraph)
    const result = ofGraph.get(x.name) ?? make(x)
    ofGraph.set(x.name, result)
    return result
  }
}
