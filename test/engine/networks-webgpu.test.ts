import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Tensor } from 'onnxruntime-node'
import { InferenceSession } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { softwareVulkan } from '../../scripts/software-vulkan.ts'
import type { Run } from '../golden/networks-cases.ts'
import { differences, readCases, runsOf, writeModel } from '../golden/networks-cases.ts'

// The WebGPU dialect on the WebGPU provider over SwiftShader, against diffusers and transformers. Set-up that runs as
// root on Linux installs the driver, so there its absence fails these tests; elsewhere they are skipped and say why.
const vulkan = softwareVulkan()
const mustRun = process.platform === 'linux' && process.getuid?.() === 0
if (!vulkan.variables) console.warn(`WebGPU networks are not tested: ${vulkan.reason}.`)

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-webgpu-'))
  Object.assign(process.env, vulkan.variables)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Kernel = { provider?: string; op_name?: string; output_type_shape?: Record<string, number[]>[] }

/**
 * Operators on floats that ran on the processor, in the profile that `session` wrote under `prefix`. Sizes and ids are
 * whole numbers, which the runtime itself prefers to work out there.
 */
function floatsOnCpu(session: InferenceSession, prefix: string): string[] {
  session.endProfiling()
  const file = readdirSync(folder).find((name) => name.startsWith(prefix))!
  const events = JSON.parse(readFileSync(join(folder, file), 'utf8')) as { cat: string; args?: Kernel }[]
  const kernels = events.flatMap(({ cat, args }) => (cat === 'Node' && args?.provider ? [args] : []))
  expect(
    kernels.some(({ provider }) => provider === 'WebGpuExecutionProvider'),
    'some work on the GPU',
  ).toBe(true)
  const isFloat = ({ output_type_shape: outputs }: Kernel) => outputs?.some((output) => 'float' in output)
  return kernels
    .filter((kernel) => kernel.provider === 'CPUExecutionProvider' && isFloat(kernel))
    .map((kernel) => kernel.op_name ?? '?')
}

it.runIf(mustRun)('finds a software Vulkan driver', () => {
  expect(vulkan).toHaveProperty('variables.VK_DRIVER_FILES')
})

describe.skipIf(!vulkan.variables && !mustRun)('on WebGPU', () => {
  const cases = readCases().map((item) => ({ item, name: item.name, channelsLast: false }))
  // Software takes half a minute for each; the same graphs of all the others run on the processor in the golden tests.
  const quantised = cases
    .filter(({ name }) => name === 'sd1' || name === 'no-middle')
    .map((entry) => ({ ...entry, channelsLast: true }))
  it.each([...cases, ...quantised])(
    '$name gives the outputs of the reference, channels last: $channelsLast',
    async ({ item, channelsLast }) => {
      const deep = new Map<Run, Tensor>()
      for (const [network, path] of writeModel(folder, item, 'fp32', { dialect: 'webgpu', channelsLast })) {
        const prefix = `profile-${item.name}-${channelsLast}-${network}-`
        const session = await InferenceSession.create(path, {
          executionProviders: ['webgpu'],
          enableProfiling: true,
          profileFilePrefix: join(folder, prefix),
          logSeverityLevel: 3,
        })
        for (const run of runsOf(item, network)) {
          for (const { output, shape, expectedShape, relative } of await differences(session, run, deep)) {
            expect(shape, `${network}: shape of ${output}`).toEqual(expectedShape)
            expect(relative, `${network}: ${output}`).toBeLessThanOrEqual(1e-3)
          }
        }
        expect(floatsOnCpu(session, prefix), `${network}: operators that fell back to the processor`).toEqual([])
        await session.release()
      }
    },
    300_000,
  )
})
