import { basename } from 'node:path'
import { toFloat32 } from '../checkpoint/dtypes.ts'
import { VignetteError } from '../errors.ts'
import type { StoredTensor } from '../graph/weights.ts'
import type { AdapterPart, TensorRole } from './types.ts'

export type Numbers = { data: Float32Array; shape: readonly number[] }

/** The numbers of one part of an adapter. */
export type PartNumbers = {
  tensors: Readonly<Partial<Record<TensorRole, Numbers>>>
  /** What the tensor of its scale says (`ScaleRule`). */
  stored?: number
  /** Sparse parts: places in the weight, counted in its C order. */
  places?: Int32Array
}

/** A layer's weight [n, channels, taps], as files and PyTorch order it. */
export type LayerShape = { n: number; channels: number; taps: number; k: number }

/** From the shape of its weight: [n, c], or [n, c, h, w]. */
export function layerShape(shape: readonly number[]): LayerShape {
  const [n, channels = 1, ...kernel] = shape
  const taps = kernel.reduce((product, size) => product * size, 1)
  return { n, channels, taps, k: channels * taps }
}

/** Reads and checks the numbers of a part; a NaN or an infinity anywhere refuses it (`file-unreadable`). */
export async function readPart(
  part: AdapterPart,
  shape: readonly number[],
  bytesOf: (tensor: StoredTensor) => Uint8Array | Promise<Uint8Array>,
): Promise<PartNumbers> {
  const tensors: Partial<Record<TensorRole, Numbers>> = {}
  let places: Int32Array | undefined
  for (const [role, tensor] of Object.entries(part.tensors) as [TensorRole, StoredTensor][]) {
    const bytes = await bytesOf(tensor)
    if (role === 'sparse_index') places = placesOf(part, bytes, tensor, shape)
    else tensors[role] = { data: expectFinite(part, tensor, toFloat32(bytes, tensor.dtype)), shape: tensor.shape }
  }
  const { scale } = part
  const stored =
    'tensor' in scale
      ? expectFinite(part, scale.tensor, toFloat32(await bytesOf(scale.tensor), scale.tensor.dtype))[0]
      : undefined
  return { tensors, ...(stored === undefined ? {} : { stored }), ...(places ? { places } : {}) }
}

/**
 * What the product of a part is multiplied with before the person's weight: formats.md, section 5.1. `rank` is that of
 * its factors; undefined where nothing is factored, and then an alpha means nothing.
 */
export function scaleOf(part: AdapterPart, { stored }: PartNumbers, rank: number | undefined): number {
  switch (part.scale.from) {
    case 'scale':
      return stored ?? 1
    case 'alpha':
      return rank === undefined || stored === undefined ? 1 : stored / rank
    case 'metadata':
      return part.scale.value
    case 'none':
      return 1
  }
}

/** The numbers of a tensor that this kind of part must have. */
export function need(part: AdapterPart, { tensors }: PartNumbers, role: TensorRole): Numbers {
  const found = tensors[role]
  if (found) return found
  throw new VignetteError('adapter-mismatch', `The adapter changes "${part.path}" but has no ${role} for it.`, {
    hint: 'The file may be cut off or written by a faulty tool.',
  })
}

/** Refuses a part whose tensors do not make up the layer. */
export function misfit(part: AdapterPart, what: string): VignetteError {
  return new VignetteError('adapter-mismatch', `The adapter does not fit the layer "${part.path}": ${what}.`, {
    hint: 'It was made for another model.',
  })
}

function expectFinite(part: AdapterPart, tensor: StoredTensor, values: Float32Array): Float32Array {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i]
  // Finite float32 numbers cannot overflow a float64 sum.
  if (Number.isFinite(sum)) return values
  throw new VignetteError(
    'file-unreadable',
    `${basename(tensor.file)} is damaged: the layer "${part.path}" has values that are not a number or infinite.`,
    { hint: 'The training or merge that made it went wrong. Nothing was applied; look for another version.' },
  )
}

/** [count] places in C order, or [2, count] rows and columns of the weight as a matrix, as PEFT writes them. */
function placesOf(part: AdapterPart, bytes: Uint8Array, tensor: StoredTensor, shape: readonly number[]): Int32Array {
  const { n, k } = layerShape(shape)
  const given = wholeNumbers(part, bytes, tensor)
  const [rows, count] = tensor.shape.length === 2 ? tensor.shape : [1, given.length]
  if (rows !== 1 && rows !== 2) throw misfit(part, `places of shape [${tensor.shape.join(', ')}]`)
  const places = rows === 1 ? given : given.slice(0, count)
  if (rows === 2) for (let i = 0; i < count; i++) places[i] = places[i] * k + given[count + i]
  for (const place of places) {
    if (!(place >= 0 && place < n * k)) throw misfit(part, `place ${place} lies outside its ${n} × ${k} weights`)
  }
  return places
}

function wholeNumbers(part: AdapterPart, bytes: Uint8Array, { dtype, shape }: StoredTensor): Int32Array {
  const aligned = bytes.slice() // a typed array has to begin at a multiple of its elements
  const { buffer } = aligned
  switch (dtype) {
    case 'I32':
    case 'U32':
      return new Int32Array(buffer)
    case 'I64':
      return Int32Array.from(new BigInt64Array(buffer), Number)
    case 'F32':
      return Int32Array.from(new Float32Array(buffer))
    default:
      throw misfit(part, `places of ${shape.join(' × ')} stored as ${dtype}`)
  }
}
