import { open, stat } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { openBaseWeights, smooth, type BaseWeights } from '../../models/adapters/base.ts'
import { contentHash } from '../../models/adapters/content-hash.ts'
import { changesBias, changesWeight } from '../../models/adapters/dense.ts'
import { factorsOf } from '../../models/adapters/factors.ts'
import { guidanceNumbers } from '../../models/adapters/guidance.ts'
import type { LivePart } from '../../models/adapters/live.ts'
import { readPart, type PartNumbers } from '../../models/adapters/numbers.ts'
import { readAdapter } from '../../models/adapters/read.ts'
import { expectSparseBase } from '../../models/adapters/sparse.ts'
import { truncateFactors } from '../../models/adapters/truncate.ts'
import type { AdapterFile, AdapterPart, AdapterTarget } from '../../models/adapters/types.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readFully } from '../../models/checkpoint/safetensors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import type { MatMul } from '../../models/quantize/algebra.ts'
import type { LayerFactors, LiveWeights, LoadedAdapter, LoadedGuidance } from '../pipeline/adapter-types.ts'
import { tensor, type FloatTensor } from '../pipeline/tensor.ts'
import type { LoadedFile } from './job-adapters.ts'
import { createLiveWeights } from './live-weights.ts'
import { readManifest } from './model-folder.ts'
import { physicalCores } from './networks.ts'
import { openMatMul, type RuntimeMatMul } from './quantize-matmul.ts'

/** Adapter files as numbers for one model, and the weights that some of them change. */
export interface AdapterFiles {
  /**
   * Reads a file for this model, or gives what was read before. Throws what `readAdapter` throws, and `file-unreadable` when
   * a number is none. With a `rankBudget` longer factors are cut to that rank; a notice says what is lost.
   */
  load(file: string, rankBudget?: number): Promise<LoadedFile & { notices: string[] }>
  readonly live: LiveWeights
  /** Forgets all files, and the weights that were made with them. */
  release(): Promise<void>
}

export type AdapterFilesOptions = {
  /** For large products. */
  threads?: number
  /** Most that files once read may take, least recently used first out. */
  budgetBytes?: number
}

type Entry = LoadedFile & { notices: string[]; bytes: number }

/** Opens the adapters of a model folder. Nothing is read before the first file is. */
export function openAdapterFiles(modelFolder: string, options: AdapterFilesOptions = {}): AdapterFiles {
  const { threads = physicalCores(), budgetBytes = Math.min(2e9, totalmem() / 8) } = options
  let base: Promise<BaseWeights> | undefined
  const baseWeights = () => (base ??= openBaseWeights(modelFolder, readManifest(modelFolder).family))
  let runtime: Promise<RuntimeMatMul> | undefined
  const matMul: MatMul = async (...args) => (await (runtime ??= openMatMul(threads))).matMul(...args)
  const live = createLiveWeights(baseWeights, matMul)

  /** By content and rank budget; a Map keeps the order of use. */
  const entries = new Map<string, Entry>()
  /** Content of files whose size and date were these. */
  const known = new Map<string, string>()

  return {
    live,
    async load(file, rankBudget) {
      const { size, mtimeMs } = await stat(file)
      const stamp = JSON.stringify([file, size, mtimeMs, rankBudget ?? null])
      const key = known.get(stamp)
      const present = key === undefined ? undefined : entries.get(key)
      if (present) return touch(key!, present)
      const weights = await baseWeights()
      const adapter = await readAdapter(file, weights.shape)
      const source = await openSource(adapter)
      try {
        const sha256 = await contentHash(adapter.tensors, undefined, source.bytesOf)
        const content = `${sha256} ${rankBudget ?? ''}`
        known.set(stamp, content)
        const same = entries.get(content)
        if (same) return touch(content, { ...same, info: adapter.info })
        // Codes of 4 bits are not the weights that a sparse adapter was made over: there its check values say nothing.
        if (readManifest(modelFolder).storage !== 'int4')
          await expectSparseBase(adapter, async (target, path) => (await weights.module(target, path, matMul)).weight)
        const made = await readNumbers(adapter, sha256, { weights, matMul, bytesOf: source.bytesOf, rankBudget })
        return touch(content, made)
      } finally {
        await source.close()
      }
    },
    async release() {
      entries.clear()
      known.clear()
      live.release()
      const opened = runtime
      runtime = undefined
      await (await opened)?.release()
    },
  }

  function touch(key: string, entry: Entry): Entry {
    entries.delete(key)
    entries.set(key, entry)
    let bytes = [...entries.values()].reduce((sum, each) => sum + each.bytes, 0)
    for (const [oldest, each] of entries) {
      if (bytes <= budgetBytes || oldest === key) break
      entries.delete(oldest)
      bytes -= each.bytes
    }
    return entry
  }
}

