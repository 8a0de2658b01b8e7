import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Locator } from 'playwright-core'
import { describe, expect, it } from 'vitest'
import { readPng } from '../../main/export/png.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import { savedPictures } from './pictures.ts'
import { writeTinyAdapter } from './tiny-adapter.ts'
import { eventually, home, host, openWindow, page, shot, useWindow } from './window.ts'

useWindow({ opens: false })

const slot = (name: string) => page.getByTestId('slot').filter({ hasText: name })
const weigh = async (name: string, weight: string) => {
  await slot(name).getByTestId('slot-weight').fill(weight)
  await page.keyboard.press('Tab')
}

/** The window with these adapters in the library, and in the strip where they have a weight. */
async function open(adapters: Record<string, { weight?: number; triggers?: string[] }>): Promise<void> {
  const slots: StudioSlot[] = []
  for (const [i, [name, { weight, triggers = [] }]] of Object.entries(adapters).entries()) {
    await writeTinyAdapter(join(home.home, 'adapters', `${name}.safetensors`), join(home.home, 'models', 'tiny'), {
      seed: i + 1,
      notes: { title: name, triggers, weight: weight ?? 0.8 },
      ...(Object.keys(adapters).length > 4 ? { pattern: /mid_block.*attn1\.to_q$/ } : {}),
    })
    if (weight === undefined) continue
    const id = `own/${name}.safetensors`
    slots.push({ id, name, role: 'style', isOn: true, weight, start: 0, end: 1, ramp: 'flat' })
  }
  const form = { prompt: 'a fox in snow', seedMode: 'fixed', seed: 7, slots }
  const settings = { isWelcomeDismissed: true, coachedPictures: 3, form }
  await writeFile(join(home.home, 'settings.json'), JSON.stringify({ version: 1, settings }))
  await openWindow()
  if (slots.length > 0)
    await eventually(() => slot(slots[0].name).getByTestId('slot-status').textContent()).toBe('ready')
}

/** Makes what the form says; resolves with what was saved last. */
async function draw(count = 1) {
  const before = (await savedPictures(home.home)).length
  await page.getByTestId('generate').click()
  await eventually(async () => (await savedPictures(home.home)).length).toBe(before + count)
  await eventually(() => page.getByTestId('running-job').count()).toBe(0)
  return (await savedPictures(home.home)).at(-1)!
}

async function drag(from: Locator, toX: number, toY?: number): Promise<void> {
  const box = (await from.boundingBox())!
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2)
  await page.mouse.down()
  await page.mouse.move(toX, toY ?? box.y + box.height / 2, { steps: 8 })
  await page.mouse.up()
}

