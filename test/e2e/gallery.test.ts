import { createHash } from 'node:crypto'
import Database from 'libsql'
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { contentHash } from '../../models/adapters/content-hash.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { GenerateRequest, GenerateRequestInput } from '../../preload/contract/generate.ts'
import type { StudioForm } from '../../preload/contract/settings.ts'
import { fillIndex } from '../../scripts/library-of.ts'
import { a1111Text, comfyPrompt, placePicture, tinyRecipe, writePicture } from './gallery-pictures.ts'
import { writeTinyAdapter } from './tiny-adapter.ts'
import { eventually, home, host, openWindow, page, shot as shotOf, useWindow } from './window.ts'

useWindow({ opens: false })

const card = (prompt: string) => page.getByTestId('picture-card').and(page.getByLabel(prompt, { exact: true }))
const prompts = () =>
  page.getByTestId('picture-card').evaluateAll((cards) => cards.map((one) => one.getAttribute('aria-label')))
const shot = (name: string) => shotOf(`gallery-${name}`)
const inspector = () => page.getByTestId('image-inspector')

async function openGallery(): Promise<void> {
  await openWindow()
  await goToGallery()
}

async function goToGallery(): Promise<void> {
  await page.getByTestId('rail-gallery').click()
  await page.getByTestId('screen-gallery').waitFor()
}

/** Every picture file of the home by its place, with the hash of its bytes. */
async function pictureFiles(): Promise<Record<string, string>> {
  const folder = join(home.home, 'pictures')
  const names = (await readdir(folder, { recursive: true })).filter((name) => /\.\w+$/.test(name)).sort()
  const hashes = names.map(async (name) => {
    const hash = createHash('sha256').update(await readFile(join(folder, name)))
    return [name, hash.digest('hex')] as const
  })
  return Object.fromEntries(await Promise.all(hashes))
}

/** As the Studio would, through the window. */
async function addJobs(request: GenerateRequestInput): Promise<void> {
  await page.evaluate((input) => window.vignette.invoke('jobs:add', input), { requests: [request] })
}

it('shows what will be here before there is anything', async () => {
  await openGallery()
  expect(await page.getByTestId('gallery-empty').textContent()).toContain('Images you make appear here.')
  expect(await page.getByRole('heading', { level: 1 }).allTextContents()).toEqual(['Gallery'])
  expect(host.complaints).toEqual([])
})

