import { resolve } from 'node:path'
import { inspectAdapter, readAdapter } from '../../models/adapters/read.ts'
import { expectSparseBase } from '../../models/adapters/sparse.ts'
import { readInverse } from '../../models/adapters/inverse.ts'
import type { AdapterInfo, ModelShape } from '../../models/adapters/types.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { VignetteError } from '../../models/errors.ts'
import type { AdapterArguments } from './adapter-spec.ts'
import { megabytes, percent, shapeOf, withWeights } from './adapter-files.ts'
import type { Terminal } from './terminal.ts'

/** `inspect FILE…`: what a file is, and whether it goes with the model. */
export async function inspect({ positionals, options }: AdapterArguments, terminal: Terminal): Promise<void> {
  if (positionals.length === 0)
    throw new VignetteError('bad-request', 'Which adapters should be looked into?', {
      hint: 'npm run adapter -- inspect ink.safetensors',
    })
  const shape = await shapeOf(options.model, terminal)
  const infos: AdapterInfo[] = []
  for (const [i, file] of positionals.entries()) {
    const info = await checked(await inspectAdapter(resolve(file), shape), options.model, shape, terminal)
    infos.push(info)
    if (i > 0) terminal.say('')
    for (const line of await linesOf(info)) terminal.say(line)
  }
  terminal.result(infos)
}

async function linesOf(info: AdapterInfo): Promise<string[]> {
  const { rank, verdict, preset } = info
  const ranks = rank && (rank.min === rank.max ? `rank ${rank.min}` : `ranks ${rank.min} to ${rank.max}`)
  const facts = [info.kinds.join(' and '), ranks, info.precision, megabytes(info.bytes), info.familyName]
  const by = [info.author && `by ${info.author}`, info.licence && `licence: ${info.licence}`]
  const merged = await mergedOf(info.file)
  return [
    `${info.name}: ${facts.filter(Boolean).join(', ')}`,
    info.title && info.title !== info.name ? `  ${info.title}` : '',
    by.some(Boolean) ? `  ${by.filter(Boolean).join(', ')}` : '',
    info.description ? `  ${info.description}` : '',
    info.triggers.length > 0 ? `  Words that call it: ${info.triggers.join(', ')}` : '',
    info.tags.length > 0 ? `  Tags: ${info.tags.join(', ')}` : '',
    info.preferredWeight === undefined ? '' : `  Weight: ${info.preferredWeight}`,
    preset
      ? `  Made for ${preset.name}: ${preset.steps} steps, ${preset.sampler}, guidance ${preset.guidanceScale}`
      : '',
    ...merged,
    `  ${verdict.message}`,
    verdict.hint ? `  ${verdict.hint}` : '',
    ...info.notices.map((notice) => `  ${notice}`),
  ].filter((line) => line !== '')
}

/** A sparse adapter also has to have been made for this very model, where it says for which. */
async function checked(
  info: AdapterInfo,
  model: string | undefined,
  shape: ModelShape | undefined,
  terminal: Terminal,
): Promise<AdapterInfo> {
  if (model === undefined || !['fits', 'partly'].includes(info.verdict.fit)) return info
  const adapter = await readAdapter(info.file, shape)
  if (!adapter.parts.some(({ kind }) => kind === 'sparse')) return info
  try {
    await withWeights(model, terminal, ({ read }) => expectSparseBase(adapter, read))
    return info
  } catch (error) {
    // Weights in four bits are not those that the check values are of.
    if (!(error instanceof VignetteError) || error.code !== 'adapter-mismatch') return info
    const { message, hint } = error
    return { ...info, verdict: { fit: 'refused', message, ...(hint === undefined ? {} : { hint }) } }
  }
}

/** The adapters that can be taken out of it. */
async function mergedOf(file: string): Promise<string[]> {
  const header = await readSafetensors(file).catch(() => undefined)
  if (!header) return []
  const inverse = readInverse(header.metadata, file)
  return (inverse?.members ?? []).map(
    ({ name, weight, error }) =>
      `  Holds ${name}, at weight ${weight}; comes out ${error === 0 ? 'as it was' : `with an error of ${percent(error)}`}`,
  )
}
