import { createHash } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { writeGraphs } from '../../models/checkpoint/graphs.ts'
import { bytesOf } from '../../models/checkpoint/hash.ts'
import { openWorkFolder, tryLock, type WorkFolder } from '../../models/checkpoint/work-folder.ts'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import {
  openQuantizedFile,
  plannedFile,
  quantizedFileBytes,
  type FileNotes,
  type QuantizedFile,
} from '../../models/quantize/file.ts'
import type { LayerErrors } from '../../models/quantize/layer.ts'
import { keptCalibration } from './calibration-file.ts'
import { graphOf, recordCalibration, type Calibration } from './calibration.ts'
import { physicalCores } from './networks.ts'
import { finishedStep, quantizeBlindly, quantizeCalibrated, type LayersOptions } from './quantize-layers.ts'
import { openMatMul } from './quantize-matmul.ts'
import {
  checkSpace,
  diskFull,
  exists,
  neededBytes,
  planQuantization,
  type Experiment,
  type QuantizePlan,
} from './quantize-plan.ts'
import { phaseReporter, qualityOf, type Phases, type Quality, type QuantizeProgress } from './quantize-progress.ts'
import { checkWeights, linkOrCopy, linkWeights, openWeights } from './quantize-source.ts'

export type { Experiment } from './quantize-plan.ts'

export type QuantizeModelOptions = {
  /** What the person reads; the source's name and "4 bit" when left out. */
  name?: string
  /** Off: by the weights alone, without running the network. */
  calibration?: boolean
  experiment?: Experiment
  replace?: boolean
  threads?: number
  signal?: AbortSignal
  onProgress?: (progress: QuantizeProgress) => void
}

export type QuantizeResult = { manifest: ModelManifest; quality: Quality }

/** Largest part of a network that is opened at once while calibration inputs are made. */
const calibrationPieceBytes = 120e6

/**
 * Makes the 4-bit model folder `target` from the model folder `source`. It appears under its name only when it is whole
 * and was read back. A run that was killed is taken up again, at the layer it was at, by the next one with the same
 * source and settings; cancelling (rejects with the signal's reason) and failing leave nothing.
 */
export async function quantizeModel(
  source: string,
  target: string,
  options: QuantizeModelOptions = {},
): Promise<QuantizeResult> {
  const folder = resolve(target)
  options.signal?.throwIfAborted()
  const plan = await planQuantization(resolve(source), {
    calibration: options.calibration ?? true,
    experiment: options.experiment ?? {},
  })
  if (folder === plan.source) {
    throw new VignetteError('bad-request', 'A model cannot take the place of the one it is made from.', {
      hint: 'Choose another name or folder.',
    })
  }
  if (!options.replace && (await exists(folder))) {
    throw new VignetteError('bad-request', `There is already a model at ${folder}.`, {
      hint: 'Choose another name, or remove the old one first.',
    })
  }
  const unlock = await tryLock(folder)
  if (!unlock) {
    throw new VignetteError('bad-request', `"${basename(folder)}" is being made at this moment by another Vignette.`, {
      hint: 'Wait until it is done.',
    })
  }
  try {
    return await quantizeLocked(plan, folder, options)
  } finally {
    await unlock()
  }
}

