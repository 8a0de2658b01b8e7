import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Tensor } from 'onnxruntime-node'
import { InferenceSession } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Graph } from '../../../models/graph/graph.ts'
import { toOnnx } from '../../../models/graph/onnx.ts'
import { cutsBetweenBlocks, segmentsOf } from '../../../models/graph/segment.ts'
import { Weights } from '../../../models/graph/weights.ts'
import type { UnetConfig } from '../../../models/unet.ts'
import { buildUnet } from '../../../models/unet.ts'
import { configOf, feedsOf, readCases, storeWeights } from '../../golden/networks-cases.ts'

// A network run whole and in pieces, on the real runtime without its own rearrangements: the same operators in the same
// order must give the same bytes.

const item = readCases().find(({ part, name }) => part === 'unet' && name.includes('sdxl'))!
const run = item.runs[0]

let folder: string
let graph: Graph
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-segments-'))
  graph = buildUnet(new Weights(storeWeights(folder, item, 'fp32')), configOf(item) as UnetConfig, { dialect: 'cpu' })
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

async function evaluate(piece: Graph, feeds: Record<string, Tensor>): Promise<Record<string, Tensor>> {
  const path = join(folder, `${piece.name}.onnx`)
  writeFileSync(path, toOnnx(piece))
  const session = await InferenceSession.create(path, { graphOptimizationLevel: 'disabled', intraOpNumThreads: 1 })
  const inputs = Object.fromEntries(piece.inputs.map(({ name }) => [name, feeds[name]]))
  const outputs = await session.run(inputs)
  await session.release()
  return outputs as Record<string, Tensor>
}

async function evaluateAll(pieces: readonly Graph[]): Promise<Record<string, Tensor>> {
  const values: Record<string, Tensor> = feedsOf(run)
  for (const piece of pieces) Object.assign(values, await evaluate(piece, values))
  return values
}

const weightBytes = (piece: Graph) =>
  piece.initializers.reduce((sum, item) => sum + ('bytes' in item ? 0 : item.length), 0)

describe('segmentsOf', () => {
  it('gives the same bytes as the whole, cut after every block', async () => {
    const whole = await evaluate(graph, feedsOf(run))
    const pieces = segmentsOf(graph, cutsBetweenBlocks(graph, 0))
    expect(pieces.length).toBeGreaterThan(10)
    const { out_sample: out } = await evaluateAll(pieces)
    expect(out.dims).toEqual(whole.out_sample.dims)
    expect(out.data).toEqual(whole.out_sample.data)
  })

  it('gives the same bytes when cut in the middle of blocks', async () => {
    const whole = await evaluate(graph, feedsOf(run))
    const starts = Array.from({ length: 9 }, (_, i) => Math.floor(((i + 1) * graph.nodes.length) / 10))
    const { out_sample: out } = await evaluateAll(segmentsOf(graph, starts))
    expect(out.data).toEqual(whole.out_sample.data)
  })

  it('hands every layer to one piece and shows what it reads', async () => {
    const inputs = graph.layers.map(({ input }) => input.name)
    const pieces = segmentsOf(graph, cutsBetweenBlocks(graph, 1e5), inputs)
    expect(pieces.flatMap(({ layers }) => layers.map(({ path }) => path))).toEqual(graph.layers.map(({ path }) => path))
    const values = await evaluateAll(pieces)
    for (const layer of pieces.flatMap(({ layers }) => layers)) {
      const { dims } = values[layer.input.name]
      const known = layer.input.shape
      expect(dims.length, layer.path).toBe(known.length)
      known.forEach((dim, axis) => typeof dim === 'number' && expect(dims[axis], layer.path).toBe(dim))
    }
  })

  it('refuses a cut outside the graph', () => {
    expect(() => segmentsOf(graph, [graph.nodes.length + 1])).toThrow('outside')
  })
})

describe('cutsBetweenBlocks', () => {
  it('keeps the parts within the limit unless one block alone is larger', () => {
    const largest = Math.max(...segmentsOf(graph, cutsBetweenBlocks(graph, 0)).map(weightBytes))
    const limit = Math.round(1.5 * largest)
    const pieces = segmentsOf(graph, cutsBetweenBlocks(graph, limit))
    expect(pieces.length).toBeGreaterThan(2)
    for (const piece of pieces) expect(weightBytes(piece)).toBeLessThanOrEqual(limit)
    const total = pieces.reduce((sum, piece) => sum + weightBytes(piece), 0)
    expect(total).toBe(weightBytes(graph))
  })

  it('cuts nowhere when all fits', () => {
    expect(cutsBetweenBlocks(graph, Infinity)).toEqual([])
  })
})
