import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { guidanceNumbers } from '../../models/adapters/guidance.ts'
import { buildNetworks } from '../../models/build.ts'
import type { UnetConfig } from '../../models/unet.ts'
import { distilledGuidance } from '../../main/pipeline/guidance.ts'
import { expectClose } from '../expect-close.ts'
import { configOf, expectedOf, feedsOf, scaleOf, storeWeights, weightOf, type Case, type Run } from './networks-cases.ts'

// A guidance-distillation adapter beside tiny UNets, against diffusers with the adapter hooked in (guidance.py).

type GuidanceCase = Omit<Case, 'part' | 'runs'> & {
  width: number
  adapter: [name: string, shape: number[]][]
  runs: (Run & { scales: number[] })[]
}

const packed = readFileSync(new URL('guidance.json.gz', import.meta.url))
const cases = JSON.parse(gunzipSync(packed).toString()) as GuidanceCase[]

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-guidance-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe.each(cases)('guidance in one evaluation: $name', ({ width, adapter, runs, ...rest }) => {
  const item: Case = { ...rest, part: 'unet', tensors: [], runs }
  const tensors = new Map(adapter.map(([name, shape]) => [name, { data: weightOf(name, shape), shape }]))
  const sites = adapter.flatMap(([name]) => /^sites\.(.*)\.to_q\.weight$/.exec(name)?.[1] ?? [])
  const numbers = guidanceNumbers(width, sites, tensors)
  const loaded = { name: 'golden', sha256: '', width, guidanceRange: [1, 12] as const, ...numbers }

  it.each([
    { dialect: 'cpu', channelsLast: false },
    { dialect: 'cpu', channelsLast: true },
    { dialect: 'webgpu', channelsLast: false },
  ] as const)('gives the reference, $dialect dialect, channels last: $channelsLast', async (options) => {
    const table = storeWeights(folder, item, 'fp32')
    const part = { part: 'unet' as const, config: configOf(item) as UnetConfig, tensors: table }
    const [{ onnx }] = buildNetworks([part], { ...options, guidance: { width } })
    const path = join(folder, 'unet.onnx')
    writeFileSync(path, onnx)
    const session = await InferenceSession.create(path, { intraOpNumThreads: 1, logSeverityLevel: 3 })
    for (const run of runs) {
      const feeds = feedsOf(run)
      const tokens = feeds.encoder_hidden_states.dims[1]
      const wishes = { scales: run.scales, rescale: 0, hasNegativePrompt: false }
      const more = distilledGuidance(loaded, wishes).inputs([...run.scales.keys()], tokens)
      expectClose(more['guidance.token'].data, expectedOf(run.outputs.token), { abs: 1e-5 })
      expectClose(more['guidance.positions'].data, expectedOf(run.outputs.positions), { abs: 2e-5 })
      for (const [name, { data, shape }] of Object.entries(more))
        feeds[name] = new Tensor('float32', data as Float32Array, shape)
      const { out_sample: out } = await session.run(feeds)
      const expected = expectedOf(run.outputs.out_sample)
      // float32 on both sides, sums in another order.
      expectClose(out.data as Float32Array, expected, { abs: 1e-4 * scaleOf(expected) })
      expect(scaleOf(expectedOf(run.outputs.plain).map((value, i) => value - expected[i]))).toBeGreaterThan(0.01)
    }
    await session.release()
  })
})
