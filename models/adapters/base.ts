import { join } from 'node:path'
import { dequantizeGroups } from '../../kernels/int4.ts'
import type { Part } from '../build.ts'
import { slotsOf } from '../build.ts'
import { toFloat32 } from '../checkpoint/dtypes.ts'
import { readParts } from '../checkpoint/graphs.ts'
import { readTensor } from '../checkpoint/safetensors.ts'
import type { FamilyId } from '../family.ts'
import type { StoredTensor } from '../graph/weights.ts'
import type { MatMul } from '../quantize/algebra.ts'
import { quantizeSteps } from '../quantize/policy.ts'
import { layerShape } from './numbers.ts'
import { modelShape } from './shape.ts'
import type { AdapterTarget, ModelShape } from './types.ts'

// The weights that adapters change, from a model folder of any storage: as they would be without codes and smoothing.

/** What stands between a true weight and the graph's: graph = diag(rows) · W · diag(columns), its bias times `rows`. */
export type Smoothing = { rows?: Float32Array; columns?: Float32Array }

/** A module's true weight and bias, and what the graph has in their place. */
export type BaseModule = Smoothing & { shape: readonly number[]; weight: Float32Array; bias?: Float32Array }

/** Reads the modules of a model folder. */
export interface BaseWeights {
  readonly shape: ModelShape
  /** Modules that take factors. */
  slots(target: AdapterTarget): ReadonlySet<string>
  smoothing(target: AdapterTarget, path: string): Promise<Smoothing>
  /** Fresh arrays. */
  module(target: AdapterTarget, path: string, matMul: MatMul): Promise<BaseModule>
}

type NetworkPart = Extract<Part, { part: AdapterTarget }>

/** Opens a model folder by its `parts.json`; reads headers only. */
export async function openBaseWeights(folder: string, family: FamilyId): Promise<BaseWeights> {
  const parts = (await readParts(folder)).filter(
    (part): part is NetworkPart => part.part !== 'vae' && part.part !== 'tiny_vae',
  )
  const partOf = (target: AdapterTarget) => {
    const found = parts.find(({ part }) => part === target)
    if (!found) throw new Error(`${folder}: no ${target}`)
    return found
  }
  const shape = modelShape(family, parts)
  const slots = new Map<AdapterTarget, ReadonlySet<string>>()
  const dividers = new Map(parts.map((part) => [part.part, dividingNorms(part)] as const))

  const read = async (target: AdapterTarget, name: string): Promise<Uint8Array> => {
    const tensor = tensorOf(target, name)!
    return readTensor({ ...tensor, file: join(folder, tensor.file) })
  }
  const tensorOf = (target: AdapterTarget, name: string): StoredTensor | undefined => partOf(target).tensors.get(name)
  const floats = async (target: AdapterTarget, name: string): Promise<Float32Array | undefined> => {
    const tensor = tensorOf(target, name)
    return tensor && toFloat32(await read(target, name), tensor.dtype)
  }

  const smoothings = new Map<string, Promise<Smoothing>>()
  const readSmoothing = async (target: AdapterTarget, path: string): Promise<Smoothing> => {
    const reader = dividers.get(target)?.get(path)
    if (reader !== undefined) {
      const divided = await floats(target, `${reader}.weight.input_scale`)
      return divided ? { rows: divided.map((value) => 1 / value) } : {}
    }
    const [columns, rows] = [
      await floats(target, `${path}.weight.input_scale`),
      await floats(target, `${path}.weight.output_scale`),
    ]
    return { ...(rows ? { rows } : {}), ...(columns ? { columns } : {}) }
  }

  const smoothing = (target: AdapterTarget, path: string): Promise<Smoothing> => {
    const key = `${target} ${path}`
    const known = smoothings.get(key) ?? readSmoothing(target, path)
    smoothings.set(key, known)
    return known
  }

  /** What the table holds for a weight, as the graph uses it. */
  const stored = async (target: AdapterTarget, path: string, matMul: MatMul): Promise<Float32Array> => {
    const plain = await floats(target, `${path}.weight`)
    if (plain) return plain
    const bits = tensorOf(target, `${path}.weight.q4`) ? 4 : 8
    const codes = tensorOf(target, `${path}.weight.q${bits}`)
    if (!codes) throw new Error(`${path}: no weight`)
    const { n, channels, taps, k } = layerShape(shape.layers[target]!.get(path)!.weight)
    const group = (codes.shape[2] * 8) / bits
    const scales = new Uint16Array((await read(target, `${path}.weight.scales`)).buffer)
    const bytes = await read(target, `${path}.weight.q${bits}`)
    const matrix = dequantizeGroups({ codes: bytes, scales }, { n, k, bits, group })
    const [down, up] = [await floats(target, `${path}.weight.down`), await floats(target, `${path}.weight.up`)]
    if (down && up) {
      const rank = down.length / k
      const product = await matMul(up, [n, rank], down, [rank, k])
      for (let i = 0; i < matrix.length; i++) matrix[i] += product[i]
    }
    return taps === 1 ? matrix : channelsFirst(matrix, n, channels, taps)
  }

  return {
    shape,
    slots(target) {
      const known = slots.get(target) ?? new Set(slotsOf(partOf(target)).map(({ path }) => path))
      slots.set(target, known)
      return known
    },
    smoothing,
    async module(target, path, matMul) {
      const dims = shape.layers[target]?.get(path)?.weight
      if (!dims) throw new Error(`${path}: no such module`)
      const weight = await stored(target, path, matMul)
      const bias = await floats(target, `${path}.bias`)
      const between = await smoothing(target, path)
      smooth({ weight, ...(bias ? { bias } : {}) }, between, 'off')
      return { shape: dims, weight, ...(bias ? { bias } : {}), ...between }
    },
  }
}

