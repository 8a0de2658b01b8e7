import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { connectDirect } from '../../main/engine/direct.ts'
import { readManifest } from '../../main/engine/model-folder.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import { installStarter } from '../../models/starter/install.ts'

// The model that comes with Vignette, installed and run as the application does, against diffusers on the same files.

let home: string
beforeAll(async () => void (home = await mkdtemp(join(tmpdir(), 'vignette-starter-'))))
afterAll(() => rm(home, { recursive: true }))

const pixels = async (png: Uint8Array | string) => (await sharp(png).removeAlpha().raw().toBuffer()) as Uint8Array

it('draws the picture that diffusers draws with the same words and seed', async () => {
  const modelFolder = await installStarter(home)
  const prompt = 'a fox wearing a red scarf in a snowy forest at night, storybook style'
  const asked = checkRequest({ prompt, seed: 1234, steps: 20, guidanceScale: 4, sampler: 'dpmpp_2m', schedule: 'trailing' })
  const engine = connectDirect({ device: 'cpu' })
  let png: Uint8Array | undefined
  for await (const event of engine.run({ id: 'a', modelFolder, request: fillDefaults(asked, readManifest(modelFolder)) })) {
    if (event.type === 'failed') throw new Error(event.error.message)
    if (event.type === 'image') png = event.png
  }
  await engine.stop()
  const [ours, theirs] = [await pixels(png!), await pixels(join(import.meta.dirname, 'starter.png'))]
  expect(ours.length).toBe(256 * 256 * 3)
  // Twenty float32 steps in another order of summation, then rounding to bytes: 2 of 255 leaves room for nothing else.
  const worst = ours.reduce((max, value, i) => Math.max(max, Math.abs(value - theirs[i])), 0)
  expect(worst).toBeLessThanOrEqual(2)
})
