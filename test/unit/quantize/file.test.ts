import { createHash } from 'node:crypto'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readSafetensors, readTensor, writeSafetensors } from '../../../models/checkpoint/safetensors.ts'
import type { StoredTensor } from '../../../models/graph/weights.ts'
import {
  expectKnownFormat,
  openQuantizedFile,
  plannedFile,
  quantizedFileBytes,
  sha256OfTensors,
} from '../../../models/quantize/file.ts'
import type { LayerPlan, QuantizeStep } from '../../../models/quantize/policy.ts'

const plan = (path: string, n: number, k: number, more: Partial<LayerPlan> = {}): LayerPlan => ({
  path,
  n,
  k,
  taps: 1,
  bits: 4,
  group: 32,
  rank: 0,
  ...more,
})
/** A norm, a layer behind it, and one whose smoothing the first has to make good. */
const steps: QuantizeStep[] = [
  { layers: [plan('out', 4, 40)], activations: 'token', smoother: { layer: 'in', rows: 40 } },
  { layers: [plan('in', 48, 64, { rank: 2 })], activations: 'tensor', smoother: { norm: 'norm' } },
  { layers: [plan('time', 8, 64, { bits: 8, group: 64 })], activations: 'token' },
]
const stored = (dtype: 'F16' | 'F32', shape: number[]): StoredTensor => ({
  file: '',
  offset: 0,
  length: 0,
  dtype,
  shape,
})
const tensors = new Map([
  ['out.weight', stored('F16', [4, 40])],
  ['in.weight', stored('F16', [48, 64])],
  ['in.bias', stored('F16', [48])],
  ['time.weight', stored('F16', [8, 64])],
  ['norm.weight', stored('F16', [64])],
  ['norm.bias', stored('F16', [64])],
  ['conv_in.weight', stored('F16', [4, 2, 3, 3])],
])
const notes = { sourceSha256: 'ab'.repeat(32), policy: { version: 1 } }

let folder: string
let path: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-'))
  path = join(folder, 'unet.safetensors')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

describe('the plan of a 4-bit file', () => {
  const shapes = (isSmoothed: boolean) => {
    const { layers, rest } = plannedFile(steps, tensors, isSmoothed)
    return Object.fromEntries(
      [...layers, ...rest].map(({ name, dtype, shape }) => [name, `${dtype} ${shape.join('x')}`]),
    )
  }
  it('has codes, scales and branches in place of matrices, and everything else as it was', () => {
    expect(shapes(false)).toEqual({
      'out.weight.q4': 'U8 4x2x16', // the last group is filled up
      'out.weight.scales': 'F16 4x2',
      'in.weight.q4': 'U8 48x2x16',
      'in.weight.scales': 'F16 48x2',
      'in.weight.down': 'F16 2x64',
      'in.weight.up': 'F16 48x2',
      'in.bias': 'F16 48',
      'time.weight.q8': 'U8 8x1x64',
      'time.weight.scales': 'F16 8x1',
      'norm.weight': 'F16 64',
      'norm.bias': 'F16 64',
      'conv_in.weight': 'F16 4x2x3x3',
    })
  })
  it('has scales where layers are smoothed, and wide norms that divide', () => {
    expect(shapes(true)).toEqual({
      ...shapes(false),
      'out.weight.input_scale': 'F32 40',
      'in.weight.input_scale': 'F32 64',
      'in.weight.output_scale': 'F32 48',
      'norm.weight': 'F32 64',
      'norm.bias': 'F32 64',
    })
  })
})

describe('a 4-bit file', () => {
  const { layers, rest } = plannedFile(steps, tensors, true)
  const planned = [...layers, ...rest]
  const bytesOf = (name: string) => {
    const { dtype, shape } = planned.find((tensor) => tensor.name === name)!
    const size = { U8: 1, F16: 2, F32: 4 }[dtype as string]! * shape.reduce((a, b) => a * b)
    return Uint8Array.from({ length: size }, (_, i) => (i * 7 + name.length) % 251)
  }
  async function fill(names = planned.map(({ name }) => name)) {
    const file = await openQuantizedFile(path, planned, notes)
    const digests = new Map<string, string>()
    for (const name of names) digests.set(name, await file.write(name, bytesOf(name)))
    return { file, digests }
  }

  it('filled in any order holds every tensor, and notes with the hash of all of them', async () => {
    const { file, digests } = await fill(planned.map(({ name }) => name).reverse())
    let read = 0
    const sha256 = await file.seal(digests, (bytes) => (read += bytes))
    await file.close()
    const found = await readSafetensors(path)
    expect(found.bytes).toBe(quantizedFileBytes(planned, notes))
    for (const { name } of planned) expect(await readTensor(found.tensors.get(name)!)).toEqual(bytesOf(name))
    expect(Object.fromEntries(found.metadata)).toEqual({
      format: 'pt',
      vignette_int4: '1',
      source_sha256: notes.sourceSha256,
      policy: '{"version":1}',
      sha256,
    })
    const start = Math.min(...[...found.tensors.values()].map(({ offset }) => offset))
    const data = (await readFile(path)).subarray(start)
    expect(data.length).toBe(read)
    expect(createHash('sha256').update(data).digest('hex')).toBe(sha256)
    expect(await sha256OfTensors(path, found.tensors.values())).toBe(sha256)
  })
  it('is gone on with after a crash, and begun anew when its length is another', async () => {
    const first = await fill(['time.weight.q8'])
    expect(first.file.isFresh).toBe(true)
    await first.file.close()
    const second = await openQuantizedFile(path, planned, notes)
    expect(second.isFresh).toBe(false)
    expect(await second.read('time.weight.q8')).toEqual(bytesOf('time.weight.q8'))
    await second.close()
    const other = await openQuantizedFile(path, layers, notes)
    expect(other.isFresh).toBe(true)
    await other.close()
  })
  it('is refused when the disk gives back something else, or a tensor is missing', async () => {
    const { file, digests } = await fill()
    const handle = await open(path, 'r+')
    await handle.write(Uint8Array.of(255), 0, 1, file.bytes - 1)
    await handle.close()
    await expect(file.seal(digests, () => undefined)).rejects.toMatchObject({
      code: 'file-unreadable',
      message: expect.stringContaining('gave back other numbers'),
    })
    digests.delete('norm.bias')
    await expect(file.seal(digests, () => undefined)).rejects.toThrow(/norm.bias: never written|gave back/)
    await expect(file.write('norm.bias', new Uint8Array(3))).rejects.toThrow('3 bytes, 256 planned')
    await file.close()
  })
})

describe('a reader of 4-bit files', () => {
  const written = (metadata: Record<string, string>) =>
    writeSafetensors(path, [{ name: 'a', dtype: 'F16', shape: [1] }], () => [new Uint8Array(2)], metadata)

  it('takes a sealed one of its own version', async () => {
    await written({ vignette_int4: '1', sha256: 'ab'.repeat(32) })
    await expect(expectKnownFormat(path)).resolves.toBeUndefined()
  })

  it.each([
    ['a later version', { vignette_int4: '2', sha256: 'ab'.repeat(32) }, 'are of version 2; this Vignette knows 1'],
    ['one that was never sealed', { vignette_int4: '1', sha256: '0'.repeat(64) }, 'are not whole'],
    ['one without a version', {}, 'are not whole'],
  ])('refuses %s', async (_, metadata, message) => {
    await written(metadata)
    await expect(expectKnownFormat(path)).rejects.toMatchObject({
      code: 'file-unreadable',
      message: expect.stringContaining(message),
    })
  })
})