type BytesOf = (tensor: StoredTensor) => Uint8Array | Promise<Uint8Array>

/** Files up to this are read as one piece: a thousand small reads take a tenth of a second. */
const wholeBytes = 256e6

/** Bytes of an adapter's tensors. */
async function openSource({ tensors, info }: AdapterFile): Promise<{ bytesOf: BytesOf; close(): Promise<void> }> {
  const file = [...tensors.values()][0]?.file ?? info.file
  const handle = await open(file, 'r')
  const { size } = await handle.stat()
  if (size > wholeBytes) {
    return {
      bytesOf: async ({ offset, length }) => {
        const bytes = new Uint8Array(length)
        await readFully(handle, bytes, offset, file)
        return bytes
      },
      close: () => handle.close(),
    }
  }
  const whole = new Uint8Array(size)
  await readFully(handle, whole, 0, file).finally(() => handle.close())
  return {
    bytesOf: ({ offset, length }) => whole.subarray(offset, offset + length),
    close: async () => {},
  }
}

type Tools = { weights: BaseWeights; matMul: MatMul; bytesOf: BytesOf; rankBudget: number | undefined }

async function readNumbers(file: AdapterFile, sha256: string, tools: Tools): Promise<Entry> {
  const { info } = file
  if (file.guidance) {
    const guidance = await readGuidance(file, sha256, tools.bytesOf)
    const bytes = Object.values(guidance.inputs).reduce((sum, { data }) => sum + data.byteLength, 0)
    return { info, guidance, notices: [], bytes }
  }
  const layers: Partial<Record<AdapterTarget, Map<string, LayerFactors>>> = {}
  const live: Partial<Record<AdapterTarget, Map<string, LivePart>>> = {}
  const lost: number[] = []
  const homeless: string[] = []
  let bytes = 0
  for (const part of file.parts) {
    const { target, path } = part
    const shape = tools.weights.shape.layers[target]?.get(path)
    if (!shape) continue
    const numbers = await readPart(part, shape.weight, tools.bytesOf)
    const found = await layerFactors(part, numbers, shape.weight, tools)
    if (found) {
      if (found.error > 0) lost.push(found.error)
      bytes += found.factors.down.data.byteLength + found.factors.up.data.byteLength
      join((layers[target] ??= new Map()), path, found.factors)
    }
    const isBiasOnly = found !== undefined
    const isLeft = (!found && changesWeight(part)) || (shape.bias !== undefined && changesBias(part))
    if (!isLeft) continue
    if (path.endsWith('token_embedding')) {
      homeless.push(path)
      continue
    }
    const modules = (live[target] ??= new Map())
    modules.set(path, [...(modules.get(path) ?? []), { part, numbers, ...(isBiasOnly ? { isBiasOnly } : {}) }])
    if (!isBiasOnly) bytes += bytesOf(numbers)
  }
  const embeddings = await readEmbeddings(file, tools.bytesOf)
  const adapter: LoadedAdapter = {
    name: info.name,
    sha256,
    layers,
    ...(Object.keys(live).length > 0 ? { live } : {}),
    ...(embeddings.size > 0 ? { embeddings } : {}),
  }
  const notices = [
    ...truncationNotice(info.name, tools.rankBudget, lost),
    ...liveNotice(info.name, live, tools.weights),
  ]
  if (homeless.length > 0) notices.push(`"${info.name}" also changes the table of words, which is left as it is.`)
  return { info, adapter, notices, bytes }
}

