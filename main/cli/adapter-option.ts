import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename, dirname, resolve } from 'node:path'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import type { BatchPicture } from '../engine/protocol.ts'

// How a person names adapters, and the pictures of a batch, to a command.

/** An adapter as typed: the request's own defaults for what was left out. */
export type TypedAdapter = { file: string; weight?: number; textWeight?: number; start?: number; end?: number }

const form = 'FILE, FILE:WEIGHT or FILE:WEIGHT@START-END'

/** `ink.safetensors:0.8@0.2-0.8`, of which only the file must be there; relative names are looked up in `folder`. */
export function parseAdapter(text: string, folder = '.'): TypedAdapter {
  const { file, ...how } = splitAdapter(text, (name) => existsSync(resolve(folder, name)))
  const path = resolve(folder, file)
  if (!existsSync(path)) {
    throw new VignetteError('file-unreadable', `There is no adapter ${path}.`, { hint: `Write --adapter ${form}.` })
  }
  return { file: path, ...how }
}

/** Splits without looking at the disk but for `isFile`, since a file may be called like a weight: "ink:1". */
export function splitAdapter(text: string, isFile: (name: string) => boolean = () => false): TypedAdapter {
  const [, file, tail] = /^(.*):([^:\\/]*)$/s.exec(text) ?? []
  // "C:ink.safetensors" and "C:\ink.safetensors": the colon of a drive.
  if (file === undefined || /^[a-z]$/i.test(file) || isFile(text)) return { file: text }
  const numeral = String.raw`[-+]?(?:\d+\.?\d*|\.\d+)`
  const read = new RegExp(`^(${numeral})?(?:@(${numeral})-(${numeral}))?$`).exec(tail)
  if (!read || tail === '') {
    if (/^\D.*\.\w+$/.test(tail)) return { file: text } // a name with a colon in it
    throw new VignetteError('bad-request', `Expected a weight after "${basename(file)}:", got "${tail}".`, {
      hint: `Write ${form}, for example ${basename(file)}:0.8@0.2-0.8.`,
    })
  }
  const [weight, start, end] = read.slice(1).map((part) => (part === undefined ? undefined : Number(part)))
  return {
    file,
    ...(weight === undefined ? {} : { weight }),
    ...(start === undefined ? {} : { start, end }),
  }
}

/** `--adapter-text-weight`: once for all adapters, or once for each in their order. */
export function withTextWeights(adapters: readonly TypedAdapter[], weights: readonly number[]): TypedAdapter[] {
  if (weights.length === 0) return [...adapters]
  if (weights.length > 1 && weights.length !== adapters.length) {
    throw new VignetteError(
      'bad-request',
      `Expected one --adapter-text-weight, or ${adapters.length} for as many adapters, got ${weights.length}.`,
    )
  }
  return adapters.map((adapter, i) => ({ ...adapter, textWeight: weights[weights.length > 1 ? i : 0] }))
}

/** A picture of a batch as it is written in the file: adapters as on the command line or as objects. */
type WrittenPicture = Omit<BatchPicture, 'adapters'> & { adapters?: TypedAdapter[] }

const keys = ['prompt', 'negativePrompt', 'seed', 'guidanceScale', 'adapters'] as const

/**
 * The pictures in a JSON file: a list of objects with `prompt`, and if wished `negativePrompt`, `seed`, `guidanceScale` and
 * `adapters`, whose files are looked up beside the list. Values are checked with the request.
 */
export async function readBatch(file: string, most: number): Promise<WrittenPicture[]> {
  const bad = (message: string, hint?: string) =>
    new VignetteError('bad-request', `${basename(file)}: ${message}`, hint === undefined ? {} : { hint })
  let raw: unknown
  try {
    raw = JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    const system = fromSystemError(error)
    if (system) throw system
    throw bad(`this is no JSON (${error instanceof Error ? error.message : String(error)}).`)
  }
  if (!Array.isArray(raw) || raw.length === 0)
    throw bad('expected a list of pictures.', 'Write [{ "prompt": "a fox" }].')
  if (raw.length > most) throw bad(`expected at most ${most} pictures, got ${raw.length}.`, 'Split the list.')
  return raw.map((picture: unknown, i) => {
    if (typeof picture !== 'object' || picture === null || Array.isArray(picture))
      throw bad(`picture ${i + 1} is no object.`)
    const unknown = Object.keys(picture).find((key) => !(keys as readonly string[]).includes(key))
    if (unknown !== undefined) throw bad(`picture ${i + 1} has "${unknown}".`, `A picture has ${keys.join(', ')}.`)
    const { adapters, ...rest } = picture as WrittenPicture
    if (adapters === undefined) return rest
    if (!Array.isArray(adapters)) throw bad(`the adapters of picture ${i + 1} are no list.`)
    const read = adapters.map((adapter: unknown): TypedAdapter => {
      if (typeof adapter === 'string') return parseAdapter(adapter, dirname(file))
      if (typeof adapter !== 'object' || adapter === null || typeof (adapter as TypedAdapter).file !== 'string')
        throw bad(`an adapter of picture ${i + 1} names no file.`, `Write "${form}" or { "file": … }.`)
      return { ...adapter, ...parseAdapter((adapter as TypedAdapter).file, dirname(file)) }
    })
    return { ...rest, adapters: read }
  })
}
