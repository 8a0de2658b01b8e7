import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { Bridge } from '../../preload/contract.ts'
import { openApp, openDesk, type Desk, type OpenApp } from './electron.ts'
import { savedPictures } from './pictures.ts'
import { ensureBuild, root } from './tiny-model.ts'

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

it('AC01 makes a picture on the very first start, on one click, with the model that comes with it, and asks no network', async () => {
  const { page, complaints } = opened
  const requested: string[] = []
  page.on('request', (request) => requested.push(request.url()))
  // Neither model nor engine need be ready yet: the job waits for both. The prompt is the sample sentence.
  await page.getByTestId('generate').click()
  await page.getByTestId('preview').waitFor({ timeout: 120_000 })
  await page.getByTestId('picture').waitFor({ timeout: 240_000 })
  expect(await savedPictures(home)).toMatchObject([
    { width: 256, height: 256, isUniform: false, recipe: { model: { id: 'starter' } } },
  ])
  expect(requested.filter((url) => /^(https?|wss?|ftp):/.test(url))).toEqual([])
  const ledger = await page.evaluate(() =>
    (window as unknown as { vignette: Bridge }).vignette.invoke('network:ledger', undefined),
  )
  expect(ledger).toEqual({ ok: true, value: [] })
  expect(complaints).toEqual([])

  // The adapters that come with it make it faster, set by one choice.
  await page.getByTestId('speed-fast').check()
  await expect.poll(() => page.getByTestId('speed-summary').textContent()).toContain('10 steps · Distilled · DDIM')
  expect(await page.getByTestId('phase-slow').inputValue()).toBe('5')
  await page.screenshot({ path: join(root, 'test/e2e/screenshots/starter-fast.png') })
  await page.getByTestId('generate').click()
  await expect.poll(async () => (await savedPictures(home)).length, { timeout: 120_000 }).toBe(2)
  const [, fast] = await savedPictures(home)
  expect(fast.recipe.request).toMatchObject({ steps: 10, sampler: 'ddim', guidanceScale: 1 })
  expect(fast.recipe.adapters?.map(({ start, end }) => [start, end])).toEqual([
    [0, 0.5],
    [0.5, 1],
  ])
  await page.getByTestId('speed-draft').check()
  await page.getByTestId('generate').click()
  await expect.poll(async () => (await savedPictures(home)).length, { timeout: 120_000 }).toBe(3)
  const [, , draft] = await savedPictures(home)
  expect(draft.recipe).toMatchObject({ request: { steps: 4, guidanceScale: 4 }, adapters: [{ isGuidance: true }] })
})