describe('slots', () => {
  it('AC15 take another weight without loading the model again, and the pixels differ', async () => {
    await open({ ink: { weight: 0.6 } })
    const first = await draw()
    const phases: string[] = []
    await page.exposeFunction('sawPhase', (text: string) => void phases.push(text))
    await page.evaluate(() => {
      new MutationObserver(() => {
        const text = document.querySelector('[data-testid="job-phase"]')?.textContent?.trim()
        if (text) (window as unknown as { sawPhase: (text: string) => void }).sawPhase(text)
      }).observe(document.body, { subtree: true, childList: true, characterData: true })
    })
    await weigh('ink', '-0.9')
    const second = await draw()
    expect(phases.length).toBeGreaterThan(0)
    expect(phases.filter((text) => text.includes('Loading'))).toEqual([])
    expect(second.recipe.adapters).toMatchObject([{ weight: -0.9 }])
    expect(second.pixelSha256).not.toBe(first.pixelSha256)
    expect(await slot('ink').getByTestId('slot-applied').textContent()).toMatch(/^applied in \d+ ms$/)
    expect(host.complaints).toEqual([])
  })

  it('AC16 that are switched off are in no part of the next recipe', async () => {
    await open({ ink: { weight: 0.6 }, glow: { weight: 0.4 } })
    const hashes = async (file: string) => readPng(await readFile(file)).texts.get('parameters')!
    expect(await hashes((await draw()).file)).toMatch(/Lora hashes: "ink: \w+, glow: \w+"/)
    await slot('ink').getByTestId('slot-on').click()
    const drawn = await draw()
    expect(drawn.recipe.adapters?.map(({ name }) => name)).toEqual(['glow.safetensors'])
    expect(JSON.stringify(drawn.recipe)).not.toContain('ink')
    expect(await hashes(drawn.file)).toMatch(/Lora hashes: "glow: \w+"/)
    expect(await hashes(drawn.file)).not.toContain('ink')
  })

  it('AC18 ask which gives its place to a ninth, and propose the smallest weight', async () => {
    await open({
      ...Object.fromEntries(
        Array.from({ length: 8 }, (_, i) => [`look-${i + 1}`, { weight: i === 4 ? -0.1 : 0.9 - i / 20 }]),
      ),
      ninth: {},
    })
    expect(await page.getByTestId('slot-count').textContent()).toBe('8 of 8 slots used')
    await page.getByTestId('slot-add').click()
    await page.getByTestId('picker-search').fill('ninth')
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('Enter')
    await page.getByTestId('replace-slot').waitFor()
    expect(await page.getByRole('radio', { name: /look-5/ }).isChecked()).toBe(true)
    await page.getByTestId('replace').click()
    expect(await slot('look-5').count()).toBe(0)
    expect(await slot('ninth').count()).toBe(1)
  })

  it('AC19 put a trigger in at the caret once', async () => {
    await open({ ink: { weight: 0.6, triggers: ['inkstyle', 'wet brush'] } })
    const prompt = page.getByTestId('prompt')
    await prompt.fill('a fox, in snow')
    await prompt.evaluate((field: HTMLTextAreaElement) => field.setSelectionRange(5, 5))
    const words = slot('ink').getByTestId('trigger')
    await words.first().click()
    expect(await prompt.inputValue()).toBe('a fox, inkstyle, in snow')
    await words.first().click()
    expect(await prompt.inputValue()).toBe('a fox, inkstyle, in snow')
  })

  it('are muted, moved, weighed and taken out by keys', async () => {
    await open({ ink: { weight: 0.6 }, glow: { weight: 0.4 } })
    const names = () => page.getByTestId('slot').evaluateAll((all) => all.map((one) => one.getAttribute('aria-label')))
    await slot('ink').getByTestId('slot-slider').focus()
    await page.keyboard.press('Control+ArrowRight')
    expect(await slot('ink').getByTestId('slot-weight').inputValue()).toBe('0.61')
    await page.keyboard.press('m')
    expect(await slot('ink').getByTestId('slot-on').getAttribute('aria-checked')).toBe('false')
    await page.keyboard.press('Alt+ArrowRight')
    expect(await names()).toEqual(['glow', 'ink'])
    await page.keyboard.press('Delete')
    expect(await names()).toEqual(['glow'])
    await page.getByTestId('viewer').or(page.getByTestId('slot-add')).first().focus()
    for (const expected of [
      ['glow', 'ink'],
      ['ink', 'glow'],
    ]) {
      await page.keyboard.press('Control+z')
      await eventually(names).toEqual(expected)
    }
    await page.keyboard.press('Control+z')
    await eventually(() => slot('ink').getByTestId('slot-on').getAttribute('aria-checked')).toBe('true')
    await page.keyboard.press('Control+z')
    await eventually(() => slot('ink').getByTestId('slot-weight').inputValue()).toBe('0.6')
  })
})

