import { createHash } from 'node:crypto'
import { copyFile, mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { basename, extname, join } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { temporaryName } from '../../models/replace-file.ts'
import type { StoredEdit } from './adapter-edits.ts'
import type { FoundFile } from './adapter-places.ts'

/** Larger ones are shown only where they can be made smaller: a grid of photographs would fill the memory. */
const maxBytes = 2 << 20
const endings = ['.png', '.jpg', '.jpeg', '.webp']

/** Makes a small version of a picture, in another process, as a file at `target`. */
export type Shrink = (file: string, target: string) => Promise<void>

/**
 * Pictures of adapters, and the addresses that the window shows them by. An address stands for one file as it was when it
 * was listed, and no request can make another of it.
 */
export class AdapterThumbs {
  readonly #folder: string
  readonly #shrink: Shrink | undefined
  readonly #files = new Map<string, { path: string; isLarge: boolean }>()
  readonly #shrinking = new Map<string, Promise<string | undefined>>()

  /** `folder` is for pictures that the person gave an adapter, and small versions of large ones. */
  constructor(folder: string, shrink?: Shrink) {
    this.#folder = folder
    this.#shrink = shrink
  }

  /** The person's own choice first, then what lies beside the file. */
  urlOf(edit: Readonly<StoredEdit>, found: Pick<FoundFile, 'preview' | 'stamp'> | undefined): string | undefined {
    if (edit.thumb?.image !== undefined) return `vignette-image://${edit.thumb.image}/thumb`
    if (edit.thumb?.file !== undefined) return this.#urlOf(join(this.#folder, basename(edit.thumb.file)), '', false)
    if (!found?.preview) return undefined
    const isLarge = found.preview.bytes > maxBytes
    return isLarge && !this.#shrink ? undefined : this.#urlOf(found.preview.path, found.stamp, isLarge)
  }

  #urlOf(path: string, stamp: string, isLarge: boolean): string {
    const id = `adapter-${createHash('sha256').update(`${path}\n${stamp}`).digest('hex').slice(0, 24)}`
    this.#files.set(id, { path, isLarge })
    return isLarge ? `vignette-image://${id}/thumb` : `vignette-image://${id}`
  }

  /** The file behind an address; undefined when it is none of these. */
  fileOf(id: string): string | undefined {
    const known = this.#files.get(id)
    return known && !known.isLarge ? known.path : undefined
  }

  /** The same, where it may have to be made smaller first. */
  async smallOf(id: string): Promise<string | undefined> {
    const known = this.#files.get(id)
    if (!known?.isLarge) return known?.path
    const target = join(this.#folder, `${id}.webp`)
    const running = this.#shrinking.get(id)
    if (running) return running
    const made = stat(target)
      .then(() => target)
      .catch(async () => {
        await mkdir(this.#folder, { recursive: true })
        await this.#shrink!(known.path, target)
        return target
      })
      .catch(() => undefined)
      .finally(() => this.#shrinking.delete(id))
    this.#shrinking.set(id, made)
    return made
  }

  has(id: string): boolean {
    return this.#files.has(id)
  }

  /** Takes a copy of a picture file; resolves with its name in the folder. */
  async keep(file: string, print: string): Promise<string> {
    const ending = extname(file).toLowerCase()
    if (!endings.includes(ending) || !(await isPicture(file))) {
      throw new VignetteError('file-unreadable', `"${basename(file)}" is not a picture that can be shown.`, {
        hint: 'Choose a PNG, JPEG or WebP file.',
      })
    }
    const { size, mtimeMs } = await stat(file)
    const isLarge = size > maxBytes
    if (isLarge && !this.#shrink) {
      throw new VignetteError('file-unreadable', `"${basename(file)}" is too large for a preview.`, {
        hint: 'Choose a picture of less than 2 MB.',
      })
    }
    await mkdir(this.#folder, { recursive: true })
    const name = `${print.slice(0, 16)}-${Math.round(mtimeMs).toString(36)}-${size.toString(36)}${isLarge ? '.webp' : ending}`
    const target = join(this.#folder, name)
    const temporary = temporaryName(target) + (isLarge ? '.webp' : '')
    try {
      if (isLarge) await this.#shrink!(file, temporary)
      else await copyFile(file, temporary)
      await rename(temporary, target)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
    return name
  }
}

/** By its first bytes, whatever its name says. */
async function isPicture(file: string): Promise<boolean> {
  const handle = await open(file, 'r')
  try {
    const start = Buffer.alloc(12)
    await handle.read(start, 0, 12, 0)
    const text = start.toString('latin1')
    return (
      text.startsWith('\x89PNG') ||
      text.startsWith('\xff\xd8\xff') ||
      (text.startsWith('RIFF') && text.endsWith('WEBP'))
    )
  } finally {
    await handle.close()
  }
}
