import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { families } from '../../models/family.ts'
import type { ModelManifest } from '../../models/manifest.ts'

/** Reads and checks a model folder's model.json; a damaged one is told, a missing one is `model-missing`. */
export function readManifest(folder: string): ModelManifest {
  const file = join(folder, 'model.json')
  if (!existsSync(file)) {
    throw new VignetteError('model-missing', `There is no model in ${folder}.`, {
      hint: 'Import it again, or pick another.',
    })
  }
  const manifest = parse(file)
  if (
    manifest?.version !== 1 ||
    !(manifest.family in families) ||
    !Array.isArray(manifest.networks) ||
    !manifest.latents
  ) {
    throw new VignetteError('file-unreadable', `The model description ${file} is damaged or of a later version.`, {
      hint: 'Import the model again.',
    })
  }
  return manifest
}

/** Names of the models in a folder of models, sorted. */
export function modelsIn(home: string): string[] {
  try {
    return readdirSync(home, { withFileTypes: true })
      .filter(
        (entry) =>
          entry.isDirectory() && !entry.name.startsWith('.') && existsSync(join(home, entry.name, 'model.json')),
      )
      .map((entry) => entry.name)
      .sort()
  } catch {
    return [] // no such folder yet
  }
}

function parse(file: string): ModelManifest | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as ModelManifest | null
  } catch {
    return null
  }
}
