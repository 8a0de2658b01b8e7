import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { BuildOptions } from '../../models/build.ts'
import { buildNetworks } from '../../models/build.ts'
import { plainMatMul } from '../../models/quantize/algebra.ts'
import { expandWeights, isExpandedFrom } from '../../models/quantize/expand.ts'
import type { UnetConfig } from '../../models/unet.ts'
import { softwareVulkan } from '../../scripts/software-vulkan.ts'
import type { Case, Run } from '../golden/networks-cases.ts'
import { configOf, expectedOf, feedsOf, readCases } from '../golden/networks-cases.ts'
import { tableOf, writeQuantizedCase } from './quantized-case.ts'

// One quantised file, run in each of the three ways, against diffusers in float32. Distances are signal to noise in dB.

const cases = readCases().filter(({ part }) => part === 'unet')
const vulkan = softwareVulkan()

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-quantized-'))
  Object.assign(process.env, vulkan.variables)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** 10 · log10 of the power of `expected` over that of the difference. */
function decibels(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length)
  let signal = 0
  let noise = 0
  for (let i = 0; i < expected.length; i++) {
    signal += expected[i] ** 2
    noise += (actual[i] - expected[i]) ** 2
  }
  return 10 * Math.log10(signal / noise)
}

/** Opens the UNet over the weights in `at`. */
async function open(at: string, item: Case, options: BuildOptions, provider = 'cpu'): Promise<InferenceSession> {
  const tensors = await tableOf(join(at, 'unet.safetensors'))
  const [{ onnx }] = buildNetworks([{ part: 'unet', config: configOf(item) as UnetConfig, tensors }], options)
  const path = join(at, `${options.dialect}.onnx`)
  writeFileSync(path, onnx)
  return InferenceSession.create(path, { executionProviders: [provider], intraOpNumThreads: 1, logSeverityLevel: 3 })
}

/** The pictures of a run one after the other, as the fast mode wants them. */
async function evaluate(session: InferenceSession, run: Run): Promise<Float32Array> {
  const feeds = feedsOf(run)
  const rows: Float32Array[] = []
  for (let row = 0; row < feeds.sample.dims[0]; row++) {
    const single = Object.entries(feeds).map(([name, { data, dims }]) => {
      const size = data.length / dims[0]
      const part = (data as Float32Array).slice(row * size, (row + 1) * size)
      return [name, new Tensor('float32', part, [1, ...dims.slice(1)])]
    })
    const { out_sample: out } = await session.run(Object.fromEntries(single))
    rows.push(out.data as Float32Array)
  }
  return Float32Array.from(rows.flatMap((part) => [...part]))
}

async function evaluateRuns(session: InferenceSession, item: Case): Promise<Float32Array[]> {
  const results: Float32Array[] = []
  for (const run of item.runs) results.push(await evaluate(session, run))
  await session.release()
  return results
}

/** The fast file of the weights in `at`, in a folder inside. */
async function expand(at: string, item: Case): Promise<string> {
  const fast = join(at, 'fast')
  mkdirSync(fast, { recursive: true })
  const [source, target] = [join(at, 'unet.safetensors'), join(fast, 'unet.safetensors')]
  await expandWeights(source, target, { config: configOf(item) as UnetConfig, matMul: plainMatMul })
  expect(await isExpandedFrom(target, source)).toBe(true)
  return fast
}

function home(name: string): string {
  const at = join(folder, name)
  mkdirSync(at, { recursive: true })
  return at
}

describe.each(cases)('$name', (item) => {
  const expected = item.runs.map((run) => expectedOf(run.outputs.out_sample))
  const distances = (outputs: Float32Array[], others = expected) => outputs.map((out, i) => decibels(out, others[i]))

  it('in 8 bits comes close to the reference, low on memory or fast', async () => {
    const at = home(`${item.name}-q8`)
    await writeQuantizedCase(at, item, { bits: 8, rank: 0 })
    const lowMemory = await evaluateRuns(await open(at, item, { dialect: 'cpu' }), item)
    const fast = await evaluateRuns(await open(await expand(at, item), item, { dialect: 'cpu' }), item)
    // Weights of 8 bits in groups alone leave 31.7 to 36.4 dB on these random networks; one scale per column of weights
    // and bytes for activations, 21.9 to 29.2 (the SDXL one amplifies most).
    expect(Math.min(...distances(lowMemory))).toBeGreaterThan(30)
    expect(Math.min(...distances(fast))).toBeGreaterThan(20)
  })
})

describe('one 4-bit file with branches', () => {
  const item = cases.find(({ name }) => name === 'no-middle')!
  const quality = { bits: 4, rank: 4 } as const

  it('gives in every mode nearly the same', async () => {
    const at = home('q4')
    await writeQuantizedCase(at, item, quality)
    const [lowMemory] = await evaluateRuns(await open(at, item, { dialect: 'cpu' }), item)
    const [fast] = await evaluateRuns(await open(await expand(at, item), item, { dialect: 'cpu' }), item)
    // 4 bits of random weights with a branch of rank 4, nearest codes: 13.2 dB. Between the modes there is only the
    // rounding of the fast mode (30.4 dB) and of float32 (99 dB).
    expect(decibels(lowMemory, expectedOf(item.runs[0].outputs.out_sample))).toBeGreaterThan(12)
    expect(decibels(fast, lowMemory)).toBeGreaterThan(28)
    if (!vulkan.variables) return
    const [webgpu] = await evaluateRuns(await open(at, item, { dialect: 'webgpu' }, 'webgpu'), item)
    expect(decibels(webgpu, lowMemory)).toBeGreaterThan(80)
  })
})
