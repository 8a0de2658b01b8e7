import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { screenNames, type ScreenName } from '../../preload/limits.ts'
import type { Host } from './host.ts'
import { root } from './tiny-model.ts'
import { eventually, host, page, screenshots, useWindow } from './window.ts'

const themes = ['light', 'dark', 'contrast'] as const
let axe: string

useWindow()
beforeAll(async () => {
  axe = await readFile(join(root, 'node_modules/axe-core/axe.min.js'), 'utf8')
})

const setSettings = (part: Parameters<Host['services']['handlers']['settings:save']>[0]) =>
  host.services.handlers['settings:save'](part)

async function go(name: ScreenName) {
  await page.getByTestId(`rail-${name}`).click()
  await page.getByTestId(`screen-${name}`).waitFor()
  await page.waitForTimeout(250) // what is read for it
}

async function makePicture() {
  await page.getByTestId('generate').click()
  await page.getByTestId('picture').waitFor({ timeout: 60_000 })
}

type Found = { id: string; impact?: string | null; nodes: { target: unknown[]; failureSummary?: string }[] }

/** What is serious or worse, in words that lead to it. The page's own policy lets no script in, so this one comes in by the debugger. */
async function audit(place: string): Promise<string[]> {
  await page.evaluate(`if (!window.axe) { ${axe} }`)
  const { violations, passed } = await page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: { run: (at: Document, options: object) => Promise<{ violations: Found[]; passes: unknown[] }> }
    }
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']
    const { violations, passes } = await axe.run(document, { runOnly: { type: 'tag', values: tags } })
    return { violations, passed: passes.length }
  })
  expect(passed).toBeGreaterThan(10) // it did look
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) =>
      nodes.map(
        ({ target, failureSummary }) =>
          `${place}: ${id} at ${target.join(' ')}: ${failureSummary?.split('\n').slice(1, 3).join(' ')}`,
      ),
    )
}

describe('AC50 axe finds nothing serious or critical', () => {
  it.each(themes)('on any screen, in the theme %s', async (theme) => {
    await setSettings({ theme, reducedMotion: 'on' })
    await eventually(() => page.locator('html').getAttribute('data-theme')).toBe(theme)
    const found = await audit(`${theme} first start`)
    await makePicture()
    for (const name of screenNames) {
      await go(name)
      await page.screenshot({ path: join(screenshots, `screen-${name}-${theme}.png`) })
      found.push(...(await audit(`${theme} ${name}`)))
    }
    expect(found).toEqual([])
  })

  it('in the theme of the system, which is one of these', async () => {
    await page.emulateMedia({ colorScheme: 'dark' })
    await eventually(() => page.locator('html').getAttribute('data-theme')).toBe('dark')
    await page.emulateMedia({ colorScheme: 'light', contrast: 'more' })
    await eventually(() => page.locator('html').getAttribute('data-theme')).toBe('contrast')
    await page.emulateMedia({ colorScheme: 'light', contrast: 'no-preference', forcedColors: 'active' })
    await eventually(() => page.locator('html').getAttribute('data-theme')).toBe('light')
    expect(await audit('forced colours')).toEqual([])
  })

  it.each(themes)('in the dialogs, in the theme %s', async (theme) => {
    await setSettings({ theme, reducedMotion: 'on' })
    await eventually(() => page.locator('html').getAttribute('data-theme')).toBe(theme)
    const found: string[] = []
    const look = async (name: string) => {
      await page.screenshot({ path: join(screenshots, `dialog-${name}-${theme}.png`) })
      found.push(...(await audit(`${theme} ${name}`)))
      await page.keyboard.press('Escape')
      await eventually(() => page.locator('dialog[open]').count()).toBe(0)
    }
    await page.keyboard.press('Control+k')
    await page.getByTestId('palette').waitFor()
    await look('palette')
    await page.getByTestId('welcome-shortcuts').click()
    await page.getByTestId('shortcuts').waitFor()
    await look('shortcuts')
    await page.getByTestId('slot-add').click()
    await page.locator('dialog[open]').waitFor()
    await look('picker')
    await page.getByTestId('messages-button').click()
    await page.getByTestId('messages').waitFor()
    await look('messages')
    expect(found).toEqual([])
  })
})

