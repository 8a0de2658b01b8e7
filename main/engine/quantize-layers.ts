import type { Graph, Layer } from '../../models/graph/graph.ts'
import type { MatMul } from '../../models/quantize/algebra.ts'
import type { QuantizedFile } from '../../models/quantize/file.ts'
import type { LayerErrors, LinearWeights } from '../../models/quantize/layer.ts'
import { quantizeGroup } from '../../models/quantize/layer.ts'
import type { LayerPlan, QuantizeStep } from '../../models/quantize/policy.ts'
import type { WorkFolder } from '../../models/checkpoint/work-folder.ts'
import type { TensorTable } from '../../models/graph/weights.ts'
import { floatToHalf } from '../../models/graph/half.ts'
import { openPieces, type Inputs } from './quantize-pieces.ts'
import type { QuantizeSettings } from './quantize-plan.ts'
import { collectSamples, type SampleCollector } from './quantize-samples.ts'
import type { WeightReader } from './quantize-source.ts'

/** What is remembered of a step that is done: hashes of its tensors, and how well its layers came out. */
export type StepRecord = { digests: Record<string, string>; errors: Record<string, LayerErrors> }

export type LayersOptions = {
  steps: readonly QuantizeStep[]
  settings: Pick<QuantizeSettings, 'smooth' | 'gptq'>
  /** Places of the source's tensors. */
  tensors: TensorTable
  weights: WeightReader
  file: QuantizedFile
  work: WorkFolder
  matMul: MatMul
  signal?: AbortSignal
  /** A step is done (or was, by an earlier run). */
  onStep(step: QuantizeStep, record: StepRecord): void
}

const recordName = ({ layers }: QuantizeStep) => `layer ${layers[0].path}`

/** Steps that an interrupted run has done and whose tensors are in the file. */
export function finishedStep({ file, work }: Pick<LayersOptions, 'file' | 'work'>, step: QuantizeStep) {
  return file.isFresh ? undefined : (work.finished(recordName(step)) as StepRecord | undefined)
}

/** Quantises every layer by its weights alone. */
export async function quantizeBlindly(options: LayersOptions): Promise<void> {
  const quantize = stepQuantizer(options)
  for (const step of options.steps) {
    options.signal?.throwIfAborted()
    await quantize(step, undefined)
  }
}

export type CalibratedOptions = LayersOptions & {
  /** The network as it is, over the weight files in `folder`. */
  graph: Graph
  /** Inputs of the network, a row each. */
  rows: readonly Inputs[]
  folder: string
  threads: number
  onPiece?(fraction: number): void
}

/** Most that samples of the layers of one piece may take, and its weights as they are stored. */
const pieceSampleBytes = 160e6
const pieceWeightBytes = 110e6
/** Rows that are sampled for one layer: fewer of long ones, up to 64 MB. */
const mostRows = 2048
const layerSampleBytes = 64e6
const leastRows = 384

const rowsFor = (k: number) => Math.max(leastRows, Math.min(mostRows, Math.floor(layerSampleBytes / (4 * k))))

/**
 * Quantises every layer on what it reads when the network runs on `rows`: piece by piece, each piece first run with its
 * weights as they are, then closed, then quantised.
 */
export async function quantizeCalibrated(options: CalibratedOptions): Promise<void> {
  const { graph, rows, steps, folder, threads, signal, tensors, onPiece } = options
  const quantize = stepQuantizer(options)
  const open = steps.filter((step) => finishedStep(options, step) === undefined)
  for (const step of steps) if (!open.includes(step)) await quantize(step, undefined)

  const layerOf = new Map(graph.layers.map((layer) => [layer.path, layer]))
  const stepOf = new Map(open.flatMap((step) => step.layers.map(({ path }) => [path, step] as const)))
  /** The layer whose input stands for that of the whole step. */
  const readers = new Map<string, QuantizeStep>(open.map((step) => [step.layers[0].path, step]))
  const exposed = [...readers.keys()].map((path) => knownLayer(layerOf, path).input.name)
  const collectors = new Map<string, SampleCollector>()

  const pieces = openPieces(graph, {
    folder,
    threads,
    signal,
    exposed,
    cuts: pieceCuts(graph, (layer) => {
      const plan = stepOf.get(layer.path)?.layers.find(({ path }) => path === layer.path)
      const isReader = readers.has(layer.path)
      return {
        weights: tensors.get(`${layer.path}.weight`)?.length ?? 0,
        samples: plan && isReader ? 4 * plan.k * rowsFor(plan.k) : 0,
      }
    }),
  })
  try {
    await pieces.run(rows, [], {
      onProgress: onPiece,
      onRow(piece, _row, valueOf) {
        for (const layer of piece.layers) {
          const step = readers.get(layer.path)
          if (!step) continue
          const { k } = step.layers[0]
          const known = collectors.get(layer.path)
          const collector = known ?? collectSamples(layer, k, Math.ceil(rowsFor(k) / rows.length), rows.length)
          if (!known) collectors.set(layer.path, collector)
          collector.add(valueOf(layer.input.name))
        }
      },
      async afterPiece(piece) {
        const paths = new Set(piece.layers.map(({ path }) => path))
        for (const step of open.filter(({ layers }) => paths.has(layers[0].path))) {
          signal?.throwIfAborted()
          const { path } = step.layers[0]
          const samples = collectors.get(path)?.finish()
          collectors.delete(path)
          await quantize(step, samples)
        }
      },
    })
  } finally {
    await pieces.release()
  }
}

