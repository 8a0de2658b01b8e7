import { open, stat } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { basename } from 'node:path'
import { VignetteError } from '../errors.ts'
import type { Dtype, StoredTensor } from '../graph/weights.ts'
import { replaceFile } from '../replace-file.ts'
import { bytesPerElement } from './dtypes.ts'
import { refuseOtherFormats } from './sniff.ts'

/** A header as read: where every tensor lies, and the writer's own notes. Names are arbitrary text, never paths. */
export type SafetensorsFile = {
  path: string
  bytes: number
  tensors: Map<string, StoredTensor>
  metadata: Map<string, string>
}

/** The reference reader's cap, checked before anything is allocated. */
const maxHeaderBytes = 100_000_000

function damaged(path: string, what: string): VignetteError {
  return new VignetteError('file-unreadable', `${basename(path)} is damaged: ${what}.`, {
    hint: 'The download may be cut off. Fetch the file again and compare its size.',
  })
}

/** Reads and checks a header by the rules of the safetensors format; the tensor data itself is not touched. */
export async function readSafetensors(path: string): Promise<SafetensorsFile> {
  const file = await open(path, 'r')
  try {
    return await readHeader(path, file)
  } finally {
    await file.close()
  }
}

async function readHeader(path: string, file: FileHandle): Promise<SafetensorsFile> {
  const { size } = await file.stat()
  const start = new Uint8Array(Math.min(size, 4096))
  await readFully(file, start, 0, path)
  refuseOtherFormats(path, start)
  if (size < 8) throw damaged(path, `it has only ${size} bytes`)
  const length = Buffer.from(start.buffer, 0, 8).readBigUInt64LE()
  if (length > BigInt(maxHeaderBytes)) throw damaged(path, `its table of contents claims ${length} bytes`)
  const headerBytes = Number(length)
  if (8 + headerBytes > size) throw damaged(path, `it ends inside its table of contents (${size} bytes)`)

  const raw = new Uint8Array(headerBytes)
  await readFully(file, raw, 8, path)
  const text = decodeUtf8(raw)
  if (text === undefined) throw damaged(path, 'its table of contents is not text')
  const header = parseJson(text)
  if (!isRecord(header)) throw damaged(path, 'its table of contents is not valid')
  const repeated = firstRepeatedKey(text)
  if (repeated !== undefined) throw damaged(path, `"${repeated}" is listed twice`)

  const dataStart = 8 + headerBytes
  const tensors = new Map<string, StoredTensor>()
  const metadata = new Map<string, string>()
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') readMetadata(path, entry, metadata)
    else tensors.set(name, readEntry(path, name, entry, dataStart))
  }
  checkLayout(path, tensors, dataStart, size)
  return { path, bytes: size, tensors, metadata }
}

function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** JSON.parse keeps the last of two equal keys in silence. `text` is valid JSON with an object as its root. */
function firstRepeatedKey(text: string): string | undefined {
  const seen = new Set<string>()
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c === 0x7b || c === 0x5b)
      depth++ // { [
    else if (c === 0x7d || c === 0x5d)
      depth-- // } ]
    else if (c === 0x22) {
      const from = i
      for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++ // skip what a backslash escapes
      if (depth !== 1 || !isKey(text, i + 1)) continue
      const key = JSON.parse(text.slice(from, i + 1)) as string
      if (seen.has(key)) return key
      seen.add(key)
    }
  }
  return undefined
}

function isKey(text: string, at: number): boolean {
  while (' \t\n\r'.includes(text[at])) at++
  return text[at] === ':'
}

function readMetadata(path: string, entry: unknown, into: Map<string, string>): void {
  if (!isRecord(entry)) throw damaged(path, 'its notes are not valid')
  for (const [key, value] of Object.entries(entry)) if (typeof value === 'string') into.set(key, value)
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

function readEntry(path: string, name: string, entry: unknown, dataStart: number): StoredTensor {
  if (!isRecord(entry)) throw damaged(path, `its entry for "${name}" is not valid`)
  const { dtype, shape, data_offsets: offsets } = entry
  if (
    !Array.isArray(shape) ||
    !shape.every(isCount) ||
    !Array.isArray(offsets) ||
    offsets.length !== 2 ||
    !offsets.every(isCount)
  ) {
    throw damaged(path, `its entry for "${name}" is not valid`)
  }
  if (typeof dtype !== 'string' || !Object.hasOwn(bytesPerElement, dtype)) {
    throw new VignetteError(
      'checkpoint-unsupported',
      `${basename(path)} stores "${name}" as ${String(dtype)}, which Vignette cannot read.`,
      {
        hint: 'Look for a 16-bit version of the model (fp16 or bf16).',
      },
    )
  }
  const [begin, end] = offsets as [number, number]
  const length = (shape as number[]).reduce((product, size) => product * size, bytesPerElement[dtype as Dtype])
  // A product beyond 2^53 is inexact, but then it cannot equal the difference of two safe integers.
  if (!Number.isSafeInteger(length) || end < begin || end - begin !== length) {
    throw damaged(path, `the size of "${name}" does not fit its shape [${shape.join(', ')}]`)
  }
  return { file: path, offset: dataStart + begin, length, dtype: dtype as Dtype, shape: shape as number[] }
}

/** Sorted by place, tensors must follow each other without a gap from the header to the last byte of the file. */
function checkLayout(path: string, tensors: Map<string, StoredTensor>, dataStart: number, size: number): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.offset - b.offset || a.length - b.length)
  let end = dataStart
  for (const [name, { offset, length }] of inOrder) {
    if (offset < end) throw damaged(path, `"${name}" overlaps another tensor`)
    if (offset > end) throw damaged(path, `there is a gap before "${name}"`)
    end = offset + length
  }
  if (end > size) throw damaged(path, `it should have ${end} bytes but has ${size}`)
  if (end < size) throw damaged(path, `${size - end} bytes follow its last tensor`)
}