/** Factors in the basis of the graph, cut to the budget; undefined when the part is none or has no slot. */
async function layerFactors(
  part: AdapterPart,
  numbers: PartNumbers,
  shape: readonly number[],
  { weights, matMul, rankBudget }: Tools,
): Promise<{ factors: LayerFactors; error: number } | undefined> {
  const { target, path } = part
  if (!weights.slots(target).has(path)) return undefined
  const base = part.kind === 'glora' && shape.length === 2 ? await weights.module(target, path, matMul) : undefined
  const found = factorsOf(part, numbers, shape, base?.weight)
  if (!found) return undefined
  const { factors, error } =
    rankBudget === undefined ? { factors: found, error: 0 } : await truncateFactors(found, rankBudget, matMul)
  const { rank } = factors
  const { rows, columns } = await weights.smoothing(target, path)
  // `down` may be the file's own array, which a part's bias and the cache still read.
  const down = columns ? factors.down.slice() : factors.down
  if (columns) smooth({ weight: down }, { columns }, 'on')
  if (rows) smooth({ weight: factors.up }, { columns: rows }, 'on')
  return {
    factors: { rank, down: tensor(down, [rank, down.length / rank]), up: tensor(factors.up, [rank, shape[0]]) },
    error,
  }
}

/** Two parts of one file at one layer are one of their ranks together. */
function join(layers: Map<string, LayerFactors>, path: string, factors: LayerFactors): void {
  const other = layers.get(path)
  if (!other) return void layers.set(path, factors)
  const rank = other.rank + factors.rank
  const below = (a: FloatTensor, b: FloatTensor) => {
    const data = new Float32Array(a.data.length + b.data.length)
    data.set(a.data)
    data.set(b.data, a.data.length)
    return tensor(data, [rank, a.shape[1]])
  }
  layers.set(path, { rank, down: below(other.down, factors.down), up: below(other.up, factors.up) })
}

async function readEmbeddings({ embeddings }: AdapterFile, bytesOf: BytesOf): Promise<Map<string, Words>> {
  const words = new Map<string, Words>()
  for (const { target, token, vectors } of embeddings) {
    // Several parts of one word follow each other.
    const before = words.get(token)?.[target]?.data ?? new Float32Array()
    const added = toFloat32(await bytesOf(vectors), vectors.dtype)
    const data = new Float32Array(before.length + added.length)
    data.set(before)
    data.set(added, before.length)
    const width = vectors.shape[vectors.shape.length - 1]
    words.set(token, { ...words.get(token), [target]: tensor(data, [data.length / width, width]) })
  }
  return words
}
type Words = Partial<Record<'text_encoder' | 'text_encoder_2', FloatTensor>>

async function readGuidance(
  { guidance, info }: AdapterFile,
  sha256: string,
  bytesOf: BytesOf,
): Promise<LoadedGuidance> {
  const { width, guidanceRange, sites, tensors } = guidance!
  const numbers = new Map<string, { data: Float32Array; shape: number[] }>()
  for (const [name, stored] of tensors) {
    numbers.set(name, { data: toFloat32(await bytesOf(stored), stored.dtype), shape: stored.shape })
  }
  const { inputs, tokenOf } = guidanceNumbers(width, sites, numbers)
  const asTensors = Object.fromEntries(
    Object.entries(inputs).map(([name, { data, shape }]) => [name, tensor(data, shape)]),
  )
  return { name: info.name, sha256, width, guidanceRange, inputs: asTensors, tokenOf }
}

function truncationNotice(name: string, rankBudget: number | undefined, lost: readonly number[]): string[] {
  if (rankBudget === undefined || lost.length === 0) return []
  const mean = Math.sqrt(lost.reduce((sum, error) => sum + error * error, 0) / lost.length)
  const percent = (share: number) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`
  return [
    `"${name}" is cut to rank ${rankBudget} in ${lost.length} layers: ${percent(mean)} of its change is lost on average, ${percent(Math.max(...lost))} at most.`,
  ]
}

function liveNotice(
  name: string,
  live: Partial<Record<AdapterTarget, ReadonlyMap<string, LivePart>>>,
  { shape }: BaseWeights,
): string[] {
  let [modules, numbers] = [0, 0]
  for (const [target, paths] of Object.entries(live) as [AdapterTarget, ReadonlyMap<string, unknown>][]) {
    for (const path of paths.keys()) {
      modules++
      numbers += shape.layers[target]!.get(path)!.weight.reduce((product, size) => product * size, 1)
    }
  }
  const bytes = 4 * numbers
  if (bytes < 5e6) return []
  const size = bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
  return [
    `"${name}" changes ${modules} layers in a way that needs their whole weights: ${size} more memory, and another weight for it takes a moment.`,
  ]
}

function bytesOf({ tensors, places }: PartNumbers): number {
  return Object.values(tensors).reduce((sum, { data }) => sum + data.byteLength, places?.byteLength ?? 0)
}
