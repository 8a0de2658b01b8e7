import { deflateSync, inflateSync } from 'node:zlib'
import { VignetteError } from '../../models/errors.ts'
import type { RgbImage } from '../pipeline/image.ts'

// PNG (ISO/IEC 15948:2004): eight signature bytes, then chunks of length, type, data and CRC-32, all big-endian.

export type TextChunk = { keyword: string; text: string }

/** What the head of a PNG says, without decoding pixels. A keyword that comes twice keeps its first text. */
export type PngInfo = {
  width: number
  height: number
  bitDepth: number
  colourType: number
  texts: Map<string, string>
}

const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)
const truecolour = 2
/** Text from strangers is capped, also after decompression, so that a small file cannot fill the memory. */
const maxTextBytes = 4 * 2 ** 20

/** 8-bit RGB PNG. The bytes depend on the arguments alone: nothing in them tells when or how fast it was made. */
export function encodePng(image: RgbImage, texts: readonly TextChunk[] = []): Uint8Array {
  const { width, height, data } = image
  if (data.length !== width * height * 3)
    throw new Error(`encodePng: ${data.length} bytes are not ${width} × ${height} RGB`)
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, truecolour, 0, 0, 0], 8) // bits per sample, colour type, then the only methods there are
  const parts = [
    signature,
    chunk('IHDR', header),
    chunk('sRGB', Uint8Array.of(0)), // rendering intent: perceptual
    ...texts.map(textChunk),
    // Level 9 costs three times the time of 6 and saves one per cent on these pictures.
    chunk('IDAT', deflateSync(filterRows(image), { level: 6 })),
    chunk('IEND', new Uint8Array(0)),
  ]
  // A plain array of its own: a Buffer would share its memory with others and be cut by reference, not by copy.
  return new Uint8Array(Buffer.concat(parts))
}

/**
 * Reads size and texts, and checks every chunk's CRC up to the end. Throws `file-unreadable`. `isHeadOnly` stops before the
 * pixels: enough for what we wrote ourselves, and done in no time.
 */
export function readPng(bytes: Uint8Array, { isHeadOnly = false } = {}): PngInfo {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (!view.subarray(0, 8).equals(signature)) throw damaged('it does not start like one')
  const info: PngInfo = { width: 0, height: 0, bitDepth: 0, colourType: 0, texts: new Map() }
  for (let at = 8; ;) {
    if (at + 12 > view.length) throw damaged('it is cut off')
    const length = view.readUInt32BE(at)
    const end = at + 12 + length
    const type = view.toString('latin1', at + 4, at + 8)
    if (isHeadOnly && type === 'IDAT') return info
    if (end > view.length) throw damaged('it is cut off')
    if (crc32(view.subarray(at + 4, end - 4)) !== view.readUInt32BE(end - 4)) throw damaged('a checksum does not match')
    const data = view.subarray(at + 8, end - 4)
    if (at === 8 && (type !== 'IHDR' || length !== 13)) throw damaged('its header is missing')
    if (type === 'IHDR') {
      info.width = data.readUInt32BE(0)
      info.height = data.readUInt32BE(4)
      info.bitDepth = data[8]
      info.colourType = data[9]
    } else if (type === 'tEXt' || type === 'zTXt' || type === 'iTXt') {
      const found = readText(type, data)
      if (found && !info.texts.has(found.keyword)) info.texts.set(found.keyword, found.text)
    } else if (type === 'IEND') return info
    at = end
  }
}

/**
 * Puts one filter byte before each row and subtracts a prediction from its bytes; per row the filter with the smallest
 * sum of absolute differences wins, the heuristic of the PNG specification (section 12.8).
 */
