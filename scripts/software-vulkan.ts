import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'

// SwiftShader, a Vulkan driver that runs on the CPU: with it the WebGPU provider can be tested on a machine without a
// GPU. Debian's chromium package carries it, and so does Electron. Slow (1 to 2 s for a 1280² linear): tiny networks only.

const driver = 'vk_swiftshader_icd.json'

/** Where Chromium or an Electron that we unpacked keeps its own copy of the driver. */
function folders(): string[] {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'vignette')
  const electrons = existsSync(cache) ? readdirSync(cache).filter((name) => name.startsWith('electron-')) : []
  return [
    '/usr/lib/chromium',
    '/usr/lib/chromium-browser',
    '/usr/lib64/chromium-browser',
    '/opt/google/chrome',
    ...electrons.map((name) => join(cache, name)),
  ]
}

export type SoftwareVulkan = { variables: Record<string, string> } | { variables: undefined; reason: string }

/**
 * The environment variables that make Vulkan use SwiftShader, for this process (set them before the first session) or
 * a child; or why there are none.
 */
export function softwareVulkan(): SoftwareVulkan {
  if (process.platform !== 'linux')
    return { variables: undefined, reason: `SwiftShader is set up on Linux only, not on ${process.platform}` }
  const found = folders().find((folder) => existsSync(join(folder, driver)))
  if (!found) {
    return {
      variables: undefined,
      reason: `No ${driver} in ${folders().join(', ')}: install Debian's chromium package`,
    }
  }
  // The loader wants a folder of its own to write to; without a desktop session there is none.
  const runtime = process.env.XDG_RUNTIME_DIR ?? join(tmpdir(), `vignette-runtime-${process.getuid?.() ?? 0}`)
  mkdirSync(runtime, { recursive: true, mode: 0o700 })
  const path = join(found, driver)
  return { variables: { VK_DRIVER_FILES: path, VK_ICD_FILENAMES: path, XDG_RUNTIME_DIR: runtime } }
}
