import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import type { ModelManifest } from '../../models/manifest.ts'
import type { Bridge } from '../../preload/contract.ts'
import { holdEngine } from './engine-pid.ts'
import { writeGuidance } from '../engine/tiny-adapters.ts'
import { savedPictures } from './pictures.ts'
import { tinyShape, writeTinyAdapter } from './tiny-adapter.ts'
import { eventually, home, host, openWindow, page, screenshots, useWindow } from './window.ts'

useWindow({ opens: false })
beforeEach(async () => {
  await mkdir(join(home.home, 'adapters'))
  await openWindow()
})

const picture = () => page.getByTestId('picture')
const setSteps = (steps: number) =>
  page
    .getByLabel('Steps, number')
    .fill(String(steps))
    .then(() => page.keyboard.press('Tab'))
const pick = (group: string, label: string) => page.getByTestId(group).getByLabel(label, { exact: true }).check()
const picked = (group: string) => page.getByTestId(group).locator('input:checked').inputValue()
const tinyModel = () => join(home.home, 'models', 'tiny')
const inLibrary = (name: string) => join(home.home, 'adapters', `${name}.safetensors`)
/** Adapters that are put into the library's folder are seen when the window asks again. */
const lookAgain = async () => {
  await page.reload()
  await page.getByTestId('screen-studio').waitFor()
}
/** The newest picture, with what is known of it beside it. */
const chooseInGallery = async () => {
  await page.getByTestId('rail-gallery').click()
  await page.getByTestId('picture-card').first().click()
  if (!(await page.getByTestId('inspector').isVisible())) await page.getByTestId('gallery-inspector').click()
}
/** Until the window knows the adapters in the library's folder. */
const libraryHas = (count: number) =>
  eventually(() =>
    page.evaluate(async () => {
      const { invoke } = (window as unknown as { vignette: Bridge }).vignette
      const reply = await invoke('adapters:list', { model: 'tiny' })
      return reply.ok && reply.value.adapters.length
    }),
  ).toBe(count)
const jobsAreOver = () => eventually(() => page.getByTestId('running-job').count()).toBe(0)

describe('the first start', () => {
  it('AC02 opens with a sample sentence selected, Generate one Tab away, and no dialog', async () => {
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
    await eventually(() => page.getByTestId('estimate').textContent()).toContain('timing after the first image')
  })

  it('says what it runs on, in a line that keeps its place', async () => {
    await host.services.warmUp()
    await eventually(() => page.getByTestId('device').textContent()).toMatch(/Runs on the processor\. \S+/)
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
    await eventually(() => page.getByTestId('estimate').textContent()).toMatch(/^about .+ · 1 picture · .+B$/)
    await page.screenshot({ path: join(screenshots, 'picture.png') })
    expect(host.complaints).toEqual([])
  })
})

