import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { savedPictures } from './pictures.ts'
import {
  dropFiles,
  pasteFiles,
  transferOf,
  writeBadFiles,
  writeForeignAdapter,
  writeTinyAdapter,
} from './tiny-adapter.ts'
import { eventually, home, host, openWindow, page, shot, useWindow } from './window.ts'

/** An adapter for the tiny model, with a trigger word and a weight of its own; it lies outside the library. */
let ink: string

useWindow({ opens: false })
beforeEach(async () => {
  ink = await writeTinyAdapter(join(home.home, 'downloads', 'ink.safetensors'), model(), {
    notes: { triggers: ['inkstyle', 'wet brush'], weight: 0.6 },
  })
  await openWindow()
})

const model = () => join(home.home, 'models', 'tiny')
const inLibrary = async () => (await readdir(join(home.home, 'adapters')).catch(() => [])).sort()
const slot = (name: string) => page.getByTestId('slot').filter({ hasText: name })
const card = (name: string) => page.getByTestId('verdict-card').filter({ hasText: name })

async function dropAndUse(file: string): Promise<void> {
  await dropFiles(page, [file], 'use')
  await page.getByTestId('offer-use').click()
  await page.getByTestId('offer-result').waitFor()
  await page.getByTestId('offers-done').click()
}

/** One picture with a fixed seed; resolves with what was saved. */
async function draw() {
  const before = (await savedPictures(home.home)).length
  await page.getByTestId('seed').fill('7')
  await page.getByTestId('generate').click()
  await eventually(async () => (await savedPictures(home.home)).length).toBe(before + 1)
  await eventually(() => page.getByTestId('running-job').count()).toBe(0)
  return (await savedPictures(home.home)).at(-1)!
}

