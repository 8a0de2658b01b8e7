import { describe, expect, it } from 'vitest'
import { softwareVulkan } from '../../scripts/software-vulkan.ts'
import { testFragments } from './kernels-shared.ts'

// The same fragments on the WebGPU provider over SwiftShader, which has no halves in shaders. Set-up that runs as root on
// Linux installs the driver, so there its absence fails these tests.
const vulkan = softwareVulkan()
const mustRun = process.platform === 'linux' && process.getuid?.() === 0
if (vulkan.variables) Object.assign(process.env, vulkan.variables)
else console.warn(`Kernels on WebGPU are not tested: ${vulkan.reason}.`)

it.runIf(mustRun)('finds a software Vulkan driver', () => {
  expect(vulkan).toHaveProperty('variables.VK_DRIVER_FILES')
})

describe.skipIf(!vulkan.variables && !mustRun)('on WebGPU', () => testFragments('webgpu'))
