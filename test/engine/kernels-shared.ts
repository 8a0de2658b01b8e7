import { describe, expect, it } from 'vitest'
import { convolve } from '../../kernels/im2col.ts'
import type { Bits } from '../../kernels/int4.ts'
import { linearNBits } from '../../kernels/linear-nbits.ts'
import { lowRank } from '../../kernels/low-rank.ts'
import * as reference from '../../kernels/reference.ts'
import type { Dialect } from '../../models/graph/graph.ts'
import { gaussians, withOutliers } from '../unit/kernels/numbers.ts'
import { evaluate, expectWithin, nbits, open, roundingBounds } from './kernels-run.ts'

/** Rows of a product, [m, k, n]: few and many, K that fills its groups and that does not, N off every block size. */
const products: [Bits, number, number, number, number][] = [
  [4, 64, 5, 128, 24],
  [4, 32, 70, 100, 19],
  [8, 64, 5, 128, 24],
  [8, 32, 70, 100, 19],
  [8, 32, 1, 36, 16],
]

/** Tests of what both providers run. */
export function testFragments(dialect: Dialect): void {
  describe.each(products)('weights of %i bits in groups of %i, rows %i x %i -> %i', (bits, group, m, k, n) => {
    const x = withOutliers(gaussians(m * k, 1), k)
    const bias = gaussians(n, 2)
    const { floats, on } = nbits(gaussians(n * k, 3), { n, k, bits, group })
    const feeds = { x: { data: x, dims: [m, k], shape: ['m', k] } }

    it('multiply as the reference does', async () => {
      const got = await evaluate(dialect, feeds, ({ x }, graph) =>
        linearNBits(x, on(graph), graph.constant('f32', [n], bias), 'layer'),
      )
      const exact = reference.linear(x, floats, bias, { m, k, n })
      expect(got.dims).toEqual([m, n])
      // Codes times halves are exact in float32; what is rounded is k products, k - 1 sums and the bias.
      expectWithin(got.data, exact.values, roundingBounds(exact, k + 2))
    })
  })

  describe('a low-rank branch', () => {
    const [m, k, n] = [6, 40, 9]
    const x = withOutliers(gaussians(m * k, 11), k)
    const base = gaussians(m * n, 12)
    const branch = (r: number, seed: number) => ({
      down: { data: gaussians(r * k, seed), dims: [r, k], shape: ['r', k] },
      up: { data: gaussians(n * r, seed + 1), dims: [n, r], shape: [n, 'r'] },
    })
    const fixed = { x: { data: x, dims: [m, k], shape: ['m', k] }, base: { data: base, dims: [m, n], shape: ['m', n] } }
    const opened = (extra = branch(3, 21)) =>
      open(dialect, { ...fixed, ...extra }, ({ x, down, up, base }) => lowRank(x, down, up, base))
    const exactly = (r: number, { down, up }: ReturnType<typeof branch>) =>
      reference.lowRank(x, down.data, up.data, base, { m, k, n, r })

    it('of any rank, chosen by the run, equals the reference; rank 0 leaves the base as it is', async () => {
      const { run, release } = await opened()
      for (const r of [3, 0, 40, 1]) {
        const feeds = { ...fixed, ...branch(r, 31) }
        const got = await run(feeds)
        const exact = exactly(r, feeds)
        expect(got.dims).toEqual([m, n])
        if (r === 0) expect([...got.data]).toEqual([...base])
        expectWithin(got.data, exact.values, roundingBounds(exact, k + r + 3))
      }
      await release()
    })

    it('of two that are concatenated along the rank is the sum of both; one of strength 0 adds nothing', async () => {
      const { run, release } = await opened()
      const [first, second] = [branch(2, 41), branch(3, 51)]
      const joined = (strength: number) => ({
        down: { ...first.down, data: Float32Array.of(...first.down.data, ...second.down.data), dims: [5, k] },
        up: {
          ...first.up,
          data: Float32Array.from({ length: n * 5 }, (_, i) => {
            const [row, rank] = [Math.floor(i / 5), i % 5]
            return rank < 2 ? first.up.data[row * 2 + rank] : strength * second.up.data[row * 3 + rank - 2]
          }),
          dims: [n, 5],
        },
      })
      const whole = await run({ ...fixed, ...joined(1) })
      const parts = [exactly(2, first), exactly(3, second)]
      const sum = parts[0].values.map((value, i) => value + parts[1].values[i] - base[i])
      const magnitudes = parts[0].magnitudes.map((value, i) => value + parts[1].magnitudes[i])
      expectWithin(whole.data, sum, roundingBounds({ values: sum, magnitudes }, k + 8))

      const off = await run({ ...fixed, ...joined(0) })
      expectWithin(off.data, parts[0].values, roundingBounds(parts[0], k + 8))
      await release()
    })
  })

  describe('convolutions of packed weights', () => {
    it.each([
      { n: 2, h: 5, w: 4, c: 8, out: 6, stride: 1, pads: [1, 1, 1, 1], strips: 1 },
      { n: 2, h: 5, w: 4, c: 8, out: 6, stride: 1, pads: [1, 1, 1, 1], strips: 8 }, // some strips are empty
      { n: 1, h: 6, w: 7, c: 4, out: 6, stride: 2, pads: [0, 0, 1, 1], strips: 2 }, // as the VAE's encoder pads
      { n: 1, h: 7, w: 6, c: 4, out: 6, stride: 2, pads: [1, 1, 1, 1], strips: 3 },
      { n: 1, h: 3, w: 5, c: 4, out: 6, stride: 1, pads: [0, 0, 0, 0], strips: 1 },
    ] as (reference.Convolution & { stride: 1 | 2; strips: number })[])(
      '$n x $h x $w x $c, stride $stride, pads $pads, in $strips strips',
      async ({ strips, ...shape }) => {
        const { n, h, w, c, out, stride, pads } = shape
        const x = withOutliers(gaussians(n * h * w * c, 71), c)
        const bias = gaussians(out, 72)
        const { floats, on } = nbits(gaussians(out * 9 * c, 73), { n: out, k: 9 * c, bits: 4, group: 32 })
        const feeds = { x: { data: x, dims: [n, h, w, c], shape: ['n', 'h', 'w', c] } }
        const got = await evaluate(dialect, feeds, ({ x }, graph) => {
          const [weights, shift] = [on(graph), graph.constant('f32', [out], bias)]
          return convolve(x, { stride, pads, strips }, (rows) => linearNBits(rows, weights, shift, 'layer'))
        })
        const exact = reference.convolution(x, floats, bias, shape)
        expect(got.dims).toEqual([n, ...reference.sizeAfter(shape), out])
        expectWithin(got.data, exact.values, roundingBounds(exact, 9 * c + 2))
      },
    )
  })
}
