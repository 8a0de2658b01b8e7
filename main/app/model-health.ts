import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { PartsFile } from '../../models/checkpoint/graphs.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import type { DeviceReport, ModelRecord } from '../../preload/contract/models.ts'

/** What lies in a model folder, by file name; of folders inside it, all together under their name. */
export type ModelFiles = ReadonlyMap<string, number>

/** Sizes of all files of a model folder. */
export async function filesOf(folder: string): Promise<ModelFiles> {
  const sizes = new Map<string, number>()
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) {
      const inside = await filesOf(path)
      sizes.set(
        entry.name,
        [...inside.values()].reduce((sum, size) => sum + size, 0),
      )
    } else sizes.set(entry.name, (await stat(path).catch(() => undefined))?.size ?? 0)
  }
  return sizes
}

/** The parts of a model, in words. */
const partNames: Record<string, string> = {
  unet: 'drawing network',
  vae: 'picture decoder (VAE)',
  text_encoder: 'text encoder',
  text_encoder_2: 'second text encoder',
}

export type ModelHealth = { state: 'ready' | 'missing-part' | 'damaged'; problem?: string }
export type WeightSizes = { part: string; bytes: number }[]

/**
 * Whether a model folder is whole, by names and sizes alone: which part is missing and where it should be, or that weights
 * are cut off. That their bytes are right only their hash can tell.
 */
export async function lookAtModel(
  folder: string,
  manifest: ModelManifest,
  files: ModelFiles,
): Promise<ModelHealth & { weights: WeightSizes }> {
  let parts: PartsFile['parts']
  try {
    parts = (JSON.parse(await readFile(join(folder, 'parts.json'), 'utf8')) as PartsFile).parts
  } catch {
    const problem = `Its description of parts is missing or damaged; it was expected at ${join(folder, 'parts.json')}.`
    return { state: 'missing-part', problem, weights: [] }
  }
  const weights = parts.map(({ part, weights }) => ({ part, bytes: files.get(weights) ?? 0 }))
  const lost = parts.find(({ weights }) => !files.has(weights))
  if (lost) {
    const what = partNames[lost.part] ?? lost.part
    return {
      state: 'missing-part',
      problem: `Its ${what} is missing; it was expected at ${join(folder, lost.weights)}.`,
      weights,
    }
  }
  const network = manifest.networks.find((name) => !files.has(`${name}.onnx`))
  if (network !== undefined) {
    const problem = `A graph is missing; it was expected at ${join(folder, `${network}.onnx`)}.`
    return { state: 'missing-part', problem, weights }
  }
  const bytes = [...new Set(parts.map(({ weights }) => weights))].reduce((sum, name) => sum + files.get(name)!, 0)
  if (bytes !== manifest.weightBytes) {
    const problem =
      `Its weights have ${bytes.toLocaleString('en-GB')} bytes and should have ` +
      `${manifest.weightBytes.toLocaleString('en-GB')}: they were cut off or changed.`
    return { state: 'damaged', problem, weights }
  }
  return { state: 'ready', weights }
}

/** What there is on this computer for a model. */
export type Machine = {
  /** Most that Vignette may use. */
  budgetBytes: number
  /** Free at this moment, where that can be told. */
  spareBytes?: number
  device?: DeviceReport
}

/** Working memory of the decoder for a pixel, and the most pixels it works on at once (main/engine/memory.ts). */
const decodeBytesPerPixel = 4000
const tilePixels = 768 * 768

/**
 * What drawing at the native size takes, and how that stands with what there is. Too big is what can never run here; tight
 * is what runs but may have to wait for other programs' memory, or load its parts one after the other.
 */
export function memoryOf(manifest: ModelManifest, weights: WeightSizes, machine: Machine): ModelRecord['memory'] {
  const { budgetBytes, spareBytes = Infinity, device } = machine
  const onCpu = device === undefined || device.provider === 'cpu'
  const loaded = weights.map(({ part, bytes }) => {
    // The processor widens half precision to whole numbers of 32 bits; 4-bit weights become bytes in the fast mode.
    const isPacked = manifest.storage === 'int4' && part === 'unet'
    const isWide = manifest.storage === 'fp32' || (part === 'vae' && manifest.family === 'sdxl')
    const factor = !onCpu ? 1 : isPacked ? (device?.fourBit?.verdict === 'low-memory' ? 1 : 2) : isWide ? 1 : 2
    return { part, bytes: bytes * factor }
  })
  const sum = (isOne: (part: string) => boolean) =>
    loaded.reduce((total, { part, bytes }) => total + (isOne(part) ? bytes : 0), 0)
  const { width, height } = manifest.nativeSize
  const decoding = sum((part) => part === 'vae') + Math.min(width * height, tilePixels) * decodeBytesPerPixel
  const neededBytes = Math.max(
    sum((part) => part !== 'vae'),
    decoding,
  )
  const largest = Math.max(...loaded.map(({ bytes }) => bytes), 0)
  const fit = largest > budgetBytes ? 'too-big' : neededBytes > Math.min(budgetBytes, spareBytes) ? 'tight' : 'fits'
  return { neededBytes, availableBytes: Math.min(budgetBytes, spareBytes), fit }
}
