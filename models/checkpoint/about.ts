import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { replaceFile } from '../replace-file.ts'
import type { PartsFile } from './graphs.ts'
import { bytesOf, sha256OfFile } from './hash.ts'

/** `about.json` in a model folder: what it was made of, for the person, and the hashes that a later check compares with. */
export type ModelAbout = {
  version: 1
  licence?: string
  author?: string
  description?: string
  /** SHA-256 of each weight file, as it was put there. */
  weights: Record<string, string>
}

const aboutName = 'about.json'

/** Undefined where there is none, or none that can be read. */
export async function readAbout(folder: string): Promise<ModelAbout | undefined> {
  try {
    const about = JSON.parse(await readFile(join(folder, aboutName), 'utf8')) as ModelAbout
    return about.version === 1 && typeof about.weights === 'object' ? about : undefined
  } catch {
    return undefined
  }
}

/** Weight files of a model folder, by its parts. */
export async function weightFiles(folder: string): Promise<string[]> {
  const { parts } = JSON.parse(await readFile(join(folder, 'parts.json'), 'utf8')) as PartsFile
  return [...new Set(parts.map(({ weights }) => weights))].sort()
}

type Work = { onBytes?: (done: number, total: number) => void; signal?: AbortSignal }

/** Hashes the weights as they are now, and keeps that with what is known of the model. */
export async function recordAbout(
  folder: string,
  facts: Pick<ModelAbout, 'licence' | 'author' | 'description'> = {},
  work: Work = {},
): Promise<void> {
  const about: ModelAbout = { version: 1, ...facts, weights: await hashWeights(folder, work) }
  await replaceFile(join(folder, aboutName), `${JSON.stringify(about, null, 2)}\n`)
}

/** Compares the weights with what was recorded; without a record, they are recorded now. */
export async function checkAbout(folder: string, work: Work = {}): Promise<'recorded' | 'verified' | 'changed'> {
  const about = await readAbout(folder)
  if (!about) {
    await recordAbout(folder, {}, work)
    return 'recorded'
  }
  const now = await hashWeights(folder, work)
  const names = new Set([...Object.keys(now), ...Object.keys(about.weights)])
  return [...names].every((name) => now[name] === about.weights[name]) ? 'verified' : 'changed'
}

async function hashWeights(folder: string, { onBytes, signal }: Work): Promise<Record<string, string>> {
  const present = await readdir(folder)
  const names = (await weightFiles(folder)).filter((name) => present.includes(name))
  const total = await bytesOf(names.map((name) => join(folder, name)))
  let done = 0
  const hashes: Record<string, string> = {}
  for (const name of names) {
    hashes[name] = await sha256OfFile(join(folder, name), (bytes) => onBytes?.((done += bytes), total), signal)
  }
  return hashes
}
