import { createHash } from 'node:crypto'
import { stat, statfs, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { VignetteError, fromSystemError } from '../errors.ts'
import type { PredictionType } from '../family.ts'
import type { ModelManifest } from '../manifest.ts'
import type { CopyJob } from './copy-weights.ts'
import { copyWeights, layoutOf } from './copy-weights.ts'
import type { StorageDtype } from './dtypes.ts'
import { writeGraphs, writePartsFile } from './graphs.ts'
import { bytesOf, sha256OfSource } from './hash.ts'
import type { ImportPlan } from './plan.ts'
import { planImport } from './plan.ts'
import { openWorkFolder, tryLock, workPath } from './work-folder.ts'

export type ConvertProgress = {
  phase: 'checking' | 'copying' | 'building'
  /** Of the whole import, 0 to 1. */
  fraction: number
  /** Bytes of the source done in this phase, and in all. */
  bytes: number
  totalBytes: number
}

export type ConvertOptions = {
  /** `auto` keeps the source's precision: 32-bit weights stay 32-bit, everything else becomes fp16. */
  storage?: 'fp16' | 'fp32' | 'auto'
  /** What the person reads; the file's name without extension when left out. */
  name?: string
  /** Replace a model that is there already. */
  replace?: boolean
  signal?: AbortSignal
  onProgress?: (progress: ConvertProgress) => void
  /**
   * Runs the UNet of an SD 2 model folder on `predictionProbe` and returns the mean of (output − input), which tells
   * what the network predicts. Injected, because only the engine can run networks. Without it v-prediction is assumed.
   */
  probe?: (folder: string) => Promise<number>
}

/**
 * The probe's inputs, as AUTOMATIC1111 and stable-diffusion.cpp use them: all 0.5 at the noisiest timestep. A network
 * that predicts v answers with about minus the input there, one that predicts noise with about the input.
 */
export const predictionProbe = { sample: [1, 4, 8, 8], context: [1, 2, 1024], value: 0.5, timestep: 999, vBelow: -1 }

/**
 * Turns a checkpoint, a single file or a diffusers folder, into a model folder: weights under diffusers names, graphs,
 * model.json. The folder appears under its name only when it is whole. A run that was killed is taken up again by the
 * next one with the same source and settings; cancelling (rejects with the signal's reason) and failing leave nothing.
 */
export async function convertCheckpoint(
  source: string,
  target: string,
  options: ConvertOptions = {},
): Promise<ModelManifest> {
  const folder = resolve(target)
  const { signal } = options
  signal?.throwIfAborted()
  const plan = await planImport(source)
  if (!options.replace && (await exists(folder))) {
    throw new VignetteError('bad-request', `There is already a model at ${folder}.`, {
      hint: 'Choose another name, or remove the old one first.',
    })
  }
  const unlock = await tryLock(folder)
  if (!unlock) {
    throw new VignetteError(
      'bad-request',
      `"${basename(folder)}" is being imported at this moment by another Vignette.`,
      { hint: 'Wait until it is done.' },
    )
  }
  try {
    return await convertLocked(plan, folder, options)
  } finally {
    await unlock()
  }
}

async function convertLocked(plan: ImportPlan, folder: string, options: ConvertOptions): Promise<ModelManifest> {
  const { signal } = options
  const jobs = planJobs(plan, options.storage ?? 'auto')
  const needed = jobs.reduce((sum, job) => sum + layoutOf(job).bytes, 0)
  await checkSpace(folder, plan.label, needed)

  const sourceBytes = await bytesOf(plan.files)
  const copyBytes = plan.parts.reduce(
    (sum, { tensors }) => [...tensors.values()].reduce((total, { length }) => total + length, sum),
    0,
  )
  // Copying reads and writes: about twice the work of a byte that is only hashed.
  const progress = reporter(options.onProgress, { checking: sourceBytes, copying: 2 * copyBytes })
  const sha256 = await sha256OfSource(plan.root, plan.files, progress.advance('checking', sourceBytes), signal)

  const settings = jobs.map(({ file, storage }) => [file, storage])
  const work = await openWorkFolder(
    folder,
    createHash('sha256')
      .update(JSON.stringify([2, sha256, settings]))
      .digest('hex'),
  )
  try {
    const advance = progress.advance('copying', copyBytes)
    for (const job of jobs) await copyWeights(job, work, advance, signal)
    progress.building()
    await writePartsFile(
      work.path,
      jobs.map(({ plan: { part, config }, file }) => ({ part, weights: file, config })) as Parameters<
        typeof writePartsFile
      >[1],
    )
    const networks = await writeGraphs(work.path)
    const { name, ...facts } = plan.manifest
    let manifest: ModelManifest = {
      version: 1,
      id: basename(folder),
      name: options.name ?? name ?? plan.label,
      family: plan.family,
      ...facts,
      storage: jobs.some((job) => job.plan.part === 'unet' && job.storage === 'F32') ? 'fp32' : 'fp16',
      networks,
      source: { file: basename(plan.root), sha256, bytes: sourceBytes },
      weightBytes: await bytesOf(jobs.map((job) => join(work.path, job.file))),
    }
    const save = () => writeFile(join(work.path, 'model.json'), `${JSON.stringify(manifest, null, 2)}\n`)
    await save()
    if (!plan.isPredictionCertain && options.probe) {
      const mean = await options.probe(work.path)
      manifest = withPrediction(manifest, mean < predictionProbe.vBelow ? 'v_prediction' : 'epsilon')
      await save()
    }
    signal?.throwIfAborted()
    await work.finish()
    return manifest
  } catch (error) {
    await work.discard()
    throw isDiskFull(error) ? await diskFull(folder, plan.label, needed, error) : error
  }
}

/** Base models of SD 2 predict noise and were trained at 512 pixels, the others v at 768. */
function withPrediction(manifest: ModelManifest, predictionType: PredictionType): ModelManifest {
  const side = predictionType === 'epsilon' ? 512 : 768
  return { ...manifest, schedule: { ...manifest.schedule, predictionType }, nativeSize: { width: side, height: side } }
}

function planJobs(plan: ImportPlan, wanted: 'fp16' | 'fp32' | 'auto'): CopyJob[] {
  return plan.parts.map((part) => {
    const isWide = [...part.tensors.values()].some(
      ({ dtype, length }) => length > 4096 && (dtype === 'F32' || dtype === 'F64'),
    )
    const isFull = wanted === 'fp32' || (wanted === 'auto' && isWide)
    // SDXL's own VAE overflows half precision inside; kept wide so that no provider is tempted to compute it in halves.
    const storage: StorageDtype = isFull || (part.part === 'vae' && plan.family === 'sdxl') ? 'F32' : 'F16'
    return { plan: part, file: `${part.part}.safetensors`, storage, label: plan.label }
  })
}

/** What an import takes on the disk; `fp16` as a step on the way to four bits. */
export function importBytes(plan: ImportPlan, storage: 'fp16' | 'auto'): number {
  return planJobs(plan, storage).reduce((sum, job) => sum + layoutOf(job).bytes, spareBytes)
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )

const megabytes = (bytes: number) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.ceil(bytes / 1e6)} MB`)
/** For graphs, model.json and the file system's own bookkeeping. */
const spareBytes = 32e6

async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(dirname(folder))
  return bavail * bsize
}

async function checkSpace(folder: string, label: string, needed: number): Promise<void> {
  const free = (await freeBytes(folder)) + (await bytesOnDisk(workPath(folder)))
  if (free >= needed + spareBytes) return
  throw new VignetteError(
    'disk-full',
    `Importing "${label}" needs ${megabytes(needed + spareBytes)}; ${megabytes(free)} are free at ${dirname(folder)}.`,
    {
      hint: 'Free some space, or put the model on another disk.',
    },
  )
}

/** What an interrupted import already holds. Blocks, not length: its files are as long as they will be from the start. */
async function bytesOnDisk(folder: string): Promise<number> {
  const names = ['text_encoder', 'text_encoder_2', 'unet', 'vae'].map((part) => join(folder, `${part}.safetensors`))
  const infos = await Promise.all(names.map((name) => stat(name).catch(() => undefined)))
  return infos.reduce((sum, info) => sum + 512 * (info?.blocks ?? 0), 0)
}

const isDiskFull = (error: unknown) => fromSystemError(error)?.code === 'disk-full'

async function diskFull(folder: string, label: string, needed: number, cause: unknown): Promise<VignetteError> {
  const free = await freeBytes(folder).catch(() => 0)
  return new VignetteError(
    'disk-full',
    `The disk ran full while "${label}" was imported: it needs ${megabytes(needed)}, ${megabytes(free)} are free.`,
    {
      hint: 'Free some space and import it again. What was written so far has been removed.',
      cause,
    },
  )
}

function reporter(onProgress: ConvertOptions['onProgress'], shares: { checking: number; copying: number }) {
  const whole = shares.checking + shares.copying || 1
  let before = 0
  const report = (phase: ConvertProgress['phase'], bytes: number, totalBytes: number, done: number) =>
    onProgress?.({ phase, bytes, totalBytes, fraction: Math.min(1, 0.99 * done) })
  return {
    advance(phase: 'checking' | 'copying', totalBytes: number) {
      let bytes = 0
      const start = before
      before += shares[phase]
      return (more: number) => {
        bytes = Math.min(totalBytes, bytes + more)
        report(phase, bytes, totalBytes, (start + (bytes / (totalBytes || 1)) * shares[phase]) / whole)
      }
    },
    building: () => report('building', 0, 0, 1),
  }
}
