import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { requiredTensors } from '../../models/build.ts'
import { configOf, differences, readCases, writeModel } from './networks-cases.ts'

// Every network against diffusers and transformers on the CPU provider. Differences are relative to the output's size.
const tolerances = { fp32: 1e-4, fp16: 2e-2 }

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

  it.each(['fp32', 'fp16'] as const)('gives the outputs of the reference from %s weights', async (storage) => {
    const paths = writeModel(folder, item, storage, { dialect: 'cpu' })
    for (const [network, path] of paths) {
      const session = await InferenceSession.create(path, { intraOpNumThreads: 1 })
      const runs = item.runs.filter((run) => run.network === network)
      expect(runs.length).toBeGreaterThan(0)
      for (const run of runs) {
        for (const { output, shape, expectedShape, relative } of await differences(session, run)) {
          expect(shape, `${network}: shape of ${output}`).toEqual(expectedShape)
          expect(relative, `${network}: ${output}`).toBeLessThanOrEqual(tolerances[storage])
        }
      }
      await session.release()
    }
  })
})
