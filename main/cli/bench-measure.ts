import { fileURLToPath } from 'node:url'
import type { ModelManifest, NetworkName } from '../../models/manifest.ts'
import type { AdapterCosts, BatchCosts } from './bench-adapter.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import type { FloatTensor, IdTensor } from '../pipeline/tensor.ts'
import type { OpenNetworks, Provider } from '../engine/networks.ts'
import type { ModeName } from '../../preload/limits.ts'

// One measurement in a process of its own, started by bench.ts: reads its settings from the command line, prints JSON.

export const measurements = [
  'text_encoder',
  'text_encoder_2',
  'unet',
  'vae_encoder',
  'vae_decoder',
  'adapter',
  'batch',
  'picture',
] as const satisfies (NetworkName | 'adapter' | 'batch' | 'picture')[]
export type Measurement = (typeof measurements)[number]

export type Settings = {
  measurement: Measurement
  folder: string
  side: number
  runs: number
  threads?: number
  provider: Provider
  mode?: ModeName
}

export type Measured = {
  /** Reading, packing and optimising. */
  loadS: number
  /** Median of the timed runs: seconds on the clock, and seconds of all cores of this process. */
  wallS: number
  cpuS: number
  /** What loading added to the resident set, pages of weight files that were read included; of networks only. */
  weightBytes?: number
  /** Largest resident set, weights mapped from the file included. */
  peakBytes: number
  /** Of a 4-bit model on the CPU. */
  mode?: ModeName
  /** Of `adapter`: evaluations of the U-Net, in CPU seconds, and swaps. */
  adapters?: AdapterCosts
  /** Of `batch`. */
  batch?: BatchCosts
}

async function measure(settings: Settings): Promise<Measured> {
  const { measurement, runs } = settings
  if (measurement === 'adapter') return adapter(settings)
  if (measurement === 'batch') return batch(settings)
  const networks = await open(settings)
  const isNetwork = measurement !== 'picture'
  const emptyBytes = process.memoryUsage.rss()
  const loading = await timed(() => (isNetwork ? networks.preload([measurement]) : Promise.resolve()))
  const weightBytes = isNetwork ? process.memoryUsage.rss() - emptyBytes : undefined
  const action =
    measurement === 'picture' ? await picture(networks, settings) : network(networks, measurement, settings)
  const first = await timed(action)
  const timings = []
  // A whole picture is long and steady: its first run is its only one.
  for (let i = 0; i < (measurement === 'picture' ? 0 : runs); i++) timings.push(await timed(action))
  const wallS = median(timings.map(({ wall }) => wall)) ?? first.wall
  const cpuS = median(timings.map(({ cpu }) => cpu)) ?? first.cpu
  const peakBytes = process.resourceUsage().maxRSS * 1024
  const { mode } = networks
  // What a first run still does beyond a usual one (reading pages, growing the arena) is loading, too.
  const loadS = loading.wall + Math.max(0, first.wall - wallS)
  return { loadS, wallS, cpuS, peakBytes, ...(isNetwork ? { weightBytes } : {}), ...(mode ? { mode } : {}) }
}

/** Evaluations with adapters, and what it takes to go over from one to another. */
async function adapter(settings: Settings): Promise<Measured> {
  const { adapterCosts } = await import('./bench-adapter.ts')
  const networks = await open(settings)
  const loading = await timed(() => networks.preload(['unet']))
  const adapters = await adapterCosts(
    networks,
    inputsOf('unet', networks.manifest, settings.side),
    settings.runs,
    timed,
  )
  const peakBytes = process.resourceUsage().maxRSS * 1024
  const { mode } = networks
  const { oneS } = adapters
  return { loadS: loading.wall, wallS: oneS, cpuS: oneS, peakBytes, adapters, ...(mode ? { mode } : {}) }
}

