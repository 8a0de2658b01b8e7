import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { holdEngine } from './engine-pid.ts'
import { openBrowser, openHost, type Host } from './host.ts'
import { savedPictures } from './pictures.ts'
import { copyHome, ensureBuild, root, tinyHome, type Home } from './tiny-model.ts'

const screenshots = join(root, 'test/e2e/screenshots')

let browser: Browser
let template: Home
let home: Home
let host: Host
let page: Page

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
  host = await openHost(browser, home.home)
  page = host.page
})
afterEach(async () => {
  await host.close()
  await home.remove()
})

/** Waits as long as a busy machine may need; what is expected is checked, not how soon. */
const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 60_000 })
const picture = () => page.getByTestId('picture')
const setSteps = (steps: number) =>
  page
    .getByLabel('Steps, number')
    .fill(String(steps))
    .then(() => page.keyboard.press('Tab'))
const jobsAreOver = () => eventually(() => page.getByTestId('running-job').count()).toBe(0)

describe('the first start', () => {
  it('opens with a sample sentence selected, Generate one Tab away, and no dialog', async () => {
    const prompt = page.getByTestId('prompt')
    const selected = await prompt.evaluate((field: HTMLTextAreaElement) =>
      field.value.slice(field.selectionStart, field.selectionEnd),
    )
    expect(selected).toBe(await prompt.inputValue())
    expect(selected.length).toBeGreaterThan(10)
    await page.keyboard.press('Tab')
    expect(await page.evaluate(() => document.activeElement?.getAttribute('data-testid'))).toBe('generate')
    expect(await page.getByRole('dialog').count()).toBe(0)
    expect(await page.getByRole('heading', { level: 1 }).count()).toBe(1)
    expect(await page.getByTestId('welcome-card').textContent()).toContain('Nothing is sent anywhere')
  })

  it('says what it runs on, in a line that keeps its place', async () => {
    await host.services.warmUp()
    await eventually(() => page.getByTestId('device').textContent()).toMatch(/Runs on the processor\. \S+/)
    const generate = (await page.getByTestId('generate').boundingBox())!
    expect(generate.x + generate.width).toBeLessThan(380)
    expect(
      await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]),
    ).toEqual([1360, 860])
  })

  it('makes a picture on one click, saves it with its recipe and shows it', async () => {
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect(
      await picture().evaluate((image: HTMLImageElement) =>
        image.decode().then(() => [image.naturalWidth, image.naturalHeight]),
      ),
    ).toEqual([128, 128])
    const [saved, ...more] = await savedPictures(home.home)
    expect(more).toEqual([])
    expect(saved).toMatchObject({ width: 128, height: 128, isUniform: false })
    expect(saved.recipe.request.prompt).toBe(await page.getByTestId('prompt').inputValue())
    expect(saved.recipe.pixelSha256).toBe(saved.pixelSha256)
    expect(await page.getByTestId('thumb').count()).toBe(1)
    await page.getByTestId('reveal').click()
    await eventually(() => host.revealed).toEqual([saved.file])
    await page.screenshot({ path: join(screenshots, 'picture.png') })
    expect(host.complaints).toEqual([])
  })
})

