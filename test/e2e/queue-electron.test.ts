import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ElectronApplication, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import type { Bridge, Output } from '../../preload/contract.ts'
import { openApp, openDesk, type Desk } from './electron.ts'
import { enginePid } from './engine-pid.ts'
import { savedPictures } from './pictures.ts'
import { copyHome, ensureBuild, root, tinyHome, type Home } from './tiny-model.ts'

// The queue in Electron itself, where processes can be killed as they are on a person's computer.

let desk: Desk
let template: Home
let home: Home
let app: ElectronApplication
let page: Page

beforeAll(async () => {
  ensureBuild()
  await mkdir(join(root, 'test/e2e/screenshots'), { recursive: true })
  desk = await openDesk()
  template = await tinyHome()
})
afterAll(async () => {
  desk?.screen.close()
  await template?.remove()
})
beforeEach(async () => {
  home = await copyHome(template)
})
afterEach(async () => {
  await app.close().catch(() => undefined) // some tests end it themselves
  await home.remove()
})

async function open(extra: Record<string, string> = {}): Promise<void> {
  ;({ app, page } = await openApp(desk, home.home, extra))
}

const eventually = <T>(read: () => T) => expect.poll(read, { timeout: 90_000 })
const state = () =>
  page.evaluate(async () => {
    const reply = await (window as unknown as { vignette: Bridge }).vignette.invoke('app:state', undefined)
    if (!reply.ok) throw new Error(reply.error.message)
    return reply.value
  }) as Promise<Output<'app:state'>>
/** Each picture as a batch of its own, as with one press of Generate after the other. */
const ask = (prompts: string[], steps: number) =>
  page.evaluate(
    async ([all, count]) => {
      for (const prompt of all) {
        const requests = [{ prompt, steps: count, model: 'tiny' }]
        const reply = await (window as unknown as { vignette: Bridge }).vignette.invoke('jobs:add', { requests })
        if (!reply.ok) throw new Error(reply.error.message)
      }
    },
    [prompts, steps] as const,
  )
const made = async () => (await savedPictures(home.home)).map(({ recipe }) => recipe.request.prompt)

async function killAll(): Promise<void> {
  const engine = enginePid(app.process().pid!)
  const exited = new Promise((resolve) => app.process().once('exit', resolve))
  app.process().kill('SIGKILL')
  await exited
  try {
    process.kill(engine, 'SIGKILL')
  } catch {
    // It went with the application.
  }
}

it('AC23 comes back paused after a kill in the middle, says what happened, and makes each picture once', async () => {
  await open({ VIGNETTE_E2E: '1', VIGNETTE_FAIL: 'hold@5' })
  await ask(['first', 'second', 'third', 'fourth', 'fifth'], 10)
  await eventually(async () => (await state()).jobs.find(({ status }) => status === 'running')?.step).toBe(5)
  await killAll()

  await open()
  const banner = page.getByTestId('queue-interrupted')
  await banner.waitFor()
  expect(await banner.textContent()).toContain('4 jobs were waiting, 1 was interrupted at step 5 of 10')
  expect([await banner.getAttribute('data-waiting'), await banner.getAttribute('data-cut')]).toEqual(['4', '1'])
  expect((await state()).queue).toMatchObject({ isPaused: true, pausedBy: 'interrupted' })
  await banner.getByTestId('interrupted-review').click()
  await page.getByTestId('queue-panel').waitFor()
  await page.screenshot({ path: join(root, 'test/e2e/screenshots/queue-interrupted.png') })
  expect(await made()).toEqual([])
  await banner.getByTestId('interrupted-resume').click()
  await eventually(made).toEqual(['first', 'second', 'third', 'fourth', 'fifth'])
  await eventually(async () => (await state()).jobs.map(({ status }) => status)).toEqual(Array(5).fill('done'))
  expect(await made()).toHaveLength(5)
  expect(await banner.count()).toBe(0)
})

it('AC23 goes on from the checkpoint: the steps that were made are not made again', async () => {
  await open({ VIGNETTE_E2E: '1', VIGNETTE_FAIL: 'hold@5' })
  await ask(['kept'], 10)
  await eventually(async () => (await state()).jobs[0]?.step).toBe(5)
  // Asked to pause, the engine writes what it has, once it is let go.
  await page.keyboard.press('Control+.')
  await eventually(async () => (await state()).jobs[0].isStopping).toBe(true)
  await writeFile(join(home.home, 'go-on'), '')
  await eventually(async () => (await state()).jobs[0].status).toBe('waiting')
  const { resumesAt } = (await state()).jobs[0]
  expect(resumesAt).toBeGreaterThanOrEqual(5)
  await killAll()
  await open()
  await page.getByTestId('queue-interrupted').waitFor()
  const steps: number[] = []
  await page.exposeFunction('heard', (step: number) => void steps.push(step))
  await page.evaluate(() => {
    const { vignette, heard } = window as unknown as { vignette: Bridge; heard: (step: number) => void }
    vignette.onEvent((event) => {
      if (event.type !== 'jobs:changed') return
      for (const { status, phase, step } of event.jobs) if (status === 'running' && phase === 'denoising') heard(step)
    })
  })
  await page.getByTestId('interrupted-resume').click()
  await eventually(made).toEqual(['kept'])
  expect(Math.min(...steps)).toBeGreaterThanOrEqual(5)
})

// In Electron's own process, as in a release, and under the Node that an old Electron needs beside it.
it.each([
  ['utility process', ''],
  ['child process', process.execPath],
])(
  'AC24 stays usable when the engine, a %s, is killed, says so, and makes the picture all the same',
  async (_, node) => {
    await open({ VIGNETTE_NODE: node, VIGNETTE_E2E: '1', VIGNETTE_FAIL: 'hold@3' })
    await ask(['killed'], 10)
    await eventually(async () => (await state()).jobs[0]?.step).toBe(3)
    const killed = enginePid(app.process().pid!)
    process.kill(killed, 'SIGKILL')
    await eventually(() => page.getByTestId('toast').allTextContents()).toContainEqual(
      expect.stringContaining('The engine stopped'),
    )
    const problem = page.getByTestId('queue-problem')
    await eventually(() => problem.getAttribute('data-code')).toBe('engine-crashed')
    await page.getByTestId('prompt').fill('typed while it starts again')
    expect(await page.getByTestId('prompt').inputValue()).toBe('typed while it starts again')
    await eventually(made).toEqual(['killed'])
    expect(enginePid(app.process().pid!)).not.toBe(killed)
    expect((await state()).jobs.map(({ status }) => status)).toEqual(['done'])
    await eventually(() => problem.count()).toBe(0)
  },
)