/** Four pictures with an adapter each. */
async function batch(settings: Settings): Promise<Measured> {
  const { batchCosts } = await import('./bench-adapter.ts')
  const networks = await open(settings)
  const loading = await timed(() => networks.preload(['unet']))
  const costs = await batchCosts(networks, settings.side, settings.runs, timed)
  const peakBytes = process.resourceUsage().maxRSS * 1024
  return { loadS: loading.wall, wallS: costs.batchS, cpuS: costs.batchS, peakBytes, batch: costs }
}

/** The model in the mode asked for, or in that which suits this computer. */
async function open({ folder, provider, mode, threads }: Settings): Promise<OpenNetworks> {
  const { openModel } = await import('../engine/open-model.ts')
  const { fourBitReport } = await import('../engine/self-test.ts')
  const entry = fileURLToPath(new URL('../engine/index.ts', import.meta.url))
  const device: DeviceReport = {
    ...{ provider, name: provider, reason: 'It was chosen.' },
    ...(provider === 'cpu' ? {} : { fourBit: { verdict: 'graphics', usable: [], reason: 'It was chosen.' } }),
  }
  const { networks, notices } = await openModel(
    folder,
    device,
    { mode, threads },
    { fourBitOnCpu: () => fourBitReport(entry) },
  )
  for (const notice of notices) console.error(notice)
  return networks
}

function network(networks: OpenNetworks, name: NetworkName, { side }: Settings) {
  const inputs = inputsOf(name, networks.manifest, side)
  return () => networks.run(name, inputs)
}

/** Everything from prompt to PNG with the model's default steps, guidance on: what a person waits for. */
async function picture(networks: OpenNetworks, { folder, side }: Settings) {
  const { runJob } = await import('../engine/job.ts')
  const { checkRequest, fillDefaults } = await import('../engine/request.ts')
  const request = fillDefaults(
    checkRequest({ prompt: 'a red barn at dusk', width: side, height: side, seed: 7 }),
    networks.manifest,
  )
  return async () => {
    for await (const event of runJob({ id: 'bench', modelFolder: folder, request }, networks)) void event
  }
}

/** Inputs of the right shapes (models/manifest.ts); the numbers do not matter for the time. */
function inputsOf(name: NetworkName, manifest: ModelManifest, side: number): Record<string, FloatTensor | IdTensor> {
  const { channels, spatialFactor } = manifest.latents
  const latent = [1, channels, side / spatialFactor, side / spatialFactor]
  const width = manifest.textEncoders.reduce((sum, encoder) => sum + encoder.width, 0)
  switch (name) {
    case 'text_encoder':
    case 'text_encoder_2':
      return {
        input_ids: { data: BigInt64Array.from({ length: 77 }, (_, i) => BigInt(i)), shape: [1, 77] },
        eos_index: { data: BigInt64Array.of(76n), shape: [1] },
      }
    case 'unet':
      return {
        sample: noise(latent),
        timestep: { data: Float32Array.of(500), shape: [1] },
        encoder_hidden_states: noise([1, 77, width]),
        ...(manifest.family === 'sdxl' ? { text_embeds: noise([1, 1280]), time_ids: noise([1, 6]) } : {}),
      }
    case 'vae_encoder':
    case 'tiny_vae_encoder':
      return { sample: noise([1, 3, side, side]) }
    default:
      return { latent_sample: noise(latent) }
  }
}

function noise(shape: number[]): FloatTensor {
  const size = shape.reduce((product, dim) => product * dim, 1)
  return { data: Float32Array.from({ length: size }, (_, i) => Math.sin(i * 12.9898)), shape }
}

async function timed(action: () => Promise<unknown>): Promise<{ wall: number; cpu: number }> {
  const before = process.cpuUsage()
  const startedAt = performance.now()
  await action()
  const wall = (performance.now() - startedAt) / 1000
  const { user, system } = process.cpuUsage(before)
  return { wall, cpu: (user + system) / 1e6 }
}

function median(values: number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(JSON.stringify(await measure(JSON.parse(process.argv[2]) as Settings)))
}
