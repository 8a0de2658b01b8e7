import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Part, PartConfigs } from '../build.ts'
import { buildNetworks, networksOf } from '../build.ts'
import type { StoredTensor } from '../graph/weights.ts'
import type { NetworkName } from '../manifest.ts'
import { replaceFile } from '../replace-file.ts'
import type { ComponentName } from './single-file.ts'
import { readSafetensors } from './safetensors.ts'

/** `parts.json` in a model folder: all that is needed, with the weights, to build its graphs again. */
export type PartsFile = {
  version: 1
  parts: { [P in ComponentName]: { part: P; weights: string; config: PartConfigs[P] } }[ComponentName][]
}

/** Graph of a network for the CPU provider, and for the providers of graphics cards. */
export const graphFile = (network: NetworkName, dialect: 'cpu' | 'webgpu') =>
  dialect === 'cpu' ? `${network}.onnx` : `${network}.webgpu.onnx`

export async function writePartsFile(folder: string, parts: PartsFile['parts']): Promise<void> {
  await writeFile(join(folder, 'parts.json'), `${JSON.stringify({ version: 1, parts } satisfies PartsFile, null, 2)}\n`)
}

/** What the networks of a model folder look like, without its weights. */
export async function readPartConfigs(folder: string): Promise<Pick<Part, 'part' | 'config'>[]> {
  const { parts } = JSON.parse(await readFile(join(folder, 'parts.json'), 'utf8')) as PartsFile
  return parts.map(({ part, config }) => ({ part, config }))
}

/** The parts of a model folder with the places of their weights, from its `parts.json` and the weight files' headers. */
export async function readParts(folder: string): Promise<Part[]> {
  const { parts } = JSON.parse(await readFile(join(folder, 'parts.json'), 'utf8')) as PartsFile
  return Promise.all(
    parts.map(async ({ part, config, weights }) => {
      const { tensors } = await readSafetensors(join(folder, weights))
      const table = new Map<string, StoredTensor>(
        [...tensors].map(([name, tensor]) => [name, { ...tensor, file: weights }]),
      )
      return { part, config, tensors: table } as Part
    }),
  )
}

/**
 * Brings the graphs of a model folder up to date, in both dialects, and returns the networks they make. Takes
 * milliseconds; files that are right already are left alone, so it may run on a model that is in use.
 */
export async function writeGraphs(folder: string): Promise<NetworkName[]> {
  const parts = await readParts(folder)
  for (const dialect of ['cpu', 'webgpu'] as const) {
    for (const { name, onnx } of buildNetworks(parts, { dialect, keyStride: true })) {
      const path = join(folder, graphFile(name, dialect))
      const present = await readFile(path).catch(() => undefined)
      if (present?.equals(onnx)) continue
      await replaceFile(path, onnx)
    }
  }
  return parts.flatMap(({ part }) => networksOf(part))
}