describe('lanes', () => {
  /** Start and end of the slot, and its ramp, as a job gets them. */
  const usedIn = async () => (await draw()).recipe.adapters

  it('AC17 edited in the table give the recipe that the same drag gives', async () => {
    await open({ ink: { weight: 0.6 } })
    await page.getByTestId('view-lanes').click()
    const track = (await page.getByTestId('lane').boundingBox())!
    const at = (share: number) => track.x + share * track.width
    await drag(page.getByTestId('lane-start'), at(0.27))
    await drag(page.getByTestId('lane-end'), at(0.72))
    await page.getByTestId('lane-ramp').selectOption('custom')
    const bar = (await page.getByTestId('lane-move').boundingBox())!
    await drag(page.getByTestId('lane-point').nth(1), bar.x + bar.width / 2, bar.y + bar.height - 6)
    await shot('lanes')
    const dragged = await usedIn()
    expect(dragged).toMatchObject([{ start: 0.25, end: 0.75 }])

    // Back to the whole of the steps, then the same in numbers, with keys alone.
    await page.getByTestId('lanes-table').click()
    const share = await page.getByTestId('point-share').nth(1).inputValue()
    const place = await page.getByTestId('point-at').nth(1).inputValue()
    await page.getByTestId('slot-ramp').selectOption('flat')
    const type = async (testid: string, value: string, n = 0) => {
      await page.getByTestId(testid).nth(n).focus()
      await page.keyboard.press('Control+a')
      await page.keyboard.type(value)
      await page.keyboard.press('Tab')
    }
    await type('slot-start', '0')
    await type('slot-end', '100')
    expect(await usedIn()).toMatchObject([{ start: 0, end: 1, ramp: 'flat' }])
    await type('slot-start', '25')
    await type('slot-end', '75')
    await page.getByTestId('slot-ramp').selectOption('custom')
    await type('point-at', place, 1)
    await type('point-share', share, 1)
    expect(await usedIn()).toEqual(dragged)
  })

  it('move by keys step by step, and the ruler says the steps', async () => {
    await open({ ink: { weight: 0.6 } })
    await page.getByTestId('view-lanes').click()
    expect(await page.getByTestId('ruler').textContent()).toMatch(/0\s*1\s*2\s*3\s*4/)
    await page.getByTestId('lane-end').focus()
    await page.keyboard.press('ArrowLeft')
    await page.keyboard.press('ArrowLeft')
    await page.getByTestId('lane-move').focus()
    await page.keyboard.press('ArrowRight')
    expect(await page.getByTestId('lane-move').getAttribute('aria-valuetext')).toBe('steps 2–3 of 4')
    expect(await usedIn()).toMatchObject([{ start: 0.25, end: 0.75 }])
  })
})

describe('an audition', () => {
  it('makes drafts of one seed side by side, and a click takes a weight', async () => {
    await open({ ink: { weight: 0.6 }, glow: { weight: 0.4 } })
    await slot('ink').getByTestId('slot-on').focus()
    await page.keyboard.press('a')
    await page.getByTestId('audition-negative').click()
    await page.getByTestId('audition-half').click()
    await page.getByTestId('audition-start').click()
    await eventually(() => page.locator('[data-testid="batch-cell"][data-status="done"]').count()).toBe(4)
    const recipes = (await savedPictures(home.home)).map(({ recipe }) => recipe)
    const inkOf = (one: (typeof recipes)[number]) =>
      one.adapters?.find(({ name }) => name === 'ink.safetensors')?.weight
    expect(recipes.map(inkOf)).toEqual([undefined, -0.6, 0.3, 0.6])
    expect(recipes.map(({ request }) => request.seed)).toEqual([7, 7, 7, 7])
    expect(recipes.every(({ adapters }) => adapters?.some(({ name }) => name === 'glow.safetensors'))).toBe(true)
    await shot('audition')
    await page.getByTestId('audition-take').nth(2).click()
    expect(await slot('ink').getByTestId('slot-weight').inputValue()).toBe('0.3')
    await page.getByTestId('audition-take').nth(0).click()
    expect(await slot('ink').getByTestId('slot-on').getAttribute('aria-checked')).toBe('false')
    expect(host.complaints).toEqual([])
  })
})