describe('a recipe', () => {
  const made: Partial<GenerateRequest> = {
    ...{
      prompt: 'an owl reads',
      negativePrompt: 'text',
      seed: 4242,
      steps: 3,
      guidanceScale: 4.5,
      width: 96,
      height: 160,
    },
    ...{ sampler: 'heun', schedule: 'karras', clipSkip: 2 },
  }
  const before: StudioForm = {
    ...{ prompt: 'something else', negativePrompt: 'rain', seed: 5, seedMode: 'fixed', steps: 9, guidanceScale: 2.5 },
    ...{ width: 128, height: 64, sampler: 'ddim', schedule: 'normal', model: 'tiny', clipSkip: 1 },
  }
  const names = Object.keys({ ...before, slots: [] }) as (keyof StudioForm)[]
  /** The fields that are looked at, as the form is remembered. */
  const form = () => {
    const kept = host.services.settings.get().form ?? {}
    const slots = kept.slots?.map(({ name, weight, isOn }) => ({ name, weight, isOn })) ?? []
    return { ...Object.fromEntries(names.map((name) => [name, kept[name]])), slots }
  }

  let ink: string
  let sha256: string
  beforeEach(async () => {
    ink = await writeTinyAdapter(join(home.home, 'adapters', 'ink.safetensors'), join(home.home, 'models', 'tiny'))
    const { tensors } = await readSafetensors(ink)
    sha256 = await contentHash(tensors)
    const total = tensors.size
    const use = { name: 'ink', sha256, weight: 0.65, textWeight: 0.65, start: 0, end: 1, ramp: 'flat' as const }
    await placePicture(home.home, '2026/01/02/00001', tinyRecipe(made, [{ ...use, matched: total, total }]))
  })

  const inkSlot = [{ name: 'ink', weight: 0.65, isOn: true }]
  const settings = {
    ...{ steps: 3, guidanceScale: 4.5, width: 96, height: 160, sampler: 'heun', schedule: 'karras', clipSkip: 2 },
  }
  const words = { prompt: 'an owl reads', negativePrompt: 'text' }
  const table: [string, Record<string, unknown>][] = [
    ['all', { ...words, ...settings, seed: 4242, seedMode: 'fixed', slots: inkSlot }],
    ['seed', { seed: 4242, seedMode: 'fixed' }],
    ['prompt', words],
    ['remix', { ...words, ...settings, slots: inkSlot }],
    ['adapters', { slots: inkSlot }],
  ]

  it('AC40 Use all, seed, prompt, Remix and adapters restore exactly the stated fields', async () => {
    await openGallery()
    for (const [part, restored] of table) {
      await host.services.settings.change({ form: before, screen: 'gallery' })
      await page.reload()
      await card('an owl reads').click()
      await inspector().getByTestId(`use-${part}`).click()
      await page.getByTestId('screen-studio').waitFor()
      await eventually(form).toEqual({ ...before, slots: [], ...restored })
    }
    expect(await page.getByTestId('prompt').inputValue()).toBe('something else') // the last of the table leaves it
    expect(host.complaints).toEqual([])
  })

  it('AC40 does the same by the keys A, S, P and R', async () => {
    await openGallery()
    for (const [key, part] of [
      ['a', 'all'],
      ['s', 'seed'],
      ['p', 'prompt'],
      ['r', 'remix'],
    ]) {
      await host.services.settings.change({ form: before, screen: 'studio' })
      await page.reload()
      await page.getByTestId('screen-studio').waitFor() // whose keys are the same ones
      await goToGallery()
      await card('an owl reads').click()
      await page.keyboard.press(key)
      await page.getByTestId('screen-studio').waitFor()
      const restored = table.find(([name]) => name === part)![1]
      await eventually(form).toEqual({ ...before, slots: [], ...restored })
    }
  })

  it('AC41 names the adapter that is missing, with its hash and a way to locate it, and puts nothing in its place', async () => {
    // Its file is elsewhere; another of the same name lies in its place.
    const elsewhere = join(home.home, 'downloads', 'ink.safetensors')
    await mkdir(dirname(elsewhere))
    await cp(ink, elsewhere)
    await writeTinyAdapter(ink, join(home.home, 'models', 'tiny'), { seed: 9 })
    await openGallery()
    await card('an owl reads').click()
    const missing = inspector().getByTestId('missing')
    await missing.waitFor()
    expect(await missing.textContent()).toContain('1 of 1 adapters missing')
    expect(await missing.textContent()).toContain('ink')
    expect(await missing.textContent()).toContain(sha256.slice(0, 12))
    await shot('missing')
    await inspector().getByTestId('use-all').click()
    await page.getByTestId('screen-studio').waitFor()
    await eventually(() => page.getByTestId('recall-notice').textContent()).toContain(sha256.slice(0, 12))
    expect(await page.getByTestId('recall-notice').textContent()).toContain('ink')
    expect(await page.getByTestId('slot').count()).toBe(0)
    expect(form().slots).toEqual([])

    await goToGallery()
    await card('an owl reads').click()
    host.chosen.push(elsewhere)
    await inspector().getByTestId('locate').click()
    await page.getByTestId('offer-keep').or(page.getByTestId('offer-use')).first().click()
    await page.getByTestId('offer-result').waitFor()
    await page.getByTestId('offers-done').click()
    await eventually(() => missing.count()).toBe(0)
  })
})

describe('pictures of other programs', () => {
  it('AC42 are brought in with prompt, seed and size, and with their other fields as they were written', async () => {
    const downloads = join(home.home, 'downloads')
    const files = [
      await writePicture(join(downloads, 'webui.png'), [{ keyword: 'parameters', text: a1111Text }]),
      await writePicture(join(downloads, 'comfy.png'), [{ keyword: 'prompt', text: comfyPrompt }]),
      join(downloads, 'broken.png'),
    ]
    await writeFile(files[2], (await readFile(files[0])).subarray(0, 300))
    await openGallery()
    host.chosen.push(...files)
    await page.getByTestId('gallery-import').click()
    await eventually(() =>
      page
        .getByTestId('toast')
        .allTextContents()
        .then((all) => all.join()),
    ).toContain('cut off')
    await eventually(prompts).toHaveLength(2)

    await card('a lighthouse in fog, (masterpiece:1.2)').click()
    await eventually(() => inspector().getByTestId('section-settings').textContent()).toMatch(/987654.*512 × 640/s)
    expect(await inspector().textContent()).toContain('AUTOMATIC1111 v1.9.4')
    expect(await inspector().getByTestId('section-negative').textContent()).toContain('crowd')
    expect(await inspector().getByTestId('section-raw').textContent()).toMatch(/Hires upscaler.*Latent/s)
    expect(await inspector().getByTestId('replay').isDisabled()).toBe(true)

    await card('kites over a harbour').click()
    await eventually(() => inspector().getByTestId('section-settings').textContent()).toMatch(/4711.*768 × 512/s)
    expect(await inspector().getByTestId('section-raw').textContent()).toContain('KSampler')
    await shot('foreign')

    await inspector().getByTestId('use-all').click()
    await eventually(() => page.getByTestId('prompt').inputValue()).toBe('kites over a harbour')
    expect(await page.getByTestId('seed').inputValue()).toBe('4711')
    await goToGallery()
    await page.getByTestId('gallery-search').fill('is:imported seed:987654')
    await eventually(prompts).toEqual(['a lighthouse in fog, (masterpiece:1.2)'])
  })
})

