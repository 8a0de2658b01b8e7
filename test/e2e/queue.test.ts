import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import type { Bridge, Input } from '../../preload/contract.ts'
import { holdEngine } from './engine-pid.ts'
import { savedPictures } from './pictures.ts'
import { home, host, openWindow, page, screenshots, useWindow } from './window.ts'

// The queue in the built window, with the real handlers and a real engine.

useWindow()
afterEach(() => {
  for (const name of ['VIGNETTE_E2E', 'VIGNETTE_FAIL', 'VIGNETTE_FAIL_MARK']) delete process.env[name]
})

/** From the next start of the engine on. */
function fail(what: string): void {
  Object.assign(process.env, {
    VIGNETTE_E2E: '1',
    VIGNETTE_FAIL: what,
    VIGNETTE_FAIL_MARK: join(home.home, 'failed-on-purpose'),
  })
}

const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 90_000 })
const dock = () => page.getByTestId('queue-dock')
const openDock = async () => {
  const toggle = page.getByTestId('queue-toggle')
  if ((await toggle.getAttribute('aria-expanded')) === 'false') await toggle.click()
  await page.getByTestId('queue-panel').waitFor()
}
const rows = () => dock().getByRole('gridcell')
const names = () =>
  rows()
    .getByRole('group')
    .evaluateAll((all) => all.map((row) => row.getAttribute('aria-label')))
const jobs = () => host.services.jobs.list()
const jobOf = (prompt: string) => jobs().find(({ request }) => request.prompt === prompt)!

type Part = Partial<Input<'jobs:add'>['requests'][number]>
/** Asks for pictures as the window does, one batch a call. */
async function ask(requests: Part[], options: Partial<Input<'jobs:add'>> = {}): Promise<string[]> {
  return page.evaluate(
    async ([input]) => {
      const reply = await (window as unknown as { vignette: Bridge }).vignette.invoke('jobs:add', input)
      if (!reply.ok) throw new Error(reply.error.message)
      return reply.value.jobIds
    },
    [{ requests: requests.map((part) => ({ prompt: 'a', model: 'tiny', ...part })), ...options }] as const,
  )
}
const askEach = async (prompts: string[], part: Part = {}) => {
  for (const prompt of prompts) await ask([{ prompt, ...part }])
}
const pauseNow = async () => {
  await page.keyboard.press('Control+.')
  await eventually(() => host.services.jobs.state().isPaused).toBe(true)
}

it('AC22 moves a job up with Alt and the arrow, and the order is there after a restart', async () => {
  await pauseNow()
  const prompts = Array.from({ length: 10 }, (_, i) => `job ${i + 1}`)
  await askEach(prompts)
  await openDock()
  // The focus goes with it.
  const focused = () =>
    page.evaluate(() => {
      const cell = document.activeElement
      return `${cell?.querySelector('[role="group"]')?.getAttribute('aria-label')} at ${cell?.parentElement?.getAttribute('aria-rowindex')}`
    })
  await rows().first().focus()
  await page.keyboard.press('End')
  await eventually(focused).toBe('job 10 at 10')
  const order = () => jobs().sort((a, b) => a.rank - b.rank).map(({ request }) => request.prompt) // prettier-ignore
  for (let i = 0; i < 6; i++) {
    await page.keyboard.press('Alt+ArrowUp')
    await eventually(() => order().indexOf('job 10')).toBe(8 - i)
    await eventually(focused).toBe(`job 10 at ${9 - i}`)
  }
  const expected = ['job 1', 'job 2', 'job 3', 'job 10', 'job 4', 'job 5', 'job 6', 'job 7', 'job 8', 'job 9']
  expect(order()).toEqual(expected)
  await page.screenshot({ path: join(screenshots, 'queue-order.png') })
  await host.close()
  await openWindow()
  await openDock()
  await eventually(async () => (await names()).slice(0, 5)).toEqual(expected.slice(0, 5))
  expect(order()).toEqual(expected)
  expect(await page.getByTestId('queue-resume').isVisible()).toBe(true)
})

