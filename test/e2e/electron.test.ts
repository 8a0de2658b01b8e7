import { spawnSync } from 'node:child_process'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ElectronApplication, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import type { Bridge, Input, Output, RequestName } from '../../preload/contract.ts'
import { rootArguments } from '../../scripts/electron-runtime.ts'
import { appEnv, openApp, openDesk, type Desk } from './electron.ts'
import { enginePid } from './engine-pid.ts'
import { savedPictures } from './pictures.ts'
import { writeTinyAdapter } from './tiny-adapter.ts'
import { copyHome, ensureBuild, root, tinyHome, type Home } from './tiny-model.ts'

// The built application in Electron itself.

let desk: Desk
let template: Home
let home: Home
let app: ElectronApplication
let page: Page
/** Stays when the application has ended. */
let child: ReturnType<ElectronApplication['process']>
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
  // With a picture under way it would ask first, and some tests end it themselves or leave it without a page.
  if (!hasExited()) child.kill('SIGTERM')
  await eventually(hasExited).toBe(true)
  await home.remove()
})

async function open(extra: Record<string, string> = {}, files: string[] = []): Promise<void> {
  ;({ app, page, complaints } = await openApp(desk, home.home, extra, files))
  child = app.process()
}

const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 60_000 })
const picture = () => page.getByTestId('picture')
const log = () => readFile(join(home.home, 'logs', 'vignette.log'), 'utf8')
const invoke = <K extends RequestName>(name: K, input: Input<K>) =>
  page.evaluate(
    async ([name, input]) => {
      const reply = await (window as unknown as { vignette: Bridge }).vignette.invoke(name, input as never)
      if (!reply.ok) throw new Error(reply.error.message)
      return reply.value
    },
    [name, input] as const,
  ) as Promise<Output<K>>
const ask = (count: number, steps: number) =>
  invoke('jobs:add', { requests: [{ prompt: 'a barn', model: 'tiny', count, steps }] })
const jobs = async () => (await invoke('app:state', undefined)).jobs
const hasExited = () => child.exitCode !== null || child.signalCode !== null

const readStored = async () => JSON.parse(await readFile(join(home.home, 'settings.json'), 'utf8'))
const stored = async () => (await readStored()).settings as { places?: Record<string, unknown> }
const readBounds = async () => (await readStored()).bounds as unknown

it('opens a window, makes a picture on one click, and has both again after a restart', async () => {
  const visible = () => app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows().map((one) => one.isVisible()))
  expect(await visible()).toEqual([true])
  expect(await page.evaluate(() => document.activeElement?.id)).toBe('prompt')
  await eventually(async () => (await invoke('app:state', undefined)).isSettingUp).toBe(false)
  await page.getByTestId('model-select').selectOption('tiny')
  await page.getByTestId('generate').click()
  await picture().waitFor()
  expect(await picture().evaluate((image: HTMLImageElement) => image.decode().then(() => image.naturalWidth))).toBe(128)
  expect(await savedPictures(home.home)).toMatchObject([{ width: 128, height: 128, isUniform: false }])
  await page.screenshot({ path: join(root, 'test/e2e/screenshots/electron.png') })
  await app.close()
  await open()
  await picture().waitFor()
  await eventually(() => page.getByTestId('device').textContent()).toMatch(/Runs on/)
  expect(complaints).toEqual([])
})