describe('a file that is dropped', () => {
  it('AC12 gets its verdict before any copy exists, a slot at the weight of its sidecar, a picture that names it; undo takes all back', async () => {
    const plain = await draw()
    const transfer = await transferOf(page, [ink])
    await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer })
    await page.getByTestId('drop-overlay').waitFor()
    await shot('drop')
    await dropFiles(page, [ink], 'use')
    await card('ink').waitFor()
    await eventually(() => page.getByTestId('verdict').textContent()).toBe('Fits')
    expect(await inLibrary()).toEqual([])
    await shot('verdict')
    await page.getByTestId('offer-use').click()
    await page.getByTestId('offer-result').waitFor()
    expect(await inLibrary()).toEqual(['ink.safetensors'])
    expect(await slot('ink').count()).toBe(1)
    await page.getByTestId('offer-undo').click()
    await eventually(inLibrary).toEqual([])
    await eventually(() => page.getByTestId('slot').count()).toBe(0)
    await page.getByTestId('offer-use').click()
    await page.getByTestId('offer-result').waitFor()
    await page.getByTestId('offers-done').click()
    expect(await slot('ink').getByTestId('slot-weight').inputValue()).toBe('0.6')
    expect(await slot('ink').getByTestId('slot-status').textContent()).toBe('ready')
    const drawn = await draw()
    expect(drawn.recipe.adapters).toMatchObject([{ name: 'ink.safetensors', weight: 0.6, start: 0, end: 1 }])
    expect(drawn.pixelSha256).not.toBe(plain.pixelSha256)
    await shot('slots')
    expect(host.complaints).toEqual([])
  })

  it('at weight 0, or switched off, gives the picture without it and is not in its recipe', async () => {
    const plain = await draw()
    await dropAndUse(ink)
    const slider = slot('ink').getByTestId('slot-slider')
    await slot('ink').getByTestId('slot-weight').fill('0')
    await page.keyboard.press('Tab')
    const weightless = await draw()
    await slider.dblclick()
    expect(await slot('ink').getByTestId('slot-weight').inputValue()).toBe('0.6')
    await slot('ink').getByTestId('slot-on').click()
    const off = await draw()
    expect([weightless.pixelSha256, off.pixelSha256]).toEqual([plain.pixelSha256, plain.pixelSha256])
    expect([weightless.recipe.adapters, off.recipe.adapters]).toEqual([undefined, undefined])
    await slot('ink').getByTestId('slot-on').click()
    expect((await draw()).pixelSha256).not.toBe(plain.pixelSha256)
  })

  it('AC13 of another family names both, changes no slot, and is kept only on request', async () => {
    const foreign = await writeForeignAdapter(join(home.home, 'downloads', 'xl-look.safetensors'))
    await dropFiles(page, [foreign], 'use')
    await eventually(() => page.getByTestId('verdict').textContent()).toBe('Wrong family')
    expect(await card('xl-look').textContent()).toMatch(/Stable Diffusion XL.*Stable Diffusion 1/)
    expect(await page.getByTestId('offer-use').count()).toBe(0)
    expect(await page.getByTestId('offer-keep').textContent()).toBe('Keep for other models')
    await shot('wrong-family')
    await page.getByTestId('offers-done').click()
    expect(await inLibrary()).toEqual([])
    await dropFiles(page, [foreign], 'use')
    await page.getByTestId('offer-keep').click()
    await page.getByTestId('offer-result').waitFor()
    await page.keyboard.press('Escape')
    expect(await inLibrary()).toEqual(['xl-look.safetensors'])
    expect(await page.getByTestId('slot').count()).toBe(0)
    await page.getByTestId('slot-add').click()
    await eventually(() => page.getByTestId('picker-hidden').textContent()).toContain('1 hidden')
    await page.getByTestId('picker-hidden').getByRole('button').click()
    expect(await page.getByTestId('picker-row').textContent()).toContain('other model')
  })

  it('whose content is there already is not copied again', async () => {
    await dropAndUse(ink)
    const again = await writeTinyAdapter(join(home.home, 'downloads', 'brush.safetensors'), model(), {
      notes: { triggers: ['other'], title: 'A brush' },
    })
    await dropFiles(page, [again], 'keep')
    await eventually(() => page.getByTestId('offer-known').textContent()).toBe('You already have this as “ink”.')
    expect(await page.getByTestId('offer-keep').count()).toBe(0)
    expect(await inLibrary()).toEqual(['ink.safetensors'])
  })

  it('AC14 beside a cut one, a pickle and a text is added, and each of those is refused with its code', async () => {
    const bad = await writeBadFiles(join(home.home, 'bad'), await readFile(ink))
    await dropFiles(page, [bad.cut, bad.pickle, ink, bad.text], 'keep')
    await eventually(() => page.getByTestId('offers-summary').textContent()).toBe('4 files: 1 usable, 3 refused.')
    const codes = await page
      .locator('[data-testid="verdict-card"] [data-code]')
      .evaluateAll((all) => all.map((one) => (one as HTMLElement).dataset.code))
    expect(codes).toEqual(['file-unreadable', 'checkpoint-unsafe', 'file-unreadable'])
    await shot('several')
    await page.getByTestId('offer-keep').click()
    await eventually(() => page.getByTestId('offers-summary').textContent()).toBe('4 files: 1 added, 3 refused.')
    expect(await inLibrary()).toEqual(['ink.safetensors'])
    await page.getByTestId('offers-done').click()
    await page.getByTestId('generate').click()
    await page.getByTestId('picture').waitFor()
  })

  it('is taken back by Undo, from its slot and from the disk', async () => {
    await dropFiles(page, [ink], 'use')
    await page.getByTestId('offer-use').click()
    await page.getByTestId('offer-undo').click()
    await eventually(inLibrary).toEqual([])
    await page.getByTestId('offers-done').click()
    expect(await page.getByTestId('slot').count()).toBe(0)
    expect(await stat(ink)).toBeDefined()
  })

  it('with Alt stays where it lies', async () => {
    await dropFiles(page, [ink], 'use', true)
    await page.getByTestId('offer-use').click()
    await page.getByTestId('offer-result').waitFor()
    await page.getByTestId('offers-done').click()
    expect(await inLibrary()).toEqual([])
    expect((await draw()).recipe.adapters).toMatchObject([{ name: 'ink.safetensors' }])
  })
})

