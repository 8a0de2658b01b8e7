import { execFileSync } from 'node:child_process'
import { readdir, rm, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { readChanges } from '../../models/adapters/deltas.ts'
import { readAdapter } from '../../models/adapters/read.ts'
import { standardShape } from '../../models/adapters/shape.ts'
import { writeAdapter, type LayerDelta } from '../../models/adapters/write.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { scratchFolder } from './tiny-model.ts'

let folder: string
beforeAll(async () => (folder = await scratchFolder('adapter-write')))
afterAll(() => rm(folder, { recursive: true, force: true }))

const shape = standardShape('sd15')
const path = 'mid_block.attentions.0.proj_in'
const layer = (rank: number, size = 1): LayerDelta => ({
  ...{ target: 'unet', path, weight: shape.layers.unet!.get(path)!.weight, rank },
  down: new Float32Array(rank * 1280).fill(size),
  up: new Float32Array(1280 * rank).fill(0.5),
})

const isRoot = process.getuid?.() === 0

it.runIf(isRoot)('a full disk is told with the size, and the file that was there stays', async () => {
  const disk = join(folder, 'disk')
  await mkdir(disk)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk])
  try {
    const file = join(disk, 'ink.safetensors')
    await writeAdapter(file, [layer(4)], { shape })
    const before = await readSafetensors(file)
    await expect(writeAdapter(file, [layer(256)], { shape })).rejects.toMatchObject({
      code: 'disk-full',
      message: 'There is no room for ink.safetensors: it needs 2 MB.',
      hint: expect.stringMatching(/Free some space/),
    })
    expect(await readdir(disk)).toEqual(['ink.safetensors'])
    expect((await readSafetensors(file)).bytes).toBe(before.bytes)
  } finally {
    execFileSync('umount', [disk])
  }
})

it('numbers too large for halves are kept in 32 bits, small ones do not vanish', async () => {
  const file = join(folder, 'large.safetensors')
  expect(await writeAdapter(file, [layer(4, 70_000)], { shape })).toBe('F32')
  expect([...(await readSafetensors(file)).tensors.values()].map(({ dtype }) => dtype)).toEqual(['F32', 'F32', 'F32'])
  const faint = { ...layer(4), up: new Float32Array(1280 * 4).fill(1.2345e-6) }
  expect(await writeAdapter(file, [faint], { shape })).toBe('F16')
  const [read] = (await readChanges(await readAdapter(file, shape), shape)).layers
  expect(read.scale * read.up[0] * read.down[0]).toBeCloseTo(1.2345e-6, 9)
  expect(Math.abs((read.scale * read.up[0] * read.down[0]) / 1.2345e-6 - 1)).toBeLessThan(1e-3)
})

it('what is no number is never written', async () => {
  const file = join(folder, 'nothing.safetensors')
  await expect(writeAdapter(file, [layer(4, NaN)], { shape })).rejects.toThrow(/not finite/)
  await expect(writeAdapter(file, [], { shape })).rejects.toMatchObject({ code: 'adapter-mismatch' })
  await expect(readSafetensors(file)).rejects.toThrow()
})
