import { mkdir, open, readFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { Sharp, SharpOptions } from 'sharp'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import { replaceFile } from '../../models/replace-file.ts'
import { exifTexts, xmpTexts } from '../export/exif.ts'
import { readPng } from '../export/png.ts'
import { recallFrom } from '../export/recall.ts'
import type { PictureDifference, PictureFacts, PictureTask } from './picture-client.ts'

/** What strangers' files may be: larger ones are not read at all. */
const maxFileBytes = 256 << 20
const maxPixels = 200_000_000
/** Long edge of a small version: sharp at the largest size of the gallery on most screens. */
const thumbEdge = 512
const thumbQuality = 80

const formats: Record<string, PictureFacts['format'] | undefined> = {
  png: 'png',
  jpeg: 'jpg',
  webp: 'webp',
  heif: 'avif',
  gif: 'gif',
}

/** Does what the worker is asked. */
export async function doPictureTask(task: PictureTask): Promise<PictureFacts | PictureDifference | undefined> {
  switch (task.type) {
    case 'look':
      return look(task.file, task.thumb)
    case 'thumb':
      await writeThumb(await load(task.file), task.out, task.file)
      return undefined
    case 'compare':
      return compare(task.file, task.other)
    default:
      return task satisfies never
  }
}

async function look(file: string, thumb: string | undefined): Promise<PictureFacts> {
  const bytes = await load(file)
  // First, because its errors say what is wrong.
  const texts = isPng(bytes) ? readPng(bytes).texts : new Map<string, string>()
  const { metadata, format } = await identify(bytes, file)
  const add = (found: Map<string, string>) => found.forEach((text, key) => texts.has(key) || texts.set(key, text))
  if (metadata.exif) add(exifTexts(metadata.exif))
  if (metadata.xmp) add(xmpTexts(metadata.xmp.toString('utf8')))
  // Turned as its Exif says: that is how it is shown.
  const { width, height } = metadata.autoOrient
  if (thumb !== undefined) await writeThumb(bytes, thumb, file)
  const recipe = recallFrom(texts)
  const text = texts.get('parameters')
  return { format, width, height, ...(recipe ? { recipe } : {}), ...(text ? { text: text.slice(0, 200_000) } : {}) }
}

function isPng(bytes: Buffer): boolean {
  return bytes.toString('latin1', 0, 4) === '\x89PNG'
}

async function writeThumb(bytes: Buffer, out: string, file: string): Promise<void> {
  await identify(bytes, file)
  try {
    const picture = await decoder(bytes)
    const small = await picture
      .autoOrient()
      .resize(thumbEdge, thumbEdge, { fit: 'inside', withoutEnlargement: true })
      .webp({ quality: thumbQuality })
      .toBuffer()
    await mkdir(dirname(out), { recursive: true })
    await replaceFile(out, small)
  } catch (cause) {
    throw fromSystemError(cause) ?? unreadable(file, cause)
  }
}

/** Only kinds that a browser shows as pictures, and that hold no program or link. */
async function identify(bytes: Buffer, file: string) {
  try {
    const metadata = await (await decoder(bytes)).metadata()
    const format = formats[metadata.format ?? '']
    if (!format) throw new Error(`it is ${metadata.format}`)
    return { metadata, format }
  } catch (cause) {
    throw unreadable(file, cause)
  }
}

async function compare(file: string, other: string): Promise<PictureDifference> {
  const [a, b] = [await pixelsOf(file), await pixelsOf(other)]
  if (a.width !== b.width || a.height !== b.height) return { isSameSize: false, pixels: a.width * a.height, most: 255 }
  let pixels = 0
  let most = 0
  for (let i = 0; i < a.data.length; i += 3) {
    const difference = Math.max(
      Math.abs(a.data[i] - b.data[i]),
      Math.abs(a.data[i + 1] - b.data[i + 1]),
      Math.abs(a.data[i + 2] - b.data[i + 2]),
    )
    if (difference > 0) pixels++
    if (difference > most) most = difference
  }
  return { isSameSize: true, pixels, most }
}

async function pixelsOf(file: string): Promise<{ data: Buffer; width: number; height: number }> {
  try {
    const picture = (await decoder(await load(file))).toColourspace('srgb').removeAlpha()
    const { data, info } = await picture.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
    return { data, width: info.width, height: info.height }
  } catch (cause) {
    throw fromSystemError(cause) ?? unreadable(file, cause)
  }
}

async function load(file: string): Promise<Buffer> {
  try {
    const handle = await open(file, 'r')
    try {
      const { size } = await handle.stat()
      if (size > maxFileBytes) {
        throw new VignetteError('file-unreadable', `${basename(file)} is too large to be a picture for Vignette.`, {
          hint: `Pictures may have up to ${maxFileBytes >> 20} MB.`,
        })
      }
    } finally {
      await handle.close()
    }
    return await readFile(file)
  } catch (error) {
    throw fromSystemError(error) ?? error
  }
}

async function decoder(bytes: Buffer): Promise<Sharp> {
  const { default: sharp } = await import('sharp')
  sharp.cache(false)
  const options: SharpOptions = { failOn: 'error', limitInputPixels: maxPixels }
  return sharp(bytes, options)
}

function unreadable(file: string, cause: unknown): VignetteError {
  return new VignetteError('file-unreadable', `${basename(file)} cannot be read as a picture.`, {
    hint: 'Use a whole PNG, JPEG, WebP, AVIF or GIF file; opening it elsewhere and saving it again often helps.',
    cause,
  })
}