describe('the same without dragging', () => {
  it('takes pasted files', async () => {
    await pasteFiles(page, [ink])
    await eventually(() => page.getByTestId('verdict').textContent()).toBe('Fits')
  })

  it('asks for files by a button, all with the keyboard', async () => {
    host.chosen.push(ink)
    await page.getByTestId('slot-add').focus()
    await page.keyboard.press('Enter')
    expect(await page.getByTestId('picker-empty').textContent()).toContain('Drop LoRA files here, or link a folder.')
    await page.getByTestId('picker-files').focus()
    await page.keyboard.press('Enter')
    await page.getByTestId('offer-use').focus()
    await page.keyboard.press('Enter')
    await page.getByTestId('offer-result').waitFor()
    await page.keyboard.press('Escape')
    await page.getByTestId('picker-done').focus()
    await page.keyboard.press('Enter')
    expect(await slot('ink').count()).toBe(1)
    expect(await page.evaluate(() => document.activeElement?.getAttribute('data-testid'))).toBe('slot-add')
  })
})

describe('slots', () => {
  beforeEach(() => dropAndUse(ink))

  it('weigh by keys to the hundredth, typed beyond the slider, below zero with a mark', async () => {
    const slider = slot('ink').getByTestId('slot-slider')
    const number = slot('ink').getByTestId('slot-weight')
    await slider.focus()
    await page.keyboard.press('ArrowRight')
    expect(await number.inputValue()).toBe('0.65')
    await page.keyboard.press('Control+ArrowRight')
    expect(await number.inputValue()).toBe('0.66')
    await page.keyboard.press('Home')
    expect(await number.inputValue()).toBe('-2')
    expect(await slot('ink').locator('.negative').count()).toBe(1)
    await shot('negative')
    await page.keyboard.press('0')
    expect(await number.inputValue()).toBe('0.6')
    await number.fill('9')
    await page.keyboard.press('Tab')
    expect(await number.inputValue()).toBe('4')
  })

  it('put their words at the caret, once', async () => {
    const prompt = page.getByTestId('prompt')
    await prompt.fill('a fox, in snow')
    await prompt.evaluate((field: HTMLTextAreaElement) => field.setSelectionRange(5, 5))
    const words = slot('ink').getByTestId('trigger')
    await words.first().click()
    expect(await prompt.inputValue()).toBe('a fox, inkstyle, in snow')
    await words.first().click()
    expect(await prompt.inputValue()).toBe('a fox, inkstyle, in snow')
    expect(await words.first().getAttribute('aria-label')).toBe('inkstyle, in the prompt')
    await words.first().click({ modifiers: ['Shift'] })
    expect(await prompt.inputValue()).toBe('a fox, inkstyle, wet brush, in snow')
  })

  it('act when the table says, and the recipe says it too', async () => {
    const whole = await draw()
    await page.getByTestId('lanes-table').click()
    await page.getByTestId('slot-start').fill('50')
    await page.keyboard.press('Tab')
    await page.getByTestId('slot-ramp').selectOption('ease-out')
    expect(await page.getByTestId('slot-steps').textContent()).toContain('steps 3–4 of 4')
    await shot('table')
    const half = await draw()
    expect(half.recipe.adapters).toMatchObject([{ start: 0.5, end: 1, ramp: 'ease-out' }])
    expect(half.pixelSha256).not.toBe(whole.pixelSha256)
  })

  it('are as they were left after the page is loaded again', async () => {
    await slot('ink').getByTestId('slot-weight').fill('-0.35')
    await page.keyboard.press('Tab')
    await slot('ink').getByTestId('slot-on').click()
    await page.waitForTimeout(900)
    await page.reload()
    await slot('ink').waitFor()
    expect(await slot('ink').getByTestId('slot-weight').inputValue()).toBe('-0.35')
    expect(await slot('ink').getByTestId('slot-on').getAttribute('aria-checked')).toBe('false')
    await slot('ink').getByTestId('slot-remove').click()
    expect(await page.getByTestId('slot').count()).toBe(0)
    await page.getByTestId('slot-undo').click()
    expect(await slot('ink').getByTestId('slot-weight').inputValue()).toBe('-0.35')
  })

  it('say when their file is gone, and a picture with it fails with a way on', async () => {
    await page.waitForTimeout(900)
    await rm(join(home.home, 'adapters', 'ink.safetensors'))
    await page.reload()
    await eventually(() => slot('ink').getByTestId('slot-status').textContent()).toBe('file is missing')
    await page.getByTestId('generate').click()
    await eventually(() => page.getByTestId('notice').textContent()).toContain('not in the library any more')
    await slot('ink').getByTestId('slot-on').click()
    await page.getByTestId('generate').click()
    await page.getByTestId('picture').waitFor()
  })
})

