import { describe, expect, it } from 'vitest'
import { toColumns } from '../../../kernels/columns.ts'
import { gaussians, withOutliers } from './numbers.ts'

describe('columns of bytes', () => {
  it.each([
    { n: 5, k: 7 },
    { n: 64, k: 64 },
    { n: 130, k: 200 }, // blocks of 64 leave something over
  ])('hold every weight within half a step, turned: $n x $k', ({ n, k }) => {
    const weights = withOutliers(gaussians(n * k, 3), k)
    const { columns, scales } = toColumns(weights, { n, k })
    let worst = 0
    for (let row = 0; row < n; row++) {
      for (let i = 0; i < k; i++) {
        const error = Math.abs(columns[i * n + row] * scales[row] - weights[row * k + i])
        worst = Math.max(worst, error / scales[row])
      }
    }
    expect(worst).toBeLessThanOrEqual(0.5 + 1e-5) // 1e-5: 127 steps of a scale that is rounded to float32
    expect(columns.every((code) => code > -128)).toBe(true)
  })

  it('put the largest magnitude of each output at 127', () => {
    const { columns, scales } = toColumns(Float32Array.of(0.5, -2, 1, 3, 0, -1), { n: 2, k: 3 })
    expect([...columns]).toEqual([32, 127, -127, 0, 64, -42])
    expect([...scales]).toEqual([Math.fround(2 / 127), Math.fround(3 / 127)])
  })

  it('of an output of zeros are zeros with a scale that can be divided by', () => {
    const { columns, scales } = toColumns(new Float32Array(12), { n: 3, k: 4 })
    expect([...columns].every((code) => code === 0)).toBe(true)
    expect([...scales]).toEqual([1, 1, 1])
  })

  it('change places with their outputs', () => {
    const [n, k] = [3, 70]
    const weights = gaussians(n * k, 5)
    const order = [2, 0, 1]
    const moved = Float32Array.from(order.flatMap((row) => [...weights.subarray(row * k, (row + 1) * k)]))
    const [before, after] = [weights, moved].map((matrix) => toColumns(matrix, { n, k }))
    order.forEach((row, i) => {
      expect(after.scales[i]).toBe(before.scales[row])
      for (let j = 0; j < k; j++) expect(after.columns[j * n + i]).toBe(before.columns[j * n + row])
    })
  })

  it('say when sizes do not fit', () => {
    expect(() => toColumns(new Float32Array(7), { n: 2, k: 4 })).toThrow('7 weights')
  })
})