describe('speed and guidance', () => {
  it('AC06 Speed sets steps, guidance and estimate together; a step by hand is Custom; "Back to" restores', async () => {
    await writeGuidance(inLibrary('agd'), await tinyShape(tinyModel()), 4)
    // As many steps as a real model wants: what they take shows in the estimate, however quick this computer is.
    const file = join(tinyModel(), 'model.json')
    const manifest = JSON.parse(await readFile(file, 'utf8')) as ModelManifest
    await writeFile(file, JSON.stringify({ ...manifest, defaults: { ...manifest.defaults, steps: 20 } }))
    await lookAgain()
    await page.getByTestId('generate').click()
    await picture().waitFor()
    await page.getByTestId('count').fill('64')
    await page.keyboard.press('Tab')
    const estimate = () => page.getByTestId('estimate').textContent()
    await eventually(estimate).toMatch(/^about .+ · 64 pictures · /)
    const steps = () => page.getByTestId('steps').inputValue()
    const found: Record<string, (string | null)[]> = {}
    for (const name of ['Quality', 'Draft', 'Balanced']) {
      const before = await estimate()
      await pick('speed', name)
      await eventually(estimate).not.toBe(before)
      found[name] = [await steps(), await picked('guidance-mode'), await picked('speed')]
    }
    expect(found).toEqual({
      Quality: ['36', 'classic', 'quality'],
      Draft: ['4', 'distilled', 'draft'],
      Balanced: ['20', 'classic', 'balanced'],
    })
    await pick('speed', 'Fast')
    expect(await page.getByTestId('speed-summary').textContent()).toContain('agd')
    await setSteps(9)
    expect([await picked('speed'), await steps(), await picked('guidance-mode')]).toEqual(['custom', '9', 'distilled'])
    expect(await page.getByTestId('speed-back').textContent()).toBe('Back to Fast')
    await page.getByTestId('speed-back').click()
    expect([await picked('speed'), await steps()]).toEqual(['fast', '8'])
    expect(await page.getByTestId('speed-back').count()).toBe(0)
  })

  it('AC07 Distilled guidance takes the negative prompt out of use, says why, and gives it back', async () => {
    await writeGuidance(inLibrary('agd'), await tinyShape(tinyModel()), 4)
    await lookAgain()
    await page.getByTestId('fold-negative').locator('summary').click()
    const negative = page.getByTestId('prompt-negative')
    await negative.fill('rain')
    await pick('guidance-mode', 'Distilled, one pass')
    expect(await negative.isDisabled()).toBe(true)
    const describedBy = (await negative.getAttribute('aria-describedby'))!
    expect(await page.locator(`#${describedBy}`).textContent()).toContain('no effect with Distilled guidance')
    expect(await negative.inputValue()).toBe('rain')
    await page.getByTestId('generate').click()
    await eventually(async () => (await savedPictures(home.home)).length).toBe(1)
    await pick('guidance-mode', 'Classic, two passes')
    expect(await negative.isDisabled()).toBe(false)
    expect(await negative.inputValue()).toBe('rain')
    await page.getByTestId('generate').click()
    await eventually(async () => (await savedPictures(home.home)).length).toBe(2)
    const [distilled, classic] = (await savedPictures(home.home)).map(({ recipe }) => recipe)
    expect([distilled.request.negativePrompt, classic.request.negativePrompt]).toEqual(['', 'rain'])
    expect([distilled.adapters?.map(({ isGuidance }) => isGuidance), classic.adapters]).toEqual([[true], undefined])
  })

  it('says why Distilled and phases are not to be had, and when the negative prompt has no effect', async () => {
    const distilled = page.getByTestId('guidance-mode').getByLabel('Distilled, one pass')
    expect(await distilled.isDisabled()).toBe(true)
    const reasonOf = async (input: typeof distilled) =>
      page.locator(`[id="${await input.getAttribute('aria-describedby')}"]`).textContent()
    expect(await reasonOf(distilled)).toContain('Needs a guidance adapter')
    expect(await reasonOf(page.getByTestId('phase-split').getByLabel('Slow → Fast'))).toContain('no such pair')
    await page.getByTestId('fold-negative').locator('summary').click()
    await page.getByTestId('prompt-negative').fill('rain')
    await page.getByLabel('Guidance scale, number').fill('1')
    await page.keyboard.press('Tab')
    expect(await page.getByTestId('prompt-negative').isDisabled()).toBe(true)
    expect(await page.getByTestId('prompt-negative-reason').textContent()).toContain('guidance scale 1')
    await page.getByTestId('fold-advanced').locator('summary').click()
    expect(await reasonOf(page.getByTestId('preview-mode').getByLabel('Sharp'))).toMatch(/\S/)
  })

  it('draws in phases with the adapters for them, locked to their steps', async () => {
    const levels = { vignette_timesteps: '[999, 900, 600, 200]', vignette_steps: '4', vignette_sampler: 'ddim' }
    for (const [name, role, active] of [
      ['slow', 'speed-slow', '[0, 2]'],
      ['fast', 'speed-fast', '[2, 4]'],
    ] as const) {
      const extra = { ...levels, vignette_guidance_scale: '1', vignette_active_steps: active }
      await writeTinyAdapter(inLibrary(name), tinyModel(), { notes: { role, more: extra }, seed: name.length })
    }
    await lookAgain()
    await eventually(() => page.getByTestId('phase-split').getByLabel('Slow → Fast').isDisabled()).toBe(false)
    await pick('speed', 'Fast')
    expect(await picked('phase-split')).toBe('slowFast')
    expect(await page.getByTestId('phase-slow').inputValue()).toBe('2')
    expect(await page.getByTestId('phase-fast').isDisabled()).toBe(true)
    expect(await page.getByTestId('steps').isDisabled()).toBe(true)
    expect(await page.getByTestId('steps').inputValue()).toBe('4')
    await page.getByTestId('generate').click()
    await picture().waitFor()
    const [{ recipe }] = await savedPictures(home.home)
    expect(recipe.request).toMatchObject({
      steps: 4,
      sampler: 'ddim',
      guidanceScale: 1,
      timesteps: [999, 900, 600, 200],
    })
    expect(recipe.adapters?.map(({ start, end }) => [start, end])).toEqual([
      [0, 0.5],
      [0.5, 1],
    ])
    await pick('phase-split', 'Off')
    expect(await picked('speed')).toBe('custom')
  })
})

