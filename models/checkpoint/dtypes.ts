import { floatBitsToHalf, floatToHalf, halfToFloat } from '../graph/half.ts'
import type { Dtype } from '../graph/weights.ts'

/** What the importer writes. */
export type StorageDtype = 'F16' | 'F32'

export const bytesPerElement: Record<Dtype, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  U16: 2,
  U32: 4,
  U64: 8,
  BOOL: 1,
}

/** Element types that hold weights; the integer ones hold ids, masks or codes of a quantised file. */
export function isFloat(dtype: Dtype): boolean {
  return dtype === 'F16' || dtype === 'F32' || dtype === 'BF16' || dtype === 'F64' || dtype.startsWith('F8')
}

/** F8_E4M3 is the "fn" kind: bias 7, no infinities, only 0x7F and 0xFF are NaN, largest 448. */
function e4m3ToFloat(byte: number): number {
  const sign = byte & 0x80 ? -1 : 1
  const exponent = (byte >> 3) & 0xf
  const fraction = byte & 7
  if (exponent === 0xf && fraction === 7) return NaN
  return exponent === 0 ? sign * fraction * 2 ** -9 : sign * (8 + fraction) * 2 ** (exponent - 10)
}

const wordBits = new Uint32Array(1)
const floatBits = new Float32Array(wordBits.buffer)

function bfloatToFloat(word: number): number {
  wordBits[0] = word << 16
  return floatBits[0]
}

type Table = { floats: Float32Array; halves: Uint16Array }
const tables = new Map<Dtype, Table>()

/** All values of an 8- or 16-bit type, as float32 and as halves; built on first use (256 or 65,536 entries). */
function tableOf(dtype: Dtype): Table {
  const known = tables.get(dtype)
  if (known) return known
  const decode: Partial<Record<Dtype, (code: number) => number>> = {
    F16: halfToFloat,
    BF16: bfloatToFloat,
    F8_E4M3: e4m3ToFloat,
    F8_E5M2: (byte) => halfToFloat(byte << 8), // E5M2 is the high byte of a half
  }
  const valueOf = decode[dtype]
  if (!valueOf) throw new Error(`no value table for ${dtype}`)
  const floats = Float32Array.from({ length: bytesPerElement[dtype] === 1 ? 256 : 65536 }, (_, code) => valueOf(code))
  const table = { floats, halves: Uint16Array.from(floats, floatToHalf) }
  tables.set(dtype, table)
  return table
}

/** A typed view of bytes, copied first when they do not start on an element's boundary. */
function view<T>(
  type: { new (buffer: ArrayBufferLike, offset: number, length: number): T; BYTES_PER_ELEMENT: number },
  bytes: Uint8Array,
): T {
  const aligned = bytes.byteOffset % type.BYTES_PER_ELEMENT === 0 ? bytes : Uint8Array.from(bytes)
  return new type(aligned.buffer, aligned.byteOffset, aligned.byteLength / type.BYTES_PER_ELEMENT)
}

/** Little-endian elements of a floating type as float32 (F64 is rounded). Always a fresh array. */
export function toFloat32(bytes: Uint8Array, dtype: Dtype): Float32Array {
  if (dtype === 'F32') return view(Float32Array, bytes).slice()
  if (dtype === 'F64') return Float32Array.from(view(Float64Array, bytes))
  const { floats } = tableOf(dtype)
  const codes = bytesPerElement[dtype] === 1 ? bytes : view(Uint16Array, bytes)
  const out = new Float32Array(codes.length)
  for (let i = 0; i < out.length; i++) out[i] = floats[codes[i]]
  return out
}

/** The nearest halves of float32 values, ties to even. */
export function toFloat16(values: Float32Array): Uint16Array {
  const bits = view(Uint32Array, new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
  const out = new Uint16Array(bits.length)
  for (let i = 0; i < out.length; i++) out[i] = floatBitsToHalf(bits[i])
  return out
}

/** One converted run of elements. */
export type Converted = {
  bytes: Uint8Array
  /** Elements that were NaN or infinite already in the source. */
  nonFinite: number
  /** Finite elements too large for a half (65520 and more). */
  overflowed: number
}

/**
 * Rewrites a run of floating elements as F16 or F32, times `scale` (of scaled fp8 files), and counts what is not
 * finite. The bytes may be the input itself when nothing changes.
 */
export function convertElements(source: Uint8Array, from: Dtype, to: StorageDtype, scale = 1): Converted {
  if (from === 'F16' && to === 'F16' && scale === 1) {
    const halves = view(Uint16Array, source)
    let nonFinite = 0
    for (let i = 0; i < halves.length; i++) if ((halves[i] & 0x7c00) === 0x7c00) nonFinite++
    return { bytes: source, nonFinite, overflowed: 0 }
  }
  if (to === 'F16' && scale === 1 && from !== 'F32' && from !== 'F64') return halvesByTable(source, from)
  const values = from === 'F32' && scale === 1 ? view(Float32Array, source) : toFloat32(source, from)
  if (scale !== 1) for (let i = 0; i < values.length; i++) values[i] *= scale
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  let nonFinite = 0
  for (let i = 0; i < bits.length; i++) if ((bits[i] & 0x7f800000) === 0x7f800000) nonFinite++
  if (to === 'F32')
    return { bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength), nonFinite, overflowed: 0 }
  const halves = toFloat16(values)
  return { bytes: new Uint8Array(halves.buffer), nonFinite, overflowed: countInfinite(halves) - nonFinite }
}

function halvesByTable(source: Uint8Array, from: Dtype): Converted {
  const { floats, halves } = tableOf(from)
  const codes = bytesPerElement[from] === 1 ? source : view(Uint16Array, source)
  const out = new Uint16Array(codes.length)
  let nonFinite = 0
  for (let i = 0; i < out.length; i++) {
    out[i] = halves[codes[i]]
    if ((out[i] & 0x7c00) === 0x7c00 && !Number.isFinite(floats[codes[i]])) nonFinite++
  }
  return { bytes: new Uint8Array(out.buffer), nonFinite, overflowed: countInfinite(out) - nonFinite }
}

function countInfinite(halves: Uint16Array): number {
  let count = 0
  for (let i = 0; i < halves.length; i++) if ((halves[i] & 0x7c00) === 0x7c00) count++
  return count
}
