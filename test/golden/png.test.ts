import { readFileSync } from 'node:fs'
import sharp from 'sharp'
import { describe, expect, test } from 'vitest'
import { parseA1111 } from '../../main/export/metadata.ts'
import { encodePng, readPng } from '../../main/export/png.ts'
import { noisePicture } from '../unit/export/pictures.ts'

describe('PNG against other programs', () => {
  test('our reader finds in a file by Pillow what Pillow put there', () => {
    const expected = JSON.parse(readFileSync(new URL('png-pillow.json', import.meta.url), 'utf8'))
    const found = readPng(readFileSync(new URL('png-pillow.png', import.meta.url)))
    expect(found).toMatchObject({ width: expected.width, height: expected.height, bitDepth: 8, colourType: 2 })
    expect(Object.fromEntries(found.texts)).toEqual(expected.texts)
    const { prompt, negativePrompt, parameters } = parseA1111(found.texts.get('parameters')!)
    expect([prompt, negativePrompt, parameters.get('Model'), parameters.get('Size')]).toEqual([
      'ein Fuchs im Gras',
      'unscharf',
      'a, b',
      '6x5',
    ])
  })

  // libspng inside libvips decodes, so every filter and checksum of ours is read by code that is not ours.
  test.each([
    [1, 1],
    [1, 7],
    [7, 1],
    [64, 48],
    [257, 130],
  ])('libvips decodes our %i × %i picture to the same pixels', async (width, height) => {
    const picture = noisePicture(width, height)
    const { data, info } = await sharp(encodePng(picture, [{ keyword: 'parameters', text: 'ä' }]))
      .raw()
      .toBuffer({ resolveWithObject: true })
    expect(info).toMatchObject({ width, height, channels: 3 })
    expect(Buffer.compare(data, picture.data)).toBe(0)
  })

  test('libvips reads our text chunks', async () => {
    const png = encodePng(noisePicture(8, 8), [
      { keyword: 'parameters', text: 'Uster' },
      { keyword: 'vignette', text: '{"p":"🦊"}' },
    ])
    const { comments, space } = await sharp(png).metadata()
    expect(comments).toEqual([
      { keyword: 'parameters', text: 'Uster' },
      { keyword: 'vignette', text: '{"p":"🦊"}' },
    ])
    expect(space).toBe('srgb')
  })
})
