import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { enginePid } from './engine-pid.ts'
import { eventually, home, host, openWindow, page, screenshots, useWindow } from './window.ts'

useWindow()

async function restart(): Promise<void> {
  await host.close()
  await openWindow()
}
async function goTo(name: string): Promise<void> {
  await page.getByTestId('rail-settings').click()
  await page.getByTestId(`settings-nav-${name}`).click()
}
const setting = (key: string) => page.getByTestId(`setting-${key}`)
const stored = () => host.services.settings.get()
const press = (testId: string) => page.getByTestId(testId).click()

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** What assistive technology says beside the name of a control. */
const descriptionOf = (testId: string) =>
  page.getByTestId(testId).evaluate((element) => {
    const ids = element.getAttribute('aria-describedby')?.split(' ') ?? []
    return ids.map((id) => document.getElementById(id)?.textContent?.trim()).join(' ')
  })

describe('the pages', () => {
  it('has one for each group, with one heading of the first order, and remembers the page', async () => {
    await press('rail-settings')
    expect(await page.getByRole('heading', { level: 1 }).allTextContents()).toEqual(['Settings'])
    const ids = ['general', 'library', 'performance', 'queue', 'export', 'privacy', 'shortcuts']
    for (const id of [...ids, 'accessibility', 'safety', 'advanced', 'about']) {
      await press(`settings-nav-${id}`)
      const shown = page.getByTestId('settings-content').getByRole('heading', { level: 2 })
      expect(await shown.allTextContents()).toEqual([
        (await page.getByTestId(`settings-nav-${id}`).textContent())?.trim(),
      ])
    }
    await eventually(() => stored().places?.['settings-page']).toBe('about')
    await restart()
    await page.getByTestId('settings-page-about').waitFor()
    expect(host.complaints).toEqual([])
  })

  it('finds settings by any of their words, over all pages', async () => {
    await press('rail-settings')
    await page.getByTestId('settings-search').fill('MEMORY limit')
    expect(await page.locator('[data-testid^="row-"]').count()).toBe(1)
    await setting('memoryPercent').waitFor()
    await page.getByTestId('settings-search').fill('bin')
    await page.getByTestId('row-storage').waitFor()
    await setting('binDays').waitFor()
    await page.getByTestId('settings-search').fill('zebra crossing')
    expect(await page.getByTestId('settings-nothing').textContent()).toContain('zebra crossing')
    await page.getByTestId('settings-search').fill('')
    await page.getByTestId('settings-page-general').waitFor()
  })

  it('says why what is off is off', async () => {
    await goTo('safety')
    expect(await page.getByTestId('reason-content-filter').textContent()).toContain('later version')
    await goTo('advanced')
    expect(await page.getByTestId('reason-local-api').textContent()).toMatch(/^Off\./)
    await goTo('library')
    expect(await page.getByTestId('reason-move-library').textContent()).toContain('VIGNETTE_HOME')
  })

  it('fits in a small window with text twice as large', async () => {
    await page.setViewportSize({ width: 1024, height: 640 })
    await page.getByTestId('rail-settings').click()
    await host.services.handlers['settings:save']({ textScale: 200 })
    for (const id of ['general', 'library', 'privacy', 'shortcuts', 'about']) {
      await press(`settings-nav-${id}`)
      await page.getByTestId(`settings-page-${id}`).waitFor()
      const wide = await page.evaluate(() => {
        const content = document.querySelector('[data-testid="settings-content"]')!
        return [
          document.documentElement.scrollWidth > document.documentElement.clientWidth,
          content.scrollWidth > content.clientWidth,
        ]
      })
      expect([id, ...wide]).toEqual([id, false, false])
    }
    await page.screenshot({ path: join(screenshots, 'settings-200.png') })
  })
})

