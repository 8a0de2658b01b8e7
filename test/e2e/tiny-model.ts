import { spawnSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { convertCheckpoint } from '../../models/checkpoint/convert.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'

export const root = resolve(fileURLToPath(new URL('../..', import.meta.url)))

/** The built application, made again when a source is newer, by the same function `npm start` uses. */
export function ensureBuild(): void {
  const code = `import('./scripts/setup.mjs').then(({ ensureBuild }) => ensureBuild())`
  const result = spawnSync(process.execPath, ['-e', code], { cwd: root, encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`the build failed:\n${result.stdout}${result.stderr}`)
}

export type Home = { home: string; remove: () => Promise<void> }

/**
 * A home folder with one installed model: Stable Diffusion's structure with tiny random networks, 128 × 128. Its
 * pictures are noise, made in a fraction of a second by exactly the code that makes real ones.
 */
export async function tinyHome(): Promise<Home> {
  const home = await mkdtemp(join(tmpdir(), 'vignette-e2e-'))
  const models = join(home, 'models')
  await mkdir(models, { recursive: true })
  const checkpoint = join(home, 'tiny.safetensors')
  await writeRandomCheckpoint(checkpoint, tinyLdmConfigs.sd15)
  await convertCheckpoint(checkpoint, join(models, 'tiny'), { name: 'Tiny' })
  await rm(checkpoint)
  const file = join(models, 'tiny', 'model.json')
  const manifest = JSON.parse(await readFile(file, 'utf8')) as ModelManifest
  manifest.nativeSize = { width: 128, height: 128 }
  manifest.defaults = { steps: 4, guidanceScale: 3, sampler: 'euler', schedule: 'normal' }
  // Any matrix will do for a preview to be drawn: the first three latent channels as red, green and blue.
  manifest.previewMatrix = [
    [0.3, 0, 0],
    [0, 0.3, 0],
    [0, 0, 0.3],
    [0, 0, 0],
    [0.5, 0.5, 0.5],
  ]
  await writeFile(file, JSON.stringify(manifest))
  return { home, remove: () => rm(home, { recursive: true, force: true, maxRetries: 5 }) }
}

/** A home folder of its own with the same model. */
export async function copyHome(from: Home): Promise<Home> {
  const home = await mkdtemp(join(tmpdir(), 'vignette-e2e-'))
  await cp(join(from.home, 'models'), join(home, 'models'), { recursive: true })
  return { home, remove: () => rm(home, { recursive: true, force: true, maxRetries: 5 }) }
}
