import { fork } from 'node:child_process'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { dirname, join } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { vignetteHome } from '../../models/home.ts'
import type { DeviceReport } from '../../preload/contract.ts'
import { bundledProviders, runtimeVersion, type Provider } from './networks.ts'
import { probeArgument, type ProbeResult } from './probe.ts'
import type { DeviceChoice } from './protocol.ts'

/** A graphics driver that hangs must not hang the start; compiling a dozen small shaders takes a second or two. */
const limitMs = { auto: 10_000, gpu: 60_000 }
/** Drivers are updated, cards are changed: what was found is believed for a week. */
const dayMs = 24 * 3600 * 1000
/** No answer in time may have been a busy moment: that is believed for a day, and not at all when the card is asked for. */
const lifetimeMs = (entry: CacheEntry, choice: DeviceChoice) =>
  entry.isFinal ? 7 * dayMs : choice === 'gpu' ? 0 : dayMs

/** Graphics providers in the order they are tried. Their libraries are in the npm package on the platforms named. */
const candidates: Partial<Record<NodeJS.Platform, Provider[]>> = {
  win32: ['webgpu', 'dml'],
  darwin: ['webgpu', 'coreml'],
  linux: ['webgpu'],
}

const providerNames: Record<Provider, string> = {
  cpu: 'Processor',
  webgpu: 'Graphics card (WebGPU)',
  dml: 'Graphics card (DirectML)',
  coreml: 'Apple graphics (Core ML)',
  cuda: 'Graphics card (CUDA)',
}

/**
 * What to run on. A graphics provider counts only after a small graph of the operators we need ran on it, with the
 * right numbers and without help from the processor, in a process of its own: a broken driver may abort that one.
 * `auto` also wants it to be faster than the processor, which a card emulated in software never is.
 * `probeEntry` is the engine's entry file.
 */
export async function chooseDevice(choice: DeviceChoice, probeEntry: string, limit?: number): Promise<DeviceReport> {
  if (choice === 'cpu') return processor('It was chosen.')
  const failures: string[] = []
  for (const provider of candidates[process.platform] ?? []) {
    if (!bundledProviders().includes(provider)) continue
    const result = await probe(provider, probeEntry, choice, limit ?? limitMs[choice])
    const name = providerNames[provider]
    if (!result.isUsable) failures.push(`${name}: ${result.reason}`)
    else {
      const times = `${result.gpuMs.toFixed(1)} ms against ${result.cpuMs.toFixed(1)} ms on the processor`
      if (choice === 'gpu') return { provider, name, reason: `It was chosen; a test took ${times}.` }
      if (result.gpuMs < result.cpuMs) return { provider, name, reason: `A test took ${times}.` }
      failures.push(`${name}: slower than the processor, ${times}`)
    }
  }
  const reason = failures.length > 0 ? failures.join('; ') : 'none is supported on this system'
  if (choice === 'auto') return processor(`No graphics card is used. ${reason}.`)
  throw new VignetteError('bad-request', `No graphics card can be used here. ${reason}.`, {
    hint: 'Use the processor (--device cpu), or let Vignette choose (--device auto).',
  })
}

/** The processor, and why it is that. */
export function processor(reason: string): DeviceReport {
  return { provider: 'cpu', name: cpus()[0]?.model.trim() || providerNames.cpu, reason }
}

/** The remembered result of a probe, or a new one. */
async function probe(provider: Provider, entry: string, choice: DeviceChoice, limit: number): Promise<ProbeResult> {
  const file = join(vignetteHome(), 'device.json')
  // What decides the outcome as far as we can see it: our runtime, the system, and where the Vulkan driver comes from.
  const drivers = [process.env.VK_DRIVER_FILES, process.env.VK_ICD_FILENAMES].join('|')
  const key = [runtimeVersion, provider, process.platform, process.arch, release(), drivers].join(' ')
  const known = readCache(file)
  const hit = known[key]
  if (hit && Date.now() - hit.at < lifetimeMs(hit, choice) && hit.at <= Date.now()) return hit.result
  const { result, isFinal } = await runInChild(provider, entry, limit)
  writeCache(file, { ...known, [key]: { at: Date.now(), isFinal, result } })
  return result
}

type CacheEntry = { at: number; isFinal: boolean; result: ProbeResult }
type Cache = Record<string, CacheEntry>

function readCache(file: string): Cache {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Cache
  } catch {
    return {}
  }
}

/** A cache that cannot be written costs half a second at the next start, nothing more. */
function writeCache(file: string, cache: Cache): void {
  try {
    mkdirSync(dirname(file), { recursive: true })
    const temporary = `${file}.${process.pid}.tmp`
    writeFileSync(temporary, JSON.stringify(cache, null, 1))
    renameSync(temporary, file)
  } catch {
    // As said.
  }
}

function runInChild(
  provider: Provider,
  entry: string,
  limit: number,
): Promise<{ result: ProbeResult; isFinal: boolean }> {
  return new Promise((resolve) => {
    // Inside Electron the executable is Electron: this makes it behave as Node.
    const env = process.versions.electron ? { ...process.env, ELECTRON_RUN_AS_NODE: '1' } : process.env
    const child = fork(entry, [probeArgument, provider], { env, serialization: 'advanced', stdio: 'ignore' })
    const unusable = (reason: string) => ({ result: { isUsable: false as const, reason }, isFinal: true })
    let answer: { result: ProbeResult; isFinal: boolean } = unusable('its driver ended the test program')
    const timer = setTimeout(() => {
      answer = { ...unusable(`no answer within ${limit / 1000} s`), isFinal: false }
      child.kill('SIGKILL')
    }, limit)
    child.on('message', (message) => {
      answer = { result: message as ProbeResult, isFinal: true }
      // Some drivers crash or hang while they are shut down, after the work is done: it gets no chance to.
      child.kill('SIGKILL')
    })
    child.on('error', (error) => (answer = { ...unusable(error.message), isFinal: false }))
    // 'close' comes after 'exit' and 'error', when no message can arrive any more.
    child.on('close', () => {
      clearTimeout(timer)
      resolve(answer)
    })
  })
}
