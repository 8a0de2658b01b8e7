import { describe, expect, test } from 'vitest'
import { orthonormalizeRows, plainMatMul } from '../../../models/quantize/algebra.ts'
import { truncatedSvd } from '../../../models/quantize/svd.ts'
import { expectClose } from '../../expect-close.ts'
import { normalMatrix } from './problem.ts'

/** a [n, k] with these singular values; rows of `left` and `right` are its vectors. */
function planted(n: number, k: number, values: readonly number[]) {
  const basis = (length: number, seed: number) => {
    const rows = Float64Array.from(normalMatrix(values.length, length, seed))
    orthonormalizeRows(rows, values.length, length)
    return rows
  }
  const [left, right] = [basis(n, 1), basis(k, 2)]
  const a = new Float64Array(n * k)
  values.forEach((value, s) => {
    for (let i = 0; i < n; i++) for (let j = 0; j < k; j++) a[i * k + j] += value * left[s * n + i] * right[s * k + j]
  })
  return { a: Float32Array.from(a), right }
}

describe.each([
  ['a steep spectrum', Array.from({ length: 60 }, (_, i) => 10 * 0.7 ** i)],
  ['a bend after the eighth value', Array.from({ length: 60 }, (_, i) => (i < 8 ? 9 - i : 0.8 - 0.01 * i))],
])('%s', (_, values) => {
  const [n, k, rank] = [90, 70, 8]
  const { a, right } = planted(n, k, values)

  test('has its singular values and subspace found', async () => {
    const found = await truncatedSvd(a, n, k, { rank, matMul: plainMatMul })
    expectClose(found.values, values.slice(0, rank), { rel: 1e-3 })
    // Σ cos² of the angles between both subspaces is their dimension when they are the same.
    let overlap = 0
    for (let i = 0; i < rank; i++) {
      for (let s = 0; s < rank; s++) {
        let cosine = 0
        for (let j = 0; j < k; j++) cosine += found.down[i * k + j] * right[s * k + j]
        overlap += cosine ** 2
      }
    }
    expect(overlap).toBeCloseTo(rank, 2)
  })

  test('leaves hardly more than the best approximation does', async () => {
    const { up, down } = await truncatedSvd(a, n, k, { rank, matMul: plainMatMul })
    const product = await plainMatMul(up, [n, rank], down, [rank, k])
    const left = a.reduce((sum, value, i) => sum + (value - product[i]) ** 2, 0)
    const least = values.slice(rank).reduce((sum, value) => sum + value ** 2, 0)
    expect(left / least).toBeLessThan(1.002)
    expect(left / least).toBeGreaterThan(0.999)
  })
})

test('the same seed gives the same bits', async () => {
  const a = normalMatrix(20, 30, 9)
  const runs = [3, 3, 4].map((seed) => truncatedSvd(a, 20, 30, { rank: 4, matMul: plainMatMul, seed }))
  const [one, two, other] = await Promise.all(runs)
  expect(two.down).toEqual(one.down)
  expect(other.down).not.toEqual(one.down)
})

test('a rank beyond the matrix gives the matrix back, a lower one than asked for', async () => {
  const a = normalMatrix(6, 20, 8)
  const { rank, up, down } = await truncatedSvd(a, 6, 20, { rank: 16, matMul: plainMatMul })
  expect(rank).toBe(6)
  expectClose(await plainMatMul(up, [6, rank], down, [rank, 20]), a, { abs: 1e-5 })
})

test('zeros and matrices of lower rank are no trouble', async () => {
  const zeros = await truncatedSvd(new Float32Array(200), 10, 20, { rank: 3, matMul: plainMatMul })
  expect([...zeros.up, ...zeros.values].every((value) => value === 0)).toBe(true)
  const { a } = planted(10, 20, [2, 1])
  const { values } = await truncatedSvd(a, 10, 20, { rank: 4, matMul: plainMatMul })
  expectClose(values, [2, 1, 0, 0], { abs: 1e-5 })
})
