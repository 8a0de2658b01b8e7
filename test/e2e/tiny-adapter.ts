import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Page } from 'playwright-core'
import { modelShape, standardShape } from '../../models/adapters/shape.ts'
import type { ModelShape } from '../../models/adapters/types.ts'
import { writeAdapter, type AdapterNotes } from '../../models/adapters/write.ts'
import { readPartConfigs } from '../../models/checkpoint/graphs.ts'

export type TinyAdapterOptions = { seed?: number; notes?: AdapterNotes; strength?: number; pattern?: RegExp }

export async function tinyShape(modelFolder: string): Promise<ModelShape> {
  return modelShape('sd15', await readPartConfigs(modelFolder))
}

/** A LoRA of rank 2 over the attention of a model folder's UNet, strong enough to change every pixel. */
export async function writeTinyAdapter(
  file: string,
  modelFolder: string,
  options: TinyAdapterOptions = {},
): Promise<string> {
  return write(file, await tinyShape(modelFolder), options)
}

/** One of a family that the tiny model is not of. */
export async function writeForeignAdapter(file: string, options: TinyAdapterOptions = {}): Promise<string> {
  return write(file, standardShape('sdxl'), { pattern: /mid_block.*attn2\.to_(k|v)$/, ...options })
}

async function write(
  file: string,
  shape: ModelShape,
  { seed = 1, notes = {}, strength = 0.3, pattern = /attn[12]\.to_[qkv]$/ }: TinyAdapterOptions,
): Promise<string> {
  await mkdir(dirname(file), { recursive: true })
  let state = seed * 2654435761
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  }
  const rank = 2
  const layers = [...shape.layers.unet!]
    .filter(([path]) => pattern.test(path))
    .map(([path, { weight }]) => {
      const [outputs, inputs] = weight
      const down = Float32Array.from({ length: rank * inputs }, random)
      const up = Float32Array.from({ length: outputs * rank }, () => strength * random())
      return { target: 'unet' as const, path, weight, rank, down, up }
    })
  await writeAdapter(file, layers, { shape, notes })
  return file
}

export type ManyOptions = {
  /** Title and further notes of each, by its number. */
  notesOf?: (index: number) => Record<string, string>
  nameOf?: (index: number) => string
}

/**
 * A library of many small adapters, each with numbers of its own. They are written without waiting for the disk: a
 * thousand take a second.
 */
export async function writeManyAdapters(
  folder: string,
  modelFolder: string,
  count: number,
  { notesOf = () => ({}), nameOf = (i) => `look-${String(i).padStart(5, '0')}` }: ManyOptions = {},
): Promise<void> {
  const first = await writeTinyAdapter(`${folder}/.pattern`, modelFolder, { pattern: /mid_block.*attn1\.to_q$/ })
  const bytes = await readFile(first)
  await rm(first)
  const headerBytes = Number(bytes.readBigUInt64LE())
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)) as Record<string, unknown>
  const data = bytes.subarray(8 + headerBytes)
  const middles = Object.entries(header).flatMap(([name, entry]) => {
    const [begin, end] = name === '__metadata__' ? [0, 0] : (entry as { data_offsets: [number, number] }).data_offsets
    return end - begin >= 256 ? [begin + (((end - begin) >> 3) << 2)] : []
  })
  for (let from = 0; from < count; from += 50) {
    const some = Array.from({ length: Math.min(50, count - from) }, (_, i) => from + i)
    await Promise.all(
      some.map(async (i) => {
        const notes = Buffer.from(JSON.stringify({ ...header, __metadata__: { number: String(i), ...notesOf(i) } }))
        const start = Buffer.alloc(8 + Math.ceil(notes.length / 8) * 8, ' ')
        start.writeBigUInt64LE(BigInt(start.length - 8))
        notes.copy(start, 8)
        const own = Buffer.from(data)
        for (const middle of middles) own.set([i & 255, 0x3c, i >> 8, 0x3c], middle) // numbers near 1, as halves or floats
        const name = nameOf(i)
        await mkdir(dirname(`${folder}/${name}`), { recursive: true })
        await writeFile(`${folder}/${name}.safetensors`, Buffer.concat([start, own]))
      }),
    )
  }
}

/** Files that PyTorch's old format, a cut download and a text are mistaken for adapters. */
export async function writeBadFiles(
  folder: string,
  good: Uint8Array,
): Promise<{ cut: string; pickle: string; text: string }> {
  await mkdir(folder, { recursive: true })
  const bad = { cut: `${folder}/cut.safetensors`, pickle: `${folder}/old.pt`, text: `${folder}/notes.txt` }
  await writeFile(bad.cut, good.subarray(0, good.length - 100))
  await writeFile(bad.pickle, Buffer.from([0x80, 2, 0x7d, 0x71, 0, 0x2e]))
  await writeFile(bad.text, 'buy milk')
  return bad
}

/** Drags files over the window and lets them fall on a zone; `files` are where they lie on disk. */
export async function dropFiles(
  page: Page,
  files: readonly string[],
  zone: 'keep' | 'use',
  isAlt = false,
): Promise<void> {
  const transfer = await transferOf(page, files)
  await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer, altKey: isAlt })
  await page.getByTestId(`drop-${zone}`).dispatchEvent('drop', { dataTransfer: transfer, altKey: isAlt })
}

export async function pasteFiles(page: Page, files: readonly string[]): Promise<void> {
  const transfer = await transferOf(page, files)
  await page.evaluate((clipboardData) => {
    document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))
  }, transfer)
}

/** What the browser hands over: files by name, whose places the bridge knows. */
export async function transferOf(page: Page, files: readonly string[]) {
  return page.evaluateHandle((paths) => {
    const transfer = new DataTransfer()
    const places: Record<string, string> = {}
    for (const path of paths) {
      const name = path.split('/').at(-1)!
      places[name] = path
      transfer.items.add(new File(['x'], name))
    }
    ;(window as unknown as Record<string, unknown>).vignettePaths = places
    return transfer
  }, files)
}
