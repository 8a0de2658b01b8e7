import { appendFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import type { ElectronApplication, Page } from 'playwright-core'
import type { Bridge } from '../preload/contract.ts'
import { openApp, openDesk, type Desk } from '../test/e2e/electron.ts'
import { savedPictures } from '../test/e2e/pictures.ts'
import { writeManyAdapters } from '../test/e2e/tiny-adapter.ts'
import { copyHome, tinyHome, type Home } from '../test/e2e/tiny-model.ts'
import { readingFigures, screenFigures, type Figure } from './bench-adapters.ts'

// `npm run bench:app`: what the window costs, measured in the real application on this computer. Nothing is asserted here.

const { values } = parseArgs({
  options: {
    jobs: { type: 'string', default: '200' },
    out: { type: 'string', default: 'bench-results.jsonl' },
    help: { type: 'boolean', default: false },
  },
})
const say = (text: string) => void process.stdout.write(`${text}\n`)
if (values.help) {
  say(`Measures the application itself: start, first picture, typing while a picture is made, memory over many pictures.

  npm run bench:app                 about five minutes
  npm run bench:app -- --jobs 50    fewer pictures for the memory`)
  process.exit(0)
}

type Row = { what: string; value: number; unit: string; budget?: string }
const rows: Row[] = []
const note = (what: string, value: number, unit: string, budget?: string) => {
  rows.push({ what, value, unit, ...(budget ? { budget } : {}) })
  say(`${what.padEnd(58)} ${value.toFixed(value < 10 ? 2 : 0).padStart(8)} ${unit.padEnd(4)} ${budget ?? ''}`)
}

const desk = await openDesk()
say(
  `${cpus()[0]?.model.trim()}, ${cpus().length} logical cores, ${Math.round(totalmem() / 1e9)} GB, Electron ${desk.runtime.version}\n`,
)
try {
  await firstStart(desk)
  const template = await tinyHome()
  try {
    await usualStart(desk, template.home)
    const home = await copyHome(template)
    await atWork(desk, home.home, Number(values.jobs))
    await home.remove()
    await largeLibrary(desk, template)
  } finally {
    await template.remove()
  }
} finally {
  desk.screen.close()
}
appendFileSync(
  resolve(values.out),
  `${JSON.stringify({ at: new Date().toISOString(), kind: 'app', processor: cpus()[0]?.model, cores: cpus().length, rows })}\n`,
)
say(`\nAppended to ${resolve(values.out)}`)

/** A profile that never was: the starter is put in place on the way to the first picture. */
async function firstStart(desk: Desk): Promise<void> {
  const home = await mkdtemp(join(tmpdir(), 'vignette-bench-'))
  const began = performance.now()
  const { app, page } = await openApp(desk, home)
  note('first start: window that can be used', (performance.now() - began) / 1000, 's', '3 s')
  await page.getByTestId('generate').click()
  await page.getByTestId('picture').waitFor({ timeout: 600_000 })
  note('first start: first picture, from launch', (performance.now() - began) / 1000, 's', '60 s')
  await app.close()
  await rm(home, { recursive: true, force: true })
}

async function usualStart(desk: Desk, home: string): Promise<void> {
  for (const _ of [1, 2]) {
    const began = performance.now()
    const { app } = await openApp(desk, home)
    const ms = performance.now() - began
    if (_ === 2) note('start: window that can be used', ms / 1000, 's', '2 s')
    await app.close()
  }
}

async function atWork(desk: Desk, home: string, count: number): Promise<void> {
  const { app, page } = await openApp(desk, home)
  await make(page, 1, 4)
  await page.getByTestId('picture').waitFor({ timeout: 120_000 })
  note('screens: the slowest of six changes', await slowestScreen(page), 'ms', '150 ms')

  await make(page, 8, 150) // longer than the typing takes
  await page.getByTestId('preview').first().waitFor({ timeout: 60_000 })
  note('typing while a picture is made: key to paint, 95 %', await typingLatency(page), 'ms', '50 ms')
  await cancelAll(page)

  const before = await uiMemory(app, page)
  const there = (await savedPictures(home)).length
  await make(page, count, 2)
  for (let done = 0; done < count; done = (await savedPictures(home)).length - there) await page.waitForTimeout(1000)
  await page.waitForTimeout(2000)
  const after = await uiMemory(app, page)
  note(`memory of the window: grown over ${count} pictures`, (after.rss - before.rss) / 1024, 'MB', '50 MB')
  note(`heap of the page: grown over ${count} pictures`, (after.heap - before.heap) / 1e6, 'MB')
  note('memory of the window and its helpers', after.rss / 1024, 'MB', '350 MB')
  await page.waitForTimeout(3000)
  note('processor when idle, of one core', await idleCpu(app), '%', '1 %')
  await app.close()
}

/** Thousands of adapters: read without the window, then looked at in it. */
async function largeLibrary(desk: Desk, template: Home): Promise<void> {
  const home = await copyHome(template)
  const model = join(home.home, 'models', 'tiny')
  const tell = (figures: Figure[]) =>
    figures.forEach(({ what, value, unit, budget }) => note(what, value, unit, budget))
  tell(await readingFigures(2000, model))
  await writeManyAdapters(join(home.home, 'adapters'), model, 5000)
  const { app, page } = await openApp(desk, home.home)
  await page.getByTestId('rail-adapters').click()
  await page
    .getByTestId('adapters-count')
    .filter({ hasText: /5,?00\d/ })
    .waitFor({ timeout: 60_000 })
  await page.getByTestId('adapters-scan').waitFor({ state: 'detached', timeout: 60_000 })
  await page.getByTestId('adapters-fitting').uncheck() // made for the tiny model, and the starter is chosen
  tell(await screenFigures(page))
  await app.close()
  await home.remove()
}

/** Through the same door as the window's own button. */
function make(page: Page, count: number, steps: number): Promise<void> {
  return page.evaluate(
    async ({ count, steps }) => {
      const request = {
        prompt: 'a bench',
        model: 'tiny',
        steps,
        count: Math.min(count, 50),
        seed: 1,
        width: 128,
        height: 128,
      }
      const requests = Array.from({ length: Math.ceil(count / 50) }, (_, i) => ({
        ...request,
        seed: i * 50,
        count: Math.min(50, count - i * 50),
      }))
      const reply = await (window as unknown as { vignette: Bridge }).vignette.invoke('jobs:add', { requests })
      if (!reply.ok) throw new Error(reply.error.message)
    },
    { count, steps },
  )
}

async function cancelAll(page: Page): Promise<void> {
  await page.evaluate(async () => {
    const { vignette } = window as unknown as { vignette: Bridge }
    for (;;) {
      const state = await vignette.invoke('app:state', undefined)
      if (!state.ok) throw new Error(state.error.message)
      const open = state.value.jobs.filter(({ status }) => status === 'waiting' || status === 'running')
      if (open.length === 0) return
      await vignette.invoke('jobs:cancel', { ids: open.map(({ id }) => id) })
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  })
}

/** Time from a key press to the frame after it, for a hundred keys. */
async function typingLatency(page: Page): Promise<number> {
  await page.getByTestId('rail-studio').click()
  const prompt = page.getByTestId('prompt')
  await prompt.focus()
  await page.evaluate(() => {
    const times: number[] = []
    Object.assign(window, { benchTimes: times })
    document.addEventListener(
      'keydown',
      (event) => {
        const pressed = event.timeStamp
        requestAnimationFrame(() => {
          const { port1, port2 } = new MessageChannel()
          port1.onmessage = () => times.push(performance.now() - pressed)
          port2.postMessage(undefined)
        })
      },
      true,
    )
  })
  for (let i = 0; i < 100; i++) {
    await page.keyboard.press('abcdefghij'[i % 10])
    await page.waitForTimeout(30)
  }
  const times = await page.evaluate(() => (window as unknown as { benchTimes: number[] }).benchTimes)
  return percentile(times, 0.95)
}

async function slowestScreen(page: Page): Promise<number> {
  let slowest = 0
  for (const name of ['gallery', 'adapters', 'models', 'settings', 'story', 'studio']) {
    const ms = await page.evaluate(async (name) => {
      const began = performance.now()
      document.querySelector<HTMLElement>(`[data-testid="rail-${name}"]`)!.click()
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))
      if (!document.querySelector(`[data-testid="screen-${name}"]`)) throw new Error(`${name} did not open`)
      return performance.now() - began
    }, name)
    slowest = Math.max(slowest, ms)
  }
  return slowest
}

/** Everything of Electron's but the engine: kilobytes in use, after the page has let go of what it can. */
async function uiMemory(app: ElectronApplication, page: Page): Promise<{ rss: number; heap: number }> {
  const session = await page.context().newCDPSession(page)
  await session.send('HeapProfiler.collectGarbage')
  const { result } = await session.send('Runtime.evaluate', { expression: 'performance.memory.usedJSHeapSize' })
  await session.detach()
  const rss = await app.evaluate(({ app }) => {
    globalThis.gc?.()
    const own = app
      .getAppMetrics()
      .filter(({ type, serviceName }) => type !== 'Utility' || !serviceName?.includes('engine'))
    return own.reduce((sum, { memory }) => sum + memory.workingSetSize, 0)
  })
  return { rss, heap: Number(result.value) }
}

async function idleCpu(app: ElectronApplication): Promise<number> {
  const read = () =>
    app.evaluate(({ app }) => app.getAppMetrics().reduce((sum, { cpu }) => sum + cpu.percentCPUUsage, 0))
  await read() // each reading covers the time since the one before
  await new Promise((resolve) => setTimeout(resolve, 10_000))
  return read()
}

function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN
}
