import { createHash } from 'node:crypto'
import { mkdir, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import type { Part } from '../../models/build.ts'
import { readParts, writeGraphs } from '../../models/checkpoint/graphs.ts'
import { bytesOf } from '../../models/checkpoint/hash.ts'
import { readSafetensors, readTensor, writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import { openWorkFolder, tryLock, workPath, type WorkFolder } from '../../models/checkpoint/work-folder.ts'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { openQuantizedFile, plannedFile, quantizedFileBytes, type FileNotes } from '../../models/quantize/file.ts'
import type { LayerErrors } from '../../models/quantize/layer.ts'
import { quantizeSteps, type QuantizeStep } from '../../models/quantize/policy.ts'
import { graphOf, recordCalibration, type Calibration } from './calibration.ts'
import { gigabytes, totalMemoryBytes } from './memory.ts'
import { readManifest } from './model-folder.ts'
import { physicalCores } from './networks.ts'
import { quantizeBlindly, quantizeCalibrated, type LayersOptions } from './quantize-layers.ts'
import { openMatMul } from './quantize-matmul.ts'
import type { Inputs } from './quantize-pieces.ts'
import { bytesToCopy, checkWeights, linkOrCopy, linkWeights, openWeights } from './quantize-source.ts'

export type QuantizeProgress = {
  phase: 'checking' | 'calibrating' | 'quantizing' | 'verifying'
  /** Of the whole, 0 to 1. */
  fraction: number
  /** While quantising: the layer done last, its number, and how many there are. */
  layer?: { path: string; done: number; of: number }
}

export type QuantizeModelOptions = {
  /** What the person reads; the source's name and "4 bit" when left out. */
  name?: string
  /** Of the low-rank branches of 4-bit layers, in place of the policy's. */
  rank?: number
  /** Off: by the weights alone, without running the network. */
  calibration?: boolean
  replace?: boolean
  threads?: number
  signal?: AbortSignal
  onProgress?: (progress: QuantizeProgress) => void
}

/** How well the layers came out: signal to noise of their outputs, in dB. Without calibration, of their weights. */
export type Quality = {
  layers: number
  isCalibrated: boolean
  medianDb: number
  /** With int8 activations as the fast mode has them. */
  medianFastDb: number
  worst: { path: string; db: number }
}

export type QuantizeResult = { manifest: ModelManifest; quality: Quality }

/** Below this the network is not run for calibration: machine and system have little to spare. */
const leastMemoryBytes = 3e9
/** Largest part of a network that is opened at once while calibration inputs are made. */
const calibrationPieceBytes = 220e6
/** What flows between pieces, for every row: SD 1.5 at 48 × 48 latents has 17 MB of skips, SDXL at 64 × 64 28 MB. */
const flowBytesPerRow = 32e6
const spareBytes = 64e6

/** What each phase takes of the time, about: checking, calibrating, quantising, verifying. */
const shares = { calibrated: [0.02, 0.28, 0.68, 0.02], blind: [0.03, 0, 0.94, 0.03] }

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
  const plan = await planQuantization(resolve(source), options)
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

type Plan = {
  source: string
  manifest: ModelManifest
  parts: Part[]
  steps: QuantizeStep[]
  isCalibrated: boolean
  unetFile: string
  /** Weight files of the other parts, which stay as they are. */
  otherFiles: string[]
  tensors: ReadonlyMap<string, StoredTensor>
  /** All that decides the result, but for the source and Vignette's own version of doing it. */
  settings: { version: number; rank: number | 'policy'; calibrated: boolean }
}

async function planQuantization(source: string, options: QuantizeModelOptions): Promise<Plan> {
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
  if (unet?.part !== 'unet') {
    throw new VignetteError(
      'checkpoint-unsupported',
      `"${manifest.name}" has no drawing network to store in four bits.`,
    )
  }
  const filesOf = (part: Part) => [...new Set([...part.tensors.values()].map(({ file }) => file))]
  const [unetFile] = filesOf(unet)
  const isCalibrated = (options.calibration ?? true) && totalMemoryBytes() >= leastMemoryBytes
  return {
    source,
    manifest,
    parts,
    steps: stepsOf(manifest, unet, options.rank),
    isCalibrated,
    unetFile,
    otherFiles: parts.filter((part) => part !== unet).flatMap(filesOf),
    tensors: unet.tensors,
    settings: { version: 1, rank: options.rank ?? 'policy', calibrated: isCalibrated },
  }
}

/** The policy's steps, with another rank where the person wants one. */
function stepsOf(manifest: ModelManifest, unet: Part<'unet'>, rank: number | undefined): QuantizeStep[] {
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
    layers: step.layers.map((plan) => ({
      ...plan,
      rank: Math.min(plan.bits === 8 ? 0 : (rank ?? plan.rank), plan.n, plan.k),
    })),
  }))
}

