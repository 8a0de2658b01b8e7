import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { modelHome } from '../../models/home.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { modelsIn, readManifest } from '../engine/model-folder.ts'
import type { Terminal } from './terminal.ts'

const starter = 'starter'

/** The model of that name, or in that folder. The starter is installed when it is asked for the first time. */
export async function findModel(
  name: string,
  terminal: Terminal,
): Promise<{ folder: string; manifest: ModelManifest }> {
  const home = modelHome()
  if (name === starter) {
    const isNew = !existsSync(join(home, starter, 'model.json'))
    if (isNew) terminal.say(`Installing the starter model into ${join(home, starter)} (once) …`)
    const { installStarter } = await import('../../models/starter/install.ts')
    const folder = await installStarter(home)
    return { folder, manifest: readManifest(folder) }
  }
  // A path rather than a name: a model folder anywhere.
  if (/[\\/]/.test(name) && existsSync(join(name, 'model.json'))) {
    return { folder: resolve(name), manifest: readManifest(resolve(name)) }
  }
  const installed = modelsIn(home)
  if (!installed.includes(name)) {
    const others = [starter, ...installed.filter((other) => other !== starter)].join(', ')
    throw new VignetteError('model-missing', `The model "${name}" is not installed.`, {
      hint: `Installed: ${others}. Another checkpoint is added with: npm run convert -- FILE`,
    })
  }
  return { folder: join(home, name), manifest: readManifest(join(home, name)) }
}