it('AC25 offers a smaller shape when memory runs out, keeps the prompt, and goes on with the queue', async () => {
  fail('memory@3')
  await page.getByTestId('prompt').fill('a lighthouse')
  await page.getByTestId('generate').click()
  await ask([{ prompt: 'the next one', steps: 2 }])
  await openDock()
  await page.getByTestId('queue-tab-failed').click()
  const smaller = page.getByTestId('queue-smaller')
  await smaller.waitFor()
  const failed = jobOf('a lighthouse')
  expect(failed).toMatchObject({
    status: 'failed',
    error: { code: 'out-of-memory' },
    smaller: { width: 96, height: 96 },
  })
  expect(await smaller.textContent()).toBe('Try 96 × 96')
  expect(await page.getByTestId('prompt').inputValue()).toBe('a lighthouse')
  await page.screenshot({ path: join(screenshots, 'queue-memory.png') })
  await smaller.click()
  await eventually(async () =>
    (await savedPictures(home.home)).map(({ width, recipe }) => [recipe.request.prompt, width]),
  ).toEqual([
    ['the next one', 128],
    ['a lighthouse', 96],
  ])
  const saved = (await savedPictures(home.home)).at(-1)!
  expect(saved.recipe.request.seed).toBe(failed.request.seed)
})

it('AC25 offers the same in place of the picture', async () => {
  fail('memory@2')
  await page.getByTestId('prompt').fill('a lighthouse')
  await page.getByTestId('generate').click()
  const card = page.getByTestId('error-card')
  await card.waitFor()
  expect(await card.getAttribute('data-code')).toBe('out-of-memory')
  const fix = card.getByRole('button', { name: 'Try 96 × 96' })
  expect(await page.getByTestId('prompt').inputValue()).toBe('a lighthouse')
  await fix.click()
  await eventually(async () => (await savedPictures(home.home)).map(({ width }) => width)).toEqual([96])
})

it('takes a job back into the form, and shows what it became', async () => {
  await ask([{ prompt: 'a harbour at noon', steps: 3, seed: 5 }])
  await eventually(() => jobOf('a harbour at noon').status).toBe('done')
  await page.getByTestId('rail-models').click()
  await openDock()
  await page.getByTestId('queue-tab-done').click()
  const row = page.getByTestId(`queue-item-${jobOf('a harbour at noon').id}`)
  await row.getByTestId('queue-menu').click()
  await page.getByRole('menuitem', { name: 'Edit as new' }).click()
  await page.getByTestId('screen-studio').waitFor()
  await eventually(() => page.getByTestId('prompt').inputValue()).toBe('a harbour at noon')
  expect(await page.getByTestId('seed').inputValue()).toBe('5')
  await row.getByTestId('queue-menu').click()
  await page.getByRole('menuitem', { name: 'Duplicate' }).click()
  await eventually(async () => (await savedPictures(home.home)).length).toBe(2)
  const [first, second] = (await savedPictures(home.home)).map(({ recipe }) => recipe.request)
  expect({ ...second, seed: 0 }).toEqual({ ...first, seed: 0 })
  expect(second.seed).not.toBe(first.seed)
  await row.getByTestId('queue-menu').click()
  await page.getByRole('menuitem', { name: 'Show in gallery' }).click()
  await page.getByTestId('screen-gallery').waitFor()
  await row.getByTestId('queue-menu').click()
  await page.getByRole('menuitem', { name: 'Take out of the list' }).click()
  await eventually(() => row.count()).toBe(0)
  expect(await savedPictures(home.home)).toHaveLength(2)
})

it('moves a job by dragging it', async () => {
  await pauseNow()
  await askEach(['one', 'two', 'three'])
  await openDock()
  await eventually(names).toEqual(['one', 'two', 'three'])
  const row = (prompt: string) => page.getByTestId(`queue-item-${jobOf(prompt).id}`).getByRole('group')
  await row('three').dragTo(row('one'))
  await eventually(names).toEqual(['three', 'one', 'two'])
  await eventually(() => jobOf('three').rank).toBeLessThan(jobOf('one').rank)
})

