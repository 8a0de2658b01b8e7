import { imageToTensor, tensorToImage, type RgbImage } from './image.ts'
import { tensor, type FloatTensor } from './tensor.ts'
import type { Networks } from './types.ts'

export type TileOptions = {
  /**
   * The most pixels one run may have, which bounds its memory; larger pictures are worked on in tiles. Larger tiles come
   * closer to the whole: the norms inside a VAE look at all they are given. Four pictures of 1024 × 768 on a trained VAE,
   * decoded in tiles and whole: 52 dB apart at 768 × 768 a run (0.4 of 255 on average), 40 dB at 512 × 512 (1.9).
   */
  tileAbovePixels: number
}

/** Latents [1, c, h, w] as samplers hold them -> picture. */
export async function decode(networks: Networks, latents: FloatTensor, options: TileOptions): Promise<RgbImage> {
  const { scale, shift, spatialFactor: factor } = networks.manifest.latents
  const isTiny = !networks.has('vae_decoder') // a tiny VAE takes latents as they are
  const network = isTiny ? 'tiny_vae_decoder' : 'vae_decoder'
  const values = isTiny ? latents.data : latents.data.map((value) => value / scale + shift)
  const input = tensor(values, latents.shape)
  const run = async (part: FloatTensor) => (await networks.run(network, { latent_sample: part }, ['sample'])).sample
  const [, , h, w] = latents.shape
  if (h * factor * w * factor <= options.tileAbovePixels) return tensorToImage(await run(input))
  const grid = tileGrid(h, w, factor, options)
  return tensorToImage(await runTiled(input, run, { ...grid, step: 1, channels: 3, scale: factor }))
}

/**
 * Picture -> latents [1, c, h, w]. Takes the mean of the encoder's distribution and not a sample of it, so that a picture
 * always has the same latents.
 */
export async function encode(networks: Networks, image: RgbImage, options: TileOptions): Promise<FloatTensor> {
  const { scale, shift, spatialFactor: factor, channels } = networks.manifest.latents
  const isTiny = !networks.has('vae_encoder')
  const network = isTiny ? 'tiny_vae_encoder' : 'vae_encoder'
  const output = isTiny ? 'latent_sample' : 'latent_mean'
  const run = async (part: FloatTensor) => (await networks.run(network, { sample: part }, [output]))[output]
  const pixels = imageToTensor(image)
  const isWhole = image.width * image.height <= options.tileAbovePixels
  const { tileHeight, tileWidth, overlap } = tileGrid(image.height / factor, image.width / factor, factor, options)
  const grid = { tileHeight: tileHeight * factor, tileWidth: tileWidth * factor, overlap: overlap * factor }
  const { data, shape } = isWhole
    ? await run(pixels)
    : await runTiled(pixels, run, { ...grid, step: factor, channels, scale: 1 / factor })
  return tensor(isTiny ? data : data.map((value) => (value - shift) * scale), shape)
}

type Grid = {
  /** Sides of a tile and what two neighbours share at least, in input positions. */
  tileHeight: number
  tileWidth: number
  overlap: number
}

/**
 * The division of h × w latent positions into rows and columns of equal tiles that costs least: every tile within the
 * limit, and as little as possible worked on twice. Neighbours share a quarter of the side of the largest square tile.
 */
export function tileGrid(h: number, w: number, factor: number, { tileAbovePixels }: TileOptions): Grid {
  const overlap = Math.max(Math.floor(Math.sqrt(tileAbovePixels) / 4 / factor), 1)
  const sideFor = (length: number, count: number) => Math.ceil((length + (count - 1) * overlap) / count)
  let best: (Grid & { cost: number }) | undefined
  for (let rows = 1; rows <= 32; rows++) {
    for (let columns = 1; columns <= 32; columns++) {
      const [tileHeight, tileWidth] = [sideFor(h, rows), sideFor(w, columns)]
      if (tileHeight * tileWidth * factor * factor > tileAbovePixels) continue
      const cost = rows * columns * tileHeight * tileWidth
      if (!best || cost < best.cost) best = { tileHeight, tileWidth, overlap, cost }
    }
  }
  if (!best) throw new Error(`tileGrid: ${h} × ${w} latents do not fit ${tileAbovePixels} pixels a tile`)
  return { tileHeight: best.tileHeight, tileWidth: best.tileWidth, overlap }
}

