import type { Part } from '../../models/build.ts'
import { buildClip } from '../../models/clip.ts'
import type { Graph } from '../../models/graph/graph.ts'
import { cutsBetweenBlocks } from '../../models/graph/segment.ts'
import { Weights } from '../../models/graph/weights.ts'
import type { ModelManifest, NetworkName } from '../../models/manifest.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { buildUnet } from '../../models/unet.ts'
import { encodePrompts } from '../pipeline/conditioning.ts'
import { createDenoiser } from '../pipeline/denoiser.ts'
import { startLatents } from '../pipeline/latents.ts'
import { normalNoise } from '../pipeline/rng.ts'
import { samplers } from '../pipeline/samplers.ts'
import { noiseLevels, sigmaSchedule } from '../pipeline/sigmas.ts'
import type { FloatTensor } from '../pipeline/tensor.ts'
import { createTokenizer } from '../pipeline/tokenizer.ts'
import type { Networks } from '../pipeline/types.ts'
import { openPieces, type Inputs, type Pieces } from './quantize-pieces.ts'
import { checkRequest, fillDefaults } from './request.ts'

// What a quantiser has to know of a network is what its layers read. So a few small pictures are begun for real, and the
// inputs of the drawing network are written down on the way, over all noise levels.

/** Drawn and photographed, near and far, day and night, figures and none; with the words people put after a minus. */
const prompts = [
  { prompt: 'a fox wearing a red scarf in a snowy forest at night, storybook style', negativePrompt: '' },
  {
    prompt: 'portrait photo of an old fisherman, wrinkles, soft window light, 85mm',
    negativePrompt: 'blurry, cartoon',
  },
  { prompt: 'a wide green valley with a river and mountains at sunrise, oil painting', negativePrompt: '' },
  { prompt: 'a busy street in the rain at night, neon signs, photograph', negativePrompt: 'low quality, bad hands' },
  { prompt: 'a girl reading a blue book in a cozy room, ink and watercolor', negativePrompt: '' },
  { prompt: 'a robot holding a yellow flower, flat colors, children book illustration', negativePrompt: 'photo' },
  { prompt: 'a bowl of strawberries on a white table, studio photo, sharp focus', negativePrompt: 'text, watermark' },
  { prompt: 'a castle on a cliff above the sea, pencil drawing, black and white', negativePrompt: '' },
]
/** A network with more weights than this follows the first four only: twenty evaluations come of it either way. */
const manyWeights = 1.5e9
const mostSteps = 5

export type Calibration = { side: number; steps: number; rows: Inputs[] }

export type CalibrationOptions = {
  manifest: ModelManifest
  parts: readonly Part[]
  /** Holds the weight files under the names that the parts give them; a place for passing files, too. */
  folder: string
  maxPieceBytes: number
  threads: number
  signal?: AbortSignal
  onProgress?: (fraction: number) => void
}

/** Inputs of the drawing network, one row each, from the course of a few pictures that are never finished. */
export async function recordCalibration(options: CalibrationOptions): Promise<Calibration> {
  const { manifest, onProgress } = options
  const side = calibrationSide(manifest)
  const request = fillDefaults(checkRequest({ ...prompts[0], width: side, height: side }), manifest, 0)
  const steps = Math.min(request.steps, mostSteps)
  const levels = noiseLevels(manifest.schedule)
  const sigmas = sigmaSchedule(request.schedule, levels, steps)
  const { channels, spatialFactor } = manifest.latents
  const shape = [1, channels, side / spatialFactor, side / spatialFactor]
  const size = shape.reduce((a, b) => a * b)
  const guided = request.guidanceScale > 1

  const rows = new Map<number, Inputs>() // by step, then picture
  const isLarge = weightsOf(options.parts) > manyWeights
  const count = isLarge ? 4 : prompts.length
  let done = 0 // steps that all pictures have behind them
  const networks = networksInStep(options, count, (part) => {
    onProgress?.((done + part) / steps)
    if (part === 1) done++
  })
  const tokenizer = createTokenizer(await readClipMerges())

  async function follow(index: number): Promise<void> {
    const { prompt, negativePrompt } = prompts[index]
    const pictures = [{ prompt, negativePrompt, guided }]
    const text = { pictures, clipSkip: request.clipSkip, width: side, height: side }
    const conditioning = await encodePrompts(networks, tokenizer, text)
    let step = 0
    const watched: Networks = {
      ...networks,
      async run(name, inputs, outputs) {
        // Of eight pictures every second evaluation, in turns; of every fourth picture the one for the negative prompt.
        const all = splitRows(inputs)
        if (isLarge || (step + index) % 2 === 0)
          rows.set(step * prompts.length + index, all[index % 4 === 3 ? 0 : all.length - 1])
        step++
        return networks.run(name, inputs, outputs)
      },
    }
    const noise = normalNoise(1000 + index)
    const denoise = createDenoiser(watched, {
      levels,
      conditioning,
      shape,
      guidanceScales: [request.guidanceScale],
      guidanceRescale: 0,
      rowsPerRun: 2,
    })
    const start = startLatents(noise(size), sigmas[0])
    for await (const taken of samplers[request.sampler](denoise, start, sigmas, { noise, levels })) void taken
  }

  try {
    await Promise.all(
      prompts.slice(0, count).map((_, index) =>
        follow(index).finally(() => {
          networks.leave()
        }),
      ),
    )
    return { side, steps, rows: [...rows].sort(([a], [b]) => a - b).map(([, row]) => row) }
  } finally {
    await networks.release()
  }
}

