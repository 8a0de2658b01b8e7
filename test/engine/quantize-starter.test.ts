import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { psnr } from '../../main/cli/picture-distance.ts'
import { runJob } from '../../main/engine/job.ts'
import { openNetworks } from '../../main/engine/networks.ts'
import { quantizeModel, type QuantizeResult } from '../../main/engine/quantize-model.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import { installStarter } from '../../models/starter/install.ts'
import { scratchFolder } from './tiny-model.ts'

// A trained network: what is small here must not show in a picture.

let home: string
let starter: string
let target: string
let made: QuantizeResult
beforeAll(async () => {
  home = await scratchFolder('quantize-starter')
  starter = await installStarter(home)
  target = join(home, 'starter-4bit')
  made = await quantizeModel(starter, target)
}, 180_000)
afterAll(() => rm(home, { recursive: true, force: true }))

it('the starter in four bits takes half the place, with every layer true to it', async () => {
  const [before, after] = await Promise.all([starter, target].map((model) => stat(join(model, 'unet.safetensors'))))
  expect(after.size).toBeLessThan(0.55 * before.size)
  expect(made.quality.medianDb).toBeGreaterThan(30)
  expect(made.quality.worst.db).toBeGreaterThan(20)
})

it('and draws the same picture', async () => {
  const [half, four] = await Promise.all([draw(starter), draw(target)])
  expect(psnr(four, half)).toBeGreaterThan(20)
}, 120_000)

async function draw(model: string) {
  const networks = openNetworks(model, { mode: 'low-memory', threads: 1 })
  try {
    const asked = checkRequest({ prompt: 'a fox in the snow, storybook style', seed: 5, steps: 6 })
    const job = { id: 'one', modelFolder: model, request: fillDefaults(asked, networks.manifest) }
    for await (const event of runJob(job, networks)) {
      if (event.type !== 'image') continue
      const { data, info } = await sharp(event.png).removeAlpha().raw().toBuffer({ resolveWithObject: true })
      return { width: info.width, height: info.height, data: new Uint8Array(data) }
    }
    throw new Error('no picture')
  } finally {
    await networks.release()
  }
}
