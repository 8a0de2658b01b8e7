import { existsSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { basename, join } from 'node:path'
import * as ort from 'onnxruntime-node'
import type { AdapterTarget } from '../../models/adapters/types.ts'
import { adapterColumns } from '../../models/adapters/columns.ts'
import { slotsOf, type SlotPlace } from '../../models/build.ts'
import { graphFile, readParts } from '../../models/checkpoint/graphs.ts'
import { VignetteError } from '../../models/errors.ts'
import type { ModelManifest, NetworkName } from '../../models/manifest.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import type { ModeName } from '../../preload/limits.ts'
import type { FloatTensor, IdTensor } from '../pipeline/tensor.ts'
import { createTextCache } from '../pipeline/text-cache.ts'
import type { Networks } from '../pipeline/types.ts'
import { decodeBytesPerPixel, defaultBudgetBytes, freeMemoryBytes, gigabytes, spareMemoryBytes } from './memory.ts'
import { readManifest } from './model-folder.ts'
import { preparedStore } from './prepared.ts'
import { partOf, serves, slotsIn, usualSlots, variantKey, withVariant, type GraphVariant } from './variants.ts'
import { loadedWeightBytes } from './weight-bytes.ts'

// The one file that knows ONNX Runtime. Everything above it sees tensors in, tensors out.

export type Provider = DeviceReport['provider']
type Inputs = Record<string, FloatTensor | IdTensor>

export const runtimeVersion = `onnxruntime ${ort.env.versions.node ?? ort.env.versions.common}`

/** One loaded graph. `run` blocks the thread until it is done (the binding is synchronous inside). */
export interface Session {
  run(inputs: Inputs, outputs?: readonly string[]): Promise<Record<string, FloatTensor>>
  release(): Promise<void>
}

export type SessionSettings = {
  provider: Provider
  threads: number
  /** Fail instead of running on the CPU what the provider cannot do. */
  isStrict?: boolean
  /** The file is ONNX Runtime's own form already (prepared.ts): nothing is left to optimise. */
  isPrepared?: boolean
  /** Write that form on the way: the graph's path, and the name of the weight file beside it. */
  saveTo?: { graph: string; weights: string }
}

/** Execution providers inside the npm package on this platform, without those that need libraries from elsewhere. */
export function bundledProviders(): Provider[] {
  const known: readonly string[] = ['cpu', 'webgpu', 'dml', 'coreml'] satisfies Provider[]
  return ort
    .listSupportedBackends()
    .filter(({ name, bundled }) => bundled && known.includes(name))
    .map(({ name }) => name as Provider)
}

/** Loads a graph. By path its external weights are memory-mapped; as bytes it must hold them itself. */
export async function openSession(model: string | Uint8Array, settings: SessionSettings): Promise<Session> {
  const { provider, threads, saveTo } = settings
  const options: ort.InferenceSession.SessionOptions = {
    executionProviders: provider === 'cpu' ? ['cpu'] : [provider, 'cpu'],
    // 'all' includes the blocked NCHWc layout for convolutions, measured 1.3–1.5 times 'extended'.
    graphOptimizationLevel: settings.isPrepared ? 'disabled' : 'all',
    ...(saveTo ? { optimizedModelFilePath: saveTo.graph } : {}),
    executionMode: 'sequential',
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    // Planning memory for one size makes no run faster here and keeps a second block beside the arena: 2.4 instead of
    // 1.5 GB after two decodings at 512 × 512.
    enableMemPattern: false,
    logSeverityLevel: 4, // our own errors say what matters; ORT would print the same again to stderr
    extra: {
      session: {
        // Spinning workers win a few per cent and take the processor from the window.
        intra_op: { allow_spinning: '0' },
        ...(settings.isStrict ? { disable_cpu_ep_fallback: '1' } : {}),
        ...(saveTo
          ? {
              save_external_prepacked_constant_initializers: '1',
              optimized_model_external_initializers_file_name: saveTo.weights,
            }
          : {}),
      },
    },
  }
  const session =
    typeof model === 'string'
      ? await ort.InferenceSession.create(model, options)
      : await ort.InferenceSession.create(model, options)
  const wanted = new Map(session.inputMetadata.map((input) => [input.name, input.isTensor ? input.type : undefined]))
  return {
    async run(inputs, outputs = session.outputNames) {
      const feeds: Record<string, ort.Tensor> = {}
      // A shallow network has fewer slots than its whole one; what it has not it does not want.
      for (const [name, value] of Object.entries(inputs)) {
        if (!wanted.has(name)) continue
        if (wanted.get(name) === 'int8') Object.assign(feeds, adapterBytes(name, value as FloatTensor))
        else feeds[name] = toOrt(value)
      }
      if (session.inputNames.includes('key_stride'))
        feeds.key_stride ??= new ort.Tensor('int64', BigInt64Array.of(1n), [1])
      const results = await session.run(feeds, outputs)
      return Object.fromEntries(outputs.map((name) => [name, fromOrt(name, results[name])]))
    },
    release: () => session.release(),
  }
}

/** Physical cores, since two threads of one core share its arithmetic units. Half the logical ones where unknown. */
export function physicalCores(): number {
  try {
    const text = readFileSync('/proc/cpuinfo', 'utf8')
    const cores = new Set(
      text
        .split('\n\n')
        .map((cpu) => [/^physical id\s*: (.*)$/m, /^core id\s*: (.*)$/m].map((key) => key.exec(cpu)?.[1]).join('/')),
    )
    cores.delete('/')
    if (cores.size > 0) return cores.size
  } catch {
    // Not Linux.
  }
  const logical = cpus().length
  // Apple's and other ARM processors have no hyper-threads.
  return Math.max(1, process.arch === 'arm64' ? logical : Math.ceil(logical / 2))
}

export type NetworksOptions = {
  provider?: Provider
  /** How a 4-bit unet runs on the CPU; `fast` needs its fast form (fast-form.ts). `low-memory` when left out. */
  mode?: ModeName
  /** Most that loaded weights may take together; three quarters of the memory when left out. */
  budgetBytes?: number
  threads?: number
  /** Networks whose weights take at least this much once loaded are kept on disk in prepared form, too. */
  prepareFromBytes?: number
}

/** What `openNetworks` adds to the pipeline's view. */
export interface OpenNetworks extends Networks {
  readonly folder: string
  /** All layers of a network that adapters may enter. */
  slots(part: AdapterTarget): Promise<SlotPlace[]>
  /**
   * From now on this network takes what the variant says beside its usual inputs, and is loaded again at its next run unless
   * a graph that does is open already. Gives the slots it then has, all of which must be fed. Plain when left out.
   */
  use(part: AdapterTarget, variant?: GraphVariant): Promise<SlotPlace[]>
  readonly provider: Provider
  /** Of a 4-bit model on the CPU. */
  readonly mode?: ModeName
  /** Loaded networks, least recently used first. */
  loaded(): NetworkName[]
  /** Loads these ahead of their first run, as far as they fit together. */
  preload(names: readonly NetworkName[]): Promise<void>
  /** Between two pictures: unloads what runs once per picture and keeps much working memory, as decoders do. */
  trim(): Promise<void>
  /** Unloads everything. */
  release(): Promise<void>
}

/** The networks of a model folder, loaded when first run and unloaded, least recently used first, to stay in budget. */
export function openNetworks(folder: string, options: NetworksOptions = {}): OpenNetworks {
  const {
    provider = 'cpu',
    budgetBytes = defaultBudgetBytes(),
    threads = physicalCores(),
    prepareFromBytes = 1e8,
  } = options
  const manifest = readManifest(folder)
  const mode = manifest.storage === 'int4' && provider === 'cpu' ? (options.mode ?? 'low-memory') : undefined
  // A Map keeps insertion order; a network that runs is put back at the end, so the first is the one unused longest.
  // Keys are names of networks, with the key of a variant behind: `unet`, `unet 3f…`.
  const sessions = new Map<string, { session: Session; name: NetworkName; bytes: number; workBytes: number }>()
  const variants = new Map<AdapterTarget, GraphVariant>()
  const opened = new Map<AdapterTarget, GraphVariant[]>()
  const places = new Map<AdapterTarget, SlotPlace[]>()
  const variantOf = (name: NetworkName) => (name.includes('vae') ? undefined : variants.get(partOf(name)))
  const keyOf = (name: NetworkName) => [name, variantKey(variantOf(name))].filter((part) => part !== '').join(' ')

  /** Where a network's graph and weights lie: those of a unet in fast mode in a folder of their own. */
  const home = (name: NetworkName) => (mode === 'fast' && name.startsWith('unet') ? join(folder, fastFolder) : folder)
  const graphPath = (name: NetworkName) => join(home(name), graphFile(name, provider === 'cpu' ? 'cpu' : 'webgpu'))

  async function unload(key: string) {
    const entry = sessions.get(key)
    sessions.delete(key)
    await entry?.session.release()
  }

  async function load(name: NetworkName): Promise<Session> {
    const key = keyOf(name)
    const known = sessions.get(key)
    if (known) {
      sessions.delete(key)
      sessions.set(key, known)
      return known.session
    }
    const file = graphPath(name)
    if (!existsSync(file)) {
      throw new VignetteError('model-missing', `The model "${manifest.id}" has no file ${basename(file)}.`, {
        hint: 'Import the model again.',
      })
    }
    const bytes = loadedWeightBytes(file)
    if (bytes > budgetBytes) throw tooLarge(manifest, bytes, budgetBytes)
    const used = () => [...sessions.values()].reduce((sum, entry) => sum + entry.bytes, 0)
    while (sessions.size > 0 && used() + bytes > budgetBytes) await unload([...sessions.keys()][0])
    const variant = variantOf(name)
    const from = {
      modelFolder: folder,
      home: home(name),
      network: name,
      dialect: provider === 'cpu' ? 'cpu' : 'webgpu',
    } as const
    const session = await explainMemory(`Loading ${describe[name]} of ${manifest.name}`, bytes, () =>
      variant ? withVariant(from, variant, (made) => open(name, made, bytes)) : open(name, file, bytes),
    )
    sessions.set(key, { session, name, bytes, workBytes: 0 })
    return session
  }

  function open(name: NetworkName, file: string, bytes: number): Promise<Session> {
    const variant = variantOf(name)
    const isUsual = !variant || variantKey(variant) === variantKey({ slots: usualSlots })
    const isLarge = provider === 'cpu' && bytes >= prepareFromBytes && !(mode && name.startsWith('unet'))
    if (!isLarge || !isUsual) return openSession(file, { provider, threads })
    return openPrepared(name, variant ? `${name}+adapters` : name, file, bytes, { provider, threads })
  }

  /** Loads the form kept for this processor, or makes it on the way; without room on the disk as if there were none. */
  async function openPrepared(
    name: NetworkName,
    storedAs: string,
    file: string,
    bytes: number,
    settings: SessionSettings,
  ): Promise<Session> {
    const store = preparedStore(home(name), storedAs, file, runtimeVersion, bytes)
    const present = store.find()
    if (present !== undefined) {
      try {
        return await openSession(present, { ...settings, isPrepared: true })
      } catch {
        store.remove()
      }
    }
    const work = store.begin()
    if (work) {
      try {
        const making = await openSession(file, { ...settings, saveTo: work })
        await making.release()
        work.finish()
      } catch {
        work.discard()
      }
    }
    const made = work && store.find()
    return made === undefined ? openSession(file, settings) : openSession(made, { ...settings, isPrepared: true })
  }

  /**
   * A decoder needs much memory for a moment. Where that is not there, other networks make room, which costs loading them
   * again but changes no pixel; where that is not enough it fails before it is killed.
   */
  async function makeRoom(name: NetworkName, latents: FloatTensor) {
    const [n, , h, w] = latents.shape
    const need = n * h * w * manifest.latents.spatialFactor ** 2 * decodeBytesPerPixel
    // What it took at its last run it still holds.
    const spare = () => (spareMemoryBytes() ?? Infinity) + (sessions.get(keyOf(name))?.workBytes ?? 0)
    for (const other of [...sessions.keys()]) if (other !== keyOf(name) && spare() < need) await unload(other)
    if (spare() > 0.7 * need) return
    throw new VignetteError(
      'out-of-memory',
      `Running ${describe[name]} of ${manifest.name} needs about ${gigabytes(need)}; ${gigabytes(spare())} are free.`,
      { hint: 'Choose a smaller size, or close other programs.' },
    )
  }

  return {
    folder,
    manifest,
    provider,
    ...(mode ? { mode } : {}),
    singleRows: mode === 'fast',
    texts: createTextCache(),
    // What a later Vignette added to an old folder is not in its manifest.
    has: (name) => manifest.networks.includes(name) || existsSync(graphPath(name)),
    loaded: () => [...sessions].flatMap(([key, { name }]) => (key === keyOf(name) ? [name] : [])),
    slots,
    async use(part, variant) {
      const current = variants.get(part)
      if (!variant || variantKey(variant) === '') variants.delete(part)
      else if (!current || !serves(current, variant)) variants.set(part, latest(part, variant))
      // To find all slots takes a moment that a picture without adapters need not wait for.
      const wanted = variants.get(part)
      return wanted?.slots?.size ? slotsIn(await slots(part), wanted) : []
    },
    async preload(names) {
      for (const name of names) {
        if (sessions.has(keyOf(name)) || !existsSync(graphPath(name))) continue
        const used = [...sessions.values()].reduce((sum, entry) => sum + entry.bytes, 0)
        if (used + loadedWeightBytes(graphPath(name)) <= budgetBytes) await load(name)
      }
    },
    async run(name, inputs, outputs) {
      if (name.endsWith('vae_decoder')) await makeRoom(name, inputs.latent_sample as FloatTensor)
      const session = await load(name)
      const before = process.memoryUsage.rss()
      const results = await explainMemory(`Running ${describe[name]} of ${manifest.name}`, 0, () =>
        session.run(inputs, outputs),
      )
      const entry = sessions.get(keyOf(name))
      if (entry) entry.workBytes += Math.max(0, process.memoryUsage.rss() - before)
      return results
    },
    /** Makes the network the first to go when another one needs the room. */
    async rest(name) {
      const first = keyOf(name)
      const entry = sessions.get(first)
      if (!entry) return
      const others = [...sessions].filter(([other]) => other !== first)
      sessions.clear()
      for (const [key, value] of [[first, entry] as const, ...others]) sessions.set(key, value)
    },
    async trim() {
      for (const [key, { name, workBytes }] of [...sessions]) {
        if (!name.startsWith('unet') && workBytes > keptWorkBytes) await unload(key)
      }
    },
    async release() {
      for (const key of [...sessions.keys()]) await unload(key)
    },
  }

  async function slots(part: AdapterTarget): Promise<SlotPlace[]> {
    const known = places.get(part)
    if (known) return known
    const found = (await readParts(folder)).find((each) => each.part === part)
    const made = found ? slotsOf(found) : []
    places.set(part, made)
    return made
  }

  /** A graph that is loaded already and does for the variant, else the variant itself. */
  function latest(part: AdapterTarget, variant: GraphVariant): GraphVariant {
    const open = opened
      .get(part)
      ?.find((other) => serves(other, variant) && sessions.has(`${part} ${variantKey(other)}`))
    if (open) return open
    opened.set(part, [variant, ...(opened.get(part) ?? [])].slice(0, 8))
    return variant
  }
}

/** Folder inside a model's with the unet in its fast form; see `expandWeights`. */
export const fastFolder = 'fast'

/** A decoder that was used at 512 × 512 keeps 1 GB; loading it again in prepared form takes a tenth of a second. */
const keptWorkBytes = 2e8

const describe: Record<NetworkName, string> = {
  text_encoder: 'the text encoder',
  text_encoder_2: 'the second text encoder',
  unet: 'the drawing network',
  unet_shallow: 'the outer layers of the drawing network',
  vae_encoder: 'the picture encoder',
  vae_decoder: 'the picture decoder',
  tiny_vae_encoder: 'the small picture encoder',
  tiny_vae_decoder: 'the small picture decoder',
}

/** Runs `action`; a failed allocation inside ONNX Runtime comes out as `out-of-memory` with numbers. */
async function explainMemory<T>(what: string, bytes: number, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause)
    if (!/bad_alloc|failed to allocate memory|out of memory|Array buffer allocation failed|E_OUTOFMEMORY/i.test(text))
      throw cause
    const requested = Number(/requested buffer of size (\d+)/.exec(text)?.[1] ?? bytes)
    throw outOfMemory(what, requested, cause)
  }
}

