import { readdir, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { checkAbout, readAbout, recordAbout, type ModelAbout } from '../../models/checkpoint/about.ts'
import { convertCheckpoint, importBytes } from '../../models/checkpoint/convert.ts'
import { bytesOf } from '../../models/checkpoint/hash.ts'
import { planImport, type ImportPlan } from '../../models/checkpoint/plan.ts'
import { isFile, readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { families } from '../../models/family.ts'
import { convertToInt4 } from './convert-int4.ts'
import { copyModel } from './copy-model.ts'
import { readManifest } from './model-folder.ts'
import { probePrediction } from './probe-prediction.ts'
import type { ModelLook, ModelProgress, ModelWork } from './protocol.ts'
import { quantizeModel } from './quantize-model.ts'

// What is done with models outside the window's process: looking at files, importing, making 4-bit forms, checking.

type Report = (progress: ModelProgress) => void

/** Does one piece of work; what comes back depends on its kind, and is plain data. */
export async function doModelWork(work: ModelWork, report: Report, signal: AbortSignal): Promise<unknown> {
  switch (work.type) {
    case 'inspect':
      return inspect(work.source, work.modelsFolder)
    case 'import':
      return importModel(work, report, signal)
    case 'four-bit': {
      await quantizeModel(work.model, work.folder, {
        name: work.name,
        signal,
        onProgress: ({ phase, fraction, layer }) => report({ phase, fraction, layer: layerOf(layer) }),
      })
      const { licence, author, description } = (await readAbout(work.model)) ?? {}
      await recordAbout(work.folder, { licence, author, description })
      return undefined
    }
    case 'verify':
      return checkAbout(work.folder, {
        signal,
        onBytes: (done, total) =>
          report({ phase: 'checking', fraction: done / (total || 1), doneBytes: done, totalBytes: total }),
      })
    default:
      return work satisfies never
  }
}

async function importModel(
  { source, folder, name, isFourBit }: Extract<ModelWork, { type: 'import' }>,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  // The earlier run was cut off when all but this was done.
  if (await isModelFolder(folder)) {
    if (!(await readAbout(folder))) await recordAbout(folder)
    return
  }
  if (await isModelFolder(source)) {
    await copyModel(source, folder, {
      name,
      signal,
      onBytes: (done, total) =>
        report({ phase: 'copying', fraction: done / (total || 1), doneBytes: done, totalBytes: total }),
    })
    if (!(await readAbout(folder))) await recordAbout(folder)
    return
  }
  const facts = await factsOf(source)
  if (isFourBit) {
    await convertToInt4(source, folder, {
      ...{ name, signal, probe: probePrediction },
      onImport: ({ phase, fraction, bytes, totalBytes }) => report({ phase, fraction, doneBytes: bytes, totalBytes }),
      onQuantize: ({ phase, fraction, layer }) => report({ phase, fraction, layer: layerOf(layer) }),
    })
  } else {
    await convertCheckpoint(source, folder, {
      ...{ name, signal, probe: probePrediction },
      onProgress: ({ phase, fraction, bytes, totalBytes }) => report({ phase, fraction, doneBytes: bytes, totalBytes }),
    })
  }
  await recordAbout(folder, facts)
}

/** What a file or folder is, from headers and descriptions alone; whatever is wrong with it is thrown in words. */
async function inspect(chosen: string, modelsFolder: string): Promise<ModelLook> {
  const source = await insideOf(chosen)
  const { bavail, bsize } = await statfs(modelsFolder)
  const freeBytes = bavail * bsize
  if (await isModelFolder(source)) {
    const manifest = readManifest(source)
    const { licence, author, description } = (await readAbout(source)) ?? {}
    const card = {
      ...{ kind: 'vignette' as const, name: manifest.name, familyName: families[manifest.family].name },
      ...{ storage: manifest.storage, bytes: manifest.weightBytes, licence, author, description },
      nativeWidth: manifest.nativeSize.width,
      nativeHeight: manifest.nativeSize.height,
      neededBytes: manifest.weightBytes,
      freeBytes,
    }
    return { source, card }
  }
  const plan = await planImport(source)
  const { nativeSize, name } = plan.manifest
  const card = {
    kind: (await stat(source)).isDirectory() ? ('diffusers' as const) : ('checkpoint' as const),
    name: name ?? plan.label,
    familyName: families[plan.family].name,
    storage: isWide(plan) ? ('fp32' as const) : ('fp16' as const),
    bytes: await bytesOf(plan.files),
    nativeWidth: nativeSize.width,
    nativeHeight: nativeSize.height,
    ...(await factsOf(source)),
    neededBytes: importBytes(plan, 'auto'),
    // Two bytes for a weight of the drawing network become about two thirds of one.
    fourBitBytes: importBytes(plan, 'fp16') - 1.35 * unetWeights(plan),
    freeBytes,
  }
  return { source, card }
}

async function isModelFolder(path: string): Promise<boolean> {
  return (await isFile(join(path, 'model.json'))) && (await isFile(join(path, 'parts.json')))
}

/** A folder with nothing but one checkpoint in it, as downloads often are, stands for that file. */
async function insideOf(chosen: string): Promise<string> {
  const names = await readdir(chosen).catch((): string[] => []) // a file
  if (names.includes('model.json') || names.includes('unet')) return chosen
  const files = names.filter((name) => /\.(safetensors|sft)$/i.test(name))
  return files.length === 1 ? join(chosen, files[0]) : chosen
}

/** What a file says of itself (modelspec), cut to what a card can show. */
async function factsOf(source: string): Promise<Pick<ModelAbout, 'licence' | 'author' | 'description'>> {
  if ((await stat(source)).isDirectory()) return {}
  const { metadata } = await readSafetensors(source)
  const text = (key: string, most: number) => metadata.get(`modelspec.${key}`)?.trim().slice(0, most) || undefined
  return { licence: text('license', 200), author: text('author', 200), description: text('description', 2000) }
}

function isWide({ parts }: ImportPlan): boolean {
  const unet = parts.find(({ part }) => part === 'unet')
  return [...(unet?.tensors.values() ?? [])].some(({ dtype, length }) => length > 4096 && /^F(32|64)$/.test(dtype))
}

function unetWeights({ parts }: ImportPlan): number {
  const unet = parts.find(({ part }) => part === 'unet')
  return [...(unet?.tensors.values() ?? [])].reduce(
    (sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1),
    0,
  )
}

const layerOf = (layer: { done: number; of: number } | undefined) => layer && { done: layer.done, of: layer.of }
