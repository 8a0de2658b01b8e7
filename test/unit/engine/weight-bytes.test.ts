import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadedWeightBytes } from '../../../main/engine/weight-bytes.ts'
import { Graph } from '../../../models/graph/graph.ts'
import { toOnnx } from '../../../models/graph/onnx.ts'
import { Weights, type Dtype } from '../../../models/graph/weights.ts'

let folder: string
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'vignette-bytes-'))))
afterAll(() => rmSync(folder, { recursive: true }))

/** A graph that has these tensors as weights in a file that is not there: only the graph is looked at. */
function bytesOf(tensors: Record<string, [Dtype, number[]]>): number {
  const table = new Map(
    Object.entries(tensors).map(([name, [dtype, shape]]) => [
      name,
      { file: 'nothing.bin', offset: 0, length: 0, dtype, shape },
    ]),
  )
  const graph = new Graph('weights', { dialect: 'cpu' })
  for (const [name, [, shape]] of Object.entries(tensors)) graph.weight(new Weights(table), name, shape)
  const file = join(folder, 'weights.onnx')
  writeFileSync(file, toOnnx(graph))
  return loadedWeightBytes(file)
}

test('codes and columns count as they are stored, halves as the floats they become', () => {
  const layer = { q4: ['U8', [640, 5, 32]], scales: ['F16', [640, 5]] } satisfies Record<string, [Dtype, number[]]>
  expect(bytesOf({ q4: layer.q4 })).toBe(640 * 320 * 0.5)
  expect(bytesOf(layer)).toBe(640 * 160 + 4 * 640 * 5)
  expect(bytesOf({ columns: ['I8', [320, 640]], column_scales: ['F32', [640]] })).toBe(320 * 640 + 4 * 640)
  expect(bytesOf({ weight: ['F16', [640, 320]] })).toBe(4 * 640 * 320)
  expect(bytesOf({})).toBe(0)
})