describe('a setting', () => {
  it('applies at once, is marked and counted, goes back by itself, and is there after a restart', async () => {
    await goTo('general')
    await page.getByTestId('setting-theme-dark').check({ force: true })
    await eventually(() => page.locator('html').getAttribute('data-theme')).toBe('dark')
    await setting('textScale-number').fill('117')
    await page.keyboard.press('Enter')
    await eventually(() => stored()).toMatchObject({ theme: 'dark', textScale: 120 })
    expect(await page.locator('html').evaluate((html) => html.style.fontSize)).toBe('120%')
    expect(await page.getByTestId('changed-theme').textContent()).toBe('Changed')
    expect(await page.getByTestId('changed-density').count()).toBe(0)
    expect(await page.getByTestId('settings-nav-general').textContent()).toContain('2 changed')
    await page.screenshot({ path: join(screenshots, 'settings-dark.png') })

    await restart()
    await goTo('general')
    await page.getByTestId('changed-theme').waitFor()
    await press('reset-theme')
    await eventually(() => stored().theme).toBeUndefined()
    await eventually(() => page.getByTestId('changed-theme').count()).toBe(0)
    expect(stored().textScale).toBe(120)
    expect(host.complaints).toEqual([])
  })

  it('can be set with the keyboard alone', async () => {
    await goTo('performance')
    await setting('memoryPercent').focus()
    await page.keyboard.press('Home')
    await eventually(() => stored().memoryPercent).toBe(25)
    await page.keyboard.press('PageUp')
    await eventually(() => stored().memoryPercent).toBe(75)
    await goTo('queue')
    await setting('keepsCheckpoints').focus()
    await page.keyboard.press('Space')
    await eventually(() => stored().keepsCheckpoints).toBe(false)
    await page.locator('[data-testid="setting-afterCrash-pause"]').focus()
    await page.keyboard.press('ArrowRight')
    await eventually(() => stored().afterCrash).toBe('resume')
  })

  it('of Performance reaches the engine, which starts anew for it', async () => {
    await host.services.warmUp()
    const before = enginePid(process.pid)
    await goTo('performance')
    await eventually(() => page.getByTestId('device-report').textContent()).toContain('CPU')
    await setting('memoryPercent-number').fill('50')
    await page.keyboard.press('Tab')
    await eventually(() => stored().memoryPercent).toBe(50)
    // The one that knows nothing of it ends at once, and the next comes when it is needed.
    await eventually(() => isRunning(before)).toBe(false)
    await host.services.warmUp()
    expect(enginePid(process.pid)).not.toBe(before)
  })
})

describe('shortcuts', () => {
  const keysShown = (id: string) => page.getByTestId(`keys-${id}`).innerText()

  it('AC54 refuses keys that another command has and names it; bindings persist; reset brings the defaults back', async () => {
    await goTo('shortcuts')
    await press('keys-generate')
    await page.keyboard.press('Control+k')
    expect(await page.getByTestId('keys-refused').textContent()).toMatch(/Ctrl\+K belongs to “Find a command”/)
    await eventually(() => page.getByTestId('live-assertive').textContent()).toMatch(/Find a command/)
    expect(await keysShown('generate')).toBe('Ctrl+Enter')
    expect(stored().shortcuts).toBeUndefined()

    await press('keys-generate')
    await page.keyboard.press('Control+Shift+G')
    await eventually(() => stored().shortcuts).toEqual({ generate: ['Mod+Shift+g'] })
    expect(await keysShown('generate')).toBe('Ctrl+Shift+G')
    expect(await page.getByTestId('keys-refused').count()).toBe(0)
    await page.screenshot({ path: join(screenshots, 'settings-shortcuts.png') })

    await restart()
    await goTo('shortcuts')
    expect(await keysShown('generate')).toBe('Ctrl+Shift+G')
    // What it had before is free now, and taken by another it cannot simply come back.
    await press('keys-skip')
    await page.keyboard.press('Control+Enter')
    await eventually(() => stored().shortcuts?.skip).toEqual(['Mod+Enter'])
    await press('keys-reset-generate')
    expect(await page.getByTestId('keys-refused').textContent()).toContain('Skip to the next job')
    await press('keys-reset-skip')
    await press('keys-reset-generate')
    await eventually(() => stored().shortcuts).toEqual({})
    expect(await keysShown('generate')).toBe('Ctrl+Enter')
    expect(host.complaints).toEqual([])
  })

  it('takes keys away, gives up at Esc, and resets all at once', async () => {
    await goTo('shortcuts')
    await press('keys-clear-generate')
    await eventually(() => stored().shortcuts).toEqual({ generate: [] })
    await press('keys-pause')
    await page.keyboard.press('Escape')
    expect(await keysShown('pause')).toBe('Ctrl+.')
    await press('shortcuts-reset-all')
    await eventually(() => keysShown('generate')).toBe('Ctrl+Enter')
    expect(stored().shortcuts).toBeUndefined()
  })

  it('shows the native menu the same words and keys', async () => {
    await eventually(() => host.menu().map(({ id }) => id)).toContain('generate')
    expect(host.menu().find(({ id }) => id === 'generate')).toMatchObject({ title: 'Generate', keys: 'Mod+Enter' })
    await goTo('shortcuts')
    await press('keys-screen-gallery')
    await page.keyboard.press('Control+Alt+g')
    await eventually(() => host.menu().find(({ id }) => id === 'screen-gallery')?.keys).toBe('Mod+Alt+g')
    host.tell({ type: 'app:command', id: 'screen-gallery' })
    await page.getByTestId('screen-gallery').waitFor()
  })
})