describe('the form', () => {
  it('gives each queued job the prompt it had when it was added', async () => {
    await page.getByTestId('seed').fill('11')
    await setSteps(2)
    await page.getByTestId('prompt').fill('first')
    await page.keyboard.press('Control+Enter')
    await page.getByTestId('prompt').fill('second')
    await page.keyboard.press('Control+Enter')
    await eventually(async () => (await savedPictures(home.home)).length).toBe(2)
    const [first, second] = (await savedPictures(home.home)).map(({ recipe }) => recipe.request)
    expect(first.prompt).toBe('first')
    expect(second).toEqual({ ...first, prompt: 'second' })
  })

  it('draws new seeds when random and the same pixels when fixed', async () => {
    await setSteps(1)
    for (let i = 0; i < 2; i++) await page.getByTestId('generate').click()
    await page.getByTestId('seed').fill('7')
    for (let i = 0; i < 2; i++) await page.getByTestId('generate').click()
    await eventually(async () => (await savedPictures(home.home)).length).toBe(4)
    const [one, two, three, four] = await savedPictures(home.home)
    expect(one.recipe.request.seed).not.toBe(two.recipe.request.seed)
    expect(three.recipe.request.seed).toBe(7)
    expect(three.pixelSha256).toBe(four.pixelSha256)
    expect(one.pixelSha256).not.toBe(two.pixelSha256)
  })

  it('snaps a custom size to what the networks can make, and makes it', async () => {
    await page.getByText('Custom').click()
    await page.getByTestId('shape-width').fill('99')
    await page.getByTestId('shape-height').fill('130')
    await page.keyboard.press('Tab')
    expect(await page.getByTestId('shape-width').inputValue()).toBe('96')
    expect(await page.getByTestId('shape-height').inputValue()).toBe('128')
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect((await savedPictures(home.home))[0]).toMatchObject({ width: 96, height: 128 })
  })

  it('is as it was left after the page is loaded again', async () => {
    await page.getByTestId('prompt').fill('a quiet harbour')
    await page.getByTestId('seed').fill('123')
    await setSteps(9)
    await page.waitForTimeout(900) // saved half a second after the last change
    await page.reload()
    await eventually(() => page.getByTestId('prompt').inputValue()).toBe('a quiet harbour')
    expect(await page.getByTestId('seed').inputValue()).toBe('123')
    expect(await page.getByTestId('steps').inputValue()).toBe('9')
  })

  it('keeps the negative prompt but switches it off, with the reason, where it has no effect', async () => {
    await page.getByTestId('fold-negative').locator('summary').click()
    await page.getByTestId('prompt-negative').fill('rain')
    await page.getByLabel('Guidance scale, number').fill('1')
    await page.keyboard.press('Tab')
    expect(await page.getByTestId('prompt-negative').isDisabled()).toBe(true)
    expect(await page.locator('#negative-reason').textContent()).toContain('guidance scale 1')
    expect(await page.getByTestId('prompt-negative').inputValue()).toBe('rain')
  })

  it('shows markup in a prompt as text', async () => {
    const prompt = '<img src=x onerror="document.title=1">'
    await page.getByTestId('prompt').fill(prompt)
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect(await page.getByTestId('caption').locator('.prompt').textContent()).toBe(prompt)
    expect(await page.title()).toBe('Vignette')
    expect(host.complaints).toEqual([])
  })
})

it('fits a small window with text at 200 %: one column, nothing to scroll sideways to', async () => {
  await setSteps(1)
  await page.getByTestId('generate').click()
  await picture().waitFor()
  await host.services.warmUp()
  await page.setViewportSize({ width: 512, height: 320 }) // 1024 × 640 at 200 %
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(512)
  for (const control of await page.locator('button:visible, input:visible, textarea:visible, select:visible').all()) {
    const box = (await control.boundingBox())!
    expect(box.x, await control.evaluate((element) => element.outerHTML.slice(0, 80))).toBeGreaterThanOrEqual(0)
    expect(box.x + box.width).toBeLessThanOrEqual(512)
  }
})

