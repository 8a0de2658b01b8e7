import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Page } from 'playwright-core'
import { ChildReader, readerThread } from '../main/app/adapter-child.ts'
import { AdapterLibrary, adapterPaths } from '../main/app/adapters.ts'
import { modelShape } from '../models/adapters/shape.ts'
import { readPartConfigs } from '../models/checkpoint/graphs.ts'
import { writeManyAdapters } from '../test/e2e/tiny-adapter.ts'

// What a large library of adapters costs: reading it, and looking at it.

export type Figure = { what: string; value: number; unit: string; budget?: string }

/** The longest time that this process did nothing else, in milliseconds, while `work` ran. */
async function longestPause(work: () => Promise<unknown>): Promise<{ ms: number; pauseMs: number }> {
  let pauseMs = 0
  let last = performance.now()
  let isOver = false
  const tick = () => {
    const now = performance.now()
    pauseMs = Math.max(pauseMs, now - last)
    last = now
    if (!isOver) setImmediate(tick)
  }
  setImmediate(tick)
  const began = performance.now()
  await work()
  const ms = performance.now() - began
  isOver = true
  await new Promise((done) => setImmediate(done))
  return { ms, pauseMs }
}

/** Reads a library of `count` files for a model folder, as the application does: in this process and its reader thread. */
export async function readingFigures(count: number, modelFolder: string): Promise<Figure[]> {
  const home = await mkdtemp(join(tmpdir(), 'vignette-bench-'))
  const shape = modelShape('sd15', await readPartConfigs(modelFolder))
  const open = () =>
    AdapterLibrary.open({
      ...adapterPaths(home),
      version: 'bench',
      starterFolder: join(home, 'none'),
      shapeOf: async () => ({ key: 'bench', shape }),
      reader: new ChildReader(() => readerThread(resolve('out/main/adapter-worker.cjs'))),
      emit: () => {},
      log: { info: () => {}, warn: () => {}, error: (what, error) => console.error(what, error) },
    })
  const figures: Figure[] = []
  const note = (what: string, value: number, unit: string, budget?: string) =>
    figures.push({ what: `${count} adapters: ${what}`, value, unit, ...(budget ? { budget } : {}) })
  try {
    await writeManyAdapters(join(home, 'adapters'), modelFolder, count)
    let library = await open()
    const first = await longestPause(() => library.scan('bench'))
    if (library.list('bench').adapters.length !== count) throw new Error('not all adapters were listed')
    note('read for the first time', first.ms / 1000, 's', count <= 2000 ? '20 s' : undefined)
    note('longest pause while they are read', first.pauseMs, 'ms', '10 ms')
    await library.close()
    const opening = await longestPause(async () => void (library = await open()))
    note('longest pause when what was read is opened', opening.pauseMs, 'ms', '10 ms')
    const again = await longestPause(() => library.scan('bench'))
    note('looked at again', again.ms / 1000, 's')
    note('longest pause when they are looked at again', again.pauseMs, 'ms', '10 ms')
    const ids = library.list('bench').adapters.map(({ id }) => id)
    await library.scan('bench')
    const edit = await longestPause(() => library.notebook.edit(ids, { addTags: ['all'] }))
    note('all tagged', edit.ms / 1000, 's')
    note('longest pause when all are tagged', edit.pauseMs, 'ms', '10 ms')
    await library.close()
  } finally {
    await rm(home, { recursive: true, force: true })
  }
  return figures
}

/** The screen over a library that is read already: scrolled from end to end, and searched with every letter. */
export async function screenFigures(page: Page): Promise<Figure[]> {
  const found = await page.evaluate(async () => {
    // No function has a name here: the loader of this script would mark it with one that the page does not know.
    const view = document.querySelector('[data-testid="adapters-grid"]')!
    const times: number[] = []
    let last = await new Promise<number>((done) => requestAnimationFrame(done))
    for (let i = 0; i < 600 && view.scrollTop < view.scrollHeight - view.clientHeight - 1; i++) {
      view.scrollTop += view.clientHeight / 2
      const now = await new Promise<number>((done) => requestAnimationFrame(done))
      times.push(now - last)
      last = now
    }
    view.scrollTop = 0
    await new Promise<number>((done) => requestAnimationFrame(done))
    const field = document.querySelector<HTMLInputElement>('[data-testid="adapters-search"]')!
    const searches: number[] = []
    for (const text of ['l', 'lo', 'loo', 'look', 'look-0', 'look-01', 'look-012', 'look-0123', '']) {
      const began = performance.now()
      field.value = text
      field.dispatchEvent(new Event('input', { bubbles: true }))
      await new Promise<number>((done) => requestAnimationFrame(done)) // drawn
      await new Promise((done) => setTimeout(done))
      searches.push(performance.now() - began)
    }
    times.sort((a, b) => a - b)
    return { p95: times[Math.floor(times.length * 0.95)], frames: times.length, search: Math.max(...searches) }
  })
  return [
    {
      what: `adapters: 95 of 100 frames of ${found.frames} while scrolling within`,
      value: found.p95,
      unit: 'ms',
      budget: '50 ms',
    },
    { what: 'adapters: slowest letter of a search', value: found.search, unit: 'ms', budget: '200 ms' },
  ]
}
