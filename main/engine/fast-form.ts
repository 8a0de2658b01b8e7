import { mkdir, readdir, readFile, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { buildNetworks, requiredTensors, type PartConfigs } from '../../models/build.ts'
import { graphFile, type PartsFile } from '../../models/checkpoint/graphs.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import { expandWeights, isExpandedFrom } from '../../models/quantize/expand.ts'
import { replaceFile } from '../../models/replace-file.ts'
import { gigabytes } from './memory.ts'
import { fastFolder } from './networks.ts'
import { openMatMul } from './quantize-matmul.ts'

// The fast form of a 4-bit unet: its weights as bytes and the graphs over them, in a folder inside the model's. Derived:
// it may be thrown away at any time, and is made again when the weights change.

export type FastFormOptions = {
  threads: number
  /** Called when it has to be made, which takes a quarter of a minute for SD 1.5. */
  onMaking?: () => void
  signal?: AbortSignal
}

/** What a fast form takes in memory and on disk: a byte for a weight, and what belongs to it. */
export async function fastFormBytes(modelFolder: string): Promise<number> {
  const { config } = await unetPart(modelFolder)
  let weights = 0
  for (const shape of requiredTensors('unet', config).values()) weights += shape.reduce((a, b) => a * b, 1)
  return 1.1 * weights
}

/** Makes the fast form where it is missing or out of date. Fails with `disk-full` or `folder-unwritable`. */
export async function ensureFastForm(modelFolder: string, options: FastFormOptions): Promise<void> {
  const { config, weights } = await unetPart(modelFolder)
  const [source, folder] = [join(modelFolder, weights), join(modelFolder, fastFolder)]
  const target = join(folder, weights)
  try {
    if (!(await isExpandedFrom(target, source))) {
      options.onMaking?.()
      await mkdir(folder, { recursive: true })
      await sweep(folder)
      await checkRoom(folder, await fastFormBytes(modelFolder))
      const { matMul, release } = await openMatMul(options.threads)
      try {
        await expandWeights(source, target, { config, matMul, signal: options.signal })
      } finally {
        await release()
      }
    }
    const { tensors } = await readSafetensors(target)
    const table = new Map([...tensors].map(([name, tensor]) => [name, { ...tensor, file: weights }]))
    for (const { name, onnx } of buildNetworks([{ part: 'unet', config, tensors: table }], {
      dialect: 'cpu',
      keyStride: true,
    })) {
      const path = join(folder, graphFile(name, 'cpu'))
      const present = await readFile(path).catch(() => undefined)
      if (!present?.equals(onnx)) await replaceFile(path, onnx)
    }
  } catch (error) {
    throw fromSystemError(error) ?? inTheWay(error, folder) ?? error
  }
}

async function unetPart(modelFolder: string): Promise<{ config: PartConfigs['unet']; weights: string }> {
  const { parts } = JSON.parse(await readFile(join(modelFolder, 'parts.json'), 'utf8')) as PartsFile
  const part = parts.find((each) => each.part === 'unet')
  if (part?.part !== 'unet') throw new Error(`${modelFolder}: parts.json names no unet`)
  return part
}

/** Something that is no folder lies where the folder should be. */
function inTheWay(error: unknown, folder: string): VignetteError | undefined {
  if (!(error instanceof Error) || !('code' in error) || error.code !== 'EEXIST') return undefined
  return new VignetteError('folder-unwritable', `A file is in the way of the folder ${folder}.`, { cause: error })
}

/** The system may want some of the disk for itself. */
const spareBytes = 1e9

async function checkRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  if (bavail * bsize >= bytes + spareBytes) return
  throw new VignetteError(
    'disk-full',
    `The fast form of a 4-bit model needs ${gigabytes(bytes)} on the disk; ${gigabytes(bavail * bsize)} are free.`,
    { hint: 'Free some space, or use the low-memory mode.' },
  )
}

/** Removes what a killed process left half-written, unless another one may be writing it right now. */
async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.endsWith('.tmp')) continue
    const { mtimeMs } = await stat(join(folder, name))
    if (Date.now() - mtimeMs > 60_000) await rm(join(folder, name), { force: true })
  }
}