/** `what` needs so much more than there is; 0 where that is not known. */
export function outOfMemory(what: string, bytes: number, cause?: unknown): VignetteError {
  const need = bytes > 0 ? `needs ${gigabytes(bytes)} more` : 'needs more memory than there is'
  return new VignetteError('out-of-memory', `${what} ${need}; ${gigabytes(freeMemoryBytes())} are free.`, {
    hint: 'Choose a smaller size, or close other programs.',
    cause,
  })
}

function tooLarge(manifest: ModelManifest, bytes: number, budgetBytes: number): VignetteError {
  return new VignetteError(
    'out-of-memory',
    `The model "${manifest.id}" needs about ${gigabytes(bytes)} at once; Vignette may use ${gigabytes(budgetBytes)}.`,
    { hint: 'Raise the memory limit, or use a smaller model.' },
  )
}

const bytes = new WeakMap<FloatTensor, { columns: ort.Tensor; scales: ort.Tensor }>()

/** An adapter's `down` [r, k] as the columns of bytes that a network in fast mode takes; made once for each tensor. */
function adapterBytes(name: string, value: FloatTensor): Record<string, ort.Tensor> {
  const [r, k] = value.shape
  let made = bytes.get(value)
  if (!made) {
    const { columns, scales } = adapterColumns(value.data, r)
    made = { columns: new ort.Tensor('int8', columns, [k, r]), scales: new ort.Tensor('float32', scales, [r]) }
    bytes.set(value, made)
  }
  return { [name]: made.columns, [`${name}_scales`]: made.scales }
}

/** Adapters are many tensors that stay the same from step to step. */
const tensors = new WeakMap<FloatTensor | IdTensor, ort.Tensor>()

function toOrt(value: FloatTensor | IdTensor): ort.Tensor {
  const known = tensors.get(value)
  if (known?.data === value.data) return known
  const { data, shape } = value
  const made =
    data instanceof Float32Array ? new ort.Tensor('float32', data, shape) : new ort.Tensor('int64', data, shape)
  tensors.set(value, made)
  return made
}

function fromOrt(name: string, value: ort.Tensor): FloatTensor {
  if (value.type !== 'float32') throw new Error(`${name}: expected float32, got ${value.type}`)
  return { data: value.data as Float32Array, shape: value.dims }
}
