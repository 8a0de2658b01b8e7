import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { screenNames } from '../../preload/limits.ts'
import type { Host } from './host.ts'
import { eventually, home, host, page, screenshots, useWindow } from './window.ts'

useWindow()

const focused = () =>
  page.evaluate(() => document.activeElement?.getAttribute('data-testid') ?? document.activeElement?.tagName)
const headings = () => page.locator('h1:visible').count()
const html = (name: string) => page.locator('html').getAttribute(name)
const setSettings = (part: Parameters<Host['services']['handlers']['settings:save']>[0]) =>
  host.services.handlers['settings:save'](part)

/** A drag as the system makes one, over the middle of the window. */
async function drag(type: 'dragenter' | 'drop', items: { name?: string; type?: string; text?: string }[], on = 'body') {
  await page.locator(on).evaluate(
    (target, { type, items }) => {
      const data = new DataTransfer()
      for (const { name, type: mime = '', text = '' } of items)
        if (name === undefined) data.setData('text/plain', text)
        else data.items.add(new File([text], name, { type: mime }))
      target.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: data }))
    },
    { type, items },
  )
}

describe('the first start', () => {
  it('AC02 has no dialog, the prompt focused and Generate one Tab away', async () => {
    expect(await page.getByRole('dialog').count()).toBe(0)
    await eventually(focused).toBe('prompt')
    await page.keyboard.press('Tab')
    expect(await focused()).toBe('generate')
  })

  it('offers on its card to bring folders in and to see the shortcuts', async () => {
    const card = page.getByTestId('welcome-card')
    expect(await card.textContent()).toContain('Nothing is sent anywhere.')
    await card.getByTestId('welcome-shortcuts').click()
    await page.getByTestId('shortcuts').waitFor()
    await page.keyboard.press('Escape')
    expect(await page.getByRole('dialog').count()).toBe(0)
    const folder = join(home.home, 'ComfyUI')
    await mkdir(join(folder, 'models/loras'), { recursive: true })
    host.chosen.push(folder)
    await card.getByTestId('welcome-folders').click()
    await page.getByTestId('screen-adapters').waitFor()
    await eventually(() => page.getByRole('dialog').textContent()).toContain('ComfyUI')
  })
})

describe('the screens', () => {
  it('AC05 open by click, by Mod and a digit, and from the palette; each has one heading', async () => {
    for (const [i, name] of screenNames.entries()) {
      const other = name === 'studio' ? 'gallery' : 'studio'
      for (const way of ['click', 'keys', 'palette'] as const) {
        await page.getByTestId(`rail-${other}`).click()
        await page.getByTestId(`screen-${other}`).waitFor()
        if (way === 'click') await page.getByTestId(`rail-${name}`).click()
        else if (way === 'keys') await page.keyboard.press(`Control+${i + 1}`)
        else {
          await page.keyboard.press('Control+k')
          await page.getByTestId('palette-search').fill(`go to ${name}`)
          await page.keyboard.press('Enter')
        }
        await page.getByTestId(`screen-${name}`).waitFor()
        expect([name, way, await headings()]).toEqual([name, way, 1])
        expect(await page.getByTestId(`rail-${name}`).getAttribute('aria-current')).toBe('page')
        // The keyboard is in the new screen, or on its heading.
        await eventually(() => page.evaluate(() => document.activeElement?.closest('main') !== null)).toBe(true)
      }
    }
    expect(host.complaints).toEqual([])
  })

  it('open where they were left when the page is loaded again', async () => {
    await page.getByTestId('rail-story').click()
    await page.getByTestId('rail-fold').click()
    await page.waitForTimeout(900) // saved within half a second
    await page.reload()
    await page.getByTestId('screen-story').waitFor()
    await eventually(() => page.getByTestId('rail-fold').getAttribute('aria-pressed')).toBe('false')
  })

  it('can be reached past the rail by a link for the keyboard', async () => {
    await page.getByTestId('rail-story').click()
    await page.getByTestId('skip-link').focus()
    expect(await page.getByTestId('skip-link').boundingBox()).toMatchObject({ x: 8 })
    await page.keyboard.press('Enter')
    expect(await focused()).toBe('H1')
  })
})

describe('the palette', () => {
  it('finds by a few letters, runs with Enter, shows keys, and has what was used last on top', async () => {
    await page.keyboard.press('Control+k')
    const items = page.getByTestId('palette-item')
    await page.getByTestId('palette-search').fill('dark')
    expect(await items.first().textContent()).toContain('Dark colours')
    await page.keyboard.press('Enter')
    expect(await page.getByTestId('palette').count()).toBe(0)
    await eventually(() => html('data-theme')).toBe('dark')
    await page.keyboard.press('Control+k')
    expect(await items.first().textContent()).toContain('Dark colours')
    await page.getByTestId('palette-search').fill('gallery')
    expect(await items.first().textContent()).toContain('Ctrl+6')
    await page.screenshot({ path: join(screenshots, 'palette-dark.png') })
    await page.getByTestId('palette-search').fill('Tiny')
    await page.keyboard.press('Enter')
    await page.getByTestId('screen-models').waitFor()
    await page.keyboard.press('Control+k')
    await page.getByTestId('palette-search').fill('qqqq')
    await page.getByTestId('palette-none').waitFor()
    await page.keyboard.press('Escape')
    expect(await page.getByTestId('palette').count()).toBe(0)
  })
})