describe('the network', () => {
  let server: Server
  let address: string
  let asked: number
  beforeEach(async () => {
    asked = 0
    const release = { tag_name: 'v99.0.0', body: 'Many <b>things</b>.', html_url: 'https://example.org/99' }
    server = createServer((_, response) => (asked++, response.end(JSON.stringify([release]))))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/releases`
  })
  afterEach(() => void server.close())

  it('AC59 offline: update check and URL import are off with the reason, and the ledger stays empty', async () => {
    await host.services.settings.change({ updateAddress: address })
    await goTo('privacy')
    expect(await page.getByTestId('network-state').innerText()).toMatch(/Offline/)
    for (const key of ['setting-mayCheckUpdates', 'setting-mayDownloadModels']) {
      expect(await page.getByTestId(key).getAttribute('aria-disabled')).toBe('true')
      expect(await descriptionOf(key)).toContain('offline')
      await page.getByTestId(key).click({ force: true })
    }
    await page.getByTestId('ledger-empty').waitFor()
    await page.screenshot({ path: join(screenshots, 'settings-privacy.png') })
    await goTo('about')
    expect(await page.getByTestId('check-updates').getAttribute('aria-disabled')).toBe('true')
    expect(await descriptionOf('check-updates')).toContain('Vignette is offline')
    await page.getByTestId('check-updates').click({ force: true })
    await press('rail-models')
    const byAddress = page.getByTestId('models-add-address')
    expect(await byAddress.evaluate((one) => one.matches(':disabled, [aria-disabled="true"]'))).toBe(true)
    expect(await descriptionOf('models-add-address')).toMatch(/offline/i)
    // Whoever asks behind the window's back gets nowhere either.
    await expect(host.services.handlers['network:checkUpdates']()).rejects.toMatchObject({ code: 'offline' })
    expect(asked).toBe(0)
    expect(await host.services.handlers['network:ledger']()).toEqual([])
    expect(stored().mayCheckUpdates).toBeUndefined()
  })

  it('asks for updates only when it is clicked, tells what it found, and writes it down', async () => {
    await goTo('privacy')
    await setting('isOnline').click()
    await eventually(() => stored().isOnline).toBe(true)
    await goTo('about')
    expect(await descriptionOf('check-updates')).toContain('enter an address')
    await setting('updateAddress').fill('no address')
    await page.keyboard.press('Tab')
    await page.getByText('This is not an address').waitFor()
    await setting('updateAddress').fill(address)
    await page.keyboard.press('Tab')
    await eventually(() => stored().updateAddress).toBe(address)
    expect(asked).toBe(0)
    await press('check-updates')
    await page.getByTestId('update-report').waitFor()
    expect(await page.getByTestId('update-report').innerText()).toMatch(/Version 99\.0\.0 is there\s+Many <b>things/)
    expect(asked).toBe(1)
    // The address is seen before the browser opens it.
    await press('update-link')
    expect(await page.getByTestId('open-link').innerText()).toContain('https://example.org/99')
    expect(host.links).toEqual([])
    await press('open-link-go')
    await eventually(() => host.links).toEqual(['https://example.org/99'])
    await goTo('privacy')
    expect(await page.getByTestId('ledger-row').innerText()).toMatch(
      /127\.0\.0\.1:\d+\s+Update check\s+\d+ bytes\s+done/,
    )
    expect(await setting('mayCheckUpdates').getAttribute('aria-checked')).toBe('true')
    // Switched off by hand it stays off.
    await setting('mayCheckUpdates').click()
    await goTo('about')
    expect(await descriptionOf('check-updates')).toContain('switched off')
    expect(host.complaints).toEqual([])
  })
})

describe('files and space', () => {
  it('exports choices and takes them over elsewhere', async () => {
    await host.services.settings.change({ theme: 'light', textScale: 110, promptHistory: ['a secret'] })
    await goTo('advanced')
    await press('settings-export')
    await page.getByText(/Saved as/).waitFor()
    const file = join(home.home, 'vignette-settings.json')
    const text = await readFile(file, 'utf8')
    expect(text).not.toContain('secret')
    await press('settings-reset-all')
    await eventually(() => stored().theme).toBeUndefined()
    await page.getByTestId('toast').getByText('Undo').click()
    await eventually(() => stored()).toMatchObject({ theme: 'light', textScale: 110 })
    await press('settings-reset-all')
    const edited = { ...JSON.parse(text).settings, density: 'tiny', isOnline: true, keepModelMinutes: 20 }
    await writeFile(file, JSON.stringify({ ...JSON.parse(text), settings: edited }))
    host.chosen.push(file)
    await press('settings-import')
    await page.getByText(/3 settings were taken over\. Left out: density, isOnline/).waitFor()
    expect(stored()).toMatchObject({ theme: 'light', textScale: 110, keepModelMinutes: 20 })
    expect(stored().isOnline).toBeUndefined()
  })

  it('shows a diagnostics file before it is saved: no prompts, and places only when asked', async () => {
    await host.services.settings.change({ promptHistory: ['a very secret lighthouse'] })
    await goTo('advanced')
    await press('show-log')
    await eventually(() => host.revealed).toEqual([join(home.home, 'logs', 'vignette.log')])
    await press('diagnostics-open')
    const text = () => page.getByTestId('diagnostics-text').innerText()
    await eventually(text).toContain('processor:')
    expect(await text()).not.toContain(home.home)
    await page.screenshot({ path: join(screenshots, 'diagnostics.png') })
    await page.getByTestId('diagnostics-paths').check()
    await eventually(text).toContain(home.home)
    await page.getByTestId('diagnostics-paths').uncheck()
    await eventually(text).not.toContain(home.home)
    await press('diagnostics-save')
    await eventually(() => page.getByTestId('diagnostics').count()).toBe(0)
    const saved = await readFile(join(home.home, 'vignette-diagnostics.txt'), 'utf8')
    expect(saved).toContain('processor:')
    expect(saved).not.toContain('lighthouse')
    expect(saved).not.toContain(home.home)
  })

  it('counts what takes up space and empties the bin after one question', async () => {
    await mkdir(join(home.home, 'bin/adapters/1'), { recursive: true })
    await writeFile(join(home.home, 'bin/adapters/1/old.safetensors'), new Uint8Array(5000))
    await goTo('library')
    await eventually(() => page.getByTestId('storage-total').textContent()).toMatch(/in all/)
    expect(await page.getByTestId('storage-bin').innerText()).toMatch(/1 file\s+5\.0 kB/)
    expect(await page.getByTestId('storage-models').innerText()).toMatch(/MB/)
    await page.getByTestId('storage-models').getByRole('button').click()
    await eventually(() => host.revealed).toEqual([join(home.home, 'models')])
    await press('empty-bin')
    expect(await page.getByTestId('empty-bin-dialog').innerText()).toContain('5.0 kB')
    await page.screenshot({ path: join(screenshots, 'settings-library.png') })
    await page.getByTestId('empty-bin-dialog').getByRole('button', { name: 'Empty bin' }).click()
    await eventually(() => page.getByTestId('storage-bin').count()).toBe(0)
    expect(await page.getByTestId('empty-bin').getAttribute('aria-disabled')).toBe('true')
    expect(host.complaints).toEqual([])
  })

  it('says what it is, what it runs on and whose work it holds', async () => {
    await goTo('about')
    expect(await page.getByTestId('about-facts').innerText()).toMatch(/Node\s+20[\s\S]*Processor[\s\S]*cores/)
    expect(await page.getByTestId('art-set').allInnerTexts()).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/Noto Emoji.*Apache/),
        expect.stringMatching(/Twemoji.*CC BY 4\.0/),
      ]),
    )
    await page.getByTestId('about-licences').locator('summary').click()
    expect(await page.getByTestId('about-notice').innerText()).toContain('Open Font License')
    await page.screenshot({ path: join(screenshots, 'settings-about.png') })
  })
})

describe('leaving', () => {
  it('asks in a sheet that holds nothing up, and can be taken back', async () => {
    host.tell({ type: 'app:quitting' })
    const sheet = page.getByTestId('quit-sheet')
    await sheet.waitFor()
    await page.screenshot({ path: join(screenshots, 'quit-sheet.png') })
    // The window behind it still works.
    await page.getByTestId('prompt').fill('still here')
    await press('quit-after-current')
    await eventually(() => sheet.innerText()).toContain('quits after this picture')
    await press('quit-stay')
    await eventually(() => sheet.count()).toBe(0)
    expect(host.quits).toEqual(['after-current', 'stay'])
    host.tell({ type: 'app:quitting', at: Date.now() + 10_000 })
    await eventually(() => sheet.innerText()).toMatch(/In \d+ s the queue is left as it is/)
    await page.keyboard.press('Enter') // on the button that is chosen for it
    expect(host.quits).toEqual(['after-current', 'stay', 'now'])
    await eventually(() => sheet.count()).toBe(0)
    host.tell({ type: 'app:quitting' })
    await sheet.waitFor()
    await page.keyboard.press('Escape')
    await eventually(() => host.quits.at(-1)).toBe('stay')
  })

  it('can stay awake when the queue is done', async () => {
    host.tell({ type: 'app:sleeping', at: Date.now() + 30_000 })
    await page.getByTestId('toast').getByText('Stay awake').click()
    await eventually(() => host.quits).toEqual(['stay'])
  })
})
