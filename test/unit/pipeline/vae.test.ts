import { describe, expect, test } from 'vitest'
import { tensor, type FloatTensor } from '../../../main/pipeline/tensor.ts'
import { decode, encode, runTiled, tileGrid, tileSpans } from '../../../main/pipeline/vae.ts'
import { expectClose } from '../../expect-close.ts'
import { gaussianNetworks } from './gaussian-networks.ts'

describe('tile spans', () => {
  test.each([
    [100, 64, 16],
    [128, 64, 16],
    [65, 64, 16],
    [256, 64, 16],
    [1000, 64, 16],
  ])('%i positions are covered by tiles of %i that share at least %i', (length, size, overlap) => {
    const spans = tileSpans(length, size, overlap, 1)
    expect(spans[0].start).toBe(0)
    expect((spans.at(-1)?.start ?? 0) + size).toBe(length)
    spans.slice(1).forEach((span, i) => expect(spans[i].start + size - span.start).toBeGreaterThanOrEqual(overlap))
  })

  test('start at multiples of the step', () => {
    expect(tileSpans(1040, 512, 128, 16).every(({ start }) => start % 16 === 0)).toBe(true)
  })

  test('one tile where it fits', () => {
    expect(tileSpans(48, 64, 16, 1)).toEqual([{ start: 0, length: 48 }])
  })
})

describe('tile grid', () => {
  test('stays within the limit and works on little twice', () => {
    for (const factor of [8, 16]) {
      for (const [height, width] of [
        [896, 896],
        [1024, 1024],
        [2048, 2048],
        [512, 2048],
        [2048, 640],
      ]) {
        for (const side of [512, 768]) {
          const [h, w] = [height / factor, width / factor]
          const { tileHeight, tileWidth, overlap } = tileGrid(h, w, factor, { tileAbovePixels: side * side })
          expect(tileHeight * tileWidth * factor * factor).toBeLessThanOrEqual(side * side)
          expect(overlap * factor).toBe(side / 4)
          const tiles = tileSpans(h, tileHeight, overlap, 1).length * tileSpans(w, tileWidth, overlap, 1).length
          expect((tiles * tileHeight * tileWidth) / (h * w)).toBeLessThan(1.7)
        }
      }
    }
  })

  test('cuts a wide picture into columns only', () => {
    expect(tileGrid(48, 64, 16, { tileAbovePixels: 768 * 768 })).toEqual({ tileHeight: 48, tileWidth: 38, overlap: 12 })
  })
})

/** Doubles the size after a blur of radius 3 that sees zeros beyond the border: a stand-in for a network's padding. */
async function blurUp(input: FloatTensor): Promise<FloatTensor> {
  const [, c, h, w] = input.shape
  const data = new Float32Array(c * 4 * h * w)
  for (let k = 0; k < c; k++) {
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        let sum = 0
        for (let dy = -3; dy <= 3; dy++) {
          for (let dx = -3; dx <= 3; dx++) {
            const inside = y + dy >= 0 && y + dy < h && x + dx >= 0 && x + dx < w
            if (inside) sum += input.data[(k * h + y + dy) * w + x + dx] / 49
          }
        }
        for (const i of [0, 1, 2 * w, 2 * w + 1]) data[(k * 2 * h + 2 * y) * 2 * w + 2 * x + i] = sum
      }
    }
  }
  return tensor(data, [1, c, 2 * h, 2 * w])
}

const waves = (c: number, h: number, w: number): FloatTensor =>
  tensor(
    Float32Array.from({ length: c * h * w }, (_, i) => 1 + Math.sin((i % w) / 3) + Math.cos(Math.floor(i / w) / 5)),
    [1, c, h, w],
  )

test('the padding of inner tile borders does not show, while that of the picture does', async () => {
  const input = waves(2, 60, 90)
  const whole = await blurUp(input)
  let runs = 0
  const tiled = await runTiled(
    input,
    (tile) => {
      runs++
      expect(tile.shape).toEqual([1, 2, 32, 32])
      return blurUp(tile)
    },
    { tileHeight: 32, tileWidth: 32, overlap: 12, step: 1, channels: 2, scale: 2 },
  )
  expect(tiled.shape).toEqual([1, 2, 120, 180])
  expect(runs).toBe(12)
  expectClose(tiled.data, whole.data, { abs: 1e-5 })
})

test('tiles that disagree about brightness cross over without a step', async () => {
  let tiles = 0
  const { data } = await runTiled(
    waves(1, 16, 200),
    async (tile) => tensor(new Float32Array(tile.data.length).fill(tiles++ % 2), tile.shape),
    { tileHeight: 64, tileWidth: 64, overlap: 16, step: 1, channels: 1, scale: 1 },
  )
  const steps = Array.from(data.subarray(1, 200), (value, x) => Math.abs(value - data[x]))
  expect(Math.max(...steps)).toBeLessThan(0.2) // 16 positions share a difference of 1
  expect(Math.max(...data)).toBeGreaterThan(0.99)
  expect(Math.min(...data)).toBeLessThan(0.01)
})

test('encodes to (mean − shift) · scale and decodes back', async () => {
  const networks = gaussianNetworks()
  const image = {
    data: new Uint8Array(64 * 64 * 3).map((_, i) => ((i * 7) % 3 === 0 ? 200 : 40)),
    width: 64,
    height: 64,
  }
  const latents = await encode(networks, image, { tileAbovePixels: 1e9 })
  expect(latents.shape).toEqual([1, 4, 8, 8])
  expectClose([latents.data[0], latents.data[64]], [(200 / 127.5 - 1 - 0.1) * 0.5, (40 / 127.5 - 1 - 0.1) * 0.5], {
    abs: 1e-6,
  })
  expectClose((await decode(networks, latents, { tileAbovePixels: 1e9 })).data, image.data, { abs: 0 })
})

test('a model with only a tiny VAE uses that, without scaling', async () => {
  const inner = gaussianNetworks()
  const seen: string[] = []
  const networks = {
    ...inner,
    has: (name: string) => name.startsWith('tiny_vae'),
    run: async (name: string, inputs: Record<string, FloatTensor>) => {
      seen.push(name)
      return name === 'tiny_vae_decoder' ? { sample: inputs.latent_sample } : { latent_sample: inputs.sample }
    },
  } as unknown as typeof inner
  const latents = await encode(
    networks,
    { data: new Uint8Array(8 * 8 * 3).fill(255), width: 8, height: 8 },
    { tileAbovePixels: 1e9 },
  )
  expect(latents.data.every((value) => value === 1)).toBe(true)
  expect((await decode(networks, latents, { tileAbovePixels: 1e9 })).data.every((value) => value === 255)).toBe(true)
  expect(seen).toEqual(['tiny_vae_encoder', 'tiny_vae_decoder'])
})