it('AC26 says Stopping at once, starts no later step, and leaves no file', async () => {
  const [id] = await ask([{ prompt: 'stopped', steps: 150 }])
  await eventually(() => jobOf('stopped').step).toBeGreaterThan(0)
  const engine = holdEngine(process.pid)
  try {
    await page.getByTestId('cancel').click()
    // The engine cannot have heard of it yet.
    await eventually(() => page.getByTestId('cancel').textContent()).toContain('Stopping…')
    await eventually(() => page.getByTestId('queue-now').textContent()).toContain('Stopping…')
  } finally {
    engine.release()
  }
  const step = jobOf('stopped').step
  await eventually(() => jobOf('stopped').status).toBe('cancelled')
  // What was told before the engine was held, and the step it was held in.
  expect(jobOf('stopped').step - step).toBeLessThanOrEqual(2)
  expect(await savedPictures(home.home)).toEqual([])
  expect(await readdir(join(home.home, 'pictures'), { recursive: true })).toEqual([])
  await openDock()
  await page.getByTestId('queue-tab-failed').click()
  const row = page.getByTestId(`queue-item-${id}`)
  await eventually(() => row.textContent()).toContain('Stopped')
  expect(await row.locator('img').getAttribute('src')).toContain('data:image/')
})

it('AC27 brings back what was cleared, in its order', async () => {
  await page.getByTestId('prompt').fill('what was typed before stays')
  await pauseNow()
  await askEach(['one', 'two', 'three', 'four', 'five'])
  await openDock()
  await eventually(names).toHaveLength(5)
  await page.keyboard.press('Control+Shift+X')
  await eventually(names).toEqual([])
  await eventually(() => page.getByTestId('toast').allTextContents()).toContainEqual(
    expect.stringContaining('5 jobs were cleared.'),
  )
  await page.getByTestId('queue-toggle').focus()
  await page.keyboard.press('Control+z')
  await eventually(names).toEqual(['one', 'two', 'three', 'four', 'five'])
  expect(await page.getByTestId('prompt').inputValue()).toBe('what was typed before stays')
})

it('AC28 keeps a picture that finds no room, stops and says so, and saves it when there is some', async () => {
  fail('disk')
  await ask([{ prompt: 'no room', steps: 2 }])
  const problem = page.getByTestId('queue-problem')
  await problem.waitFor()
  expect(await problem.getAttribute('data-code')).toBe('disk-full')
  expect(jobOf('no room')).toMatchObject({ status: 'waiting' })
  expect(host.services.jobs.state()).toMatchObject({ isPaused: true, pausedBy: 'disk-full' })
  expect(await savedPictures(home.home)).toEqual([])
  await page.screenshot({ path: join(screenshots, 'queue-disk-full.png') })
  delete process.env.VIGNETTE_FAIL
  await page.getByTestId('problem-resume').click()
  await eventually(async () => (await savedPictures(home.home)).length).toBe(1)
  await eventually(() => problem.count()).toBe(0)
  expect(jobOf('no room').status).toBe('done')
})

it('AC29 lists a thousand jobs with few rows in the page, and typing works', async () => {
  await ask([{ prompt: 'running', steps: 150 }])
  await eventually(() => jobOf('running').status).toBe('running')
  const ids = await ask(Array.from({ length: 1000 }, (_, i) => ({ prompt: `job ${i + 1}`, seed: i })))
  expect(ids).toHaveLength(1000)
  await openDock()
  await eventually(() => page.getByTestId('queue-tab-waiting').textContent()).toContain('1000')
  await rows().first().getByRole('button', { name: 'Show the jobs of the batch' }).click()
  await eventually(() => dock().getByRole('grid').getAttribute('aria-rowcount')).toBe('1001')
  const inPage = () => dock().getByRole('row').count()
  expect(await inPage()).toBeLessThan(100)
  expect(await inPage()).toBeGreaterThan(3)
  await rows().first().focus()
  await page.keyboard.press('End')
  await eventually(names).toContain('job 1000')
  expect(await inPage()).toBeLessThan(100)
  const prompt = page.getByTestId('prompt')
  await prompt.fill('')
  await prompt.pressSequentially('a fox in the snow')
  expect(await prompt.inputValue()).toBe('a fox in the snow')
  await page.screenshot({ path: join(screenshots, 'queue-thousand.png') })
  expect(host.complaints).toEqual([])
})

