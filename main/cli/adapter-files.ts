import { existsSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import { openModelWeights, type ModelWeights } from '../../models/adapters/model-weights.ts'
import { readAdapter } from '../../models/adapters/read.ts'
import { modelShape, standardShape } from '../../models/adapters/shape.ts'
import type { AdapterFile, ModelShape } from '../../models/adapters/types.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { planImport } from '../../models/checkpoint/plan.ts'
import { VignetteError } from '../../models/errors.ts'
import { readManifest } from '../engine/model-folder.ts'
import { findModel } from './find-model.ts'
import { checkWritable } from './picture-file.ts'
import { numberOption, type Terminal } from './terminal.ts'

// What the commands of adapter.ts share.

/** An installed model by its name, or any folder or checkpoint by its path. */
export async function modelPlace(name: string, terminal: Terminal): Promise<string> {
  if (existsSync(name)) return resolve(name)
  return (await findModel(name, terminal)).folder
}

/** The layers of a model; undefined without --model, when an adapter is read against the published model of its family. */
export async function shapeOf(name: string | undefined, terminal: Terminal): Promise<ModelShape | undefined> {
  if (name === undefined) return undefined
  const place = await modelPlace(name, terminal)
  if (existsSync(join(place, 'model.json'))) return modelShape(readManifest(place).family, await readParts(place))
  const { family, parts } = await planImport(place)
  return modelShape(family, parts)
}

/** An adapter and the layers that it was read against. */
export async function openAdapter(
  file: string,
  model: ModelShape | undefined,
): Promise<{ adapter: AdapterFile; shape: ModelShape }> {
  const adapter = await readAdapter(resolve(file), model)
  const { family, name } = adapter.info
  if (!model && family === undefined && adapter.parts.length > 0)
    throw new VignetteError('adapter-mismatch', `"${name}" is for a model of a size of its own.`, {
      hint: 'Say for which with --model, for example --model starter.',
    })
  return { adapter, shape: model ?? standardShape(family ?? 'sd15') }
}

/** Runs with the weights of a model, and closes them. */
export async function withWeights<T>(name: string, terminal: Terminal, work: (weights: ModelWeights) => Promise<T>) {
  const weights = await openModelWeights(await modelPlace(name, terminal))
  try {
    return await work(weights)
  } finally {
    await weights.close()
  }
}

/** The file that a command writes: never one that it reads. */
export async function newFile(out: string | undefined, fallback: string, sources: readonly string[]): Promise<string> {
  const named = resolve(out ?? fallback)
  const file = /\.(safetensors|sft)$/i.test(named) ? named : `${named}.safetensors`
  if (sources.some((source) => resolve(source) === file))
    throw new VignetteError('bad-request', `${basename(file)} would replace the file that it is made from.`, {
      hint: 'Choose another name with --out.',
    })
  await checkWritable(file)
  return file
}

export const stemOf = (file: string): string => basename(file, extname(file))
export const beside = (file: string, name: string): string => join(dirname(file), name)
export const bytesOf = async (file: string): Promise<string> => megabytes((await stat(file)).size)
export const megabytes = (bytes: number): string =>
  bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`

/** 0.0123 -> "1.2 %"; what is nothing but rounding is called so. */
export const percent = (share: number): string =>
  share < 1e-5 ? 'nothing but rounding' : `${(100 * share).toFixed(share < 0.001 ? 3 : 1)} %`

export function rankOption(text: string | undefined): number | undefined {
  const rank = numberOption('rank', text)
  if (rank === undefined || (Number.isInteger(rank) && rank >= 1 && rank <= 1024)) return rank
  throw new VignetteError('bad-request', `Expected --rank to be a whole number from 1 to 1024, got ${rank}.`)
}

/** Exactly so many things without a name. */
export function expectCount(positionals: readonly string[], count: number, question: string, example: string): void {
  if (positionals.length === count) return
  const message = positionals.length < count ? question : `There is more than ${count === 1 ? 'one' : count}.`
  throw new VignetteError('bad-request', message, { hint: `npm run adapter -- ${example}` })
}