function unsupported(manifest: ModelManifest, cause: unknown): VignetteError {
  return new VignetteError(
    'checkpoint-unsupported',
    `The drawing network of "${manifest.name}" is of a kind that Vignette cannot store in four bits.`,
    { hint: 'It runs as it is.', cause },
  )
}

async function quantizeLocked(plan: Plan, folder: string, options: QuantizeModelOptions): Promise<QuantizeResult> {
  const { signal, onProgress } = options
  const { source, manifest, unetFile, otherFiles } = plan
  const phases = phaseReporter(plan.isCalibrated, onProgress)
  const notes = (sourceSha256: string): FileNotes => ({ sourceSha256, policy: plan.settings })
  const planned = plannedFile(plan.steps, plan.tensors, plan.isCalibrated)
  const all = [...planned.layers, ...planned.rest]

  const needed = await neededBytes(plan, folder, quantizedFileBytes(all, notes('0'.repeat(64))))
  await checkSpace(folder, manifest.name, needed)
  const sourceBytes = await bytesOf([join(source, unetFile)])
  const sha256 = await checkWeights(
    join(source, unetFile),
    manifest.name,
    phases.bytes('checking', sourceBytes),
    signal,
  )

  const key = createHash('sha256')
    .update(JSON.stringify(['int4', sha256, plan.settings, plan.steps]))
    .digest('hex')
  const work = await openWorkFolder(folder, key)
  const scratch = join(work.path, 'source')
  try {
    const errors = await fillFile(plan, work, scratch, all, notes(sha256), phases, options)
    await rm(scratch, { recursive: true, force: true })

    for (const file of otherFiles) await linkOrCopy(join(source, file), join(work.path, file))
    await linkOrCopy(join(source, 'parts.json'), join(work.path, 'parts.json'))
    const networks = await writeGraphs(work.path)
    const made: ModelManifest = {
      ...manifest,
      id: basename(folder),
      name: options.name ?? `${manifest.name} (4 bit)`,
      storage: 'int4',
      networks,
      weightBytes: await bytesOf([unetFile, ...otherFiles].map((file) => join(work.path, file))),
    }
    await writeFile(join(work.path, 'model.json'), `${JSON.stringify(made, null, 2)}\n`)
    signal?.throwIfAborted()
    await work.finish()
    return { manifest: made, quality: qualityOf(errors, plan.isCalibrated) }
  } catch (error) {
    await work.discard()
    throw fromSystemError(error)?.code === 'disk-full' ? await diskFull(folder, manifest.name, needed, error) : error
  }
}

