import { cpus, release } from 'node:os'
import { VignetteError } from '../../models/errors.ts'
import type { DeviceReport, FourBitReport } from '../../preload/contract/models.ts'
import { bundledProviders, runtimeVersion, type Provider } from './networks.ts'
import { probeArgument, probeVersion, type ExtraResult, type ProbeResult } from './probe.ts'
import type { DeviceChoice } from './protocol.ts'
import { recall, remember, runTestChild } from './test-child.ts'

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
    const { result, extras } = await probe(provider, probeEntry, choice, limit ?? limitMs[choice])
    const name = providerNames[provider]
    if (!result.isUsable) failures.push(`${name}: ${result.reason}`)
    else {
      const times = `${result.gpuMs.toFixed(1)} ms against ${result.cpuMs.toFixed(1)} ms on the processor`
      const about = { provider, name, fourBit: fourBitOnCard(extras) }
      if (choice === 'gpu') return { ...about, reason: `It was chosen; a test took ${times}.` }
      if (result.gpuMs < result.cpuMs) return { ...about, reason: `A test took ${times}.` }
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

/** Whether the card draws with 4-bit models, and what else was found about it. */
function fourBitOnCard(extras: readonly ExtraResult[]): FourBitReport {
  const found = (name: ExtraResult['extra']) => extras.find(({ extra }) => extra === name)
  const [packed, halves] = [found('packed'), found('halves')]
  const words = (what: string, result: ExtraResult | undefined) =>
    result?.isRight ? `${what} are right` : `${what}: ${result?.reason ?? 'not tested to the end'}`
  const reason = `${words('packed weights', packed)}; ${words('half floats', halves)}`
  return { verdict: packed?.isRight ? 'graphics' : 'plain', usable: [], reason }
}

type Found = { result: ProbeResult; extras: ExtraResult[] }

/** The remembered result of a probe, or a new one. */
async function probe(provider: Provider, entry: string, choice: DeviceChoice, limit: number): Promise<Found> {
  // What decides the outcome as far as we can see it: our test, the runtime, the system, and where the Vulkan driver
  // comes from.
  const drivers = [process.env.VK_DRIVER_FILES, process.env.VK_ICD_FILENAMES].join('|')
  const key = [probeVersion, runtimeVersion, provider, process.platform, process.arch, release(), drivers].join(' ')
  const hit = recall<CacheEntry>(cacheFile, key)
  if (hit && Date.now() - hit.at < lifetimeMs(hit, choice) && hit.at <= Date.now()) return hit
  const isLast = (message: unknown) =>
    (message as ProbeResult).isUsable === false || (message as ExtraResult).extra === 'halves'
  const { messages, failure } = await runTestChild(entry, [probeArgument, provider], limit, isLast)
  const [first, ...extras] = messages as [ProbeResult?, ...ExtraResult[]]
  const reason = failure?.isFinal === false ? failure.reason : 'its driver ended the test program'
  const entryNow = {
    at: Date.now(),
    isFinal: failure?.isFinal ?? true,
    result: first ?? { isUsable: false as const, reason },
    extras,
  }
  remember(cacheFile, key, entryNow)
  return entryNow
}

const cacheFile = 'device.json'
type CacheEntry = Found & { at: number; isFinal: boolean }