describe('sets', () => {
  it('are saved, applied, written to a file, and read out of a picture', async () => {
    await open({ ink: { weight: 0.6 }, glow: { weight: 0.4 } })
    await draw()
    await page.getByTestId('sets-open').click()
    await page.getByTestId('set-name').fill('Wet evening')
    await page.keyboard.press('Enter')
    await page.getByTestId('set').waitFor()
    await shot('sets')
    await page.keyboard.press('Escape')
    await weigh('ink', '-1')
    await slot('glow').getByTestId('slot-remove').click()
    await page.getByTestId('sets-open').click()
    await page.getByTestId('set-apply').click()
    await eventually(() => slot('glow').count()).toBe(1)
    expect(await slot('ink').getByTestId('slot-weight').inputValue()).toBe('0.6')
    await page.getByTestId('sets-open').click()
    await page.getByTestId('set-menu').click()
    await page.getByRole('menuitem', { name: /Export/ }).click()
    await eventually(() => readFile(join(home.home, 'Wet evening.vgset'), 'utf8').catch(() => '')).toContain('"sha256"')
    await page.getByTestId('set-from-image').click()
    await eventually(() => page.getByTestId('set').count()).toBe(2)
  })
})

describe('the canvas', () => {
  it('zooms at the pointer, pans, and goes back to the whole by keys', async () => {
    await open({})
    await draw()
    const viewer = page.getByTestId('viewer')
    const zoom = async () => Number(await viewer.getAttribute('data-zoom'))
    await viewer.waitFor()
    const fitted = await zoom()
    const box = (await viewer.boundingBox())!
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2)
    await page.mouse.wheel(0, -600)
    await eventually(zoom).toBeGreaterThan(fitted)
    const left = async () => (await page.getByTestId('picture').boundingBox())!.x
    const before = await left()
    await drag(viewer, box.x + box.width / 2 + 40)
    expect(await left()).toBeGreaterThan(before)
    await viewer.focus()
    await page.keyboard.press('Control+9')
    await eventually(zoom).toBe(100)
    await page.keyboard.press('+')
    await eventually(zoom).toBe(125)
    await page.keyboard.press('Control+0')
    await eventually(zoom).toBe(fitted)
  })

  it('compares two pictures by keys and says what differs', async () => {
    await open({ ink: { weight: 0.6 } })
    await draw()
    await weigh('ink', '0.2')
    await draw()
    await page.getByTestId('thumb').first().click()
    await page.keyboard.press('c')
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('c')
    const divider = page.getByTestId('divider')
    await divider.waitFor()
    await divider.focus()
    await page.keyboard.press('ArrowLeft')
    expect(await divider.getAttribute('aria-valuenow')).toBe('49')
    await page.keyboard.press('Shift+ArrowRight')
    expect(await divider.getAttribute('aria-valuenow')).toBe('59')
    await eventually(() => page.getByTestId('difference').count()).toBe(1)
    expect((await page.getByTestId('difference').textContent())!.replace(/\s+/g, ' ')).toMatch(/ink ?0\.20 ?0\.60/)
    await shot('compare')
    await page.keyboard.press('Escape')
    await eventually(() => page.getByTestId('compare').count()).toBe(0)
  })

  it('shows a batch side by side, enlarges with Space and moves to the bin with Delete, which is taken back', async () => {
    await open({})
    const jobs = { prompt: 'a fox', model: 'tiny', count: 3, seed: 5 }
    const { reply } = await page.evaluate(
      async (request) => ({ reply: await window.vignette.invoke('jobs:add', { requests: [request] }) }),
      jobs,
    )
    expect(reply.ok).toBe(true)
    await eventually(() => page.locator('[data-testid="batch-cell"][data-status="done"]').count()).toBe(3)
    await page.getByTestId('batch-cell').first().getByRole('button').click()
    await page.getByTestId('picture').waitFor()
    await page.getByTestId('thumb').first().click()
    await page.keyboard.press('Space')
    await page.getByTestId('quick-look').waitFor()
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('Space')
    await eventually(() => page.getByTestId('quick-look').count()).toBe(0)
    await page.getByTestId('thumb').nth(1).focus()
    await page.keyboard.press('Delete')
    await eventually(() => page.getByTestId('thumb').count()).toBe(2)
    await page.getByTestId('toast').getByRole('button', { name: 'Undo' }).first().click()
    await eventually(() => page.getByTestId('thumb').count()).toBe(3)
  })
})
