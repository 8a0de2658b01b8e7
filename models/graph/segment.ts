import type { Initializer, Layer, Node, Value } from './graph.ts'
import { Graph } from './graph.ts'

// A network larger than the memory runs piece by piece: each piece is a graph of its own with few of the weights.

/**
 * Cuts a graph before the nodes `starts` (ascending; 0 is understood) into graphs that run one after the other. A value
 * that one makes and a later one reads is an output of the first and an input of the second by its own name; so are the
 * inner values `exposed`, as outputs of the graph that makes them. Weights lie where they lay; a constant used on both
 * sides of a cut is in both graphs.
 */
export function segmentsOf(graph: Graph, starts: readonly number[], exposed: Iterable<string> = []): Graph[] {
  const bounds = [...new Set([0, ...starts, graph.nodes.length])].sort((a, b) => a - b)
  if (bounds[0] < 0 || bounds.at(-1) !== graph.nodes.length) throw new Error(`${graph.name}: a cut outside the graph`)
  const initializers = new Map(graph.initializers.map((initializer) => [initializer.name, initializer]))
  const ranges = bounds.slice(1).map((end, i) => ({ start: bounds[i], end, nodes: graph.nodes.slice(bounds[i], end) }))

  const wanted = new Set([...exposed, ...graph.outputs.map(({ name }) => name)])
  const segments: Graph[] = []
  for (const { start, end, nodes } of ranges.reverse()) {
    const layers = graph.layers.filter(({ node }) => node >= start && node < end)
    const segment = segmentOf(graph, `${graph.name}.${start}`, nodes, initializers, wanted)
    for (const layer of layers) segment.layers.push(moved(layer, segment, start))
    for (const at of graph.blockEnds) if (at > start && at <= end) segment.blockEnds.push(at - start)
    for (const { name } of segment.inputs) wanted.add(name)
    segments.unshift(segment)
  }
  return segments
}

/** `wanted`: what later graphs, or the caller, read. */
function segmentOf(
  graph: Graph,
  name: string,
  nodes: Node[],
  initializers: ReadonlyMap<string, Initializer>,
  wanted: ReadonlySet<string>,
): Graph {
  const segment = new Graph(name, graph.options)
  const home = (value: Value) => segment.value(value.name, value.type, value.shape)
  const known = (valueName: string): Value => {
    const value = graph.values.get(valueName)
    if (!value) throw new Error(`${graph.name}: nothing makes "${valueName}"`)
    return value
  }
  const made = new Set(nodes.flatMap(({ outputs }) => outputs))
  const read = new Set(nodes.flatMap(({ inputs }) => inputs).filter((input) => input !== ''))
  for (const input of read) {
    if (made.has(input)) continue
    const initializer = initializers.get(input)
    if (initializer) segment.initializers.push(initializer)
    else segment.inputs.push(home(known(input)))
    if (initializer) home(known(input))
  }
  segment.nodes.push(...nodes)
  for (const output of made) {
    const value = home(known(output))
    if (wanted.has(output)) segment.outputs.push(value)
  }
  return segment
}

/** The layer as one of `segment`, whose first node was number `start`. Its input may come from an earlier graph. */
function moved(layer: Layer, segment: Graph, start: number): Layer {
  const { name, type, shape } = layer.input
  const input = segment.values.get(name) ?? segment.value(name, type, shape)
  return { ...layer, input, node: layer.node - start }
}

/**
 * Where to cut so that each part holds at most `maxBytes` of weights: at the ends of blocks, as late as possible. A block
 * that is larger than that is a part by itself.
 */
export function cutsBetweenBlocks(graph: Graph, maxBytes: number): number[] {
  const lengths = new Map(graph.initializers.map((item) => [item.name, 'bytes' in item ? 0 : item.length]))
  const bytesOf = (from: number, to: number) => {
    const used = new Set(graph.nodes.slice(from, to).flatMap(({ inputs }) => inputs))
    return [...used].reduce((sum, name) => sum + (lengths.get(name) ?? 0), 0)
  }
  const cuts: number[] = []
  let start = 0
  let last = 0
  for (const end of [...graph.blockEnds, graph.nodes.length]) {
    if (end <= last) continue
    if (last > start && bytesOf(start, end) > maxBytes) {
      cuts.push(last)
      start = last
    }
    last = end
  }
  return cuts
}