async function quantizeLocked(
  plan: QuantizePlan,
  folder: string,
  options: QuantizeModelOptions,
): Promise<QuantizeResult> {
  const { signal, onProgress } = options
  const { source, manifest, steps, settings, unetFile, otherFiles } = plan
  const phases = phaseReporter(settings.isCalibrated, onProgress)
  const parts = plannedFile(steps, plan.tensors, settings.smooth)
  const planned = [...parts.layers, ...parts.rest]
  const notes = (sourceSha256: string): FileNotes => ({ sourceSha256, policy: settings })

  const needed = await neededBytes(plan, folder, quantizedFileBytes(planned, notes('0'.repeat(64))))
  await checkSpace(folder, manifest.name, needed)
  const path = join(source, unetFile)
  const sha256 = await checkWeights(path, manifest.name, phases.bytes('checking', await bytesOf([path])), signal)

  const key = createHash('sha256').update(JSON.stringify([sha256, settings, steps]))
  const work = await openWorkFolder(folder, key.digest('hex'))
  const scratch = join(work.path, 'source')
  try {
    const file = await openQuantizedFile(join(work.path, unetFile), planned, notes(sha256))
    const names = planned.map(({ name }) => name)
    const errors = await fillFile(plan, work, file, names, scratch, phases, options).finally(() => file.close())
    await rm(scratch, { recursive: true, force: true })

    for (const name of [...otherFiles, 'parts.json']) await linkOrCopy(join(source, name), join(work.path, name))
    const networks = await writeGraphs(work.path)
    const made: ModelManifest = {
      ...manifest,
      id: basename(folder),
      name: options.name ?? `${manifest.name} (4 bit)`,
      storage: 'int4',
      networks,
      weightBytes: await bytesOf([unetFile, ...otherFiles].map((name) => join(work.path, name))),
    }
    await writeFile(join(work.path, 'model.json'), `${JSON.stringify(made, null, 2)}\n`)
    signal?.throwIfAborted()
    await work.finish()
    return { manifest: made, quality: qualityOf(errors, settings.isCalibrated) }
  } catch (error) {
    await work.discard()
    throw fromSystemError(error)?.code === 'disk-full' ? await diskFull(folder, manifest.name, needed, error) : error
  }
}

/** Calibrates, quantises every layer into the file and reads it back. Returns the errors of the layers by path. */
async function fillFile(
  plan: QuantizePlan,
  work: WorkFolder,
  file: QuantizedFile,
  names: readonly string[],
  scratch: string,
  phases: Phases,
  options: QuantizeModelOptions,
): Promise<Map<string, LayerErrors>> {
  const { signal, threads = physicalCores() } = options
  const { source, parts, steps, settings, tensors, unetFile } = plan
  const isRunNeeded = settings.isCalibrated && steps.some((step) => !finishedStep({ file, work }, step))
  const calibration = isRunNeeded ? await calibrate(plan, work, scratch, threads, phases, signal) : undefined

  const digests = new Map<string, string>()
  const errors = new Map<string, LayerErrors>()
  const weights = await openWeights(join(source, unetFile), tensors)
  const products = await openMatMul(threads)
  try {
    const advance = phases.layers(steps)
    const common: LayersOptions = {
      steps,
      settings,
      tensors,
      weights,
      file,
      work,
      matMul: products.matMul,
      signal,
      onStep(step, record) {
        for (const [name, digest] of Object.entries(record.digests)) digests.set(name, digest)
        for (const [path, error] of Object.entries(record.errors)) errors.set(path, error)
        advance(step)
      },
    }
    if (calibration) {
      const graph = graphOf(parts, 'unet')
      await quantizeCalibrated({ ...common, graph, rows: calibration.rows, folder: scratch, threads })
    } else await quantizeBlindly(common)
    // The rim of the network, norms, and biases that nothing was scaled for: a few megabytes, as they are.
    for (const name of names)
      if (!digests.has(name)) digests.set(name, await file.write(name, await weights.bytes(name)))
    await file.sync()
    await file.seal(digests, phases.bytes('verifying', file.bytes), signal)
    return errors
  } finally {
    await products.release()
    await weights.close()
  }
}

async function calibrate(
  { source, manifest, parts, unetFile, otherFiles }: QuantizePlan,
  work: WorkFolder,
  scratch: string,
  threads: number,
  phases: Phases,
  signal: AbortSignal | undefined,
): Promise<Calibration> {
  await linkWeights(source, [unetFile, ...otherFiles], scratch)
  return keptCalibration(work, join(scratch, 'calibration.safetensors'), () =>
    recordCalibration({
      manifest,
      parts,
      folder: scratch,
      maxPieceBytes: calibrationPieceBytes,
      threads,
      signal,
      onProgress: phases.calibrating,
    }),
  )
}
