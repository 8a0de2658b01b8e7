import { describe, expect, it } from 'vitest'
import { collectSamples } from '../../main/engine/quantize-samples.ts'
import { Graph, type Layer } from '../../models/graph/graph.ts'

describe('samples of what a layer reads', () => {
  const graph = new Graph('test', { dialect: 'cpu' })
  const ramp = (shape: number[]) => ({
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i),
    shape,
  })
  const layerOf = (more: object): Layer =>
    ({ path: 'p', node: 0, input: graph.value('x', 'f32', []), kind: 'linear', ...more }) as Layer

  it('of a linear layer are whole rows, spread over all of them, others in every evaluation', () => {
    const collector = collectSamples(layerOf({}), 3, 4, 2)
    const input = ramp([100, 3])
    collector.add(input)
    collector.add(input)
    const rows = collector.finish()!
    expect(rows.length).toBe(2 * 4 * 3)
    const numbers = Array.from({ length: 8 }, (_, i) => rows[3 * i] / 3)
    numbers.forEach((row, i) => {
      expect([rows[3 * i + 1], rows[3 * i + 2]]).toEqual([3 * row + 1, 3 * row + 2])
      expect(Math.floor(row / 25)).toBe(i % 4) // one in each quarter
    })
    expect(numbers.slice(0, 4)).not.toEqual(numbers.slice(4))
  })
  it.each([
    ['plain', { kernel: 3, stride: 1, pads: [1, 1, 1, 1] }],
    ['halving', { kernel: 3, stride: 2, pads: [1, 1, 1, 1] }],
    ['halving without a left border', { kernel: 3, stride: 2, pads: [0, 0, 1, 1] }],
    ['doubled', { kernel: 3, stride: 1, pads: [1, 1, 1, 1], upsampled: true }],
    ['of one pixel', { kernel: 1, stride: 1, pads: [0, 0, 0, 0] }],
  ])('of a convolution, %s, give its output when multiplied with its weights', (_name, shape) => {
    const [channels, height, width] = [2, 5, 6]
    const x = ramp([1, channels, height, width])
    const { kernel, stride, pads } = shape
    const times = 'upsampled' in shape ? 2 : 1
    const k = kernel * kernel * channels
    const weight = Float32Array.from({ length: k }, (_, i) => ((i * 5) % 7) - 3) // [channel, ky, kx]
    const at = (c: number, y: number, x0: number) =>
      y < 0 || x0 < 0 || y >= times * height || x0 >= times * width
        ? 0
        : x.data[(c * height + Math.floor(y / times)) * width + Math.floor(x0 / times)]
    const expected: number[] = []
    for (let y = -pads[0]; y + kernel <= times * height + pads[2]; y += stride)
      for (let x0 = -pads[1]; x0 + kernel <= times * width + pads[3]; x0 += stride) {
        let sum = 0
        for (let c = 0; c < channels; c++)
          for (let ky = 0; ky < kernel; ky++)
            for (let kx = 0; kx < kernel; kx++) sum += weight[(c * kernel + ky) * kernel + kx] * at(c, y + ky, x0 + kx)
        expected.push(sum)
      }
    const collector = collectSamples(layerOf({ kind: 'conv', ...shape }), k, 1000, 1)
    collector.add(x)
    const rows = collector.finish()!
    const actual = Array.from({ length: rows.length / k }, (_, row) => {
      let sum = 0
      for (let tap = 0; tap < kernel * kernel; tap++)
        for (let c = 0; c < channels; c++) sum += rows[row * k + tap * channels + c] * weight[c * kernel * kernel + tap]
      return sum
    })
    expect(actual).toEqual(expected)
  })
})
