import { mkdtemp, readdir, rm, truncate, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkAbout, readAbout, recordAbout } from '../../../models/checkpoint/about.ts'
import { binModel, clearModelBin, unbinModel } from '../../../main/app/model-bin.ts'
import { filesOf, lookAtModel, memoryOf } from '../../../main/app/model-health.ts'
import type { ModelManifest } from '../../../models/manifest.ts'
import { gaussianNetworks } from '../pipeline/gaussian-networks.ts'

let home: string
beforeAll(async () => (home = await mkdtemp(join(tmpdir(), 'vignette-health-'))))
afterAll(() => rm(home, { recursive: true }))

const manifest: ModelManifest = { ...gaussianNetworks().manifest, storage: 'fp16', weightBytes: 900 }
const parts = [
  { part: 'unet', weights: 'unet.safetensors' },
  { part: 'vae', weights: 'vae.safetensors' },
  { part: 'text_encoder', weights: 'text_encoder.safetensors' },
]

async function modelFolder(name: string): Promise<string> {
  const { mkdir } = await import('node:fs/promises')
  const folder = join(home, name)
  await mkdir(folder)
  await writeFile(join(folder, 'parts.json'), JSON.stringify({ version: 1, parts }))
  for (const { weights } of parts) await writeFile(join(folder, weights), Buffer.alloc(300, 7))
  for (const network of manifest.networks) await writeFile(join(folder, `${network}.onnx`), '')
  return folder
}
const look = async (folder: string) => lookAtModel(folder, manifest, await filesOf(folder))

describe('a model folder', () => {
  test('that is whole is ready', async () => {
    expect(await look(await modelFolder('whole'))).toMatchObject({ state: 'ready' })
  })

  test.each([
    ['unet.safetensors', 'drawing network'],
    ['vae.safetensors', 'picture decoder (VAE)'],
    ['text_encoder.safetensors', 'text encoder'],
    ['vae_decoder.onnx', 'graph'],
    ['parts.json', 'description of parts'],
  ])('without %s says what is missing and where it should be', async (file, what) => {
    const folder = await modelFolder(`without ${file}`)
    await unlink(join(folder, file))
    const { state, problem } = await look(folder)
    expect(state).toBe('missing-part')
    expect(problem).toContain(what)
    expect(problem).toContain(join(folder, file))
  })

  test('whose weights were cut off is damaged, with the numbers', async () => {
    const folder = await modelFolder('cut')
    await truncate(join(folder, 'unet.safetensors'), 299)
    expect(await look(folder)).toMatchObject({ state: 'damaged', problem: expect.stringMatching(/899 bytes.* 900/) })
  })

  test('is verified as long as no byte of its weights changed', async () => {
    const folder = await modelFolder('verified')
    await recordAbout(folder, { licence: 'MIT' })
    expect(await checkAbout(folder)).toBe('verified')
    await writeFile(join(folder, 'vae.safetensors'), Buffer.alloc(300, 7).fill(8, 299))
    expect(await checkAbout(folder)).toBe('changed')
    expect(await look(folder)).toMatchObject({ state: 'ready' }) // only the hash can tell
    expect((await readAbout(folder))?.licence).toBe('MIT')
    const other = await modelFolder('unrecorded')
    expect(await checkAbout(other)).toBe('recorded')
    expect(await checkAbout(other)).toBe('verified')
  })

  test('goes to the bin and comes back as it was, once, and not over another', async () => {
    const folder = await modelFolder('binned')
    const before = await readdir(folder)
    const undoId = await binModel(home, folder)
    expect(await readdir(home)).not.toContain('binned')
    expect(await unbinModel(home, undoId)).toBe('binned')
    expect(await readdir(folder)).toEqual(before)
    expect(await unbinModel(home, undoId)).toBeUndefined()
    const again = await binModel(home, folder)
    await modelFolder('binned')
    expect(await unbinModel(home, again)).toBeUndefined()
    expect(await unbinModel(home, '../..')).toBeUndefined()
    await clearModelBin(home, 1)
    expect(await readdir(join(home, '.bin'))).toEqual([again])
    await clearModelBin(home, 0)
    expect(await readdir(join(home, '.bin'))).toEqual([])
  })
})

describe('the memory of a model', () => {
  const weights = [
    { part: 'unet', bytes: 1.7e9 },
    { part: 'text_encoder', bytes: 0.25e9 },
    { part: 'vae', bytes: 0.17e9 },
  ]
  const native = { ...manifest, nativeSize: { width: 512, height: 512 } }

  test('fits, is tight where other programs have it, and is too big where one network alone is', () => {
    expect(memoryOf(native, weights, { budgetBytes: 8e9, spareBytes: 6e9 })).toMatchObject({
      fit: 'fits',
      neededBytes: 3.9e9, // halves become whole numbers on the processor
      availableBytes: 6e9,
    })
    expect(memoryOf(native, weights, { budgetBytes: 8e9, spareBytes: 2e9 }).fit).toBe('tight')
    expect(memoryOf(native, weights, { budgetBytes: 3.6e9 }).fit).toBe('tight')
    expect(memoryOf(native, weights, { budgetBytes: 3e9 }).fit).toBe('too-big')
  })

  test('is less on a graphics card and in four bits', () => {
    const card = { provider: 'webgpu' as const, name: '', reason: '' }
    expect(memoryOf(native, weights, { budgetBytes: 8e9, device: card }).neededBytes).toBe(1.95e9)
    const packed = [{ part: 'unet', bytes: 0.5e9 }, ...weights.slice(1)]
    const fourBit = { ...native, storage: 'int4' as const }
    expect(memoryOf(fourBit, packed, { budgetBytes: 8e9 }).neededBytes).toBe(1.5e9)
    const cpu = { provider: 'cpu' as const, name: '', reason: '' }
    const lowMemory = { verdict: 'low-memory' as const, usable: [], reason: '' }
    const device = { ...cpu, fourBit: lowMemory }
    expect(memoryOf(fourBit, packed, { budgetBytes: 8e9, device }).neededBytes).toBe(512 * 512 * 4000 + 0.34e9) // decoding
  })
})
