import { describe, expect, test } from 'vitest'
import { orthonormalizeRows, plainMatMul, smallSvd, upperCholesky, whole } from '../../../models/quantize/algebra.ts'
import { expectClose } from '../../expect-close.ts'
import { normalMatrix } from './problem.ts'

const product = async (a: Float64Array, b: Float64Array, rows: number, inner: number, columns: number) =>
  plainMatMul(Float32Array.from(a), [rows, inner], Float32Array.from(b), [inner, columns])

test('products of every orientation agree', async () => {
  const [a, b] = [normalMatrix(3, 5, 1), normalMatrix(5, 4, 2)]
  const turned = (m: Float32Array, rows: number, columns: number) =>
    Float32Array.from(m, (_, i) => m[(i % rows) * columns + Math.floor(i / rows)])
  const expected = await plainMatMul(a, [3, 5], b, [5, 4])
  expect(expected[6]).toBeCloseTo(a[5] * b[2] + a[6] * b[6] + a[7] * b[10] + a[8] * b[14] + a[9] * b[18], 5)
  const [at, bt] = [turned(a, 3, 5), turned(b, 5, 4)]
  expectClose(await plainMatMul(at, [5, 3], b, [5, 4], { transposeA: true }), expected, { abs: 1e-6 })
  expectClose(await plainMatMul(a, [3, 5], bt, [4, 5], { transposeB: true }), expected, { abs: 1e-6 })
  const both = { transposeA: true, transposeB: true }
  expectClose(await plainMatMul(at, [5, 3], bt, [4, 5], both), expected, { abs: 1e-6 })
  await expect(plainMatMul(a, [3, 5], b, [4, 5])).rejects.toThrow('do not fit')
})

test('adding and taking away `whole` rounds to the nearest, halves to even', () => {
  expect([0.4, 0.5, 1.5, -1.5, -2.5, -0.6, 7.49].map((x) => x + whole - whole)).toEqual([0, 0, 2, -2, -2, -1, 7])
})

describe('orthonormal rows', () => {
  test('span what the rows spanned', async () => {
    const rows = Float64Array.from(normalMatrix(6, 40, 3))
    const before = rows.slice()
    const r = orthonormalizeRows(rows, 6, 40)
    const gram = await plainMatMul(Float32Array.from(rows), [6, 40], Float32Array.from(rows), [6, 40], {
      transposeB: true,
    })
    expectClose(
      gram,
      Float32Array.from({ length: 36 }, (_, i) => (i % 7 === 0 ? 1 : 0)),
      { abs: 1e-6 },
    )
    expectClose(await product(r, rows, 6, 6, 40), before, { abs: 1e-5 })
  })

  test('a row that depends on earlier ones becomes zero', () => {
    const rows = Float64Array.of(3, 4, 0, 6, 8, 0, 1, 1, 1)
    orthonormalizeRows(rows, 3, 3)
    expect([...rows.subarray(3, 6)]).toEqual([0, 0, 0])
    expectClose(rows.subarray(0, 3), [0.6, 0.8, 0], { abs: 1e-12 })
    expect(Math.hypot(...rows.subarray(6))).toBeCloseTo(1, 12)
  })
})

test('singular values and vectors of a small matrix, tiny values included', async () => {
  const n = 12
  const [left, right] = [4, 5].map((seed) => Float64Array.from(normalMatrix(n, n, seed)))
  orthonormalizeRows(left, n, n)
  orthonormalizeRows(right, n, n)
  const values = Float64Array.from({ length: n }, (_, i) => 3 * 10 ** (-i / 1.5)) // 3 down to 1.4e-7
  const a = new Float64Array(n * n)
  for (let s = 0; s < n; s++)
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) a[i * n + j] += values[s] * left[s * n + i] * right[s * n + j]
  const found = smallSvd(a, n)
  expectClose(found.values, values, { rel: 1e-6, abs: 1e-13 })
  for (let s = 0; s < n; s++) {
    const cosine = (of: Float64Array, to: Float64Array) =>
      Array.from({ length: n }, (_, i) => of[s * n + i] * to[s * n + i]).reduce((sum, x) => sum + x, 0)
    expect(cosine(found.left, left) * cosine(found.right, right)).toBeCloseTo(1, 5)
  }
})

describe('Cholesky from the last row up', () => {
  test.each([5, 64, 150])('%i rows: u is upper triangular and u · uᵀ is the matrix', async (n) => {
    const x = normalMatrix(2 * n, n, n)
    const gram = Float64Array.from(await plainMatMul(x, [2 * n, n], x, [2 * n, n], { transposeA: true }))
    const u = await upperCholesky(gram.slice(), n, plainMatMul)
    if (!u) throw new Error('not positive definite')
    for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) if (u[i * n + j] !== 0) throw new Error(`u[${i}, ${j}]`)
    const narrow = Float32Array.from(u)
    const back = await plainMatMul(narrow, [n, n], narrow, [n, n], { transposeB: true })
    expectClose(back, gram, { abs: 2e-5 * 2 * n })
  })

  test('a matrix that is not positive definite has none', async () => {
    expect(await upperCholesky(Float64Array.of(1, 2, 2, 1), 2, plainMatMul)).toBeUndefined()
  })
})