/** Fills `target` from `position` on; a file that ends early is an error. */
export async function readFully(file: FileHandle, target: Uint8Array, position: number, path: string): Promise<void> {
  let done = 0
  while (done < target.length) {
    const { bytesRead } = await file.read(target, done, target.length - done, position + done)
    if (bytesRead === 0) throw damaged(path, 'it ended while it was being read')
    done += bytesRead
  }
}

/** All bytes of one tensor. For small ones: large ones are read in chunks. */
export async function readTensor(tensor: StoredTensor): Promise<Uint8Array> {
  const file = await open(tensor.file, 'r')
  try {
    const bytes = new Uint8Array(tensor.length)
    await readFully(file, bytes, tensor.offset, tensor.file)
    return bytes
  } finally {
    await file.close()
  }
}

export type PlannedTensor = { name: string; dtype: Dtype; shape: number[] }
/** Header bytes of a file to be written, and the place of each tensor counted from the file's start, in file order. */
export type Layout = {
  header: Uint8Array
  bytes: number
  tensors: (PlannedTensor & { offset: number; length: number })[]
}

const page = 4096

/**
 * Plans a file. The format allows no gaps, so tensors come in the order of the largest power of two that divides their
 * length: each then begins at a multiple of its own, and the large ones on a page, since the header fills whole pages.
 */
export function layOut(planned: readonly PlannedTensor[], metadata: Record<string, string> = {}): Layout {
  const sized = planned.map((tensor) => {
    const length = tensor.shape.reduce((product, size) => product * size, bytesPerElement[tensor.dtype])
    return { ...tensor, length, alignment: length === 0 ? 1 : gcdWithPage(length) }
  })
  sized.sort((a, b) => b.alignment - a.alignment || (a.name < b.name ? -1 : 1))
  let begin = 0
  const entries: [string, unknown][] = Object.keys(metadata).length > 0 ? [['__metadata__', metadata]] : []
  const tensors = sized.map(({ name, dtype, shape, length }) => {
    entries.push([name, { dtype, shape, data_offsets: [begin, begin + length] }])
    begin += length
    return { name, dtype, shape, length, offset: begin - length }
  })
  const json = Buffer.from(
    `{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(',')}}`,
  )
  const dataStart = Math.ceil((8 + json.length) / page) * page
  const header = new Uint8Array(dataStart).fill(0x20)
  Buffer.from(header.buffer).writeBigUInt64LE(BigInt(dataStart - 8))
  header.set(json, 8)
  for (const tensor of tensors) tensor.offset += dataStart
  return { header, bytes: dataStart + begin, tensors }
}

function gcdWithPage(length: number): number {
  let power = 1
  while (power < page && length % (2 * power) === 0) power *= 2
  return power
}

/** Writes a whole file through a temporary name. `dataOf` yields each tensor's bytes, in as many pieces as it likes. */
export async function writeSafetensors(
  path: string,
  planned: readonly PlannedTensor[],
  dataOf: (tensor: PlannedTensor) => Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  metadata: Record<string, string> = {},
): Promise<void> {
  const layout = layOut(planned, metadata)
  await replaceFile(path, async (file) => {
    await file.writev([layout.header])
    for (const tensor of layout.tensors) {
      let written = 0
      for await (const piece of dataOf(tensor)) {
        await writeFully(file, piece, tensor.offset + written)
        written += piece.length
      }
      if (written !== tensor.length)
        throw new Error(`${tensor.name}: ${written} bytes written, ${tensor.length} planned`)
    }
  })
}

export async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten
  }
}

/** True for an existing plain file. */
export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  )
}