/** Small models as they are; larger ones at the smallest size at which they still draw something sensible. */
function calibrationSide({ nativeSize, latents }: ModelManifest): number {
  const native = Math.min(nativeSize.width, nativeSize.height)
  const side = native <= 256 ? native : native <= 512 ? 0.75 * native : 512
  const multiple = 8 * latents.spatialFactor
  return Math.max(multiple, Math.round(side / multiple) * multiple)
}

type Request = {
  name: NetworkName
  inputs: Inputs
  outputs: readonly string[]
  resolve(results: Record<string, FloatTensor>): void
  reject(error: unknown): void
}

/**
 * Networks for several pictures that are drawn in step: a run waits until all of them want one, so that each piece of a
 * large network is loaded once for all. `leave` says that one picture will want no more.
 */
function networksInStep(
  { manifest, parts, folder, maxPieceBytes, threads, signal }: CalibrationOptions,
  count: number,
  onUnetProgress: (fraction: number) => void,
) {
  let present = count
  let waiting: Request[] = []
  const open = new Map<NetworkName, Pieces>()

  async function piecesOf(name: NetworkName): Promise<Pieces> {
    const known = open.get(name)
    if (known) return known
    for (const other of open.values()) await other.release()
    open.clear()
    const graph = graphOf(parts, name)
    const pieces = openPieces(graph, { folder, cuts: cutsBetweenBlocks(graph, maxPieceBytes), threads, signal })
    open.set(name, pieces)
    return pieces
  }

  async function runAll(requests: readonly Request[]): Promise<void> {
    for (const name of new Set(requests.map((request) => request.name))) {
      const group = requests.filter((request) => request.name === name)
      try {
        const pieces = await piecesOf(name)
        const split = group.map(({ inputs }) => (name === 'unet' ? splitRows(inputs) : [inputs]))
        const watch = name === 'unet' ? { onProgress: onUnetProgress } : {}
        const results = await pieces.run(split.flat(), group[0].outputs, watch)
        for (const [i, request] of group.entries()) request.resolve(joinRows(results.splice(0, split[i].length)))
      } catch (error) {
        for (const request of group) request.reject(error)
      }
    }
  }

  const startWhenComplete = () => {
    if (waiting.length === 0 || waiting.length < present) return
    const requests = waiting
    waiting = []
    void runAll(requests)
  }

  return {
    manifest,
    has: (name: NetworkName) => manifest.networks.includes(name),
    run: (name: NetworkName, inputs: Inputs, outputs: readonly string[] = []) =>
      new Promise<Record<string, FloatTensor>>((resolve, reject) => {
        waiting.push({ name, inputs, outputs, resolve, reject })
        startWhenComplete()
      }),
    leave() {
      present--
      startWhenComplete()
    },
    async release() {
      for (const pieces of open.values()) await pieces.release()
    },
  }
}

function weightsOf(parts: readonly Part[]): number {
  const unet = parts.find(({ part }) => part === 'unet')
  return [...(unet?.tensors.values() ?? [])].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
}

/** The graph of a network as the processor runs it, over weights in `folder`s of its part. */
export function graphOf(parts: readonly Part[], name: NetworkName): Graph {
  const part = parts.find((each) => each.part === name)
  if (part?.part === 'unet') return buildUnet(new Weights(part.tensors), part.config, { dialect: 'cpu' })
  if (part?.part === 'text_encoder' || part?.part === 'text_encoder_2')
    return buildClip(part.part, new Weights(part.tensors), part.config, { dialect: 'cpu' })
  throw new Error(`no part "${name}" to calibrate with`)
}

/** n rows that were given together, one by one. */
function splitRows(inputs: Inputs): Inputs[] {
  const n = Object.values(inputs)[0].shape[0]
  return Array.from({ length: n }, (_, row) =>
    Object.fromEntries(
      Object.entries(inputs).map(([name, { data, shape }]) => {
        const size = data.length / n
        return [name, { data: data.slice(row * size, (row + 1) * size), shape: [1, ...shape.slice(1)] }] as const
      }),
    ),
  ) as Inputs[]
}

function joinRows(rows: readonly Record<string, FloatTensor>[]): Record<string, FloatTensor> {
  if (rows.length === 1) return rows[0]
  return Object.fromEntries(
    Object.keys(rows[0]).map((name) => {
      const parts = rows.map((row) => row[name])
      const data = new Float32Array(parts.reduce((sum, part) => sum + part.data.length, 0))
      let at = 0
      for (const part of parts) {
        data.set(part.data, at)
        at += part.data.length
      }
      return [name, { data, shape: [rows.length, ...parts[0].shape.slice(1)] }]
    }),
  )
}