describe('keys', () => {
  it('AC55 single letters in a text field are letters', async () => {
    const prompt = page.getByTestId('prompt')
    await prompt.fill('')
    await prompt.pressSequentially('rasp? .ificjk')
    expect(await prompt.inputValue()).toBe('rasp? .ificjk')
    expect(await page.getByRole('dialog').count()).toBe(0)
    await page.keyboard.press('Control+k')
    await page.getByTestId('palette-search').pressSequentially('f?')
    expect(await page.getByTestId('palette-search').inputValue()).toBe('f?')
    expect(await page.getByTestId('shortcuts').count()).toBe(0)
  })

  it('shows the sheet of shortcuts on ?, unless single keys are turned off', async () => {
    await page.getByTestId('rail-story').click()
    await page.keyboard.press('?')
    await page.getByTestId('shortcuts').waitFor()
    expect(await page.getByTestId('shortcuts').textContent()).toContain('Ctrl+Shift+Enter')
    await page.screenshot({ path: join(screenshots, 'shortcuts.png') })
    await page.keyboard.press('Escape')
    await setSettings({ hasSingleKeys: false })
    await page.waitForTimeout(300)
    await page.keyboard.press('?')
    await page.waitForTimeout(300)
    expect(await page.getByTestId('shortcuts').count()).toBe(0)
  })

  it('act as they were changed, after the next start too', async () => {
    await setSettings({ shortcuts: { 'screen-gallery': ['Alt+g'], 'screen-story': [] } })
    await page.reload()
    await page.getByTestId('screen-studio').waitFor()
    await page.keyboard.press('Control+2')
    await page.keyboard.press('Control+6')
    expect(await page.getByTestId('screen-studio').count()).toBe(1)
    await page.keyboard.press('Alt+g')
    await page.getByTestId('screen-gallery').waitFor()
  })

  it('Escape leaves a field and cancels nothing', async () => {
    await page.getByTestId('prompt').focus()
    await page.keyboard.press('Escape')
    expect(await focused()).toBe('BODY')
  })
})

describe('the look', () => {
  it('follows the settings at once: theme, size of text, density, targets, motion', async () => {
    await setSettings({ theme: 'contrast', textScale: 150, density: 'compact', hasLargerTargets: true })
    await eventually(() => html('data-theme')).toBe('contrast')
    expect(await page.evaluate(() => getComputedStyle(document.documentElement).fontSize)).toBe('24px')
    expect(await html('data-density')).toBe('compact')
    const sizes = await page
      .locator('button:visible')
      .evaluateAll((all) =>
        all.map((one) => Math.min(one.getBoundingClientRect().height, one.getBoundingClientRect().width)),
      )
    expect(Math.min(...sizes)).toBeGreaterThanOrEqual(44)
    await page.screenshot({ path: join(screenshots, 'studio-contrast-150.png') })
  })

  it('AC53 reduced motion: nothing runs for longer than 10 ms', async () => {
    await setSettings({ reducedMotion: 'on' })
    await eventually(() => html('data-motion')).toBe('reduced')
    for (const name of screenNames) {
      await page.getByTestId(`rail-${name}`).click()
      await page.getByTestId(`screen-${name}`).waitFor()
      await page.getByTestId('messages-button').hover()
      const running = await page.evaluate(() =>
        document
          .getAnimations()
          .filter(({ effect }) => Number(effect?.getComputedTiming().endTime ?? 0) > 10)
          .map(({ effect }) => (effect as KeyframeEffect).target?.className),
      )
      expect([name, running]).toEqual([name, []])
    }
  })

  it('mirrors for languages that run from right to left, in longer words', async () => {
    await setSettings({ language: 'qps-rtl' })
    await eventually(() => html('dir')).toBe('rtl')
    await eventually(() => page.getByTestId('rail-gallery').textContent()).toContain('Ĝåļļéŕý')
    const rail = (await page.getByTestId('rail').boundingBox())!
    expect(rail.x + rail.width).toBeCloseTo(1360, 0)
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(1360)
    await page.screenshot({ path: join(screenshots, 'studio-right-to-left.png') })
  })
})

describe('dragged, pasted and typed', () => {
  it('shows only the places that take what is dragged, and none for text', async () => {
    await drag('dragenter', [{ text: 'only words' }])
    expect(await page.getByTestId('drop-overlay').count()).toBe(0)
    await drag('dragenter', [{ name: 'ink.safetensors' }])
    await page.getByTestId('drop-overlay').waitFor()
    await page.getByTestId('drop-keep').waitFor()
    await page.screenshot({ path: join(screenshots, 'drop-overlay.png') })
    await drag('drop', [{ name: 'ink.safetensors', text: 'not an adapter' }], '[data-testid="drop-keep"]')
    expect(await page.getByTestId('drop-overlay').count()).toBe(0)
    await page.getByTestId('offers').waitFor()
  })

  it('AC57 shows markup in prompts and names of files as text, and the page breaks no rule of its own', async () => {
    const evil = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>'
    await page.getByTestId('prompt').fill(evil)
    await page.keyboard.press('Control+Enter')
    await page.getByTestId('picture').waitFor()
    for (const name of screenNames) {
      await page.getByTestId(`rail-${name}`).click()
      await page.getByTestId(`screen-${name}`).waitFor()
    }
    await drag('drop', [{ name: '<img src=x onerror=alert(1)>.xyz' }])
    await page.waitForTimeout(300)
    expect(await page.evaluate(() => (window as unknown as { hacked?: number }).hacked)).toBeUndefined()
    expect(await page.locator('img[src="x"]').count()).toBe(0)
    expect(host.complaints).toEqual([])
  })
})

describe('messages', () => {
  it('are kept in a list that Escape closes, with the focus back where it was', async () => {
    await page.getByTestId('messages-button').click()
    await page.getByTestId('messages').waitFor()
    await page.keyboard.press('Escape')
    expect(await page.getByTestId('messages').count()).toBe(0)
    expect(await focused()).toBe('messages-button')
  })
})
