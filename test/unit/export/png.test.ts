import { deflateSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { encodePng, readPng } from '../../../main/export/png.ts'
import { noisePicture } from './pictures.ts'

const picture = noisePicture(17, 9)

describe('encodePng', () => {
  test('gives the same bytes for the same picture and texts', () => {
    const texts = [{ keyword: 'parameters', text: 'a barn\nSteps: 3' }]
    expect(encodePng(picture, texts)).toEqual(encodePng(noisePicture(17, 9), texts))
  })

  test('stores printable Latin-1 as tEXt and anything else as iTXt', () => {
    const bytes = Buffer.from(
      encodePng(picture, [
        { keyword: 'plain', text: 'café' },
        { keyword: 'wide', text: '🐈 猫' },
        { keyword: 'bell', text: 'a\x07b' },
      ]),
    )
    expect(bytes.includes(Buffer.from('tEXtplain\0caf\xe9', 'latin1'))).toBe(true)
    expect(bytes.includes(Buffer.from('iTXtwide\0\0\0\0\0🐈 猫', 'utf8'))).toBe(true)
    expect(bytes.includes(Buffer.from('iTXtbell'))).toBe(true)
    expect(readPng(bytes).texts).toEqual(
      new Map([
        ['plain', 'café'],
        ['wide', '🐈 猫'],
        ['bell', 'a\x07b'],
      ]),
    )
  })

  test('refuses what would make a broken file', () => {
    expect(() => encodePng({ ...picture, width: 16 })).toThrow('not 16 × 9')
    expect(() => encodePng(picture, [{ keyword: ' led', text: '' }])).toThrow('no PNG keyword')
    expect(() => encodePng(picture, [{ keyword: 'k', text: 'a\0b' }])).toThrow('null byte')
  })
})

describe('readPng', () => {
  const png = encodePng(picture, [{ keyword: 'parameters', text: 'hello' }])

  test('reads size and format', () => {
    expect(readPng(png)).toMatchObject({ width: 17, height: 9, bitDepth: 8, colourType: 2 })
  })

  test('refuses a cut off file at every length, and never anything but file-unreadable', () => {
    for (let length = 0; length < png.length; length++) {
      expect(() => readPng(png.subarray(0, length))).toThrow(expect.objectContaining({ code: 'file-unreadable' }))
    }
  })

  test('notices any flipped byte', () => {
    for (let at = 0; at < png.length; at++) {
      const damaged = png.slice()
      damaged[at] ^= 0x20
      expect(() => readPng(damaged), `byte ${at}`).toThrow(expect.objectContaining({ code: 'file-unreadable' }))
    }
  })

  test('inflates zTXt up to a limit and ignores the rest', () => {
    const small = withChunk(png, 'zTXt', Buffer.concat([Buffer.from('note\0\0'), deflateSync('packed text')]))
    expect(readPng(small).texts.get('note')).toBe('packed text')
    const bomb = withChunk(
      png,
      'zTXt',
      Buffer.concat([Buffer.from('note\0\0'), deflateSync(Buffer.alloc(64 * 2 ** 20))]),
    )
    expect(readPng(bomb).texts.has('note')).toBe(false)
    expect(readPng(bomb).texts.get('parameters')).toBe('hello')
  })
})

/** The PNG with one more chunk after its header; the checksum is computed bit by bit, as in the specification's annex D. */
function withChunk(png: Uint8Array, type: string, data: Uint8Array): Uint8Array {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
  let crc = 0xffffffff
  for (const byte of body) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1
  }
  const frame = Buffer.alloc(8)
  frame.writeUInt32BE(data.length, 0)
  frame.writeUInt32BE((crc ^ 0xffffffff) >>> 0, 4)
  return Buffer.concat([png.subarray(0, 33), frame.subarray(0, 4), body, frame.subarray(4), png.subarray(33)])
}
