import { mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openCheckpoint } from '../../../main/engine/checkpoint.ts'

let folder: string
beforeAll(async () => (folder = await mkdtemp(join(tmpdir(), 'vignette-checkpoint-'))))
afterAll(() => rm(folder, { recursive: true }))

const values = 5
const numbers = (i: number) => Float32Array.from({ length: values }, (_, j) => Math.sin(i * 10 + j))
const open = (file: string, key = 'barn') => openCheckpoint(file, { key, values, everyMs: 0 })

async function write(file: string, count: number) {
  const checkpoint = await open(file)
  for (let i = checkpoint.recorded.length; i < count; i++) await checkpoint.onDenoised!(numbers(i))
  await checkpoint.close()
}

test('gives back what was put in, and goes on behind it', async () => {
  const file = join(folder, 'deep', 'a')
  await write(file, 3)
  await write(file, 5)
  expect((await open(file)).recorded).toEqual([0, 1, 2, 3, 4].map(numbers))
})

test('cut off or damaged at any byte, gives the records before that, and can be written on', async () => {
  const file = join(folder, 'b')
  await write(file, 3)
  const whole = await readFile(file)
  const recordBytes = values * 4 + 8
  for (let length = 0; length <= whole.length; length++) {
    const good = Math.max(0, Math.floor((length - 48) / recordBytes))
    await writeFile(file, whole)
    await truncate(file, length)
    expect((await open(file)).recorded).toEqual([0, 1, 2].slice(0, good).map(numbers))
    // After a power cut the length may be right and the rest be zeros.
    await truncate(file, whole.length)
    expect((await open(file)).recorded).toEqual([0, 1, 2].slice(0, good).map(numbers))
    await write(file, 3)
    expect(await readFile(file)).toEqual(whole)
  }
})

test('of another job counts as none and is replaced', async () => {
  const file = join(folder, 'c')
  await write(file, 4)
  const other = await open(file, 'mill')
  expect(other.recorded).toEqual([])
  await other.onDenoised!(numbers(7))
  await other.close()
  expect((await open(file, 'mill')).recorded).toEqual([numbers(7)])
  expect((await open(file)).recorded).toEqual([])
  expect((await openCheckpoint(file, { key: 'mill', values: values + 1, everyMs: 0 })).recorded).toEqual([])
})

test('writes at most as often as it was told, and the rest when it is closed', async () => {
  const file = join(folder, 'd')
  let time = 0
  const checkpoint = await openCheckpoint(file, { key: 'barn', values, everyMs: 5000, now: () => time })
  const written = async () => Math.max(0, ((await stat(file).catch(() => undefined))?.size ?? 48) - 48) / 28
  for (const [at, expected] of [
    [2000, 0],
    [4000, 0],
    [6000, 3],
    [10_000, 3],
    [11_000, 5],
  ] as const) {
    // prettier-ignore
    time = at
    await checkpoint.onDenoised!(numbers(0))
    expect(await written()).toBe(expected)
  }
  time = 12_000
  await checkpoint.onDenoised!(numbers(1))
  await checkpoint.close()
  expect(await written()).toBe(6)
})

test('that cannot be written is done without', async () => {
  const file = join(folder, 'd', 'no-folder') // d is a file
  const checkpoint = await open(file)
  await checkpoint.onDenoised!(numbers(0))
  await checkpoint.close()
  expect((await open(file)).recorded).toEqual([])
})