type Tiling = Grid & {
  /** Tiles start at multiples of this many input positions. */
  step: number
  channels: number
  /** Output positions per input position. */
  scale: number
}

/**
 * Runs a network over overlapping tiles of [1, c, h, w] and joins the results. Weights fall to zero before a tile's inner
 * edge, where its padding would show, and cross over smoothly, so there is no seam to see.
 */
export async function runTiled(
  input: FloatTensor,
  run: (tile: FloatTensor) => Promise<FloatTensor>,
  { tileHeight, tileWidth, overlap, step, channels, scale }: Tiling,
): Promise<FloatTensor> {
  const [, , h, w] = input.shape
  const [outH, outW] = [h * scale, w * scale]
  const sum = new Float32Array(channels * outH * outW)
  const weightSum = new Float32Array(outH * outW)
  for (const row of tileSpans(h, tileHeight, overlap, step)) {
    for (const column of tileSpans(w, tileWidth, overlap, step)) {
      const tile = await run(crop(input, row, column))
      const [tileH, tileW] = [row.length * scale, column.length * scale]
      const [top, left] = [row.start * scale, column.start * scale]
      const down = feather(row, h, overlap, scale)
      const across = feather(column, w, overlap, scale)
      for (let y = 0; y < tileH; y++) {
        for (let x = 0; x < tileW; x++) {
          const weight = down[y] * across[x]
          const target = (top + y) * outW + left + x
          weightSum[target] += weight
          for (let c = 0; c < channels; c++) {
            sum[c * outH * outW + target] += weight * tile.data[(c * tileH + y) * tileW + x]
          }
        }
      }
    }
  }
  for (let i = 0; i < sum.length; i++) sum[i] /= weightSum[i % weightSum.length]
  return tensor(sum, [1, channels, outH, outW])
}

type Span = { start: number; length: number }

/** Tiles along one side: as few as keep the overlap, spread evenly, the last one flush with the end. */
export function tileSpans(length: number, size: number, overlap: number, step: number): Span[] {
  if (length <= size) return [{ start: 0, length }]
  const count = Math.ceil((length - overlap) / (size - overlap))
  return Array.from({ length: count }, (_, i) => ({
    start: Math.floor((i * (length - size)) / (count - 1) / step) * step,
    length: size,
  }))
}

/** Weight of every output position of a tile along one side; 1 up to the picture's own border. */
function feather({ start, length }: Span, whole: number, overlap: number, scale: number): Float32Array {
  const size = length * scale
  const ramp = overlap * scale
  // The outer quarter of the overlap is left to the neighbour; the middle half crosses over. A trace keeps sums above 0.
  const rise = (distance: number) => {
    const t = Math.min(Math.max((distance / ramp - 0.25) * 2, 0), 1)
    return Math.max(t * t * (3 - 2 * t), 1e-6)
  }
  return Float32Array.from({ length: size }, (_, i) => {
    const before = start === 0 ? 1 : rise(i + 0.5)
    const after = start + length === whole ? 1 : rise(size - i - 0.5)
    return before * after
  })
}

function crop(input: FloatTensor, row: Span, column: Span): FloatTensor {
  const [, channels, h, w] = input.shape
  const data = new Float32Array(channels * row.length * column.length)
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < row.length; y++) {
      const from = (c * h + row.start + y) * w + column.start
      data.set(input.data.subarray(from, from + column.length), (c * row.length + y) * column.length)
    }
  }
  return tensor(data, [1, channels, row.length, column.length])
}
