import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as z from 'zod'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { JsonFile, readJson, writeAtomic } from '../../../main/app/files.ts'
import { openSettings } from '../../../main/app/settings.ts'

let folder: string
beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), 'vignette-files-'))))
afterEach(() => rm(folder, { recursive: true, force: true }))

it('writes whole files and leaves nothing beside them, also when it fails', async () => {
  await writeAtomic(join(folder, 'deep/er/a.txt'), 'one')
  await writeAtomic(join(folder, 'deep/er/a.txt'), 'two')
  expect(await readFile(join(folder, 'deep/er/a.txt'), 'utf8')).toBe('two')
  await expect(writeAtomic(join(folder, 'deep/er'), 'a folder is in the way')).rejects.toThrow()
  expect(await readdir(folder)).toEqual(['deep'])
  expect(await readdir(join(folder, 'deep'))).toEqual(['er'])
})

it('saves the newest state in few writes, however many were asked for', async () => {
  let state = 0
  let reads = 0
  const file = new JsonFile(join(folder, 'n.json'), () => (reads++, { n: state }))
  const all: Promise<void>[] = []
  for (state = 1; state <= 1000; state++) all.push(file.save())
  state = 1000
  await Promise.all(all)
  expect(JSON.parse(await readFile(join(folder, 'n.json'), 'utf8'))).toEqual({ n: 1000 })
  expect(reads).toBeLessThan(5)
})

it('goes on saving after a write has failed', async () => {
  const path = join(folder, 'sub')
  await writeFile(path, 'a file where a folder should be')
  const file = new JsonFile(join(path, 'n.json'), () => 1)
  await expect(file.save()).rejects.toThrow()
  await rm(path)
  await file.save()
  expect(await readFile(join(path, 'n.json'), 'utf8')).toBe('1')
})

it('opens a damaged file from its last good copy', async () => {
  const path = join(folder, 'n.json')
  let n = 1
  const file = new JsonFile(path, () => ({ n }))
  await file.save()
  n = 2
  await file.save()
  const schema = z.object({ n: z.number() })
  expect(await readJson(path, schema)).toEqual({ n: 2 })
  await writeFile(path, '{"n":')
  expect(await readJson(path, schema)).toEqual({ n: 1 })
  expect(await readJson(join(folder, 'absent.json'), schema)).toBeUndefined()
})

it('changes only the settings named and has them again next time', async () => {
  const path = join(folder, 'settings.json')
  const settings = await openSettings(path)
  await settings.change({ isWelcomeDismissed: true })
  await settings.change({ form: { prompt: 'a boat', count: 2 } as never })
  await settings.saveBounds({ x: 1, y: 2, width: 1200, height: 800, isMaximized: false })
  const again = await openSettings(path)
  expect(again.get()).toMatchObject({ isWelcomeDismissed: true, form: { prompt: 'a boat', count: 2 } })
  expect(again.bounds()).toEqual({ x: 1, y: 2, width: 1200, height: 800, isMaximized: false })
})
