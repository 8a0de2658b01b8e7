import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { checkWritable, numbered, outputFile, writeWhole } from '../../../main/cli/picture-file.ts'

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'vignette-files-'))))
afterEach(() => rmSync(folder, { recursive: true }))

test('numbered leaves the first name and counts from 2', () => {
  expect([0, 1, 9].map((index) => numbered('/a.b/barn.png', index))).toEqual([
    '/a.b/barn.png',
    '/a.b/barn-2.png',
    '/a.b/barn-10.png',
  ])
})

describe('outputFile', () => {
  test('completes names and folders', async () => {
    expect(await outputFile(undefined, 'x.png')).toBe(join(process.cwd(), 'x.png'))
    expect(await outputFile(join(folder, 'barn'), 'x.png')).toBe(join(folder, 'barn.png'))
    expect(await outputFile(join(folder, 'v1.2'), 'x.png')).toBe(join(folder, 'v1.2.png'))
    expect(await outputFile(join(folder, 'barn.PNG'), 'x.png')).toBe(join(folder, 'barn.PNG'))
    expect(await outputFile(folder, 'x.png')).toBe(join(folder, 'x.png'))
  })

  test('refuses to put PNG into a file named as another format', async () => {
    await expect(outputFile('a/barn.jpg', 'x.png')).rejects.toMatchObject({
      code: 'bad-request',
      hint: 'Write --out a/barn.png.',
    })
  })
})

describe('checkWritable', () => {
  test('passes for new and existing files and leaves nothing behind', async () => {
    await checkWritable(join(folder, 'new.png'))
    writeFileSync(join(folder, 'old.png'), 'old')
    await checkWritable(join(folder, 'old.png'))
    expect(readdirSync(folder)).toEqual(['old.png'])
    expect(readFileSync(join(folder, 'old.png'), 'utf8')).toBe('old')
  })

  test('refuses a folder that is not there, a file in place of a folder, and a folder in place of a file', async () => {
    writeFileSync(join(folder, 'file'), '')
    mkdirSync(join(folder, 'barn.png'))
    await expect(checkWritable(join(folder, 'no', 'barn.png'))).rejects.toMatchObject({ code: 'folder-unwritable' })
    await expect(checkWritable(join(folder, 'file', 'barn.png'))).rejects.toMatchObject({ code: 'folder-unwritable' })
    await expect(checkWritable(join(folder, 'barn.png'))).rejects.toMatchObject({ code: 'bad-request' })
  })

  test.runIf(process.platform === 'linux')('refuses devices and folders the system keeps to itself', async () => {
    symlinkSync('/dev/null', join(folder, 'null.png'))
    await expect(checkWritable(join(folder, 'null.png'))).rejects.toMatchObject({ code: 'bad-request' })
    await expect(checkWritable('/proc/barn.png')).rejects.toMatchObject({ code: 'folder-unwritable' })
  })
})

describe('writeWhole', () => {
  test('replaces a file and leaves no temporary one', async () => {
    const file = join(folder, 'barn.png')
    writeFileSync(file, 'old')
    await writeWhole(file, Uint8Array.of(1, 2, 3))
    expect([...readFileSync(file)]).toEqual([1, 2, 3])
    expect(readdirSync(folder)).toEqual(['barn.png'])
  })

  test('keeps the old file and cleans up when it fails', async () => {
    const file = join(folder, 'barn.png')
    mkdirSync(join(file, 'inside'), { recursive: true })
    await expect(writeWhole(file, Uint8Array.of(1))).rejects.toBeDefined()
    expect(existsSync(join(file, 'inside'))).toBe(true)
    expect(readdirSync(folder)).toEqual(['barn.png'])
  })
})