/** Calibrates, quantises every layer into the file and reads it back. Returns the errors of the layers by path. */
async function fillFile(
  plan: Plan,
  work: WorkFolder,
  scratch: string,
  planned: Parameters<typeof openQuantizedFile>[1],
  notes: FileNotes,
  phases: ReturnType<typeof phaseReporter>,
  options: QuantizeModelOptions,
): Promise<Map<string, LayerErrors>> {
  const { signal, threads = physicalCores() } = options
  const { source, manifest, parts, steps, tensors, unetFile, otherFiles } = plan
  let calibration: Calibration | undefined
  if (plan.isCalibrated) {
    await linkWeights(source, [unetFile, ...otherFiles], scratch)
    calibration = await calibrationOf(work, scratch, () =>
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

  const digests = new Map<string, string>()
  const errors = new Map<string, LayerErrors>()
  const file = await openQuantizedFile(join(work.path, unetFile), planned, notes)
  const weights = await openWeights(join(source, unetFile), tensors)
  const products = await openMatMul(threads)
  try {
    const layers = phases.layers(steps)
    const common: LayersOptions = {
      steps,
      tensors,
      weights,
      file,
      work,
      matMul: products.matMul,
      signal,
      onStep(step, record) {
        for (const [name, digest] of Object.entries(record.digests)) digests.set(name, digest)
        for (const [path, error] of Object.entries(record.errors)) errors.set(path, error)
        layers(step)
      },
    }
    if (calibration) {
      const graph = graphOf(parts, 'unet')
      await quantizeCalibrated({ ...common, graph, rows: calibration.rows, folder: scratch, threads })
    } else await quantizeBlindly(common)
    // Rims, norms and the biases of whatever was not scaled: a few megabytes, as they are.
    for (const { name } of planned)
      if (!digests.has(name)) digests.set(name, await file.write(name, await weights.bytes(name)))
    await file.sync()
    await file.seal(digests, phases.bytes('verifying', file.bytes), signal)
    return errors
  } finally {
    await products.release()
    await weights.close()
    await file.close()
  }
}

/** The calibration of an interrupted run, or a new one, which is kept for the next. */
async function calibrationOf(
  work: WorkFolder,
  scratch: string,
  record: () => Promise<Calibration>,
): Promise<Calibration> {
  const path = join(scratch, 'calibration.safetensors')
  const kept = work.finished('calibration') as { side: number; steps: number; rows: number } | undefined
  if (kept && (await exists(path))) {
    const { tensors } = await readSafetensors(path)
    const rows: Inputs[] = Array.from({ length: kept.rows }, () => ({}))
    for (const [name, tensor] of tensors) {
      const [, row, input] = /^(\d+)\.(.*)$/.exec(name) ?? []
      const bytes = await readTensor(tensor)
      rows[Number(row)][input] = { data: new Float32Array(bytes.buffer), shape: tensor.shape }
    }
    return { ...kept, rows }
  }
  const made = await record()
  await mkdir(scratch, { recursive: true })
  const data = new Map<string, Inputs[string]>()
  for (const [i, row] of made.rows.entries())
    for (const [input, value] of Object.entries(row)) data.set(`${i}.${input}`, value)
  const planned = [...data].map(([name, { shape }]) => ({ name, dtype: 'F32' as const, shape: [...shape] }))
  await writeSafetensors(path, planned, ({ name }) => {
    const { buffer, byteOffset, byteLength } = data.get(name)!.data
    return [new Uint8Array(buffer, byteOffset, byteLength)]
  })
  await work.record({ step: 'calibration', value: { side: made.side, steps: made.steps, rows: made.rows.length } })
  return made
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )

/** Bytes that are written: the file, what flows between pieces, and copies where the target is on another disk. */
async function neededBytes(plan: Plan, folder: string, fileBytes: number): Promise<number> {
  const parent = await nearestFolder(dirname(folder))
  const path = (file: string) => join(plan.source, file)
  const kept = await bytesToCopy(plan.otherFiles.map(path), parent)
  const forPieces = plan.isCalibrated ? kept + (await bytesToCopy([path(plan.unetFile)], parent)) : 0
  const unetBytes = (await stat(path(plan.unetFile))).size
  const flow = plan.isCalibrated ? Math.min(unetBytes, 24 * flowBytesPerRow) : 0
  return fileBytes + kept + forPieces + flow + spareBytes
}

async function nearestFolder(path: string): Promise<string> {
  return (await exists(path)) || dirname(path) === path ? path : nearestFolder(dirname(path))
}

async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(await nearestFolder(dirname(folder)))
  return bavail * bsize
}

async function checkSpace(folder: string, name: string, needed: number): Promise<void> {
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

async function diskFull(folder: string, name: string, needed: number, cause: unknown): Promise<VignetteError> {
  const free = await freeBytes(folder).catch(() => 0)
  return new VignetteError(
    'disk-full',
    `The disk ran full while "${name}" was made smaller: it needs ${gigabytes(needed)}, ${gigabytes(free)} are free.`,
    { hint: 'Free some space and start again. What was written so far has been removed.', cause },
  )
}

/** One fraction for all phases together. */
function phaseReporter(isCalibrated: boolean, onProgress: QuantizeModelOptions['onProgress']) {
  const [checking, calibrating, quantizing, verifying] = isCalibrated ? shares.calibrated : shares.blind
  const report = (phase: QuantizeProgress['phase'], before: number, share: number, part: number, more = {}) =>
    onProgress?.({ phase, fraction: Math.min(0.999, before + share * Math.min(1, part)), ...more })
  return {
    bytes(phase: 'checking' | 'verifying', total: number) {
      let done = 0
      return (bytes: number) => {
        done += bytes
        const [before, share] = phase === 'checking' ? [0, checking] : [1 - verifying, verifying]
        report(phase, before, share, done / total)
      }
    },
    calibrating: (part: number) => report('calibrating', checking, calibrating, part),
    /** Layers by the number of their weights. */
    layers(steps: readonly QuantizeStep[]) {
      const size = ({ layers }: QuantizeStep) => layers.reduce((sum, { n, k }) => sum + n * k, 0)
      const total = steps.reduce((sum, step) => sum + size(step), 0)
      const of = steps.reduce((sum, { layers }) => sum + layers.length, 0)
      let weights = 0
      let done = 0
      return (step: QuantizeStep) => {
        weights += size(step)
        done += step.layers.length
        const layer = { path: step.layers[0].path, done, of }
        report('quantizing', checking + calibrating, quantizing, weights / total, { layer })
      }
    },
  }
}

/** Errors beyond what halves can resolve count as that. */
const decibels = (error: number) => -10 * Math.log10(Math.max(error, 1e-12))

function qualityOf(errors: ReadonlyMap<string, LayerErrors>, isCalibrated: boolean): Quality {
  const layers = [...errors].map(([path, error]) => ({
    path,
    db: decibels(error.weights),
    fast: decibels(error.activations),
  }))
  const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]
  const [worst] = [...layers].sort((a, b) => a.db - b.db)
  return {
    layers: layers.length,
    isCalibrated,
    medianDb: median(layers.map(({ db }) => db)),
    medianFastDb: median(layers.map(({ fast }) => fast)),
    worst: { path: worst.path, db: worst.db },
  }
}
