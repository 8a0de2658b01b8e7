import { getCurrentFuseWire, FuseState, FuseV1Options } from '@electron/fuses'
import { spawn, spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { GenerateRequest } from '../../preload/contract/generate.ts'
import type { Line } from '../../main/app/queue-journal.ts'
import { rootArguments } from '../../scripts/electron-runtime.ts'
import { openDesk, type Desk } from './electron.ts'
import { savedPictures } from './pictures.ts'
import { root } from './tiny-model.ts'

// The application as people install it. Its fuses are set, so nothing can look inside: what it does is seen from outside.

const folder = join(root, 'dist', 'linux-unpacked')
let desk: Desk
let home: string

beforeAll(async () => {
  const result = spawnSync(process.execPath, [join(root, 'scripts/run.mjs'), 'package'], { encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`packaging failed:\n${result.stdout}${result.stderr}`)
  desk = await openDesk()
  home = await mkdtemp(join(tmpdir(), 'vignette-package-'))
})
afterAll(async () => {
  desk?.screen.close()
  if (home) await rm(home, { recursive: true, force: true })
})

it('starts, sets up its own model and makes the picture that was waiting', async () => {
  await leaveQueue(home)
  const env: NodeJS.ProcessEnv = { ...process.env }
  delete env.VIGNETTE_NODE
  const app = spawn(join(folder, 'vignette'), rootArguments(), {
    env: { ...env, ...desk.screen.env, VIGNETTE_HOME: home },
    stdio: 'ignore',
  })
  let exit: number | string | null | undefined
  app.once('exit', (code, signal) => (exit = signal ?? code))
  await expect.poll(async () => exit ?? (await savedPictures(home)).length, { timeout: 240_000, interval: 500 }).toBe(1)
  expect(await savedPictures(home)).toMatchObject([
    { width: 256, height: 256, isUniform: false, recipe: { model: { id: 'starter' }, request: { seed: 7 } } },
  ])
  expect(exit).toBeUndefined()
  app.kill('SIGTERM')
  await expect.poll(() => exit, { timeout: 30_000 }).toBeDefined()
})

it('loads nothing but its own archive, and takes no orders for Node', async () => {
  const fuses = await getCurrentFuseWire(join(folder, 'vignette'))
  expect(fuses[FuseV1Options.RunAsNode]).toBe(FuseState.DISABLE)
  expect(fuses[FuseV1Options.EnableNodeOptionsEnvironmentVariable]).toBe(FuseState.DISABLE)
  expect(fuses[FuseV1Options.EnableNodeCliInspectArguments]).toBe(FuseState.DISABLE)
  expect(fuses[FuseV1Options.OnlyLoadAppFromAsar]).toBe(FuseState.ENABLE)
  expect(await readdir(join(folder, 'resources'))).toEqual(['app.asar', 'app.asar.unpacked'])
})

it('comes as a Debian package with its program, icons and kinds of files', async () => {
  const file = (await readdir(join(root, 'dist'))).find((name) => name.endsWith('.deb'))!
  const deb = (option: string) => spawnSync('dpkg-deb', [option, join(root, 'dist', file)], { encoding: 'utf8' }).stdout
  expect(deb('--info')).toMatch(/Package: vignette\n(.|\n)*Depends: libgtk-3-0/)
  const contents = deb('--contents')
  for (const path of ['/opt/Vignette/vignette', '/usr/bin/vignette', 'vignette.desktop', '/256x256/apps/vignette.png'])
    expect(contents).toContain(path)
  expect(contents).toMatch(/-rwsr-xr-x root\/root .*chrome-sandbox/)
})

/** A queue as it lies after leaving in good order with one picture still to make. */
async function leaveQueue(home: string): Promise<void> {
  await mkdir(home, { recursive: true })
  const request = GenerateRequest.parse({
    prompt: 'a fox in a snowy forest',
    ...{ width: 256, height: 256, steps: 4, seed: 7, sampler: 'euler', schedule: 'normal', guidanceScale: 4 },
  })
  const put: Line = {
    put: [
      {
        id: 'one',
        rank: 0,
        batchId: 'batch',
        place: 0,
        batchSize: 1,
        source: 'studio',
        status: 'waiting',
        createdAt: 0,
        phase: 'waiting',
        step: 0,
        steps: 4,
        interruptions: 0,
        crashes: 0,
        request,
      },
    ],
  }
  const lines = [{ vignette: 'queue', version: 2 }, put, { closed: true }]
  await writeFile(join(home, 'queue.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
}
