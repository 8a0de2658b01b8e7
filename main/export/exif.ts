// The few texts of Exif (CIPA DC-008, TIFF 6.0 inside) and XMP that programs put recipes into.

const tags = { imageDescription: 0x010e, make: 0x010f, model: 0x0110, exif: 0x8769, userComment: 0x9286 }
const typeSizes: Record<number, number> = { 1: 1, 2: 1, 3: 2, 4: 4, 7: 1 }
const maxEntries = 500

/** Texts by the names PNG files use for the same: `parameters`, `prompt`, `workflow`. Damaged Exif gives none. */
export function exifTexts(exif: Buffer): Map<string, string> {
  const texts = new Map<string, string>()
  // JPEG puts a name before it, WebP mostly does not.
  const tiff = exif.toString('latin1', 0, 6) === 'Exif\0\0' ? exif.subarray(6) : exif
  try {
    const fields = readTiff(tiff)
    const comment = fields.get(tags.userComment)
    const description = fields.get(tags.imageDescription)
    if (comment) put(texts, commentText(comment))
    if (description) put(texts, cut(description.toString('utf8')))
    // ComfyUI, in WebP: "workflow:{…}" as the maker and "prompt:{…}" as the model of a camera.
    for (const tag of [tags.make, tags.model]) if (fields.has(tag)) put(texts, cut(fields.get(tag)!.toString('utf8')))
  } catch {
    // Cut off or made up: then it says nothing.
  }
  return texts
}

function put(texts: Map<string, string>, text: string): void {
  const [, key, rest] = /^(prompt|workflow|parameters):\s*([\s\S]+)$/i.exec(text) ?? []
  const name = key?.toLowerCase() ?? 'parameters'
  const value = rest ?? text
  if (value.trim() !== '' && !texts.has(name)) texts.set(name, value)
}

/** The fields of the first directory and of the Exif one. Offsets are checked: reading past the end throws. */
function readTiff(tiff: Buffer): Map<number, Buffer> {
  const order = tiff.toString('latin1', 0, 2)
  if (order !== 'II' && order !== 'MM') throw new Error('no TIFF header')
  const isLittle = order === 'II'
  const u16 = (at: number) => (isLittle ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at))
  const u32 = (at: number) => (isLittle ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at))
  const fields = new Map<number, Buffer>()
  const directories = [u32(4)]
  for (let seen = 0; directories.length > 0 && seen < 4; seen++) {
    const start = directories.shift()!
    const count = Math.min(u16(start), maxEntries)
    for (let i = 0; i < count; i++) {
      const at = start + 2 + 12 * i
      const tag = u16(at)
      const bytes = (typeSizes[u16(at + 2)] ?? 0) * u32(at + 4)
      if (tag === tags.exif) directories.push(u32(at + 8))
      else if (bytes > 0) {
        const from = bytes <= 4 ? at + 8 : u32(at + 8)
        if (from + bytes <= tiff.length) fields.set(tag, tiff.subarray(from, from + bytes))
      }
    }
  }
  return fields
}

/** Eight bytes name the encoding. UNICODE is UTF-16, in practice of either order whatever the file around it has. */
function commentText(comment: Buffer): string {
  const code = comment.toString('latin1', 0, 8)
  const body = comment.subarray(8)
  if (!code.startsWith('UNICODE'))
    return cut(code.startsWith('ASCII') || /^\0/.test(code) ? body.toString('utf8') : comment.toString('utf8'))
  const even = body.subarray(0, body.length & ~1)
  let highFirst = 0
  for (let i = 0; i + 1 < Math.min(even.length, 200); i += 2) if (even[i] === 0) highFirst++
  const isBig = highFirst * 4 > Math.min(even.length, 200) / 2
  return cut((isBig ? Buffer.from(even).swap16() : even).toString('utf16le'))
}

/** Text fields end with a null byte, and are padded with more. */
function cut(text: string): string {
  return text.replace(/\0[\s\S]*$/, '').trim()
}

/** A comment or description inside an XMP packet. */
export function xmpTexts(xmp: string): Map<string, string> {
  const texts = new Map<string, string>()
  for (const name of ['exif:UserComment', 'dc:description', 'tiff:ImageDescription']) {
    const inside = new RegExp(`<${name}[^>]*>([\\s\\S]{0,1000000}?)</${name}>`).exec(xmp)?.[1]
    const attribute = new RegExp(`${name}="([^"]{1,1000000})"`).exec(xmp)?.[1]
    const text = inside === undefined ? attribute : inside.replace(/<[^>]*>/g, '')
    if (text !== undefined) put(texts, unescape(text).trim())
  }
  return texts
}

function unescape(text: string): string {
  const named: Record<string, string> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }
  return text.replace(
    /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(lt|gt|quot|apos|amp));/gi,
    (all, decimal?: string, hex?: string, name?: string) => {
      if (name !== undefined) return named[name.toLowerCase()]
      const code = decimal !== undefined ? Number(decimal) : parseInt(hex!, 16)
      return code <= 0x10ffff ? String.fromCodePoint(code) : all
    },
  )
}
