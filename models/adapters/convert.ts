import { basename } from 'node:path'
import { readSafetensors, readTensor } from '../checkpoint/safetensors.ts'
import { VignetteError } from '../errors.ts'
import type { MatMul } from '../quantize/algebra.ts'
import { plainMatMul } from '../quantize/algebra.ts'
import { changedWeight } from './dense.ts'
import { readChanges, scaled, weightShape, type SparseChange } from './deltas.ts'
import { lowRank } from './extract.ts'
import { squaredNorm, truncate } from './merge.ts'
import type { ModelWeights } from './model-weights.ts'
import { readPart } from './numbers.ts'
import { applySparse } from './sparse.ts'
import type { AdapterFile, AdapterInfo, AdapterPart, ModelShape } from './types.ts'
import type { AdapterNotes, LayerDelta } from './write.ts'

export type LowRankOptions = {
  /** Most ranks of a layer; those that the file has when left out. */
  rank?: number
  /** The model's weights, for kinds of adapters whose change depends on them. */
  base?: Pick<ModelWeights, 'read'>
  matMul?: MatMul
  onProgress?: (fraction: number) => void
}

export type LowRank = {
  layers: LayerDelta[]
  /** ‖ΔW − ΔW'‖ / ‖ΔW‖ over all layers. */
  error: number
  /** What of the file is not in the layers, for the person. */
  notices: string[]
}

/**
 * An adapter of any kind as low-rank layers. Sums of products are taken as they are, or cut to `rank`; DoRA, OFT, sparse
 * and the like are what they make of the model's weights, cut to `rank` by singular values.
 */
export async function asLowRank(
  adapter: AdapterFile,
  shape: ModelShape,
  options: LowRankOptions = {},
): Promise<LowRank> {
  const { rank, base, matMul = plainMatMul, onProgress } = options
  const file = basename(adapter.info.file)
  if (adapter.guidance)
    throw new VignetteError('adapter-mismatch', `${file} is a guidance adapter, which has no layers to convert.`, {
      hint: 'It works as it is, with the model that it was made for.',
    })
  const { layers: raw, sparse, others, biases } = await readChanges(adapter, shape)
  const dense = sparse.length + others.length
  if (dense > 0 && rank === undefined)
    throw new VignetteError('bad-request', `${file} changes ${dense} layers otherwise than by a low rank.`, {
      hint: 'Say how close the copy should be with --rank, 32 for example.',
    })
  if (others.length > 0 && !base)
    throw new VignetteError('bad-request', `What ${file} changes depends on the model's weights.`, {
      hint: 'Say which model with --model.',
    })
  const found: LowRank = { layers: [], error: 0, notices: [] }
  const sums = { all: 0, lost: 0 }
  let done = 0
  const keep = (layer: LayerDelta, all: number, error: number) => {
    found.layers.push(layer)
    sums.all += all
    sums.lost += all * error ** 2
    onProgress?.(++done / (raw.length + dense))
  }
  for (const each of raw) {
    const layer = scaled(each)
    if (rank === undefined || layer.rank <= rank) keep(layer, squaredNorm(layer), 0)
    else {
      const cut = await truncate(layer, rank, matMul)
      keep(cut.layer, cut.all, cut.error)
    }
  }
  for (const change of sparse) await keepDense(change, sparseDelta(change))
  for (const part of others)
    await keepDense({ ...part, weight: weightShape(shape, part) }, await partDelta(part, shape, base!, matMul))
  found.error = Math.sqrt(sums.lost / (sums.all || 1))
  if (biases.length > 0)
    found.notices.push(`Changes of ${biases.length} biases are left out: a low-rank file has none.`)
  if (adapter.embeddings.length > 0)
    found.notices.push(`The words it brings (${adapter.embeddings.map(({ token }) => token).join(', ')}) are left out.`)
  if (found.layers.length === 0)
    throw new VignetteError('adapter-mismatch', `Nothing in ${file} can be written as a low-rank adapter.`, {
      hint: 'It may be an embedding, which other programs read as it is.',
    })
  return found

  async function keepDense(place: Pick<LayerDelta, 'target' | 'path' | 'weight'>, delta: Float32Array): Promise<void> {
    const { target, path, weight } = place
    const cut = await lowRank(delta, weight, rank ?? 1, matMul)
    if (cut) keep({ target, path, weight, ...cut.factors }, cut.power, cut.error)
  }
}

function sparseDelta(change: SparseChange): Float32Array {
  const size = change.weight.reduce((product, dim) => product * dim, 1)
  return applySparse(new Float32Array(size), { ...change, crc: undefined })
}

async function partDelta(
  part: AdapterPart,
  shape: ModelShape,
  base: Pick<ModelWeights, 'read'>,
  matMul: MatMul,
): Promise<Float32Array> {
  const dims = weightShape(shape, part)
  const weight = await base.read(part.target, part.path)
  if (!weight) throw new Error(`${part.target} ${part.path}: the model has no such weight`)
  const numbers = await readPart(part, dims, readTensor)
  const changed = await changedWeight(weight, dims, [{ part, numbers, weight: 1 }], matMul)
  return changed.map((value, i) => value - weight[i])
}

/** Notes of a file for a copy of it: what it says of itself, and where it comes from. */
export async function notesOf(info: AdapterInfo): Promise<AdapterNotes> {
  const { metadata } = await readSafetensors(info.file).catch(() => ({ metadata: new Map<string, string>() }))
  const kept = [
    'ss_tag_frequency',
    'ss_sd_model_name',
    'ss_training_comment',
    'modelspec.usage_hint',
    'vignette_base_sha256',
  ]
  const { preset } = info
  return {
    title: info.title ?? info.name,
    tags: info.tags,
    triggers: info.triggers,
    role: info.role,
    ...(info.description === undefined ? {} : { description: info.description }),
    ...(info.author === undefined ? {} : { author: info.author }),
    ...(info.licence === undefined ? {} : { licence: info.licence }),
    ...(info.preferredWeight === undefined ? {} : { weight: info.preferredWeight }),
    more: {
      ...Object.fromEntries(kept.flatMap((key) => (metadata.has(key) ? [[key, metadata.get(key)!]] : []))),
      ...(preset
        ? {
            vignette_steps: String(preset.steps),
            vignette_sampler: preset.sampler,
            vignette_guidance_scale: String(preset.guidanceScale),
            ...(preset.timesteps ? { vignette_timesteps: JSON.stringify(preset.timesteps) } : {}),
            ...(preset.activeSteps ? { vignette_active_steps: JSON.stringify(preset.activeSteps) } : {}),
          }
        : {}),
    },
  }
}