describe('AC56 text at 200 % in a window of 1024 × 640', () => {
  it.each(screenNames)('%s cuts nothing off and does not scroll sideways', async (name) => {
    await page.setViewportSize({ width: 1024, height: 640 })
    await setSettings({ textScale: 200 })
    await eventually(() => page.evaluate(() => getComputedStyle(document.documentElement).fontSize)).toBe('32px')
    await go(name)
    await page.screenshot({ path: join(screenshots, `large-${name}.png`) })
    const cut = await page.evaluate(() => {
      const problems: string[] = []
      if (document.documentElement.scrollWidth > innerWidth)
        problems.push(`page is ${document.documentElement.scrollWidth} wide`)
      const isScroller = (element: Element, axis: 'X' | 'Y') =>
        /auto|scroll/.test(getComputedStyle(element)[`overflow${axis}`])
      for (const control of document.querySelectorAll<HTMLElement>(
        'button, input, select, textarea, a[href], [role="tab"], summary',
      )) {
        const box = control.getBoundingClientRect()
        if (!control.checkVisibility() || box.width === 0 || control.matches('.skip, .unseen, .unseen *')) continue
        if (getComputedStyle(control).opacity === '0') continue
        // Down is scrolled to; to the side is not, but in a strip that is made to be walked along.
        let at: Element | null = control.parentElement
        let strip = false
        for (; at; at = at.parentElement) if (isScroller(at, 'X') && at.scrollWidth > at.clientWidth + 1) strip = true
        if (!strip && (box.left < -1 || box.right > innerWidth + 1))
          problems.push(
            `${control.dataset.testid ?? control.outerHTML.slice(0, 60)} from ${Math.round(box.left)} to ${Math.round(box.right)}`,
          )
        // Words of a button that do not fit into it.
        if (
          control.matches('button') &&
          control.scrollWidth > control.clientWidth + 2 &&
          getComputedStyle(control).textOverflow !== 'ellipsis' &&
          getComputedStyle(control).overflowX !== 'visible'
        )
          problems.push(`${control.dataset.testid ?? control.textContent} is cut off`)
        // What cannot be scrolled to because a part around it hides it.
        for (at = control.parentElement; at && at !== document.body; at = at.parentElement) {
          if (isScroller(at, 'Y')) break
          const around = at.getBoundingClientRect()
          if (
            getComputedStyle(at).overflowY === 'hidden' &&
            (box.bottom > around.bottom + 2 || box.top < around.top - 2)
          ) {
            problems.push(`${control.dataset.testid ?? control.outerHTML.slice(0, 60)} is hidden by ${at.className}`)
            break
          }
        }
      }
      return [...new Set(problems)]
    })
    expect(cut).toEqual([])
  })
})

describe('AC51 by keyboard alone', () => {
  it('makes a picture, goes to the adapters and finds the picture in the gallery', async () => {
    const focused = () => page.evaluate(() => document.activeElement?.getAttribute('data-testid') ?? '')
    await eventually(focused).toBe('prompt')
    await page.keyboard.type('a lighthouse in the fog')
    await page.keyboard.press('Tab')
    expect(await focused()).toBe('generate')
    await page.keyboard.press('Enter')
    await page.getByTestId('picture').waitFor({ timeout: 60_000 })
    await page.keyboard.press('Control+4')
    await page.getByTestId('screen-adapters').waitFor()
    await page.keyboard.press('Control+f')
    await eventually(focused).toContain('search')
    await page.keyboard.press('Control+6')
    await page.getByTestId('screen-gallery').waitFor()
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press('Tab')
      if (await page.evaluate(() => document.activeElement?.closest('[role="grid"]') !== null)) break
    }
    expect(await page.evaluate(() => document.activeElement?.getAttribute('role'))).toBe('gridcell')
    await page.keyboard.press('Space')
    await eventually(() =>
      page.locator('[data-testid="look"], dialog[open], [data-testid^="quick"]').count(),
    ).toBeGreaterThan(0)
    await page.keyboard.press('Escape')
    await page.keyboard.press('p') // its prompt, back in the Studio
    await page.getByTestId('screen-studio').waitFor()
    await eventually(() => page.getByTestId('prompt').inputValue()).toBe('a lighthouse in the fog')
  })
})