function knownLayer(layers: ReadonlyMap<string, Layer>, path: string): Layer {
  const layer = layers.get(path)
  if (!layer) throw new Error(`${path}: the network has no such layer`)
  return layer
}

/** Cuts at ends of blocks, as late as weights and samples of the layers in between allow. */
function pieceCuts(graph: Graph, costOf: (layer: Layer) => { weights: number; samples: number }): number[] {
  const cuts: number[] = []
  let [weights, samples, from] = [0, 0, 0]
  for (const end of [...new Set([...graph.blockEnds, graph.nodes.length])].sort((a, b) => a - b)) {
    const costs = graph.layers.filter(({ node }) => node >= from && node < end).map(costOf)
    const more = {
      weights: costs.reduce((sum, cost) => sum + cost.weights, 0),
      samples: costs.reduce((sum, cost) => sum + cost.samples, 0),
    }
    const isFull = weights + more.weights > pieceWeightBytes || samples + more.samples > pieceSampleBytes
    if (isFull && from > 0) {
      cuts.push(from)
      ;[weights, samples] = [0, 0]
    }
    weights += more.weights
    samples += more.samples
    from = end
  }
  return cuts
}

/** Does one step after the other: weights in, tensors of the 4-bit file out. Steps must come in the policy's order within a block. */
function stepQuantizer(options: LayersOptions) {
  const { settings, weights, file, work, matMul, tensors, onStep } = options
  /** What the outputs of a layer are multiplied with, because its reader divides by it. */
  const outputScales = new Map<string, Float32Array>()

  /** 1 / λ for the first rows of the layer that makes the input of `step`, 1 for the others. */
  function noteOutputScale(step: QuantizeStep, inputScale: Float32Array): void {
    const { smoother } = step
    if (!smoother || !('layer' in smoother)) return
    const n = planOf(options.steps, smoother.layer).n
    const scale = new Float32Array(n).fill(1)
    for (let i = 0; i < smoother.rows; i++) scale[i] = 1 / inputScale[i]
    outputScales.set(smoother.layer, scale)
  }

  return async (step: QuantizeStep, samples: Float32Array | undefined): Promise<void> => {
    const isScaled = settings.smooth && step.smoother !== undefined
    const done = finishedStep(options, step)
    if (done) {
      const bytes = isScaled ? await file.read(`${step.layers[0].path}.weight.input_scale`) : undefined
      if (bytes) noteOutputScale(step, new Float32Array(bytes.buffer))
      onStep(step, done)
      return
    }

    const [{ k, bits, group, rank, taps }] = step.layers
    const layers: LinearWeights[] = []
    for (const plan of step.layers) {
      const values = await weights.matrix(plan)
      const scale = outputScales.get(plan.path)
      if (scale) multiplyRows(values, plan.k, scale)
      layers.push({ path: plan.path, n: plan.n, k: plan.k, values })
    }
    const result = await quantizeGroup(layers, samples, {
      bits,
      group,
      rank,
      taps,
      activations: step.activations,
      smooth: isScaled && samples !== undefined,
      gptq: settings.gptq && bits === 4 && samples !== undefined,
      matMul,
    })

    const record: StepRecord = { digests: {}, errors: {} }
    const write = async (name: string, data: Uint8Array | Uint16Array | Float32Array) => {
      record.digests[name] = await file.write(name, data)
    }
    const inputScale = isScaled ? (result.inputScale ?? new Float32Array(k).fill(1)) : undefined
    for (const layer of result.layers) {
      const { path } = layer
      record.errors[path] = layer.errors
      await write(`${path}.weight.q${bits}`, layer.codes)
      await write(`${path}.weight.scales`, layer.scales)
      if (layer.down) await write(`${path}.weight.down`, layer.down)
      if (layer.up) await write(`${path}.weight.up`, layer.up)
      if (inputScale) await write(`${path}.weight.input_scale`, inputScale)
      const outputScale = outputScales.get(path)
      if (outputScale) await write(`${path}.weight.output_scale`, outputScale)
      const bias = `${path}.bias`
      if (tensors.has(bias)) await write(bias, await scaledBias(bias, outputScale))
      outputScales.delete(path)
    }
    if (inputScale && step.smoother) {
      noteOutputScale(step, inputScale)
      if ('norm' in step.smoother) {
        for (const part of ['weight', 'bias']) {
          const name = `${step.smoother.norm}.${part}`
          const values = await weights.floats(name)
          await write(
            name,
            values.map((value, i) => value / inputScale[i]),
          )
        }
      }
    }
    await file.sync()
    await work.record({ step: recordName(step), value: record })
    onStep(step, record)
  }

  /** In the type it has in the source. */
  async function scaledBias(name: string, scale: Float32Array | undefined) {
    if (!scale) return weights.bytes(name)
    const values = (await weights.floats(name)).map((value, i) => value * scale[i])
    return tensors.get(name)?.dtype === 'F16' ? Uint16Array.from(values, floatToHalf) : values
  }
}

function planOf(steps: readonly QuantizeStep[], path: string): LayerPlan {
  for (const { layers } of steps) {
    const plan = layers.find((layer) => layer.path === path)
    if (plan) return plan
  }
  throw new Error(`${path}: no such layer`)
}

function multiplyRows(values: Float32Array, k: number, scale: Float32Array): void {
  for (let row = 0; row < scale.length; row++) {
    if (scale[row] === 1) continue
    for (let i = row * k; i < (row + 1) * k; i++) values[i] *= scale[row]
  }
}
