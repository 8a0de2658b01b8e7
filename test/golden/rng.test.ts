import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { normalNoise } from '../../main/pipeline/rng.ts'
import { expectClose } from '../expect-close.ts'

type Draw = { size: number; first: number[]; last: number[]; sum: number; squares: number; weighted: number }
const golden = JSON.parse(gunzipSync(readFileSync(new URL('./rng.json.gz', import.meta.url))).toString('utf8')) as {
  single: (Draw & { seed: number })[]
  rows: { seed: number; draws: Draw[] }[]
}

function expectDraw(values: Float32Array, draw: Draw): void {
  expectClose(values.subarray(0, 20), draw.first, { abs: 1e-6 })
  expectClose(values.subarray(-20), draw.last, { abs: 1e-6 })
  const total = (f: (value: number, i: number) => number) => values.reduce((sum, value, i) => sum + f(value, i), 0)
  // Errors of single values are 1e-7 and of either sign; in a sum they stay far below 1e-6 per value.
  const abs = Math.max(1e-6, 1e-7 * draw.size)
  expectClose([total((v) => v), total((v, i) => v * Math.sin(i + 1))], [draw.sum, draw.weighted], { abs })
  expectClose([total((v) => v * v)], [draw.squares], { abs, rel: 1e-6 })
}

test('gives torch.randn for every size and seed', () => {
  for (const draw of golden.single) expectDraw(normalNoise(draw.seed)(draw.size), draw)
})

test('goes on like one torch generator over draws of mixed sizes', () => {
  for (const { seed, draws } of golden.rows) {
    const noise = normalNoise(seed)
    for (const draw of draws) expectDraw(noise(draw.size), draw)
  }
})

test('is standard normal', () => {
  const values = normalNoise(5)(100_000)
  const mean = values.reduce((a, b) => a + b, 0) / values.length
  const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length
  expect(Math.abs(mean)).toBeLessThan(0.01)
  expect(Math.abs(variance - 1)).toBeLessThan(0.02)
})
