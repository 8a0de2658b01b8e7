import { rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { convertCheckpoint, type ConvertOptions } from '../../models/checkpoint/convert.ts'
import { sha256OfSource } from '../../models/checkpoint/hash.ts'
import { planImport } from '../../models/checkpoint/plan.ts'
import { isFile } from '../../models/checkpoint/safetensors.ts'
import { tryLock } from '../../models/checkpoint/work-folder.ts'
import { VignetteError } from '../../models/errors.ts'
import { readManifest } from './model-folder.ts'
import { quantizeModel, type QuantizeResult } from './quantize-model.ts'
import { exists } from './quantize-plan.ts'
import type { QuantizeProgress } from './quantize-progress.ts'

export type ConvertInt4Options = Pick<ConvertOptions, 'name' | 'replace' | 'signal' | 'probe'> & {
  onImport(progress: Parameters<NonNullable<ConvertOptions['onProgress']>>[0]): void
  onQuantize(progress: QuantizeProgress): void
}

/** Share of the time that the import takes. */
export const importShare = 0.08

/**
 * Imports a checkpoint in half precision beside `folder`, under a hidden name, and makes the 4-bit model `folder` of it;
 * the copy in half precision is then removed. Killed, it goes on where it was; cancelled or failed, it leaves nothing.
 */
export async function convertToInt4(
  source: string,
  folder: string,
  options: ConvertInt4Options,
): Promise<QuantizeResult> {
  const { name, replace, signal, probe } = options
  if (!replace && (await exists(folder))) {
    throw new VignetteError('bad-request', `There is already a model at ${folder}.`, {
      hint: 'Choose another name, or remove the old one first.',
    })
  }
  const half = join(dirname(folder), `.${basename(folder)}.half`)
  const unlock = await tryLock(`${folder}.int4`) // import and quantiser have locks of their own, but not in between
  if (!unlock) {
    throw new VignetteError(
      'bad-request',
      `"${basename(folder)}" is being imported at this moment by another Vignette.`,
      { hint: 'Wait until it is done.' },
    )
  }
  try {
    if (!(await isImported(source, half, signal))) {
      await convertCheckpoint(source, half, {
        storage: 'fp16',
        ...(name === undefined ? {} : { name }),
        replace: true,
        signal,
        probe,
        onProgress: (progress) => options.onImport({ ...progress, fraction: importShare * progress.fraction }),
      })
    }
    const result = await quantizeModel(half, folder, {
      name: readManifest(half).name,
      replace,
      signal,
      onProgress: (progress) =>
        options.onQuantize({ ...progress, fraction: importShare + (1 - importShare) * progress.fraction }),
    })
    return result
  } finally {
    await rm(half, { recursive: true, force: true })
    await unlock()
  }
}

/** Whether an interrupted run has imported this very checkpoint already. */
async function isImported(source: string, half: string, signal: AbortSignal | undefined): Promise<boolean> {
  if (!(await isFile(join(half, 'model.json')))) return false
  const { root, files } = await planImport(source)
  return (await sha256OfSource(root, files, () => undefined, signal)) === readManifest(half).source.sha256
}