describe('the bin', () => {
  it('AC43 gives five deleted pictures back after a new start, with files and albums as they were', async () => {
    for (let i = 1; i <= 7; i++)
      await placePicture(home.home, `2026/01/02/0000${i}`, tinyRecipe({ prompt: `picture ${i}`, seed: i }))
    await openGallery()
    await eventually(prompts).toHaveLength(7)
    // Two of the five lie in an album.
    await card('picture 3').click()
    await page.keyboard.press('Shift+ArrowRight')
    await page.getByTestId('add-to-album').click()
    await page.getByTestId('add-to-album-new').click()
    await page.getByTestId('album-name').fill('Sketches')
    await page.keyboard.press('Enter')
    await eventually(() => page.getByTestId('album-Sketches').textContent()).toContain('2')
    const files = await pictureFiles()
    const albums = host.services.library.marks.albums()
    const inAlbum = (id: string) =>
      host.services.library.ids({ search: '', isBin: false, order: 'newest', album: id }, 0, 9)
    const members = inAlbum(albums[0].id)
    expect(members).toHaveLength(2)

    await card('picture 5').click()
    await card('picture 1').click({ modifiers: ['Shift'] })
    await page.getByTestId('selection-bar').waitFor()
    await page.getByTestId('picture-card').first().focus()
    await page.keyboard.press('Delete')
    await eventually(prompts).toEqual(['picture 7', 'picture 6'])
    await eventually(() => page.getByTestId('toast').first().textContent()).toContain('5 pictures are in the bin')
    expect(Object.keys(await pictureFiles())).toHaveLength(2)

    await host.close()
    await openGallery()
    await eventually(prompts).toEqual(['picture 7', 'picture 6'])
    await page.getByTestId('scope-bin').click()
    await eventually(prompts).toHaveLength(5)
    expect(await page.getByTestId('bin-size').textContent()).toMatch(/^5 · \d/)
    await shot('bin')
    await card('picture 5').click()
    await card('picture 1').click({ modifiers: ['Shift'] })
    await page.getByTestId('restore-selected').click()
    await eventually(prompts).toHaveLength(0)
    expect(await pictureFiles()).toEqual(files)
    await page.getByTestId('scope-all').click()
    await eventually(prompts).toEqual([7, 6, 5, 4, 3, 2, 1].map((i) => `picture ${i}`))
    expect(host.services.library.marks.albums()).toEqual(albums)
    expect(inAlbum(albums[0].id)).toEqual(members)
    await page.getByTestId('album-Sketches').click()
    await eventually(prompts).toEqual(['picture 3', 'picture 2'])
  })

  it('takes a deletion back with Undo, and deletes for good only after a question', async () => {
    for (let i = 1; i <= 3; i++)
      await placePicture(home.home, `2026/01/02/0000${i}`, tinyRecipe({ prompt: `picture ${i}`, seed: i }))
    await openGallery()
    await card('picture 2').click()
    await page.keyboard.press('Delete')
    await eventually(prompts).toEqual(['picture 3', 'picture 1'])
    await page.getByTestId('toast').getByRole('button', { name: 'Undo' }).click()
    await eventually(prompts).toEqual(['picture 3', 'picture 2', 'picture 1'])

    await card('picture 3').click()
    await page.keyboard.press('Delete')
    await eventually(prompts).toHaveLength(2)
    await page.getByTestId('scope-bin').click()
    await page.getByTestId('empty-bin').click()
    await page.getByTestId('confirm-empty-bin-cancel').click()
    expect(host.services.library.binSize().count).toBe(1)
    await page.getByTestId('empty-bin').click()
    await page.getByTestId('confirm-empty-bin-confirm').click()
    await eventually(() => host.services.library.binSize()).toEqual({ count: 0, bytes: 0 })
    const binned = await readdir(join(home.home, 'bin'), { recursive: true })
    expect(binned.filter((name) => name.endsWith('.png'))).toEqual([])
    expect(Object.keys(await pictureFiles())).toHaveLength(2)
  })
})