/** Norms that divide on behalf of smoothed layers, each with one of those: their vector is its own. */
function dividingNorms({ part, config, tensors }: NetworkPart): ReadonlyMap<string, string> {
  const isSmoothed = [...tensors.keys()].some((name) => name.endsWith('.weight.input_scale'))
  if (part !== 'unet' || !isSmoothed) return new Map()
  return new Map(
    quantizeSteps(config).flatMap(({ smoother, layers }) =>
      smoother && 'norm' in smoother ? [[smoother.norm, layers[0].path] as const] : [],
    ),
  )
}

/** Puts the smoothing on a weight [n, k] and its bias in place, or takes it off. */
export function smooth(
  { weight, bias }: { weight: Float32Array; bias?: Float32Array },
  { rows, columns }: Smoothing,
  way: 'on' | 'off',
): void {
  const factorOf = (values: Float32Array | undefined) =>
    values && (way === 'on' ? values : values.map((value) => 1 / value))
  const [down, across] = [factorOf(rows), factorOf(columns)]
  if (across) {
    for (let at = 0; at < weight.length; at += across.length)
      for (let i = 0; i < across.length; i++) weight[at + i] *= across[i]
  }
  if (!down) return
  const k = weight.length / down.length
  for (let row = 0; row < down.length; row++) for (let i = row * k; i < (row + 1) * k; i++) weight[i] *= down[row]
  if (bias) for (let row = 0; row < down.length; row++) bias[row] *= down[row]
}

/** [n, taps, channels] -> [n, channels, taps]. */
function channelsFirst(matrix: Float32Array, n: number, channels: number, taps: number): Float32Array {
  const out = new Float32Array(matrix.length)
  const k = channels * taps
  for (let row = 0; row < n; row++)
    for (let tap = 0; tap < taps; tap++)
      for (let c = 0; c < channels; c++) out[row * k + c * taps + tap] = matrix[row * k + tap * channels + c]
  return out
}
