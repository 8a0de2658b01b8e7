import { mkdir, mkdtemp, readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { createLog } from '../../../main/app/log.ts'
import { binName } from '../../../main/app/model-bin.ts'
import { clearBin, Storage } from '../../../main/app/storage.ts'
import type { StoragePart } from '../../../preload/contract/app.ts'

let home: string
let states: { parts: StoragePart[]; isMeasuring: boolean }[]
let storage: Storage
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'vignette-storage-'))
  states = []
  storage = new Storage({
    ...{ home, modelsFolder: join(home, 'models'), log: createLog(join(home, 'logs', 'a.log')) },
    emit: (state) => states.push(state),
  })
})
afterEach(() => rm(home, { recursive: true, force: true }))

async function put(name: string, bytes: number): Promise<void> {
  await mkdir(dirname(join(home, name)), { recursive: true })
  await writeFile(join(home, name), new Uint8Array(bytes))
}
const sizes = () =>
  Object.fromEntries(
    states
      .at(-1)!
      .parts.filter(({ bytes }) => bytes > 0)
      .map(({ id, bytes }) => [id, bytes]),
  )

it('counts every file once, where it belongs', async () => {
  await put('pictures/2026/11/25/00001-7.png', 1000)
  await put('pictures/2026/11/25/00002-8.png', 500)
  await put('models/starter/unet.onnx', 4000)
  await put(`models/${binName}/y/old/unet.onnx`, 70)
  await put('bin/adapters/x/a.safetensors', 30)
  await put('library.db', 200)
  await put('library.db-wal', 7)
  await put('notes.txt', 5)
  await symlink(join(home, 'models'), join(home, 'pictures', 'link'))
  await storage.measure()
  expect(sizes()).toEqual({ pictures: 1500, models: 4000, bin: 100, index: 207, other: 5 })
  expect(states.at(-1)!.parts.find(({ id }) => id === 'pictures')).toMatchObject({ files: 2, isMeasured: true })
  expect(states.map(({ isMeasuring }) => isMeasuring)).toEqual([true, false])
})

it('stops when it is told to, and says what it has', async () => {
  for (let i = 0; i < 20; i++) await put(`pictures/${i}.png`, 10)
  const measuring = storage.measure()
  storage.cancel()
  await measuring
  expect(states.at(-1)!.isMeasuring).toBe(false)
  expect(states.at(-1)!.parts.some(({ isMeasured }) => isMeasured)).toBe(false)
})

it('clears what lies in the bin for longer than the days given', async () => {
  await put('bin/old/a', 1)
  await put('bin/new/b', 1)
  const longAgo = new Date(Date.now() - 31 * 24 * 3600_000)
  await utimes(join(home, 'bin/old'), longAgo, longAgo)
  expect(await clearBin(join(home, 'bin'), 30)).toBe(1)
  expect(await readdir(join(home, 'bin'))).toEqual(['new'])
  expect(await clearBin(join(home, 'bin'), 0)).toBe(1)
  expect(await clearBin(join(home, 'nothing'), 0)).toBe(0)
})