describe('a picture that is made again', () => {
  it('AC48 is identical; and different, with the adapter named, once the adapter is another', async () => {
    const model = join(home.home, 'models', 'tiny')
    const ink = await writeTinyAdapter(join(home.home, 'adapters', 'ink.safetensors'), model)
    await openWindow()
    await addJobs({
      ...{ prompt: 'a bear', model: 'tiny', seed: 3, steps: 2, preview: 'off' },
      adapters: [{ file: 'own/ink.safetensors', weight: 0.8 }],
    })
    await goToGallery()
    await eventually(prompts).toEqual(['a bear'])
    await card('a bear').click()
    await inspector().getByTestId('replay').click()
    const result = inspector().getByTestId('replay-result')
    await eventually(() => result.getAttribute('data-verdict')).toBe('identical')
    await shot('replay')

    await writeTinyAdapter(ink, model, { seed: 77 })
    await eventually(prompts).toHaveLength(2)
    await page.getByTestId('picture-card').last().click()
    await inspector().getByTestId('replay').click()
    await eventually(() => result.getAttribute('data-verdict')).toBe('different')
    expect(await result.textContent()).toContain('ink')
  })
})

it('stars, tags and words of the person are kept and found again', async () => {
  for (let i = 1; i <= 3; i++)
    await placePicture(home.home, `2026/01/0${i}/00001`, tinyRecipe({ prompt: `picture ${i}`, seed: i }))
  await openGallery()
  await card('picture 2').click()
  await page.keyboard.press('.')
  await eventually(() => inspector().getByTestId('inspector-star').getAttribute('aria-pressed')).toBe('true')
  await page.getByTestId('tag-input').fill('cover')
  await page.keyboard.press('Enter')
  await eventually(() => page.getByTestId('tags').textContent()).toContain('cover')
  await page.getByTestId('alt-text').fill('a harbour at night')
  await page.keyboard.press('Tab')
  await eventually(prompts).toContain('a harbour at night')
  await host.close()
  await openGallery()
  for (const search of ['is:starred', 'tag:cover', 'harbour night', 'after:2026-01-02 before:2026-01-03']) {
    await page.getByTestId('gallery-search').fill(search)
    await eventually(prompts).toEqual(['a harbour at night'])
  }
  await page.getByTestId('gallery-search').fill('is:shiny picture')
  await eventually(prompts).toHaveLength(3)
  expect(await page.getByTestId('screen-gallery').textContent()).toContain('is:shiny')
})

it('shows pictures by day, as a list, and enlarged, all by keyboard', async () => {
  for (let i = 1; i <= 3; i++)
    await placePicture(home.home, `2026/01/0${i}/00001`, tinyRecipe({ prompt: `picture ${i}`, seed: i }))
  await openGallery()
  await page.getByTestId('gallery-look-timeline').check({ force: true })
  await eventually(() => page.getByTestId('gallery-timeline').getByRole('columnheader').count()).toBe(3)
  await card('picture 3').focus()
  await page.keyboard.press('ArrowDown')
  await eventually(() => page.evaluate(() => document.activeElement?.getAttribute('aria-label'))).toBe('picture 2')
  await page.keyboard.press('Space')
  await page.getByTestId('quick-look').waitFor()
  expect(await page.getByTestId('quick-look').textContent()).toContain('picture 2')
  await page.keyboard.press('ArrowRight')
  await eventually(() => page.getByTestId('quick-look').textContent()).toContain('picture 1')
  await page.keyboard.press('Escape')
  await eventually(() => page.getByTestId('quick-look').count()).toBe(0)
  await page.getByTestId('gallery-look-list').check({ force: true })
  const lines = page.getByTestId('picture-card')
  await eventually(async () => (await lines.allTextContents()).map((line) => /picture \d/.exec(line)?.[0])).toEqual([
    'picture 3',
    'picture 2',
    'picture 1',
  ])
  await eventually(() => host.services.settings.get().places?.galleryLook).toBe('list')
  await page.reload()
  await page.getByTestId('gallery-list').waitFor() // as it was left
  expect(host.complaints).toEqual([])
})

