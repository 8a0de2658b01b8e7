import { spawnSync } from 'node:child_process'
import { appendFile, mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openWorkFolder, tryLock } from '../../../models/checkpoint/work-folder.ts'

let folder: string
let target: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-'))
  target = join(folder, 'model')
})
afterEach(() => rm(folder, { recursive: true, force: true }))
const lockFile = () => join(folder, '.model.lock')

describe('the lock', () => {
  it('is given once, and again when it is free', async () => {
    const unlock = await tryLock(target)
    expect(await tryLock(target)).toBeUndefined()
    await unlock!()
    expect(await readdir(folder)).toEqual([])
    expect(await tryLock(target)).toBeDefined()
  })
  it('of a process that died is taken over, by one only', async () => {
    const { pid } = spawnSync(process.execPath, ['-e', ''])
    await writeFile(lockFile(), `${pid} abc`)
    const locks = await Promise.all(Array.from({ length: 8 }, () => tryLock(target)))
    expect(locks.filter((lock) => lock !== undefined).length).toBeLessThanOrEqual(1)
    // Those that saw the takeover under way were told to wait; afterwards it is one holder's.
    const later = locks.some((lock) => lock !== undefined) ? undefined : await tryLock(target)
    expect(locks.filter((lock) => lock !== undefined).length + (later ? 1 : 0)).toBe(1)
  })
  it('of a process that is alive but has not been heard of for a minute is taken over', async () => {
    await writeFile(lockFile(), `${process.pid} abc`)
    expect(await tryLock(target)).toBeUndefined()
    await utimes(lockFile(), new Date(), new Date(Date.now() - 61_000))
    expect(await tryLock(target)).toBeDefined()
  })
  it('just created, its owner not written yet, is left alone', async () => {
    await writeFile(lockFile(), '')
    expect(await tryLock(target)).toBeUndefined()
  })
})

describe('the work folder', () => {
  it('remembers what is done for the same key, and forgets it for another', async () => {
    const first = await openWorkFolder(target, 'one')
    await first.record({ file: 'unet', tensors: 3 })
    await first.record({ file: 'unet', widened: 'w' })
    await first.record({ step: 'calibration', value: { rows: 20 } })
    await writeFile(join(first.path, 'unet'), 'x')
    expect((await openWorkFolder(target, 'one')).done('unet')).toEqual({ tensors: 3, widened: new Set(['w']) })
    expect((await openWorkFolder(target, 'one')).finished('calibration')).toEqual({ rows: 20 })
    const other = await openWorkFolder(target, 'two')
    expect(other.finished('calibration')).toBeUndefined()
    expect(other.done('unet')).toEqual({ tensors: 0, widened: new Set() })
    expect(await readdir(other.path)).toEqual(['journal.ndjson'])
  })
  it('ignores a line that a crash cut off', async () => {
    const first = await openWorkFolder(target, 'one')
    await first.record({ file: 'unet', tensors: 3 })
    await appendFile(join(first.path, 'journal.ndjson'), '{"file":"unet","tens')
    const second = await openWorkFolder(target, 'one')
    expect(second.done('unet').tensors).toBe(3)
    await second.record({ file: 'unet', tensors: 4 })
    expect((await openWorkFolder(target, 'one')).done('unet').tensors).toBe(4)
  })
  it('moves into place as a whole, over an older model', async () => {
    for (const content of ['old', 'new']) {
      const work = await openWorkFolder(target, content)
      await writeFile(join(work.path, content), content)
      await work.finish()
    }
    expect(await readdir(target)).toEqual(['new'])
    expect(await readdir(folder)).toEqual(['model'])
    expect((await stat(target)).isDirectory()).toBe(true)
  })
})
