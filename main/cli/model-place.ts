import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { modelHome } from '../../models/home.ts'

/** A folder among the installed models that is still free, or may be replaced, named after the model in plain letters. */
export function freeFolder(name: string, isReplacing: boolean): string {
  const id =
    name
      .normalize('NFKD')
      .replace(/[^\w.-]+/g, '-')
      .replace(/^[-.]+|[-.]+$/g, '')
      .slice(0, 64)
      .toLowerCase() || 'model'
  if (id === 'starter')
    throw new VignetteError('bad-request', '"starter" is the model that comes with Vignette.', {
      hint: 'Choose another name with --name.',
    })
  const folder = join(modelHome(), id)
  if (existsSync(folder) && !isReplacing) {
    throw new VignetteError('bad-request', `There is already a model called "${id}" (${folder}).`, {
      hint: 'Choose another name with --name, or add --replace.',
    })
  }
  return folder
}
