import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openAdapterFiles, type AdapterFiles } from '../../main/engine/adapters.ts'
import { openNetworks, type OpenNetworks } from '../../main/engine/networks.ts'
import { scratchFolder } from '../engine/tiny-model.ts'
import { evaluate, readKinds, writeKind, writeModelFolder } from './adapter-kinds-cases.ts'
import { expectedOf, scaleOf } from './networks-cases.ts'

// Adapters of every kind through the reader, the engine and ONNX Runtime, against PEFT, LyCORIS and merged weights.

const kinds = readKinds()
let folder: string
let networks: OpenNetworks
let files: AdapterFiles
const loaded = new Map<string, Awaited<ReturnType<AdapterFiles['load']>>>()
/** All modules whose weights any adapter needs whole. */
const live = { unet: new Set<string>(), text_encoder: new Set<string>() }
beforeAll(async () => {
  folder = await scratchFolder('adapter-kinds')
  const model = await writeModelFolder(join(folder, 'model'))
  networks = openNetworks(model, { threads: 1 })
  files = openAdapterFiles(model, { threads: 1 })
  for (const kind of kinds.cases) {
    const file = await files.load(await writeKind(folder, kind))
    loaded.set(kind.name, file)
    for (const target of ['unet', 'text_encoder'] as const) {
      for (const path of files.live.paths(target, [file.adapter!])) live[target].add(path)
    }
  }
})
afterAll(async () => {
  await networks.release()
  await files.release()
  await rm(folder, { recursive: true, force: true })
})

/** Largest difference in units of the output's size. */
function distance(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length)
  const largest = actual.reduce((most, value, i) => {
    const difference = Math.abs(value - expected[i])
    return difference <= most ? most : Number.isNaN(difference) ? Infinity : difference
  }, 0)
  return largest / scaleOf(expected)
}

const outputs = kinds.cases.flatMap((kind) => [
  { ...kind, of: kind.target, expected: kind.output },
  ...(kind.text ? [{ ...kind, of: 'text_encoder' as const, expected: kind.text }] : []),
])

describe('adapters as their libraries apply them', () => {
  it('are measured against networks that agree without any', async () => {
    for (const target of ['unet', 'text_encoder'] as const) {
      const plain = await evaluate(target, networks, files, [], kinds)
      expect(distance(plain, expectedOf(kinds.plain[target]))).toBeLessThan(1e-4)
    }
  })

  it.each(outputs)('$name changes the $of', async (kind) => {
    const { adapter, info } = loaded.get(kind.name)!
    expect(info.verdict.fit).toBe('fits')
    expect(info.matched).toBe(info.total)
    const output = await evaluate(kind.of, networks, files, [[adapter!, kind.weight]], kinds, live[kind.of])
    const expected = expectedOf(kind.expected)
    expect(distance(output, expected)).toBeLessThan(1e-4)
    expect(distance(expectedOf(kinds.plain[kind.of]), expected)).toBeGreaterThan(0.05)
  })
})
