import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openApp, openDesk, type Desk, type OpenApp } from './electron.ts'
import { savedPictures } from './pictures.ts'
import { ensureBuild } from './tiny-model.ts'

let desk: Desk
let home: string
let opened: OpenApp

beforeEach(async () => {
  ensureBuild()
  desk = await openDesk()
  home = await mkdtemp(join(tmpdir(), 'vignette-first-'))
  opened = await openApp(desk, home)
})
afterEach(async () => {
  await opened?.app.close()
  desk?.screen.close()
  await rm(home, { recursive: true, force: true })
})

it('makes a picture on the very first start, on one click, with the model that comes with it', async () => {
  const { page, complaints } = opened
  // Neither model nor engine need be ready yet: the job waits for both. The prompt is the sample sentence.
  await page.getByTestId('generate').click()
  await page.getByTestId('preview').waitFor({ timeout: 120_000 })
  await page.getByTestId('picture').waitFor({ timeout: 240_000 })
  expect(await savedPictures(home)).toMatchObject([
    { width: 256, height: 256, isUniform: false, recipe: { model: { id: 'starter' } } },
  ])
  expect(complaints).toEqual([])
})
