import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { graphFile } from '../../models/checkpoint/graphs.ts'
import { installStarter } from '../../models/starter/install.ts'
import { softwareVulkan } from '../../scripts/software-vulkan.ts'

// Thinned keys and the outer layers alone, on the WebGPU provider over SwiftShader against the processor's numbers.
// Whether the driver must be there is for networks-webgpu.test.ts to say.
const vulkan = softwareVulkan()
if (!vulkan.variables) console.warn(`Speeds on WebGPU are not tested: ${vulkan.reason}.`)

let home: string
let folder: string
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'vignette-reuse-webgpu-'))
  Object.assign(process.env, vulkan.variables)
  folder = await installStarter(home)
}, 60_000)
afterAll(() => rmSync(home, { recursive: true, force: true }))

const waves = (shape: number[]) =>
  new Tensor(
    'float32',
    Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i * 1.3 + (i % 17))),
    shape,
  )
const inputs = (stride: bigint) => ({
  sample: waves([2, 8, 8, 6]),
  timestep: new Tensor('float32', [400, 400], [2]),
  encoder_hidden_states: waves([2, 77, 128]),
  key_stride: new Tensor('int64', BigInt64Array.of(stride), [1]),
})

describe.skipIf(!vulkan.variables)('on WebGPU', () => {
  it('every stride of the keys gives the numbers of the processor, whole and in the outer layers alone', async () => {
    const results: Record<string, Float32Array>[] = []
    for (const [provider, dialect] of [
      ['cpu', 'cpu'],
      ['webgpu', 'webgpu'],
    ] as const) {
      const found: Record<string, Float32Array> = {}
      const open = (network: 'unet' | 'unet_shallow') =>
        InferenceSession.create(join(folder, graphFile(network, dialect)), {
          executionProviders: [provider],
          intraOpNumThreads: 1,
          logSeverityLevel: 4,
        })
      const [whole, outer] = [await open('unet'), await open('unet_shallow')]
      for (const stride of [1n, 2n]) {
        const all = await whole.run(inputs(stride))
        found[`whole, stride ${stride}`] = all.out_sample.data as Float32Array
        found[`deep, stride ${stride}`] = all.deep.data as Float32Array
        const part = await outer.run({ ...inputs(stride), deep: all.deep })
        found[`outer, stride ${stride}`] = part.out_sample.data as Float32Array
      }
      await whole.release()
      await outer.release()
      results.push(found)
    }
    const [cpu, gpu] = results
    for (const [name, expected] of Object.entries(cpu)) {
      const largest = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - gpu[name][i])), 0)
      const size = Math.sqrt(expected.reduce((sum, value) => sum + value * value, 0) / expected.length)
      expect(gpu[name].length).toBe(expected.length)
      expect(largest / size, name).toBeLessThanOrEqual(1e-3)
    }
    expect(cpu['whole, stride 2']).not.toEqual(cpu['whole, stride 1'])
  }, 300_000)
})
