import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { convertCheckpoint } from '../../models/checkpoint/convert.ts'
import { tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'

/** A model folder with random weights and the real structure of SD 1.5, a few megabytes; the same bytes every time. */
export async function makeTinyModel(folder: string, family: keyof typeof tinyLdmConfigs = 'sd15'): Promise<string> {
  const checkpoint = `${folder}.safetensors`
  await writeRandomCheckpoint(checkpoint, tinyLdmConfigs[family], { seed: 3 })
  await convertCheckpoint(checkpoint, folder, { name: 'Tiny' })
  await rm(checkpoint)
  // Random weights have no colours that a matrix could tell: any will do, so that there are previews.
  const file = join(folder, 'model.json')
  const previewMatrix = [
    [0.3, 0.2, 0.2],
    [0.2, 0.3, 0.2],
    [-0.1, 0.2, 0.3],
    [-0.2, -0.3, -0.4],
    [0, 0, 0],
  ]
  await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), previewMatrix }))
  return folder
}

/** A fresh folder for one test file. */
export async function scratchFolder(name: string): Promise<string> {
  const folder = join(tmpdir(), `vignette-${name}-${process.pid}`)
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  return folder
}
