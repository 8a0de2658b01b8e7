import { mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { writeForeignAdapter, writeManyAdapters, writeTinyAdapter } from './tiny-adapter.ts'
import { root } from './tiny-model.ts'
import { eventually, home, host, openWindow, page, shot, useWindow } from './window.ts'

useWindow({ opens: false })

const model = () => join(home.home, 'models', 'tiny')
const own = (name: string) => join(home.home, 'adapters', name)
const card = (name: string) => page.getByTestId('adapter-card').filter({ has: page.getByText(name, { exact: true }) })
const names = () => page.getByTestId('adapter-card').locator('.name').allTextContents()
const isRead = () => eventually(() => page.getByTestId('adapters-scan').count()).toBe(0)

async function openLibrary(): Promise<void> {
  await openWindow()
  await page.keyboard.press('Control+4')
  await page.getByTestId('screen-adapters').waitFor()
  await isRead()
}

/** Every file below a folder with its size and time. */
async function facts(folder: string): Promise<unknown[]> {
  const all = (await readdir(folder, { recursive: true })).sort()
  return Promise.all(
    all.map(async (name) => {
      const { size, mtimeMs } = await stat(join(folder, name))
      return [name, size, mtimeMs]
    }),
  )
}

it('AC20 shows a library of 5,000 with few cards in the page, and finds the right seven', async () => {
  await writeManyAdapters(join(home.home, 'adapters'), model(), 5000, {
    nameOf: (i) => `shelf-${i % 20}/look-${String(i).padStart(5, '0')}`,
    notesOf: (i): Record<string, string> =>
      i % 700 === 350 ? { vignette_trigger: 'heronfeather', vignette_title: `Heron ${i}` } : {},
  })
  await openLibrary()
  await eventually(() => page.getByTestId('adapters-count').textContent()).toMatch(/^5,?000 adapters$/)
  const grid = page.getByTestId('adapters-grid')
  const mostCards = await grid.evaluate(async (view) => {
    let most = 0
    const rest = () => view.scrollHeight - view.clientHeight - view.scrollTop
    for (let i = 0; rest() > 1 && i < 2000; i++) {
      view.scrollTop += view.clientHeight * 2
      await new Promise((resolve) => requestAnimationFrame(resolve))
      most = Math.max(most, document.querySelectorAll('[data-testid="adapter-card"]').length)
    }
    return rest() > 1 ? -1 : most
  })
  expect(mostCards).toBeGreaterThan(0)
  expect(mostCards).toBeLessThan(200)
  expect(await names()).toContain('look-04999')
  await shot('library-5000')

  await page.getByTestId('adapters-search').fill('heronfeather')
  await eventually(names).toEqual([350, 1050, 1750, 2450, 3150, 3850, 4550].map((i) => `Heron ${i}`))
  expect(await page.getByTestId('adapters-count').textContent()).toMatch(/^7 of 5,?000$/)
  await page.getByTestId('adapters-search').fill('shelf-7 look-00007')
  await eventually(names).toEqual(['look-00007'])
  await page.getByTestId('adapters-search').fill('nothing like it')
  await page.getByTestId('adapters-none').waitFor()
  expect(host.complaints).toEqual([])
})

describe('folders of other programs', () => {
  let ui: string
  beforeEach(async () => {
    ui = join(home.home, 'ComfyUI')
    await writeTinyAdapter(join(ui, 'models/loras/style/paper.safetensors'), model(), { seed: 5 })
    await writeFile(join(ui, 'models/loras/style/paper.civitai.info'), JSON.stringify({ trainedWords: ['papercut'] }))
    await writeFile(join(ui, 'models/loras/style/paper.preview.png'), await readFile(join(root, 'docs/screenshot.png')))
    await writeTinyAdapter(join(home.home, 'elsewhere/ink.safetensors'), model(), { seed: 6 })
    await mkdir(join(ui, 'models/checkpoints'), { recursive: true })
    await writeFile(join(ui, 'models/checkpoints/base.safetensors'), 'not read before it is imported')
    await writeFile(join(ui, 'models/loras/old.pt'), 'pickle')
    await writeFile(join(ui, 'extra_model_paths.yaml'), 'mine:\n  base_path: ../elsewhere\n  loras: .\n')
    await openLibrary()
  })

  it('AC21 are linked after their counts were shown, and nothing in them changes, whatever is done', async () => {
    const before = [await facts(ui), await facts(join(home.home, 'elsewhere'))]
    host.chosen.push(ui)
    expect(await page.getByTestId('adapters-empty').textContent()).toContain('Drop LoRA files here, or link a folder.')
    await shot('library-empty')
    await page.getByTestId('adapters-folders').click()
    await page.getByTestId('no-folders').waitFor()
    await page.getByTestId('choose-folder').click()
    const count = (kind: string) => page.getByTestId(`root-kind-${kind}`).locator('td').first().textContent()
    await eventually(() => page.getByTestId('root-report').getAttribute('data-layout')).toBe('comfyui')
    expect([await count('adapters'), await count('checkpoints')]).toEqual(['2', '1'])
    expect(await page.getByTestId('root-kind-adapters').textContent()).toContain('old format')
    expect(await page.getByTestId('linked-folder').count()).toBe(0)
    await shot('library-link')
    await page.getByTestId('root-link').click()
    await page.getByTestId('linked-folder').waitFor()
    await page.getByTestId('folders-done').click()
    await eventually(async () => (await names()).sort()).toEqual(['ink', 'paper'])

    await card('paper').click()
    await page.getByTestId('panel-notes').fill('only for skies')
    await page.getByTestId('panel-notes').press('Tab')
    await page.getByTestId('panel-tags-input').fill('paper')
    await page.getByTestId('panel-tags-input').press('Enter')
    await page.getByTestId('panel-favourite').click()
    await eventually(() => page.getByTestId('panel-hash').textContent()).toMatch(/^[0-9a-f]{64}$/)
    expect(await page.getByTestId('panel-remove').count()).toBe(0)
    await page.getByTestId('panel-use').click()
    await eventually(() => page.getByTestId('adapter-used').count()).toBe(1)
    await page.getByTestId('panel-samples').click()
    await eventually(() => page.getByTestId('panel-picture').count()).toBe(3)
    await shot('library-panel')

    await page.getByTestId('adapters-folders').click()
    await page.getByTestId('unlink-folder').click()
    await eventually(() => page.getByTestId('linked-folder').count()).toBe(0)
    await page.getByTestId('folders-done').click()
    await page.getByTestId('adapters-empty').waitFor()
    expect([await facts(ui), await facts(join(home.home, 'elsewhere'))]).toEqual(before)
    expect(host.complaints).toEqual([])
  })

  it('are brought in from the card of the first start', async () => {
    await page.keyboard.press('Control+1')
    await page.getByTestId('welcome-folders').click()
    await page.getByTestId('no-folders').waitFor()
    await page.getByTestId('folders-done').click()
    await page.getByTestId('screen-adapters').waitFor()
  })

  it('keep what was said of their adapters when they are linked again', async () => {
    const { handlers } = host.services
    await handlers['adapters:link']({ folder: ui })
    await handlers['adapters:list']({ model: 'tiny' })
    await card('paper').click()
    await page.getByTestId('panel-notes').fill('only for skies')
    await page.getByTestId('panel-notes').press('Tab')
    await handlers['adapters:unlink']({ folder: ui })
    await page.getByTestId('adapters-empty').waitFor()
    await rename(ui, join(home.home, 'Moved'))
    await handlers['adapters:link']({ folder: join(home.home, 'Moved') })
    await handlers['adapters:list']({ model: 'tiny' })
    await page.getByTestId('adapters-search').fill('skies')
    await card('paper').waitFor()
  })
})

describe('an adapter', () => {
  beforeEach(async () => {
    await writeTinyAdapter(own('ink.safetensors'), model(), { notes: { triggers: ['inkstyle'], weight: 0.6 } })
    await writeTinyAdapter(own('people/mira.safetensors'), model(), { seed: 2, notes: { role: 'subject' } })
    await writeTinyAdapter(own('people/mira-again.safetensors'), model(), { seed: 2 })
    await writeForeignAdapter(own('xl-look.safetensors'))
    await openLibrary()
    await eventually(async () => (await names()).sort()).toEqual(['ink', 'mira', 'mira-again'])
  })

  it('is named, rated, described and found by it; every change can be taken back', async () => {
    await card('ink').click()
    await page.getByTestId('panel-name').fill('Wet ink')
    await page.getByTestId('panel-name').press('Tab')
    await card('Wet ink').waitFor()
    await page.getByTestId('panel-weight').fill('0.65')
    await page.getByTestId('panel-weight').press('Tab')
    await page.getByTestId('panel-weight-min').fill('0.4')
    await page.getByTestId('panel-weight-min').press('Tab')
    await page.getByTestId('panel-weight-max').fill('0.9')
    await page.getByTestId('panel-weight-max').press('Tab')
    await page.getByTestId('panel-rating').focus()
    await page.keyboard.press('4')
    await page.getByTestId('panel-triggers-input').fill('wash')
    await page.getByTestId('panel-triggers-input').press('Enter')
    await eventually(() => card('Wet ink').textContent()).toMatch(/4.*0\.65 \(0\.40–0\.90\)/)
    await page.getByTestId('adapters-search').fill('wash')
    await eventually(names).toEqual(['Wet ink'])
    await page.getByTestId('adapters-clear').click()
    const stored = await readFile(join(home.home, 'adapter-notes.json'), 'utf8')
    expect(JSON.parse(stored)).toMatchObject({ version: 1 })
    expect(await readdir(join(home.home, 'adapters'))).toEqual(['ink.safetensors', 'people', 'xl-look.safetensors'])

    await page.getByTestId('panel-back-name').click()
    await card('ink').waitFor()
    await page.reload()
    await page.getByTestId('screen-adapters').waitFor()
    await eventually(() => card('ink').textContent()).toContain('0.65 (0.40–0.90)')
  })

  it('that does not fit is hidden until asked for, and says why it cannot be used', async () => {
    await eventually(() => page.getByTestId('adapters-hidden').textContent()).toBe('1 hidden, show')
    await page.getByTestId('adapters-hidden').getByRole('button').click()
    await card('xl-look').click()
    expect(await page.getByTestId('panel-verdict').textContent()).toBe('Other model')
    expect(await page.getByTestId('panel-use').getAttribute('aria-disabled')).toBe('true')
    expect(await page.getByTestId('panel-samples').isDisabled()).toBe(true)
  })

  it('is chosen, starred, rated and binned by keys alone, several at once', async () => {
    await page.getByTestId('adapters-search').focus()
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('x')
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('x')
    await eventually(() => page.getByTestId('bulk-count').textContent()).toBe('2 selected')
    await page.keyboard.press('.')
    await page.keyboard.press('5')
    // What is said of one is said of its duplicate, too: it has the same content.
    await eventually(() => page.locator('[data-testid="adapter-favourite"][aria-pressed="true"]').count()).toBe(3)
    await shot('library-selected')
    await page.getByTestId('bulk-tag').click()
    await page.keyboard.type('sketch')
    await page.keyboard.press('Enter')
    await eventually(() => page.getByTestId('adapters-tag').count()).toBe(1)
    await page.getByTestId('adapters-view-favourites').click()
    await eventually(async () => (await names()).sort()).toEqual(['ink', 'mira', 'mira-again'])
    await page.getByTestId('adapter-cell').first().focus()
    await page.keyboard.press('Delete')
    await eventually(async () => (await readdir(join(home.home, 'adapters'))).sort()).toEqual([
      'people',
      'xl-look.safetensors',
    ])
    expect(await page.getByTestId('toast').first().textContent()).toContain('ink is in the bin.')
    await page.getByTestId('toast').first().getByRole('button', { name: 'Undo' }).click()
    await eventually(async () => (await names()).sort()).toEqual(['ink', 'mira', 'mira-again'])
    expect(host.complaints).toEqual([])
  })

  it('that is there twice is shown so, compared, and one of each is kept', async () => {
    await page.getByTestId('adapters-view-duplicates').click()
    await eventually(async () => (await names()).sort()).toEqual(['mira', 'mira-again'])
    await page.getByTestId('adapters-more').click()
    await page.getByTestId('adapters-more-compare').click()
    await page.getByTestId('adapter-select').first().click()
    await page.getByTestId('bulk-twins').click()
    await eventually(() => readdir(own('people'))).toHaveLength(1)
    await page.getByTestId('adapters-more').click()
    await page.getByTestId('adapters-more-bin').click()
    await eventually(() => page.getByTestId('binned').count()).toBe(1)
    await shot('library-bin')
    await page.getByTestId('bin-clear').click()
    await page.getByTestId('bin-confirm-confirm').click()
    await page.getByTestId('bin-empty').waitFor()
    expect(await readdir(join(home.home, 'bin', 'adapters')).catch(() => [])).toEqual([])
  })

  it('whose file is gone says so, is in no picker, and comes back when it is located', async () => {
    await mkdir(join(home.home, 'away'))
    const away = join(home.home, 'away', 'renamed.safetensors')
    await rename(own('ink.safetensors'), away)
    await page.getByTestId('adapters-more').click()
    await page.getByTestId('adapters-more-rescan').click()
    await page.getByTestId('adapters-view-missing').click()
    await eventually(names).toEqual(['ink'])
    await card('ink').click()
    await shot('library-missing')
    expect(await page.getByTestId('panel-use').count()).toBe(0)
    await page.keyboard.press('Control+1')
    await page.getByTestId('slot-add').click()
    await eventually(() => page.getByTestId('picker-row').count()).toBe(2)
    expect(await page.getByTestId('picker-row').allTextContents()).not.toContain(expect.stringContaining('ink'))
    await page.getByTestId('picker-done').click()
    await page.keyboard.press('Control+4')
    host.chosen.push(away)
    await page.getByTestId('panel-locate').click()
    await eventually(() => readdir(join(home.home, 'adapters'))).toContain('ink.safetensors')
    await eventually(() => page.getByTestId('panel-use').count()).toBe(1)
  })

  it('marked as mature is blurred until it is asked for', async () => {
    await writeFile(own('ink.preview.png'), await readFile(join(root, 'docs/screenshot.png')))
    await card('ink').click()
    await page.getByTestId('panel-mature').check()
    const blurred = () => card('ink').getByTestId('adapter-thumb').getAttribute('data-blurred')
    await eventually(blurred).toBe('true')
    await page.getByTestId('panel-uncover').click()
    const inPanel = page.getByTestId('adapter-panel').getByTestId('adapter-thumb')
    await eventually(() => inPanel.getAttribute('data-blurred')).toBe('false')
    expect(await blurred()).toBe('true')
    await host.services.handlers['settings:save']({ blursMature: false })
    await eventually(blurred).toBe('false')
  })
})
