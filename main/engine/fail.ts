import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { vignetteHome } from '../../models/home.ts'
import { outOfMemory } from './networks.ts'

// Failures on purpose, for tests of what the application does about them: VIGNETTE_FAIL=memory@3, kill@3 or hold@3, and only with
// VIGNETTE_E2E=1, which a packaged application takes out of its environment. Each happens once: a mark in VIGNETTE_HOME
// (or at VIGNETTE_FAIL_MARK) says that it has, also to the engine that is started afterwards.

/** Before step `step` is told: memory runs out, as it does in ONNX Runtime. */
export function failBefore(step: number): void {
  if (isDue(`memory@${step}`)) throw outOfMemory('Running the drawing network', 2e9)
}

/**
 * After it is told: the process is gone, as if the system had taken it; or it waits, until there is a file `go-on` in
 * VIGNETTE_HOME, so that a test does something in the middle of a picture however fast that is made.
 */
export async function failAfter(step: number): Promise<void> {
  if (isDue(`hold@${step}`)) {
    while (!existsSync(join(vignetteHome(), 'go-on'))) await new Promise((resolve) => setTimeout(resolve, 50))
  }
  if (!isDue(`kill@${step}`)) return
  // What was said last is still on its way.
  await new Promise((resolve) => setTimeout(resolve, 100))
  process.kill(process.pid, 'SIGKILL')
}

function isDue(failure: string): boolean {
  const { VIGNETTE_E2E, VIGNETTE_FAIL, VIGNETTE_FAIL_MARK } = process.env
  if (VIGNETTE_E2E !== '1' || VIGNETTE_FAIL !== failure) return false
  const mark = VIGNETTE_FAIL_MARK ?? join(vignetteHome(), 'failed-on-purpose')
  if (existsSync(mark) && readFileSync(mark, 'utf8') === failure) return false
  writeFileSync(mark, failure)
  return true
}