it('AC18 asks which adapter gives its place when all eight slots are taken, and proposes the weakest', async () => {
  for (let i = 1; i <= 9; i++) {
    await writeTinyAdapter(join(home.home, 'adapters', `look-${i}.safetensors`), model(), {
      seed: i,
      notes: { title: `Look ${i}`, weight: i === 5 ? 0.1 : 0.9 },
      pattern: /mid_block.*attn1\.to_q$/,
    })
  }
  await page.getByTestId('slot-add').click()
  await eventually(async () => {
    await page.reload()
    await page.getByTestId('slot-add').click()
    return page.getByTestId('picker-row').count()
  }).toBe(9)
  await page.getByTestId('picker-search').fill('look')
  await page.keyboard.press('ArrowDown')
  for (let i = 1; i <= 8; i++) {
    await page.keyboard.press('Enter')
    await page.keyboard.press('ArrowDown')
  }
  await shot('picker')
  expect(await page.getByTestId('slot-count').textContent()).toBe('8 of 8 slots used')
  await page.keyboard.press('Enter')
  await page.getByTestId('replace-slot').waitFor()
  expect(await page.getByRole('radio', { name: /Look 5/ }).isChecked()).toBe(true)
  await shot('replace')
  await page.getByTestId('replace').click()
  expect(await slot('Look 5').count()).toBe(0)
  expect(await slot('Look 9').count()).toBe(1)
  expect(await page.getByTestId('slot').count()).toBe(8)
})

it('draws what speed sets apart, locked, with its steps in the form', async () => {
  const quick = await writeTinyAdapter(join(home.home, 'downloads', 'quick.safetensors'), model(), {
    notes: {
      role: 'speed',
      title: 'Quick',
      more: { vignette_steps: '2', vignette_sampler: 'lcm', vignette_guidance_scale: '1' },
    },
  })
  await dropAndUse(quick)
  expect(await slot('Quick').getByTestId('slot-set-by').textContent()).toContain('Set by Speed')
  expect(await page.getByTestId('slot-count').textContent()).toBe('0 of 8 slots used')
  expect(await page.getByTestId('steps').inputValue()).toBe('2')
  const { recipe } = await draw()
  expect(recipe.request).toMatchObject({ steps: 2, sampler: 'lcm', guidanceScale: 1 })
  expect(recipe.adapters).toMatchObject([{ name: 'quick.safetensors', weight: 1 }])
})

it('lists a linked folder and moves own files to the bin and back', async () => {
  await dropAndUse(ink)
  const folder = join(home.home, 'my-loras')
  const linked = await writeTinyAdapter(join(folder, 'deep', 'paper.safetensors'), model(), { seed: 5 })
  await writeFile(join(folder, 'deep', 'paper.civitai.info'), JSON.stringify({ trainedWords: ['papercut'] }))
  const before = await stat(linked)
  host.chosen.push(folder)
  await page.getByTestId('slot-add').click()
  await page.getByTestId('picker-folder').click()
  await page.getByTestId('root-link').click()
  await page.getByTestId('linked-folder').waitFor()
  await page.getByTestId('folders-done').click()
  const row = (name: string) => page.getByTestId('picker-row').filter({ has: page.getByText(name, { exact: true }) })
  await row('paper').waitFor()
  await page.getByTestId('picker-search').fill('papercut')
  expect(await page.getByTestId('picker-row').count()).toBe(1)
  expect(await row('paper').getByTestId('picker-remove').count()).toBe(0)
  expect((await stat(linked)).mtimeMs).toBe(before.mtimeMs)
  await page.getByTestId('picker-search').fill('')
  await row('ink').getByTestId('picker-remove').click()
  await eventually(inLibrary).toEqual([])
  await page.getByTestId('picker-undo').click()
  await eventually(inLibrary).toEqual(['ink.safetensors'])
  await row('ink').waitFor()
})
