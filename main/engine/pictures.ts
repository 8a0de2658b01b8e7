import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { fromSystemError, VignetteError } from '../../models/errors.ts'
import type { PictureReference } from '../export/metadata.ts'
import type { RgbImage } from '../pipeline/image.ts'

/** A picture a person brought, cut to the size asked for, and what the recipe says about it. */
export type ReadPicture<T> = { pixels: T; reference: PictureReference }

/** Reads any picture file: turned as its EXIF says, transparent parts on white, scaled and cropped to fill w × h. */
export async function readPicture(file: string, width: number, height: number): Promise<ReadPicture<RgbImage>> {
  const { data, reference } = await decode(file, width, height, '#ffffff', 3)
  return { pixels: { data, width, height }, reference }
}

/** Reads a mask: one byte a pixel, 255 = white = may change. Transparent parts stay as they are. Fitted as above. */
export async function readMask(file: string, width: number, height: number): Promise<ReadPicture<Uint8Array>> {
  const { data, reference } = await decode(file, width, height, '#000000', 1)
  return { pixels: data, reference }
}

/** Longest side of a small picture, for grids and lists. */
const thumbSide = 480

/** A small WebP of a picture; undefined where the encoder cannot be loaded, since the picture itself does not need it. */
export async function thumbnail({ data, width, height }: RgbImage): Promise<Uint8Array | undefined> {
  try {
    const { default: sharp } = await import('sharp')
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    return await sharp(bytes, { raw: { width, height, channels: 3 } })
      .resize(thumbSide, thumbSide, { fit: 'inside', withoutEnlargement: true })
      .webp({ quality: 80 })
      .toBuffer()
  } catch {
    return undefined
  }
}

async function decode(file: string, width: number, height: number, background: string, channels: 1 | 3) {
  // Only jobs that start from a picture pay for loading the decoder.
  const { default: sharp } = await import('sharp')
  sharp.cache(false)
  const bytes = await readFile(file).catch((error: unknown) => {
    throw fromSystemError(error) ?? error
  })
  try {
    const picture = sharp(bytes, { failOn: 'error' })
      .rotate() // without an angle: as EXIF says
      .flatten({ background })
      .resize(width, height, { fit: 'cover' })
      .toColourspace(channels === 3 ? 'srgb' : 'b-w')
      .removeAlpha()
    const { data, info } = await picture.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true })
    if (info.channels !== channels) throw new Error(`expected ${channels} channels, got ${info.channels}`)
    const reference = { name: basename(file), sha256: createHash('sha256').update(bytes).digest('hex') }
    return { data: new Uint8Array(data.buffer, data.byteOffset, data.length), reference }
  } catch (cause) {
    throw new VignetteError('file-unreadable', `${basename(file)} cannot be read as a picture.`, {
      hint: 'Use a whole PNG, JPEG, WebP, GIF, TIFF or AVIF file; opening it and saving it again often helps.',
      cause,
    })
  }
}
