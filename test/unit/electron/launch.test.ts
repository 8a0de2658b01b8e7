import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { acceleratorOf } from '../../../main/electron/accelerators.ts'
import { launchFiles } from '../../../main/electron/launch-files.ts'

let folder: string
let ink: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-launch-'))
  ink = join(folder, 'ink and wash.safetensors')
  await writeFile(ink, '')
  await writeFile(join(folder, '-dash.png'), '')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

it('finds the files of a start among its switches', () => {
  const packaged = (...rest: string[]) => launchFiles(['/opt/vignette', ...rest], { folder, isPackaged: true })
  expect(packaged()).toEqual([])
  expect(packaged('--no-sandbox', ink, '--inspect=0')).toEqual([ink])
  expect(packaged('ink and wash.safetensors')).toEqual([ink])
  expect(packaged(pathToFileURL(ink).href)).toEqual([ink])
  expect(packaged('--', '-dash.png')).toEqual([join(folder, '-dash.png')])
  expect(packaged('nothing.png', 'https://example.org/a.png', '', 'vignette://x')).toEqual([])
})

it('leaves out the folder of the application that development names first', () => {
  const argv = ['electron', '--no-sandbox', folder, ink]
  expect(launchFiles(argv, { folder: '/', isPackaged: false })).toEqual([ink])
})

it('writes keys as the native menu does, and leaves out what it cannot', () => {
  expect(acceleratorOf('Mod+Shift+Enter', 'linux')).toBe('CommandOrControl+Shift+Return')
  expect(acceleratorOf('Alt+ArrowUp', 'linux')).toBe('Alt+Up')
  expect(acceleratorOf('Mod+,', 'darwin')).toBe('CommandOrControl+,')
  expect(acceleratorOf('r', 'linux')).toBe('R')
  expect(acceleratorOf('r', 'darwin')).toBeUndefined()
  expect(acceleratorOf('Mod+ä', 'linux')).toBeUndefined()
  expect(acceleratorOf('', 'linux')).toBeUndefined()
})