it('AC03 comes back with its bounds, screen, prompt, seed, scroll and panel widths', async () => {
  const bounds = { x: 40, y: 30, width: 1400, height: 760 }
  await app.evaluate(({ BrowserWindow }, bounds) => BrowserWindow.getAllWindows()[0].setBounds(bounds), bounds)
  // A page that is loaded again finds everything as well.
  // The page that goes may still write down what it knows of its places: until ours stands.
  await eventually(async () => {
    await invoke('settings:save', { places: { inspector: true } })
    await page.reload()
    await page.getByTestId('prompt').waitFor()
    return page.getByTestId('inspector-splitter').count()
  }).toBe(1)
  await page.getByTestId('prompt').fill('a harbour at noon')
  await page.getByTestId('seed').fill('4711')
  await page.keyboard.press('Tab')
  const splitter = page.getByTestId('inspector-splitter')
  await splitter.focus()
  for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowLeft')
  const width = await splitter.getAttribute('aria-valuenow')
  expect(width).not.toBe('300')
  await page.getByTestId('rail-settings').click()
  await page.getByTestId('settings-nav-shortcuts').click()
  const scrolled = () => page.getByTestId('settings-content').evaluate((content) => content.scrollTop)
  await page.getByTestId('settings-content').evaluate((content) => content.scrollTo(0, 400))
  await eventually(async () => (await stored()).places?.['settings-scroll']).toBe(400)
  await eventually(async () => JSON.stringify(await readBounds())).toContain('"width":1400')
  await app.close()

  await open()
  await page.getByTestId('settings-page-shortcuts').waitFor()
  await eventually(scrolled).toBe(400)
  const now = await app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0].getBounds())
  expect(now).toMatchObject({ width: bounds.width, height: bounds.height })
  await page.getByTestId('rail-studio').click()
  expect(await page.getByTestId('prompt').inputValue()).toBe('a harbour at noon')
  expect(await page.getByTestId('seed').inputValue()).toBe('4711')
  expect(await page.getByTestId('inspector-splitter').getAttribute('aria-valuenow')).toBe(width)
  expect(complaints).toEqual([])
})

it('AC04 started a second time with a file: the first window comes to the front and shows its verdict', async () => {
  const file = await writeTinyAdapter(join(home.home, 'given', 'second.safetensors'), join(home.home, 'models', 'tiny'))
  await app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0].minimize())
  const env = appEnv(desk, home.home)
  const second = spawnSync(desk.runtime.path, [root, ...rootArguments(), file], { env, timeout: 30_000 })
  expect(second.status).toBe(0)
  await page.getByTestId('verdict-card').waitFor()
  expect(await page.getByTestId('verdict-card').innerText()).toContain('second')
  expect(app.windows()).toHaveLength(1)
  await eventually(() =>
    app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows().map((one) => one.isMinimized())),
  ).toEqual([false])
  // Without files it only comes to the front.
  expect(spawnSync(desk.runtime.path, [root, ...rootArguments()], { env, timeout: 30_000 }).status).toBe(0)
  expect(app.windows()).toHaveLength(1)
})

it('shows the verdict of a file that it is started with', async () => {
  await app.close()
  const file = await writeTinyAdapter(join(home.home, 'given', 'first.safetensors'), join(home.home, 'models', 'tiny'))
  await open({}, [file])
  await page.getByTestId('verdict-card').waitFor()
  expect(await page.getByTestId('verdict-card').innerText()).toContain('first')
})

