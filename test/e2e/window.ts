import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest'
import { openBrowser, openHost, type Host } from './host.ts'
import { copyHome, ensureBuild, root, tinyHome, type Home } from './tiny-model.ts'

// What the tests of one file share: a browser and a home to copy, and for each test a home and a window of its own. They
// are bindings, so whoever imports them always has those of the running test.

export const screenshots = join(root, 'test/e2e/screenshots')

export let browser: Browser
export let template: Home
export let home: Home
export let host: Host
export let page: Page

/** Before any hook of the file itself: `opens` is false where a test has to put something into its home first. */
export function useWindow({ opens = true } = {}): void {
  beforeAll(async () => {
    ensureBuild()
    await mkdir(screenshots, { recursive: true })
    browser = await openBrowser()
    template = await tinyHome()
  })
  afterAll(async () => {
    await browser?.close()
    await template?.remove()
  })
  beforeEach(async () => {
    home = await copyHome(template)
    if (opens) await openWindow()
  })
  afterEach(async () => {
    await host?.close()
    await home.remove()
  })
}

/** The window over the home of this test. */
export async function openWindow(): Promise<void> {
  host = await openHost(browser, home.home)
  page = host.page
}

/** Waits as long as a busy machine may need; what is expected is checked, not how soon. */
export const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 60_000 })

export const shot = (name: string) =>
  page.screenshot({ path: join(screenshots, `${name}.png`), animations: 'disabled' })
