import { basename } from 'node:path'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { VignetteError } from '../errors.ts'
import { floatToHalf, halfToFloat } from '../graph/half.ts'
import { fromBasis } from './basis.ts'
import type { RawLayer, SourceTensor } from './deltas.ts'
import type { AdapterTarget } from './types.ts'

// What a merged file says of the adapters in it, so that each can be taken out again. It lies in the notes of the file,
// since other programs refuse tensors that they do not know: key `vignette_inverse`, JSON with the members in words and
// `layers`, their numbers, as deflated JSON in base64.

export const inverseKey = 'vignette_inverse'

export type InverseLayer = {
  target: AdapterTarget
  path: string
  rank: number
  scale: number
  source?: RawLayer['source']
  /** Concatenated: what division by scale · weight leaves over; see `correctionOf`. */
  correction?: Int32Array
  /** Compressed: the adapter in the basis, [p, p]. */
  core?: Float32Array
}

export type InverseMember = {
  name: string
  weight: number
  textWeight: number
  sha256?: string
  metadata?: Readonly<Record<string, string>>
  /** ‖ΔW − ΔW'‖ / ‖ΔW‖ of what comes back, before it is rounded to its storage; 0: bit for bit. */
  error: number
  layers: InverseLayer[]
}

export type Inverse = { form: 'concatenated' | 'compressed'; members: InverseMember[] }

/** A layer without effect leaves nothing in the merged file that could be divided out of it. */
export const isRestorable = ({ scale }: Pick<RawLayer, 'scale'>): boolean => Number.isFinite(scale) && scale !== 0

/** Stored types whose numbers come back bit for bit; everything else comes back as float32. */
const exactTypes = ['F16', 'BF16', 'F32'] as const
type ExactType = (typeof exactTypes)[number]
const exactType = (source: SourceTensor | undefined): ExactType =>
  exactTypes.find((type) => type === source?.dtype) ?? 'F32'

/** Undoes `up · scale · weight`, to the nearest number of the type that the factor was stored in. */
function unfold(folded: Float32Array, factor: number, dtype: ExactType): Int32Array {
  return bitsOf(
    folded.map((value) => value / factor),
    dtype,
  )
}

/**
 * What must be added to the bits of the unfolded factor `up` to have its own again; `mergedScale` is what the merged file
 * multiplies the layer with. Halves, being coarser than the float32 they are multiplied in, need nothing: undefined.
 */
export function correctionOf(
  { up, scale, source }: Pick<RawLayer, 'up' | 'scale' | 'source'>,
  weight: number,
  mergedScale: number,
): Int32Array | undefined {
  const dtype = exactType(source?.up)
  const factor = scale * weight
  const own = bitsOf(up, dtype)
  const folded = up.map((value) => value * factor)
  const stored = mergedScale === 1 ? folded : folded.map((value) => value / mergedScale)
  const back = unfold(stored, factor / mergedScale, dtype)
  const correction = own.map((bits, i) => bits - back[i])
  return correction.some((value) => value !== 0) ? correction : undefined
}

const words = new Uint32Array(1)
const floats = new Float32Array(words.buffer)

function bitsOf(values: Float32Array, dtype: ExactType): Int32Array {
  if (dtype === 'F16') return Int32Array.from(values, floatToHalf)
  const bits = new Int32Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength))
  // The nearest of the upper halves, ties to even.
  return dtype === 'F32' ? bits : bits.map((word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16)
}

function ofBits(bits: Int32Array, dtype: ExactType): Float32Array {
  if (dtype === 'F16') return Float32Array.from(bits, halfToFloat)
  return Float32Array.from(bits, (word) => {
    words[0] = dtype === 'F32' ? word : word << 16
    return floats[0]
  })
}

/** One adapter out of a merged file, from the merged layers as the file has them. */
export function takeOut(inverse: Inverse, which: number, merged: readonly RawLayer[]): RawLayer[] {
  const keyOf = ({ target, path }: { target: AdapterTarget; path: string }) => `${target} ${path}`
  const places = new Map(merged.map((layer) => [keyOf(layer), layer]))
  const { weight, textWeight, layers } = inverse.members[which]
  // Where the members before this one end, layer by layer.
  const before = new Map<string, number>()
  for (const { layers: earlier } of inverse.members.slice(0, which))
    for (const layer of earlier) before.set(keyOf(layer), (before.get(keyOf(layer)) ?? 0) + layer.rank)
  return layers.map((layer) => {
    const { target, path, rank, scale, source, core, correction } = layer
    const whole = places.get(keyOf(layer))
    if (!whole) throw broken(`it has no layer ${path} any more`)
    if (inverse.form === 'compressed') {
      if (core?.length !== whole.rank ** 2) throw broken(`the core of ${path} is of another rank`)
      return { ...fromBasis(whole, core, rank), scale: 1 }
    }
    const first = before.get(keyOf(layer)) ?? 0
    before.set(keyOf(layer), first + rank) // a fused file has several parts for one layer
    const { weight: shape, rank: total, down, up } = whole
    const n = shape[0]
    const k = down.length / total
    if (first + rank > total) throw broken(`${path} has ${total} ranks and not the ${first + rank} that it was given`)
    const columns = Float32Array.from(
      { length: n * rank },
      (_, at) => up[Math.floor(at / rank) * total + first + (at % rank)],
    )
    const fits = ({ shape: own }: SourceTensor, count: number) => own.reduce((size, dim) => size * dim, 1) === count
    if (source && !(fits(source.down, rank * k) && fits(source.up, n * rank)))
      throw broken(`${path} was of another size`)
    const dtype = exactType(source?.up)
    const bits = unfold(columns, (scale * (target === 'unet' ? weight : textWeight)) / whole.scale, dtype)
    correction?.forEach((step, i) => (bits[i] += step))
    const own = { down: down.slice(first * k, (first + rank) * k), up: ofBits(bits, dtype) }
    return { target, path, weight: shape, rank, scale, ...own, ...(source ? { source } : {}) }
  })
}

