import { stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Part } from '../../models/build.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { workPath } from '../../models/checkpoint/work-folder.ts'
import { VignetteError } from '../../models/errors.ts'
import type { TensorTable } from '../../models/graph/weights.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { quantizeSteps, type QuantizeStep } from '../../models/quantize/policy.ts'
import { gigabytes, totalMemoryBytes } from './memory.ts'
import { readManifest } from './model-folder.ts'
import { bytesToCopy } from './quantize-source.ts'

/** Other ways than the one that Vignette takes, to see by measurement what each part of it earns. */
export type Experiment = {
  /** All layers in 8 bits, without branches. */
  bits?: 8
  /** Of the low-rank branches of 4-bit layers, in place of the policy's. */
  rank?: number
  smooth?: boolean
  gptq?: boolean
}

/** Below this the network is not run for calibration: machine and system have little to spare. */
const leastMemoryBytes = 3e9
/** What flows between pieces, for every row: SD 1.5 at 48 × 48 latents has 17 MB of skips, SDXL at 64 × 64 28 MB. */
const flowBytesPerRow = 32e6
const spareBytes = 64e6

/** All that is known of a job before any weight is read. */
export type QuantizePlan = {
  source: string
  manifest: ModelManifest
  parts: Part[]
  steps: QuantizeStep[]
  unetFile: string
  /** Weight files of the other parts, which stay as they are. */
  otherFiles: string[]
  tensors: TensorTable
  settings: QuantizeSettings
}

/** All that decides the result, but for the source. */
export type QuantizeSettings = {
  /** Of the way in which it is done here: raised with every change of the numbers that come out. */
  version: number
  isCalibrated: boolean
  smooth: boolean
  gptq: boolean
  rank: number | 'by layer'
  bits: 8 | 'by layer'
}

/** Looks at a model folder: whether it can be stored in four bits, and how. */
export async function planQuantization(
  source: string,
  { calibration, experiment }: { calibration: boolean; experiment: Experiment },
): Promise<QuantizePlan> {
  const manifest = readManifest(source)
  if (manifest.storage === 'int4') {
    throw new VignetteError('bad-request', `"${manifest.name}" is stored in four bits already.`, {
      hint: 'Start from the model it was made from.',
    })
  }
  const parts = await readParts(source).catch((cause: unknown) => {
    if (cause instanceof VignetteError) throw cause
    throw new VignetteError('model-missing', `The model "${manifest.id}" is not whole.`, {
      hint: 'Import it again.',
      cause,
    })
  })
  const unet = parts.find((part) => part.part === 'unet')
  if (unet?.part !== 'unet') throw unsupported(manifest, 'there is no UNet')
  const filesOf = (part: Part) => [...new Set([...part.tensors.values()].map(({ file }) => file))]
  const [unetFile] = filesOf(unet)
  const isCalibrated = calibration && totalMemoryBytes() >= leastMemoryBytes
  return {
    source,
    manifest,
    parts,
    steps: stepsOf(manifest, unet, experiment),
    unetFile,
    otherFiles: parts.filter((part) => part !== unet).flatMap(filesOf),
    tensors: unet.tensors,
    settings: {
      version: 1,
      isCalibrated,
      smooth: isCalibrated && (experiment.smooth ?? true),
      gptq: isCalibrated && (experiment.gptq ?? true),
      rank: experiment.rank ?? 'by layer',
      bits: experiment.bits ?? 'by layer',
    },
  }
}

/** The policy's steps, changed as the experiment wants. */
function stepsOf(manifest: ModelManifest, unet: Part<'unet'>, { bits, rank }: Experiment): QuantizeStep[] {
  let steps: QuantizeStep[]
  try {
    steps = quantizeSteps(unet.config)
  } catch (cause) {
    throw unsupported(manifest, cause)
  }
  const missing = steps.flatMap(({ layers }) => layers).find(({ path }) => !unet.tensors.has(`${path}.weight`))
  if (missing || steps.length === 0) throw unsupported(manifest, missing?.path)
  return steps.map((step) => ({
    ...step,
    layers: step.layers.map((plan) => {
      const kept = bits ?? plan.bits
      return { ...plan, bits: kept, rank: kept === 8 ? 0 : Math.min(rank ?? plan.rank, plan.n, plan.k) }
    }),
  }))
}

function unsupported(manifest: ModelManifest, cause: unknown): VignetteError {
  return new VignetteError(
    'checkpoint-unsupported',
    `The drawing network of "${manifest.name}" is of a kind that Vignette cannot store in four bits.`,
    { hint: 'It runs as it is.', cause },
  )
}

/** Bytes that are written: the file, what flows between pieces, and copies where the target is on another disk. */
export async function neededBytes(plan: QuantizePlan, folder: string, fileBytes: number): Promise<number> {
  const parent = await nearestFolder(dirname(folder))
  const path = (file: string) => join(plan.source, file)
  const kept = await bytesToCopy(plan.otherFiles.map(path), parent)
  const forPieces = plan.settings.isCalibrated ? kept + (await bytesToCopy([path(plan.unetFile)], parent)) : 0
  const unetBytes = (await stat(path(plan.unetFile))).size
  const flow = plan.settings.isCalibrated ? Math.min(unetBytes, 24 * flowBytesPerRow) : 0
  return fileBytes + kept + forPieces + flow + spareBytes
}

async function nearestFolder(path: string): Promise<string> {
  return (await exists(path)) || dirname(path) === path ? path : nearestFolder(dirname(path))
}

async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(await nearestFolder(dirname(folder)))
  return bavail * bsize
}

export async function checkSpace(folder: string, name: string, needed: number): Promise<void> {
  // What an interrupted run holds already is counted by its blocks: its file is as long as it will be from the start.
  const info = await stat(join(workPath(folder), 'unet.safetensors')).catch(() => undefined)
  const free = (await freeBytes(folder)) + 512 * (info?.blocks ?? 0)
  if (free >= needed) return
  throw new VignetteError(
    'disk-full',
    `Storing "${name}" in four bits needs ${gigabytes(needed)}; ${gigabytes(free)} are free at ${dirname(folder)}.`,
    { hint: 'Free some space, or put the model on another disk with --to.' },
  )
}

export async function diskFull(folder: string, name: string, needed: number, cause: unknown): Promise<VignetteError> {
  const free = await freeBytes(folder).catch(() => 0)
  return new VignetteError(
    'disk-full',
    `The disk ran full while "${name}" was made smaller: it needs ${gigabytes(needed)}, ${gigabytes(free)} are free.`,
    { hint: 'Free some space and start again. What was written so far has been removed.', cause },
  )
}

export const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )
