import { spawnSync } from 'node:child_process'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ElectronApplication, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import type { Bridge } from '../../preload/contract.ts'
import { rootArguments } from '../../scripts/electron-runtime.ts'
import { appEnv, openApp, openDesk, type Desk } from './electron.ts'
import { holdEngine } from './engine-pid.ts'
import { savedPictures } from './pictures.ts'
import { copyHome, ensureBuild, root, tinyHome, type Home } from './tiny-model.ts'

// The built application in Electron itself.

let desk: Desk
let template: Home
let home: Home
let app: ElectronApplication
let page: Page
let complaints: string[]

beforeAll(async () => {
  ensureBuild()
  await mkdir(join(root, 'test/e2e/screenshots'), { recursive: true })
  desk = await openDesk()
  template = await tinyHome()
})
afterAll(async () => {
  desk?.screen.close()
  await template?.remove()
})
beforeEach(async () => {
  home = await copyHome(template)
  await open()
})
afterEach(async () => {
  await app.close().catch(() => undefined) // some tests end it themselves
  await home.remove()
})

async function open(extra: Record<string, string> = {}): Promise<void> {
  ;({ app, page, complaints } = await openApp(desk, home.home, extra))
}

const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 60_000 })
const picture = () => page.getByTestId('picture')
const log = () => readFile(join(home.home, 'logs', 'vignette.log'), 'utf8')

async function setUpIsOver(): Promise<void> {
  const isSettingUp = () =>
    page.evaluate(async () => {
      const reply = await (window as unknown as { vignette: Bridge }).vignette.invoke('app:state', undefined)
      return !reply.ok || reply.value.isSettingUp
    })
  await eventually(isSettingUp).toBe(false)
}

/** The tiny model whatever else is installed, and this many steps. */
async function prepare(steps: number): Promise<void> {
  await setUpIsOver()
  await page.getByTestId('fold-advanced').locator('summary').click()
  const select = page.getByTestId('model-select')
  if ((await select.count()) > 0) await select.selectOption('tiny')
  await page.getByText('1:1').click()
  await page.getByLabel('Steps, number').fill(String(steps))
  await page.keyboard.press('Tab')
}

it('opens a window, makes a picture on one click, and has both again after a restart', async () => {
  expect(
    await app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows().map((window) => window.isVisible())),
  ).toEqual([true])
  expect(await page.evaluate(() => document.activeElement?.id)).toBe('prompt')
  await prepare(4)
  await page.getByTestId('generate').click()
  await picture().waitFor()
  expect(await picture().evaluate((image: HTMLImageElement) => image.decode().then(() => image.naturalWidth))).toBe(128)
  expect(await savedPictures(home.home)).toMatchObject([{ width: 128, height: 128, isUniform: false }])
  await page.screenshot({ path: join(root, 'test/e2e/screenshots/electron.png') })
  await app.evaluate(({ BrowserWindow }) =>
    BrowserWindow.getAllWindows()[0].setBounds({ x: 40, y: 30, width: 1200, height: 760 }),
  )
  await page.getByTestId('prompt').fill('a harbour at noon')
  await page.waitForTimeout(1200)
  await app.close()

  await open()
  expect(await app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0].getBounds())).toMatchObject({
    width: 1200,
    height: 760,
  })
  expect(await page.getByTestId('prompt').inputValue()).toBe('a harbour at noon')
  await picture().waitFor()
  expect(await page.getByTestId('thumb').count()).toBe(1)
  await eventually(() => page.getByTestId('device').textContent()).toMatch(/Runs on/)
  expect(complaints).toEqual([])
})

it('cancels, and goes on through a reload of the window', async () => {
  await prepare(150)
  await page.getByTestId('generate').click()
  await page.getByTestId('preview').waitFor()
  await page.getByTestId('cancel').click()
  await eventually(() => page.getByTestId('running-job').count()).toBe(0)
  expect(await savedPictures(home.home)).toEqual([])
  await page.getByTestId('generate').click()
  await page.getByTestId('preview').waitFor()
  const engine = holdEngine(app.process().pid!)
  await page.reload()
  await page.getByTestId('running-job').waitFor()
  engine.release()
  await picture().waitFor()
  expect(await savedPictures(home.home)).toHaveLength(1)
})

it('keeps the page in its place: no other address, window, permission, file or network', async () => {
  const url = page.url()
  await page.evaluate(() => {
    window.open('https://example.org/')
    location.href = 'https://example.org/'
  })
  await eventually(() => log()).toMatch(/kept from going to https:\/\/example\.org/)
  expect(await log()).toMatch(/kept from opening https:\/\/example\.org/)
  expect(page.url()).toBe(url)
  expect(app.windows()).toHaveLength(1)
  const load = (source: string) =>
    page.evaluate(
      (src) =>
        new Promise((resolve) =>
          Object.assign(new Image(), { src, onload: () => resolve('loaded'), onerror: () => resolve('refused') }),
        ),
      source,
    )
  expect(await load('data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=')).toBe('loaded')
  expect(await load(`file://${join(root, 'test/golden/png-pillow.png')}`)).toBe('refused')
  expect(await load('https://example.org/a.png')).toBe('refused')
  expect(await load('vignette-image://..%2f..%2fsettings.json')).toBe('refused')
  expect(await page.evaluate(() => fetch('https://example.org/').then(String, () => 'refused'))).toBe('refused')
  expect(await page.evaluate(() => Notification.requestPermission())).toBe('denied')
  expect(await page.evaluate(() => ['require', 'process', 'module'].filter((name) => name in window))).toEqual([])
  expect(await page.evaluate(() => Object.keys((window as unknown as { vignette: object }).vignette).sort())).toEqual([
    'invoke',
    'onEvent',
    'pathOf',
  ])
})

it('shows the window that is open when it is started a second time', async () => {
  const env = appEnv(desk, home.home)
  const second = spawnSync(desk.runtime.path, [root, ...rootArguments()], { env, timeout: 30_000 })
  expect(second.status).toBe(0)
  expect(app.windows()).toHaveLength(1)
})