describe('the form', () => {
  it('AC08 gives each queued job the prompt it had when it was added', async () => {
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

  it('AC09 snaps a custom shape to the multiple of the model and shows what it became', async () => {
    await page.getByText('Custom', { exact: true }).last().click()
    await page.getByTestId('shape-width').fill('515')
    await page.getByTestId('shape-height').fill('700')
    await page.keyboard.press('Tab')
    expect(await page.getByTestId('shape-width').inputValue()).toBe('512')
    expect(await page.getByTestId('shape-height').inputValue()).toBe('704')
    expect(await page.getByTestId('shape-size').textContent()).toBe('512 × 704')
    expect(await page.getByTestId('shape-note').textContent()).toContain('515 × 700 became 512 × 704')
    await page.getByTestId('shape-width').fill('99')
    await page.getByTestId('shape-height').fill('130')
    await page.keyboard.press('Tab')
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect((await savedPictures(home.home))[0]).toMatchObject({ width: 96, height: 128 })
  })

  it('AC10 draws new seeds when random and the same pixels when fixed', async () => {
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

  it('counts seeds up from picture to picture, and the dice keep what they draw', async () => {
    await setSteps(1)
    await page.getByTestId('seed').fill('5')
    await page.getByTestId('count').fill('2')
    await pick('seed-mode', 'Increment')
    for (let i = 0; i < 2; i++) await page.getByTestId('generate').click()
    await eventually(async () => (await savedPictures(home.home)).map(({ recipe }) => recipe.request.seed)).toEqual([
      5, 6, 7, 8,
    ])
    expect(await page.getByTestId('seed').inputValue()).toBe('9')
    await page.getByTestId('seed-dice').click()
    expect(await picked('seed-mode')).toBe('fixed')
    expect(await page.getByTestId('seed').inputValue()).toMatch(/^\d+$/)
  })

  it('AC11 says what of a prompt that is too long is not read, and still draws it', async () => {
    const meter = () => page.getByTestId('token-meter').innerText()
    await page.getByTestId('prompt').fill('a fox')
    await eventually(meter).toContain('4/77')
    await page.getByTestId('prompt').fill(Array(80).fill('fox').join(' '))
    await eventually(meter).toMatch(/84\/154[^]*in 2 parts/)
    expect(await page.getByTestId('prompt-unread').count()).toBe(0)
    await page.getByTestId('prompt').fill(`${Array(600).fill('fox').join(' ')} and the tail`)
    await eventually(meter).toMatch(/619\/616[^]*over the limit/)
    const unread = page.getByTestId('prompt-unread')
    expect(await unread.textContent()).toContain('Not read by this model:')
    expect(await unread.locator('q').textContent()).toBe('and the tail')
    expect(await page.locator('.unread').first().textContent()).toBe('and the tail')
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect((await savedPictures(home.home))[0].recipe.request.prompt).toContain('and the tail')
  })

  it('is as it was left after the page is loaded again', async () => {
    await page.getByTestId('prompt').fill('a quiet harbour')
    await page.getByTestId('seed').fill('123')
    await pick('speed', 'Quality')
    await setSteps(9)
    await page.waitForTimeout(600) // saved half a second after the last change
    await page.reload()
    await eventually(() => page.getByTestId('prompt').inputValue()).toBe('a quiet harbour')
    expect(await page.getByTestId('seed').inputValue()).toBe('123')
    expect(await page.getByTestId('steps').inputValue()).toBe('9')
    expect(await page.getByTestId('speed-back').textContent()).toBe('Back to Quality')
  })

  it('puts a picture that is to come next before those that wait', async () => {
    await setSteps(40)
    await page.getByTestId('seed').fill('1')
    await page.getByTestId('generate').click()
    await page.getByTestId('preview').waitFor()
    const engine = holdEngine(process.pid)
    await setSteps(1)
    await page.getByTestId('seed').fill('2')
    await page.getByTestId('generate').click()
    await page.getByTestId('seed').fill('3')
    await page.getByTestId('generate-front').click()
    await eventually(() => page.getByTestId('waiting-count').textContent()).toBe('2 more waiting')
    engine.release()
    await eventually(async () => (await savedPictures(home.home)).map(({ recipe }) => recipe.request.seed)).toEqual([
      1, 3, 2,
    ])
  })

  it('starts from another picture, as far as its strength says', async () => {
    await setSteps(2)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    const [first] = await savedPictures(home.home)
    expect(await page.getByTestId('source-image').count()).toBe(0)
    host.chosen.push(first.file)
    await page.getByTestId('fold-advanced').locator('summary').click()
    await page.getByTestId('source-choose').click()
    await page.getByTestId('source-image').getByText('128 × 128').waitFor()
    expect(
      await page
        .getByTestId('source-image')
        .locator('img')
        .evaluate((image: HTMLImageElement) => image.complete),
    ).toBe(true)
    await page.getByLabel('Strength, number').fill('0.35')
    await page.keyboard.press('Tab')
    await page.getByTestId('generate').click()
    await eventually(async () => (await savedPictures(home.home)).length).toBe(2)
    const [, second] = await savedPictures(home.home)
    expect(second.recipe.pictures?.init?.name).toBe(basename(first.file))
    expect(second.recipe.request.strength).toBe(0.35)
    await page.getByTestId('source-remove').click()
    expect(await page.getByTestId('source-image').count()).toBe(0)
  })

  it('AC40 takes a picture back into the form, part by part, or starts from it', async () => {
    await page.getByTestId('prompt').fill('a {red|blue} fox')
    await page.getByTestId('seed').fill('7')
    await setSteps(2)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    const forget = async () => {
      await page.getByTestId('prompt').fill('other')
      await page.getByTestId('seed').fill('8')
      await pick('speed', 'Quality')
    }
    const recall = async (what: string) => {
      await chooseInGallery()
      await page.getByTestId('inspector').getByTestId(what).click()
      await page.getByTestId('screen-studio').waitFor()
    }
    const form = async () => [
      await page.getByTestId('prompt').inputValue(),
      await page.getByTestId('seed').inputValue(),
      await page.getByTestId('steps').inputValue(),
    ]
    const found: Record<string, string[]> = {}
    for (const what of ['use-all', 'use-remix', 'use-prompt', 'use-seed']) {
      await forget()
      await recall(what)
      found[what] = await form()
    }
    expect(found).toEqual({
      'use-all': ['a {red|blue} fox', '7', '2'],
      'use-remix': ['a {red|blue} fox', '8', '2'],
      'use-prompt': ['a {red|blue} fox', '8', '7'],
      'use-seed': ['other', '7', '7'],
    })
    await recall('use-source')
    await page.getByTestId('source-image').getByText('128 × 128').waitFor()
  })

  it('shows markup in a prompt as text', async () => {
    const prompt = '<img src=x onerror="document.title=1">'
    await page.getByTestId('prompt').fill(prompt)
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect(await page.getByTestId('prompt').inputValue()).toBe(prompt)
    expect(await page.title()).toBe('Vignette')
    expect(host.complaints).toEqual([])
  })
})

describe('the language of prompts', () => {
  it('takes one of several by the seed of each picture, and keeps what was typed beside the words', async () => {
    await mkdir(join(home.home, 'lists'), { recursive: true })
    await writeFile(join(home.home, 'lists', 'animal.txt'), '# who\nfox\nbear\n')
    const template = 'a {red|green|blue|grey} __animal__ @mira # a note'
    await page.getByTestId('prompt').fill(template)
    await eventually(() => page.getByTestId('prompt-note').allTextContents()).toEqual([
      'There is no character @mira: it is left out.',
    ])
    await page.getByTestId('seed').fill('1')
    await page.getByTestId('count').fill('6')
    await setSteps(1)
    await page.getByTestId('generate').click()
    await eventually(async () => (await savedPictures(home.home)).length).toBe(6)
    const requests = (await savedPictures(home.home)).map(({ recipe }) => recipe.request)
    for (const { prompt, promptTemplate } of requests) {
      expect(promptTemplate).toBe(template)
      expect(prompt.trim()).toMatch(/^a (red|green|blue|grey) (fox|bear)$/)
    }
    expect(new Set(requests.map(({ prompt }) => prompt)).size).toBeGreaterThan(1)
  })

  it('turns an adapter named in the prompt into a slot', async () => {
    await writeTinyAdapter(inLibrary('ink'), tinyModel())
    await lookAgain()
    await libraryHas(1)
    await page.getByTestId('prompt').fill('a fox <lora:ink:0.65@0-0.5>, <lora:nobody:1>')
    await setSteps(2)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    expect(await page.getByTestId('prompt').inputValue()).toBe('a fox, <lora:nobody:1>')
    const [{ recipe }] = await savedPictures(home.home)
    expect(recipe.adapters).toMatchObject([{ name: 'ink.safetensors', weight: 0.65, start: 0, end: 0.5 }])
    await eventually(() => page.getByTestId('toast').allTextContents()).toEqual(
      expect.arrayContaining([expect.stringContaining('"nobody"')]),
    )
  })

  it('AC41 names an adapter of a recalled picture that is gone, with its hash, and puts nothing in its place', async () => {
    await writeTinyAdapter(inLibrary('ink'), tinyModel())
    await writeTinyAdapter(inLibrary('other'), tinyModel(), { seed: 2 })
    await lookAgain()
    await libraryHas(2)
    await page.getByTestId('prompt').fill('a fox <lora:ink:0.65>')
    await setSteps(1)
    await page.getByTestId('generate').click()
    await picture().waitFor()
    const [{ recipe }] = await savedPictures(home.home)
    await rm(inLibrary('ink'))
    await lookAgain()
    await chooseInGallery()
    await page.getByTestId('inspector').getByTestId('use-all').click()
    const notice = page.getByTestId('recall-notice')
    expect(await notice.textContent()).toContain('"ink.safetensors"')
    expect(await notice.textContent()).toContain(recipe.adapters![0].sha256.slice(0, 12))
    expect(await page.getByTestId('slot').count()).toBe(0)
    host.chosen.push(inLibrary('other'))
    await page.getByTestId('recall-locate').click()
    await page.getByTestId('verdict').first().waitFor() // the way every adapter comes in
  })

  it('weighs words, moves tags and goes through older prompts by keys', async () => {
    const prompt = page.getByTestId('prompt')
    const text = () => prompt.inputValue()
    await setSteps(1)
    await prompt.fill('an older prompt')
    await page.getByTestId('generate').click()
    await picture().waitFor()
    await prompt.fill('a red fox, snow')
    await prompt.evaluate((field: HTMLTextAreaElement) => field.setSelectionRange(4, 4))
    await page.keyboard.press('Control+ArrowUp')
    expect(await text()).toBe('a (red:1.1) fox, snow')
    await page.keyboard.press('Control+ArrowUp')
    expect(await text()).toBe('a (red:1.2) fox, snow')
    await page.keyboard.press('Alt+ArrowRight')
    expect(await text()).toBe('snow, a (red:1.2) fox')
    await page.keyboard.press('Alt+ArrowUp')
    expect(await text()).toBe('an older prompt')
    await page.keyboard.press('Alt+ArrowDown')
    expect(await text()).toBe('snow, a (red:1.2) fox')
    await page.keyboard.press('Control+ArrowDown')
    expect(await text()).toBe('snow, a (red:1.2) (fox:0.9)')
    await page.getByTestId('seed').focus()
    await page.keyboard.press('Alt+a')
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('prompt')
  })

  it('keeps the caret in sight while a long prompt is written', async () => {
    await page.getByTestId('prompt').fill(Array(400).fill('word').join(' '))
    await page.keyboard.press('Control+End')
    await page.keyboard.type(' end')
    await eventually(() =>
      page
        .locator('.editor')
        .first()
        .evaluate((editor) => editor.scrollTop),
    ).toBeGreaterThan(200)
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
    expect(await page.getByText('Stopping…').first().isVisible()).toBe(true)
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
