// Builds the sprite atlas: vector sets -> RGBA sprites, one PNG per size class, and atlas.json.
// usage: npx tsx atlas.ts OUT_DIR     (deterministic: the same packages give the same bytes)
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import sharp from 'sharp'
import * as art from './art/allowlist.js'
import { IDENTITY } from './art/identity.js'
import { OUTFITS, POSES, WITH_DETAIL, WORN, puppetPart, type Shade } from './art/puppet.js'
import { recolour } from './art/recolour.js'
import { findIcon, iconSvg, raster, type IconSet } from './art/svg.js'

const SIZES = { head: 104, creature: 128, thing: 80, scenery: 144, part: 204 } as const
type Kind = keyof typeof SIZES

interface Sprite {
  kind: Kind
  name: string
  style: string
  colour: string
  pixels: Buffer
}

const require = createRequire(import.meta.url)
const sprites: Sprite[] = []

export function loadSet(style: art.Style): IconSet {
  const manifest = require.resolve(`${art.ART[style].package}/package.json`)
  const folder = dirname(manifest)
  const { name, version } = JSON.parse(readFileSync(manifest, 'utf8')) as { name: string; version: string }
  const info = JSON.parse(readFileSync(`${folder}/info.json`, 'utf8')) as { license: { spdx?: string; title: string } }
  art.checkArt(name, version, info.license.spdx ?? info.license.title)
  return JSON.parse(readFileSync(`${folder}/icons.json`, 'utf8')) as IconSet
}

async function add(kind: Kind, name: string, style: string, colour: string, svg: string): Promise<void> {
  sprites.push({ kind, name, style, colour, pixels: await raster(svg, SIZES[kind]) })
}

async function addSubjects(
  style: art.Style,
  set: IconSet,
  kind: Kind,
  subjects: Record<string, string[]>,
  colours: (name: string) => string[]
): Promise<void> {
  for (const [name, alternatives] of Object.entries(subjects)) {
    const icon = findIcon(set, alternatives)
    if (!icon) throw new Error(`${style}: no picture for ${name}`)
    const svg = iconSvg(set, icon)
    await add(kind, name, style, '', svg)
    for (const colour of colours(name)) await add(kind, name, style, colour, await recolour(svg, art.COLOURS[colour]!))
  }
}

async function addPuppet(shade: Shade): Promise<void> {
  const detailed = (part: string): boolean => (WITH_DETAIL as readonly string[]).includes(part)
  for (const pose of POSES) {
    for (const part of ['tail', 'limbs', ...OUTFITS] as const) {
      await add('part', `${part}:${pose}`, shade, '', puppetPart(part, pose, shade))
      if (detailed(part)) await add('part', `${part}_detail:${pose}`, shade, '', puppetPart(part, pose, shade, true))
    }
  }
  for (const part of WORN) {
    await add('part', part, shade, '', puppetPart(part, 'stand', shade))
    if (detailed(part)) await add('part', `${part}_detail`, shade, '', puppetPart(part, 'stand', shade, true))
  }
}

/** Colour of the limbs: the most frequent bright colour of the head. */
function furColour(pixels: Buffer): number[] {
  const bins = new Map<number, [n: number, r: number, g: number, b: number]>()
  for (let i = 0; i < pixels.length; i += 4) {
    const [r, g, b, a] = [pixels[i]!, pixels[i + 1]!, pixels[i + 2]!, pixels[i + 3]!]
    if (a < 250) continue
    const key = ((r >> 4) << 8) | ((g >> 4) << 4) | (b >> 4)
    const bin = bins.get(key) ?? [0, 0, 0, 0]
    bins.set(key, [bin[0] + 1, bin[1] + r, bin[2] + g, bin[3] + b])
  }
  const bright = [...bins.values()].filter(([n, r, g, b]) => r + g + b > 150 * n).sort((a, b) => b[0] - a[0])
  const [n, r, g, b] = bright[0] ?? [1, 150, 150, 150]
  return [r, g, b].map((v) => Number((v / n / 255).toFixed(3)))
}

async function writeSheet(out: string, kind: Kind): Promise<{ columns: number; rows: number; count: number }> {
  const list = sprites.filter((s) => s.kind === kind)
  const size = SIZES[kind]
  const columns = 32
  const rows = Math.ceil(list.length / columns)
  const sheet = Buffer.alloc(columns * size * rows * size * 4)
  list.forEach((sprite, index) => {
    const [x, y] = [(index % columns) * size, Math.floor(index / columns) * size]
    for (let line = 0; line < size; line++) {
      sprite.pixels.copy(sheet, ((y + line) * columns * size + x) * 4, line * size * 4, (line + 1) * size * 4)
    }
  })
  await sharp(sheet, { raw: { width: columns * size, height: rows * size, channels: 4 } })
    .png({ compressionLevel: 6 })
    .toFile(`${out}/${kind}.png`)
  return { columns, rows, count: list.length }
}

async function main(out: string): Promise<void> {
  mkdirSync(out, { recursive: true })
  const started = performance.now()
  for (const style of Object.keys(art.ART) as art.Style[]) {
    const set = loadSet(style)
    const recoloured = (name: string): string[] => art.RECOLOURED[name] ?? []
    await addSubjects(style, set, 'head', art.HEADS, (n) => (art.NATURAL_ONLY.includes(n) ? [] : art.FUR))
    await addSubjects(style, set, 'creature', art.CREATURES, () => art.CREATURE_FUR)
    await addSubjects(style, set, 'thing', art.THINGS, recoloured)
    await addSubjects(style, set, 'scenery', art.SCENERY, recoloured)
  }
  for (const shade of ['none', 'soft'] as const) await addPuppet(shade)
  for (const [name, svg] of Object.entries(IDENTITY)) await add('part', `identity:${name}`, 'none', '', svg)

  const sheets: Record<string, unknown> = {}
  for (const kind of Object.keys(SIZES) as Kind[]) sheets[kind] = { size: SIZES[kind], ...(await writeSheet(out, kind)) }
  const fur: Record<string, number[]> = {}
  const counters = new Map<Kind, number>()
  const index = sprites.map(({ kind, name, style, colour, pixels }) => {
    if (kind === 'head') fur[`${name}|${style}|${colour}`] = furColour(pixels)
    const i = counters.get(kind) ?? 0
    counters.set(kind, i + 1)
    return [kind, name, style, colour, i]
  })
  writeFileSync(`${out}/atlas.json`, JSON.stringify({ colours: art.COLOURS, sources: art.ART, sheets, fur, sprites: index }))
  console.log(`${sprites.length} sprites in ${((performance.now() - started) / 1000).toFixed(1)} s`)
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const out = process.argv[2]
  if (!out) throw new Error('usage: npx tsx atlas.ts OUT_DIR')
  await main(out)
}