it('AC58 keeps the page in its place: no other address, window, permission, file or network, and says so in the log', async () => {
  const url = page.url()
  await page.evaluate(() => {
    window.open('https://example.org/')
    location.href = 'https://example.org/'
  })
  await eventually(() => log()).toMatch(/kept from going to https:\/\/example\.org/)
  expect(await log()).toMatch(/kept from opening https:\/\/example\.org/)
  await page.evaluate(() => (location.href = 'file:///etc/passwd'))
  await eventually(() => log()).toMatch(/kept from going to file:|page says: .*file:\/\//)
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
  await eventually(() => log()).toMatch(/page says: .*png-pillow\.png/)
  expect(await load('https://example.org/a.png')).toBe('refused')
  await eventually(() => log()).toMatch(/page says: .*example\.org\/a\.png/)
  expect(await load('vignette-image://..%2f..%2fsettings.json')).toBe('refused')
  expect(await load('vignette-image://..%2f..%2fsettings.json/thumb')).toBe('refused')
  expect(await page.evaluate(() => fetch('https://example.org/').then(String, () => 'refused'))).toBe('refused')
  expect(await page.evaluate(() => Notification.requestPermission())).toBe('denied')
  await page.evaluate(() => navigator.mediaDevices?.getUserMedia({ audio: true }).catch(() => {}))
  await eventually(() => log()).toMatch(/refused the permission "notifications"/)
  await page.evaluate(() => {
    const link = document.createElement('a')
    Object.assign(link, { href: URL.createObjectURL(new Blob(['x'])), download: 'x.txt' })
    link.click()
  })
  await eventually(() => log()).toMatch(/kept from saving blob:/)
  const page2 = (code: string) => page.evaluate(code)
  expect(await page2(`['require', 'process', 'module'].filter((name) => name in window)`)).toEqual([])
  expect(await page2('Object.keys(window.vignette).sort()')).toEqual(['invoke', 'onEvent', 'pathOf'])
  // A frame inside the page, could there be one, would not be answered.
  await page.evaluate(() => document.body.append(Object.assign(document.createElement('iframe'), { src: '/' })))
  await eventually(() => log()).toMatch(/page says: .*(frame|default-src)/)
})

it('shows its pages in a sandbox, without Node or webviews', async () => {
  const preferences = await app.evaluate(({ BrowserWindow }) => {
    const { webContents } = BrowserWindow.getAllWindows()[0]
    const read = webContents as unknown as { getLastWebPreferences?: () => Record<string, unknown> }
    return read.getLastWebPreferences?.() ?? {}
  })
  expect(preferences).toMatchObject({
    ...{ sandbox: true, contextIsolation: true, nodeIntegration: false, webSecurity: true },
    webviewTag: false,
  })
})

it('has the commands of the window in its menu, under the same words', async () => {
  const items = () =>
    app.evaluate(({ Menu }) =>
      (Menu.getApplicationMenu()?.items ?? []).flatMap(({ submenu }) =>
        (submenu?.items ?? []).map(({ id, label, accelerator }) => [id, label, accelerator ?? '']),
      ),
    )
  await eventually(items).toContainEqual(['generate', 'Generate', 'CommandOrControl+Return'])
  await app.evaluate(({ Menu }) => Menu.getApplicationMenu()?.getMenuItemById('screen-gallery')?.click())
  await page.getByTestId('screen-gallery').waitFor()
})

it('opens its page again when that dies, and the job goes on', async () => {
  await app.close()
  await open({ VIGNETTE_E2E: '1', VIGNETTE_FAIL: 'hold@3' })
  const { jobIds } = await ask(2, 8)
  await eventually(async () => (await jobs()).find(({ id }) => id === jobIds[0])?.step).toBe(3)
  const engine = enginePid(app.process().pid!)
  await app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0].webContents.forcefullyCrashRenderer())
  await eventually(() => log()).toMatch(/window's page ended: (crashed|killed)/)
  const isBack = () =>
    app.evaluate(({ BrowserWindow }) =>
      BrowserWindow.getAllWindows()[0].webContents.executeJavaScript(
        `document.querySelectorAll('[data-testid="screen-studio"]').length`,
      ),
    )
  await eventually(() => isBack().catch(() => 0)).toBe(1)
  expect(enginePid(app.process().pid!)).toBe(engine)
  const state = () =>
    app.evaluate(({ BrowserWindow }) =>
      BrowserWindow.getAllWindows()[0].webContents.executeJavaScript(
        `window.vignette.invoke('app:state').then(({ value }) => value.jobs.map(({ status }) => status).join())`,
      ),
    )
  expect(await state()).toMatch(/running/)
})

it('asks before it leaves with a picture under way; quitting later goes on with it at the next start', async () => {
  await app.close()
  await open({ VIGNETTE_E2E: '1', VIGNETTE_FAIL: 'hold@3' })
  await ask(2, 8)
  await eventually(async () => (await jobs()).find(({ status }) => status === 'running')?.step).toBe(3)
  const quit = () => app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0].close())
  await quit()
  await page.getByTestId('quit-sheet').waitFor()
  await page.screenshot({ path: join(root, 'test/e2e/screenshots/electron-quit.png') })
  await page.getByTestId('quit-stay').click()
  await eventually(() => page.getByTestId('quit-sheet').count()).toBe(0)
  expect(hasExited()).toBe(false)
  await quit()
  await page.getByTestId('quit-now').click()
  await eventually(hasExited).toBe(true)
  expect(await savedPictures(home.home)).toEqual([])

  await open()
  await eventually(async () => (await savedPictures(home.home)).length).toBe(2)
})

it('finishes the picture first when it is asked to, and then leaves', async () => {
  await ask(3, 60)
  await eventually(async () => (await jobs()).find(({ status }) => status === 'running')?.phase).toBe('denoising')
  await app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0].close())
  await page.getByTestId('quit-after-current').click()
  await eventually(hasExited).toBe(true)
  const made = (await savedPictures(home.home)).length
  expect(made).toBeGreaterThan(0)
  expect(made).toBeLessThan(3)
})
