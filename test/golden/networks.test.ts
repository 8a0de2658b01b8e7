import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Tensor } from 'onnxruntime-node'
import { InferenceSession } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { requiredTensors } from '../../models/build.ts'
import type { Run } from './networks-cases.ts'
import { configOf, differences, readCases, runsOf, writeModel } from './networks-cases.ts'

// Every network against diffusers and transformers on the CPU provider, in both dialects. Differences are relative to
// the output's size.

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-networks-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe.each(readCases())('$name', (item) => {
  it('needs exactly the tensors of the reference', () => {
    const ours = [...requiredTensors(item.part, configOf(item))].map(([name, shape]) => `${name} ${shape.join()}`)
    const theirs = item.tensors.map(([name, shape]) => `${name} ${shape.join()}`)
    expect(ours.sort()).toEqual(theirs.sort())
  })

  const ways = [
    { storage: 'fp32', dialect: 'cpu', channelsLast: false, tolerance: 1e-4 },
    { storage: 'fp16', dialect: 'cpu', channelsLast: false, tolerance: 2e-2 },
    // Half-precision arithmetic operator by operator; test/engine/networks-webgpu.test.ts has float32 on the real provider.
    { storage: 'fp16', dialect: 'webgpu', channelsLast: false, fp16Compute: true, tolerance: 2e-2 },
    // As the UNets of quantised models are.
    { storage: 'fp32', dialect: 'cpu', channelsLast: true, tolerance: 1e-4 },
    { storage: 'fp32', dialect: 'webgpu', channelsLast: true, tolerance: 1e-4 },
    { storage: 'fp16', dialect: 'webgpu', channelsLast: true, fp16Compute: true, tolerance: 2e-2 },
  ] as const
  it.each(ways.filter(({ channelsLast }) => item.part === 'unet' || !channelsLast))(
    'gives the outputs of the reference: $storage weights, $dialect dialect, channels last: $channelsLast',
    async ({ storage, tolerance, ...options }) => {
      const deep = new Map<Run, Tensor>()
      for (const [network, path] of writeModel(folder, item, storage, options)) {
        const session = await InferenceSession.create(path, { intraOpNumThreads: 1, logSeverityLevel: 3 })
        const runs = runsOf(item, network)
        expect(runs.length).toBeGreaterThan(0)
        for (const run of runs) {
          for (const { output, shape, expectedShape, relative } of await differences(session, run, deep)) {
            expect(shape, `${network}: shape of ${output}`).toEqual(expectedShape)
            expect(relative, `${network}: ${output}`).toBeLessThanOrEqual(tolerance)
          }
        }
        await session.release()
      }
    },
  )
})