function broken(what: string): VignetteError {
  return new VignetteError('file-unreadable', `The adapters in this file cannot be taken apart: ${what}.`, {
    hint: 'Another program has changed the file. Use the original of the merge.',
  })
}

type Written = { correction?: string; core?: string }

/** The notes of a merged file that hold its inverse. */
export function inverseMetadata({ form, members }: Inverse): Record<string, string> {
  const layers = members.map((member) =>
    member.layers.map(({ correction, core, ...layer }) => ({
      ...layer,
      ...(correction ? { correction: packed(correction) } : {}),
      ...(core ? { core: packed(core) } : {}),
    })),
  )
  const data = deflateRawSync(JSON.stringify(layers)).toString('base64')
  const text = JSON.stringify({
    version: 1,
    form,
    members: members.map(({ layers: _, ...member }) => member),
    layers: data,
  })
  if (text.length > mostBytes)
    throw new VignetteError(
      'bad-request',
      `What these adapters need to be taken apart again is too long for a file: ${Math.ceil(text.length / 1e6)} MB.`,
      { hint: 'Merge fewer at a time, choose a lower --rank, or leave out --keep-inverse.' },
    )
  return { [inverseKey]: text }
}

/** Readers of safetensors stop at headers of 100 MB; what is inflated of one may be no more than four times that. */
const mostBytes = 64e6
const mostInflated = 256e6

/** Reads the notes again; undefined where there are none. */
export function readInverse(metadata: ReadonlyMap<string, string>, file: string): Inverse | undefined {
  const text = metadata.get(inverseKey)
  if (text === undefined) return undefined
  try {
    const { version, form, members, layers } = JSON.parse(text) as {
      version: number
      form: Inverse['form']
      members: Omit<InverseMember, 'layers'>[]
      layers: string
    }
    if (version !== 1 || !['concatenated', 'compressed'].includes(form)) throw new Error('of a later version')
    const inflated = inflateRawSync(Buffer.from(layers, 'base64'), { maxOutputLength: mostInflated })
    const lists = JSON.parse(inflated.toString('utf8')) as (Omit<InverseLayer, keyof Written> & Written)[][]
    if (members.length === 0 || lists.length !== members.length) throw new Error('it names other adapters than it has')
    return {
      form,
      members: members.map((member, i) => {
        const { name, weight, textWeight, error, metadata = {} } = member
        if (typeof name !== 'string' || ![weight, textWeight, error].every(Number.isFinite))
          throw new Error('no weight')
        if (!Object.values(metadata).every((value) => typeof value === 'string')) throw new Error('notes that are none')
        return { ...member, layers: lists[i].map(readLayer) }
      }),
    }
  } catch (cause) {
    throw new VignetteError('file-unreadable', `What ${basename(file)} says of the adapters in it is damaged.`, {
      hint: 'Another program may have cut its notes. Use the original of the merge.',
      cause,
    })
  }
}

function readLayer({ correction, core, ...layer }: Omit<InverseLayer, keyof Written> & Written): InverseLayer {
  if (!Number.isInteger(layer.rank) || layer.rank < 1 || !isRestorable(layer)) throw new Error(`${layer.path}: no rank`)
  return {
    ...layer,
    ...(correction === undefined ? {} : { correction: new Int32Array(unpacked(correction)) }),
    ...(core === undefined ? {} : { core: new Float32Array(unpacked(core)) }),
  }
}

/**
 * Numbers of 32 bits as text: all lowest bytes, then all second ones and so on. Corrections are −1, 0 or 1 nearly
 * everywhere, so three of the four runs deflate to nothing; zigzag keeps the sign out of them.
 */
function packed(values: Int32Array | Float32Array): string {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const isWhole = values instanceof Int32Array
  const bytes = new Uint8Array(4 * values.length)
  words.forEach((word, i) => {
    const coded = isWhole ? (word << 1) ^ (values[i] >> 31) : word
    for (let plane = 0; plane < 4; plane++) bytes[plane * values.length + i] = coded >>> (8 * plane)
  })
  return `${isWhole ? 'i' : 'f'}${deflateRawSync(bytes).toString('base64')}`
}

function unpacked(text: string): ArrayBuffer {
  const bytes = inflateRawSync(Buffer.from(text.slice(1), 'base64'), { maxOutputLength: mostInflated })
  const count = bytes.length / 4
  const words = Uint32Array.from({ length: count }, (_, i) => {
    let word = 0
    for (let plane = 0; plane < 4; plane++) word |= bytes[plane * count + i] << (8 * plane)
    return text[0] === 'i' ? (word >>> 1) ^ -(word & 1) : word
  })
  return words.buffer
}