it('says what is wrong with a broken file, and mends or removes it', async () => {
  const file = await placePicture(home.home, '2026/01/02/00001', tinyRecipe({ prompt: 'whole' }))
  const other = await placePicture(home.home, '2026/01/02/00002', tinyRecipe({ prompt: 'fine', seed: 2 }))
  const bytes = await readFile(file)
  await writeFile(file, bytes.subarray(0, 200))
  await openGallery()
  await page.getByTestId('broken').waitFor()
  expect(await page.getByTestId('broken').textContent()).toContain('00001-1.png')
  await page.getByTestId('broken').click()
  await inspector().getByTestId('broken-note').waitFor()
  await shot('broken')
  await writeFile(file, bytes)
  await inspector().getByTestId('rebuild').click()
  await eventually(prompts).toContain('whole')
  await eventually(() => page.getByTestId('broken').count()).toBe(0)
  expect(await readFile(other)).toBeDefined()
})

it('AC60 lists each of many pictures once, with its file', async () => {
  await openWindow()
  for (const seed of [100, 150, 200, 250])
    await addJobs({ prompt: 'many', model: 'tiny', seed, steps: 1, preview: 'off', count: 50 })
  await expect.poll(() => host.services.library.list().length, { timeout: 280_000, interval: 500 }).toBe(200)
  const files = Object.keys(await pictureFiles())
  expect(files).toHaveLength(200)
  const listed = host.services.library.list()
  expect(new Set(listed.map(({ file }) => file)).size).toBe(200)
  expect(listed.map(({ seed }) => seed).sort()).toEqual(Array.from({ length: 200 }, (_, i) => 100 + i))
  await goToGallery()
  await eventually(() => page.getByTestId('gallery-count').textContent()).toBe('200 pictures')
})

it('scrolls through ten thousand pictures with few of them in the page, and finds the right ones', async () => {
  await fillIndex(home.home, 10_000)
  const index = new Database(join(home.home, 'library.db'))
  const files = (index.prepare('SELECT file FROM pictures').raw().all() as string[][]).flat()
  index.close()
  const bytes = await readFile(await writePicture(join(home.home, 'one.png'), [], 8))
  for (const day of new Set(files.map((file) => dirname(file))))
    await mkdir(join(home.home, 'pictures', day), { recursive: true })
  for (const file of files) await writeFile(join(home.home, 'pictures', file), bytes)
  await openGallery()
  await eventually(() => page.getByTestId('gallery-count').textContent()).toBe('10,000 pictures')
  const grid = page.getByTestId('gallery-grid')
  const most = { cards: 0 }
  for (let part = 0; part <= 20; part++) {
    await grid.evaluate((view, share) => (view.scrollTop = share * view.scrollHeight), part / 20)
    await page.waitForTimeout(60)
    most.cards = Math.max(most.cards, await page.getByTestId('picture-card').count())
  }
  expect(most.cards).toBeGreaterThan(8)
  expect(most.cards).toBeLessThan(200)
  await page.getByTestId('gallery-search').fill('seed:0')
  await eventually(() => page.getByTestId('gallery-count').textContent()).toBe('one picture')
  await page.getByTestId('gallery-search').fill('is:starred')
  await eventually(() => page.getByTestId('gallery-count').textContent()).toBe('500 pictures')
  await rm(join(home.home, 'one.png'))
})

it('goes to a picture that another screen asks for, however far down it lies', async () => {
  for (let i = 1; i <= 130; i++)
    await placePicture(
      home.home,
      `2026/01/02/${String(i).padStart(5, '0')}`,
      tinyRecipe({ prompt: `old ${i}`, seed: i }),
    )
  await openGallery()
  await page.getByTestId('gallery-order').click()
  await eventually(() => prompts().then(([first]) => first)).toBe('old 1')
  await addJobs({ prompt: 'the last one', model: 'tiny', seed: 7, steps: 1, preview: 'off' })
  await eventually(() => page.getByTestId('gallery-count').textContent()).toBe('131 pictures')
  expect(await card('the last one').count()).toBe(0) // far below
  await page.getByTestId('queue-toggle').click()
  await page.getByTestId('queue-tab-done').click()
  await page.getByTestId('queue-list').getByTestId('queue-menu').first().click()
  await page.getByRole('menuitem', { name: 'Show in gallery' }).click()
  await card('the last one').waitFor()
  await eventually(() => inspector().getByTestId('section-prompt').textContent()).toContain('the last one')
})