function filterRows({ data, width, height }: RgbImage): Uint8Array {
  const stride = width * 3
  const out = new Uint8Array((stride + 1) * height)
  const candidates = Array.from({ length: 5 }, () => new Uint8Array(stride))
  const none = new Uint8Array(stride)
  for (let y = 0; y < height; y++) {
    const row = data.subarray(y * stride, (y + 1) * stride)
    const above = y === 0 ? none : data.subarray((y - 1) * stride, y * stride)
    const sums = [0, 0, 0, 0, 0]
    const put = (filter: number, i: number, difference: number) => {
      const byte = difference & 255
      candidates[filter][i] = byte
      sums[filter] += byte < 128 ? byte : 256 - byte
    }
    for (let i = 0; i < stride; i++) {
      const value = row[i]
      const left = i < 3 ? 0 : row[i - 3]
      const up = above[i]
      const corner = i < 3 ? 0 : above[i - 3]
      put(0, i, value)
      put(1, i, value - left)
      put(2, i, value - up)
      put(3, i, value - ((left + up) >> 1))
      put(4, i, value - paeth(left, up, corner))
    }
    const best = sums.indexOf(Math.min(...sums))
    out[y * (stride + 1)] = best
    out.set(candidates[best], y * (stride + 1) + 1)
  }
  return out
}

/** Of the three neighbours, the one nearest to left + up − corner; ties go in that order. */
function paeth(left: number, up: number, corner: number): number {
  const estimate = left + up - corner
  const byLeft = Math.abs(estimate - left)
  const byUp = Math.abs(estimate - up)
  const byCorner = Math.abs(estimate - corner)
  if (byLeft <= byUp && byLeft <= byCorner) return left
  return byUp <= byCorner ? up : corner
}

/** CRC-32 as PNG uses it (annex D). By hand, because Node's own came with 20.15 and the window may run on 18. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (let i = 0; i < bytes.length; i++) crc = crcTable[(crc ^ bytes[i]) & 255] ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1
  return c
})

function chunk(type: string, data: Uint8Array): Buffer {
  const out = Buffer.alloc(12 + data.length)
  out.writeUInt32BE(data.length, 0)
  out.write(type, 4, 'latin1')
  out.set(data, 8)
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length)
  return out
}

/** tEXt when the text is printable Latin-1, the plainest form that every reader knows; else iTXt in UTF-8. */
function textChunk({ keyword, text }: TextChunk): Buffer {
  if (!/^[\x21-\x7e][\x20-\x7e]{0,78}$/.test(keyword)) throw new Error(`textChunk: "${keyword}" is no PNG keyword`)
  if (text.includes('\0')) throw new Error(`textChunk: the text of "${keyword}" holds a null byte`)
  if (/^[\n\x20-\x7e\xa0-\xff]*$/.test(text)) return chunk('tEXt', Buffer.from(`${keyword}\0${text}`, 'latin1'))
  // After the keyword: compression flag and method, then empty language tag and translated keyword.
  return chunk('iTXt', Buffer.from(`${keyword}\0\0\0\0\0${text}`, 'utf8'))
}

/** Undefined when a text chunk is malformed or too large: that is no reason to refuse the picture. */
function readText(type: 'tEXt' | 'zTXt' | 'iTXt', data: Buffer): TextChunk | undefined {
  const keyEnd = data.indexOf(0)
  if (keyEnd < 1 || data.length > maxTextBytes) return undefined
  const keyword = data.toString('latin1', 0, keyEnd)
  let body = data.subarray(keyEnd + 1)
  let isPacked = false
  if (type === 'zTXt') {
    isPacked = true
    body = body.subarray(1) // compression method
  } else if (type === 'iTXt') {
    isPacked = body[0] === 1
    const languageEnd = body.indexOf(0, 2)
    const translatedEnd = languageEnd < 0 ? -1 : body.indexOf(0, languageEnd + 1)
    if (translatedEnd < 0) return undefined
    body = body.subarray(translatedEnd + 1)
  }
  if (isPacked) {
    try {
      body = inflateSync(body, { maxOutputLength: maxTextBytes })
    } catch {
      return undefined
    }
  }
  return { keyword, text: body.toString(type === 'iTXt' ? 'utf8' : 'latin1') }
}

function damaged(why: string): VignetteError {
  return new VignetteError('file-unreadable', `This is no whole PNG picture: ${why}.`, {
    hint: 'Copy or download the file again.',
  })
}
