import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { expect, it } from 'vitest'
import { openApp, openDesk } from './electron.ts'
import { a1111Text, placePicture, tinyRecipe } from './gallery-pictures.ts'
import { ensureBuild, tinyHome } from './tiny-model.ts'

// What only Electron shows: pictures at addresses of their own, and the worker as a process beside it.

it('shows small versions that its worker makes, brings a JPEG in, and puts a picture on the clipboard', async () => {
  ensureBuild()
  const desk = await openDesk()
  const home = await tinyHome()
  try {
    await placePicture(home.home, '2026/01/02/00001', tinyRecipe({ prompt: 'a whale' }))
    const jpeg = join(home.home, 'downloads', 'photo.jpg')
    await mkdir(join(home.home, 'downloads'))
    const grey = sharp({ create: { width: 90, height: 60, channels: 3, background: '#778899' } })
    await grey
      .withExif({ IFD0: { ImageDescription: a1111Text } })
      .jpeg()
      .toFile(jpeg)

    const { app, page, complaints } = await openApp(desk, home.home)
    await page.getByTestId('rail-gallery').click()
    const width = (alt: string) =>
      page
        .getByTestId('picture-card')
        .and(page.getByLabel(alt, { exact: true }))
        .locator('img')
        .evaluate((image: HTMLImageElement) => image.naturalWidth)
    await expect.poll(() => width('a whale').catch(() => 0), { timeout: 60_000 }).toBe(64)
    expect((await stat(join(home.home, 'cache/thumbs/2026-01-02-00001-1.webp'))).size).toBeGreaterThan(20)

    const reply = await page.evaluate((file) => window.vignette.invoke('images:import', { files: [file] }), jpeg)
    expect(reply).toMatchObject({ ok: true, value: { refused: [], images: [{ seed: 987654, width: 90 }] } })
    await expect
      .poll(() => width('a lighthouse in fog, (masterpiece:1.2)').catch(() => 0), { timeout: 60_000 })
      .toBe(90)

    const copied = await page.evaluate(() => window.vignette.invoke('images:copy', { id: '2026-01-02-00001-1' }))
    expect(copied).toEqual({ ok: true })
    expect(complaints).toEqual([])
    await app.close()
  } finally {
    desk.screen.close()
    await home.remove()
  }
})
