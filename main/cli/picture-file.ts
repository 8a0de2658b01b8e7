import { constants } from 'node:fs'
import { access, open, rm, stat } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import { replaceFile, temporaryName } from '../../models/replace-file.ts'

/** The file of picture `index` (from 0) of a command: barn.png, barn-2.png, barn-3.png, … */
export function numbered(file: string, index: number): string {
  if (index === 0) return file
  const extension = extname(file)
  return `${file.slice(0, file.length - extension.length)}-${index + 1}${extension}`
}

/** Makes --out a file name; a folder gets `fallback` put into it. Other formats than PNG are refused, not mislabelled. */
export async function outputFile(out: string | undefined, fallback: string): Promise<string> {
  if (out === undefined) return resolve(fallback)
  const isFolder =
    /[\\/]$/.test(out) ||
    (await stat(out).then(
      (found) => found.isDirectory(),
      () => false,
    ))
  if (isFolder) return resolve(join(out, fallback))
  const extension = extname(out).toLowerCase()
  if (extension === '.png') return resolve(out)
  if (/^\.(jpe?g|webp|gif|tiff?|bmp|avif|svg|pdf)$/.test(extension)) {
    throw new VignetteError('bad-request', `Pictures are saved as PNG; "${basename(out)}" names another format.`, {
      hint: `Write --out ${out.slice(0, -extension.length)}.png.`,
    })
  }
  return resolve(`${out}.png`)
}

/** Finds out before the work, not after it, that the file cannot be written. Leaves nothing behind. */
export async function checkWritable(file: string): Promise<void> {
  const folder = dirname(file)
  const known = await stat(file).catch(() => undefined)
  // Renaming over a device or a folder would replace or break it.
  if (known && !known.isFile())
    throw new VignetteError('bad-request', `${file} is there already and is no file.`, {
      hint: 'Choose another name for --out.',
    })
  const parent = await stat(folder).catch(() => undefined)
  if (!parent?.isDirectory()) {
    throw new VignetteError('folder-unwritable', `There is no folder ${folder}.`, {
      hint: 'Create it first, or choose another place for --out.',
    })
  }
  try {
    await access(folder, constants.W_OK)
    // Permissions are not the whole story (read-only disks, the system's own folders): try it.
    const trial = temporaryName(file)
    await (await open(trial, 'wx')).close()
    await rm(trial)
  } catch (cause) {
    throw new VignetteError('folder-unwritable', `Nothing can be written into ${folder}.`, {
      hint: 'Choose a folder of your own with --out.',
      cause,
    })
  }
}

/** The file is there whole or not at all; what the person can mend is told in words. */
export async function writeWhole(file: string, bytes: Uint8Array): Promise<void> {
  try {
    await replaceFile(file, bytes)
  } catch (error) {
    throw fromSystemError(error) ?? error
  }
}
