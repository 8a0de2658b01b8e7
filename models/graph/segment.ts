import type { Initializer, Layer, Node, Value } from './graph.ts'
import { Graph } from './graph.ts'

// A network larger than the memory runs piece by piece: each piece is a graph of its own with few of the weights.

/**
 * Cuts a graph before the nodes `starts` (ascending; 0 is understood) into graphs that run one after the other. A value
 * that one makes and a later one reads is an output of the first and an input of the second by its own name; so are the
 * inner values `exposed`, as outputs of the graph that makes them. Weights lie where they lay; a constant used on both
 * sides of a cut is in both graphs, and so are the few nodes that work out sizes: only numbers go from graph to graph.
 */
export function segmentsOf(graph: Graph, starts: readonly number[], exposed: Iterable<string> = []): Graph[] {
  const bounds = [...new Set([0, ...starts, graph.nodes.length])].sort((a, b) => a - b)
  if (bounds[0] < 0 || bounds.at(-1) !== graph.nodes.length) throw new Error(`${graph.name}: a cut outside the graph`)
  const initializers = new Map(graph.initializers.map((initializer) => [initializer.name, initializer]))
  const makers = new Map(graph.nodes.flatMap((node, i) => node.outputs.map((output) => [output, i])))
  const ranges = bounds.slice(1).map((end, i) => ({ start: bounds[i], end, nodes: graph.nodes.slice(bounds[i], end) }))

  const wanted = new Set([...exposed, ...graph.outputs.map(({ name }) => name)])
  const segments: Graph[] = []
  for (const { start, end, nodes } of ranges.reverse()) {
    const layers = graph.layers.filter(({ node }) => node >= start && node < end)
    const sizes = sizeNodesFor(graph, nodes, start, makers)
    const first = start - sizes.length // the number in the graph that the segment's first node would have
    const segment = segmentOf(graph, `${graph.name}.${start}`, [...sizes, ...nodes], initializers, wanted)
    for (const layer of layers) segment.layers.push(moved(layer, segment, first))
    for (const at of graph.blockEnds) if (at > start && at <= end) segment.blockEnds.push(at - first)
    for (const { name } of segment.inputs) wanted.add(name)
    segments.unshift(segment)
  }
  return segments
}

/** The nodes before `start` that work out the sizes which `nodes` read, in their order. */
function sizeNodesFor(
  graph: Graph,
  nodes: readonly Node[],
  start: number,
  makers: ReadonlyMap<string, number>,
): Node[] {
  const found = new Set<number>()
  const open = [...nodes]
  for (let node = open.pop(); node; node = open.pop()) {
    for (const input of node.inputs) {
      const maker = makers.get(input)
      if (maker === undefined || maker >= start || found.has(maker) || graph.values.get(input)?.type !== 'i64') continue
      found.add(maker)
      open.push(graph.nodes[maker])
    }
  }
  return [...found].sort((a, b) => a - b).map((index) => graph.nodes[index])
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

/** The layer as one of `segment`, whose first node was or would have been number `start`. Its input may come from an earlier graph. */
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