describe('a job that runs', () => {
  it('names its phases, counts its steps, and shows a preview', async () => {
    await setSteps(40)
    const phases: string[] = []
    await page.exposeFunction('sawPhase', (text: string) => void phases.push(text))
    await page.evaluate(() => {
      const look = () => {
        const text = document.querySelector('[data-testid="job-phase"]')?.textContent?.trim()
        if (text) (window as unknown as { sawPhase: (text: string) => void }).sawPhase(text)
      }
      new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true })
    })
    await page.getByTestId('generate').click()
    await page.getByTestId('preview').waitFor()
    const value = Number(await page.getByTestId('job-progress').getAttribute('aria-valuenow'))
    expect(value).toBeGreaterThan(0)
    expect(value).toBeLessThan(100)
    await page.screenshot({ path: join(screenshots, 'running.png') })
    await picture().waitFor()
    const kinds = phases.map((text) => text.split(' · ')[0].replace(/^Step.*/, 'Step'))
    const order = kinds.filter((kind, i) => kind !== kinds[i - 1])
    expect(order.join(' → ')).toMatch(
      /^(Starting → )?Loading model → (Encoding prompt → )?Step( → Decoding)?( → Saving)?$/,
    )
    expect(phases.some((text) => /Step \d+\/40 · about \d+ s left/.test(text))).toBe(true)
    await eventually(() => page.getByTestId('live-polite').textContent()).toBe('The picture is finished.')
  })

  it('stops on Cancel, says so at once, and leaves no file', async () => {
    await setSteps(60)
    await page.getByTestId('generate').click()
    await page.getByTestId('preview').waitFor()
    const engine = holdEngine(process.pid)
    await page.getByTestId('cancel').click()
    expect(await page.getByText('Stopping…').isVisible()).toBe(true)
    engine.release()
    await jobsAreOver()
    expect(await savedPictures(home.home)).toEqual([])
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
  })

  it('takes a waiting job out of the queue', async () => {
    await setSteps(40)
    await page.getByTestId('seed').fill('1')
    await page.getByTestId('generate').click()
    await page.getByTestId('preview').waitFor()
    const engine = holdEngine(process.pid)
    await setSteps(1)
    for (const seed of ['2', '3']) {
      await page.getByTestId('seed').fill(seed)
      await page.getByTestId('generate').click()
    }
    const takeOut = page.getByLabel(/^Take out of the queue/)
    await eventually(() => takeOut.count()).toBe(2)
    expect(await page.getByTestId('waiting-count').textContent()).toBe('2 more waiting')
    await takeOut.first().click()
    await eventually(() => takeOut.count()).toBe(1)
    engine.release()
    await eventually(async () => (await savedPictures(home.home)).map(({ recipe }) => recipe.request.seed)).toEqual([
      1, 3,
    ])
    await jobsAreOver()
  })

  it('goes on through a reload of the page', async () => {
    await setSteps(40)
    await page.getByTestId('generate').click()
    await page.getByTestId('preview').waitFor()
    const engine = holdEngine(process.pid)
    const progress = async () => Number(await page.getByTestId('job-progress').getAttribute('aria-valuenow'))
    const before = await progress()
    await page.reload()
    await page.getByTestId('running-job').waitFor()
    expect(await progress()).toBeGreaterThanOrEqual(before)
    engine.release()
    await picture().waitFor()
    expect(await savedPictures(home.home)).toHaveLength(1)
  })

  it('fails with a way on when the engine dies, and the next job works', async () => {
    await setSteps(60)
    await page.getByTestId('generate').click()
    await page.getByTestId('preview').waitFor()
    host.engine.kill()
    const card = page.getByTestId('error-card')
    await card.waitFor()
    expect(await card.getAttribute('data-code')).toBe('engine-crashed')
    expect(await page.getByTestId('live-assertive').textContent()).toContain('The engine stopped')
    await page.screenshot({ path: join(screenshots, 'error.png') })
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect(await savedPictures(home.home)).toHaveLength(1)
  })
})

it('makes several pictures of one job with consecutive seeds, and arrow keys walk through them', async () => {
  await page.getByTestId('seed').fill('5')
  await page.getByTestId('fold-advanced').locator('summary').click()
  await page.getByTestId('count').fill('3')
  await setSteps(1)
  await page.getByTestId('generate').click()
  await eventually(() => page.getByTestId('thumb').count()).toBe(3)
  await jobsAreOver()
  expect((await savedPictures(home.home)).map(({ recipe }) => recipe.request.seed)).toEqual([5, 6, 7])
  await page.getByTestId('thumb').first().click()
  expect(await page.getByTestId('caption').textContent()).toContain('Seed 7')
  await page.keyboard.press('ArrowRight')
  await eventually(() => page.getByTestId('caption').textContent()).toContain('Seed 6')
  await page.keyboard.press('End')
  await eventually(() => page.getByTestId('caption').textContent()).toContain('Seed 5')
})