it('AC30 goes on with the running job when the window is loaded again', async () => {
  const [id] = await ask([{ prompt: 'reloaded', steps: 60 }])
  await eventually(() => jobOf('reloaded').step).toBeGreaterThan(1)
  const engine = holdEngine(process.pid)
  const { startedAt, step } = jobOf('reloaded')
  try {
    await page.reload()
    await page.getByTestId('running-job').waitFor()
    await openDock()
    expect(await page.getByTestId(`queue-item-${id}`).count()).toBe(1)
    const now = () => page.getByTestId('job-progress').first().getAttribute('aria-valuenow').then(Number)
    await eventually(now).toBeGreaterThan(0)
  } finally {
    engine.release()
  }
  await eventually(() => page.getByTestId('picture').count()).toBe(1)
  expect(jobOf('reloaded')).toMatchObject({ status: 'done', startedAt })
  expect(step).toBeGreaterThan(1)
  expect(await savedPictures(home.home)).toHaveLength(1)
})

it('AC52 tells a screen reader each quarter of a batch, and once that it is finished', async () => {
  await page.evaluate(() => {
    const heard: string[] = ((window as unknown as { heard: string[] }).heard = [])
    const live = document.querySelector('[data-testid="live-polite"]')!
    new MutationObserver(() => heard.push(live.textContent ?? '')).observe(live, {
      characterData: true,
      childList: true,
      subtree: true,
    })
  })
  await ask(Array.from({ length: 4 }, (_, i) => ({ prompt: `part ${i}`, seed: i })))
  const heard = () => page.evaluate(() => (window as unknown as { heard: string[] }).heard)
  await eventually(heard).toContain('4 pictures are finished.')
  expect((await heard()).filter((text) => /%|finished/.test(text))).toEqual([
    '25 % done',
    '50 % done',
    '75 % done',
    '100 % done',
    '4 pictures are finished.',
  ])
})

it('AC60 makes two hundred pictures: every file is there, and each is listed once', async () => {
  await ask(Array.from({ length: 200 }, (_, i) => ({ prompt: `many ${i}`, seed: i, steps: 1, width: 64, height: 64 })))
  await expect.poll(() => jobs().filter(({ status }) => status === 'done').length, { timeout: 240_000 }).toBe(200)
  const files = (await readdir(join(home.home, 'pictures'), { recursive: true })).filter((name) =>
    name.endsWith('.png'),
  )
  expect(files).toHaveLength(200)
  const listed = host.services.library.list(1000)
  expect(new Set(listed.map(({ id }) => id)).size).toBe(200)
  expect(new Set(listed.map(({ prompt }) => prompt)).size).toBe(200)
  expect(new Set(jobs().map(({ imageId }) => imageId)).size).toBe(200)
  expect(await readdir(join(home.home, 'checkpoints'))).toEqual([])
})

it('pauses after the picture, goes on, holds a batch back, and tries again', async () => {
  await ask([{ prompt: 'current', steps: 60 }])
  await ask([
    { prompt: 'held', steps: 2 },
    { prompt: 'held too', steps: 2 },
  ])
  await ask([{ prompt: 'last', steps: 2 }])
  await openDock()
  await eventually(() => jobOf('current').status).toBe('running')
  await page.getByTestId('queue-pause-after').click()
  await eventually(() => page.getByTestId('queue-now').textContent()).toContain('then paused')
  await eventually(() => jobOf('current').status).toBe('done')
  await eventually(() => page.getByTestId('queue-now').textContent()).toMatch(/^Paused\s*$/)
  expect(jobOf('held').status).toBe('waiting')
  const batch = page.getByTestId(`queue-item-${jobOf('held').batchId}`)
  expect(await batch.getByTestId('queue-batch-count').textContent()).toBe('0/2')
  await batch.getByTestId('queue-menu').click()
  await page.screenshot({ path: join(screenshots, 'queue-menu.png') })
  await page.getByRole('menuitem', { name: 'Hold back' }).click()
  await eventually(() => batch.textContent()).toContain('Held back')
  await page.getByTestId('queue-resume').click()
  await eventually(() => jobOf('last').status).toBe('done')
  expect(jobOf('held').status).toBe('waiting')
  await batch.getByTestId('queue-cancel').click()
  await eventually(() => jobOf('held too').status).toBe('cancelled')
  await page.getByTestId('queue-tab-failed').click()
  await page
    .getByTestId(`queue-item-${jobOf('held').batchId}`)
    .getByTestId('queue-retry')
    .click()
  await eventually(async () => (await savedPictures(home.home)).length).toBe(4)
  await page.getByTestId('queue-tab-done').click()
  await page.screenshot({ path: join(screenshots, 'queue-done.png') })
})
