// 16-bit floats, which JavaScript before Float16Array knows only as their bits.

const floatBits = new Float32Array(1)
const wordBits = new Uint32Array(floatBits.buffer)

/** Value of an IEEE half: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
export function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN
  return sign * (1024 + fraction) * 2 ** (exponent - 25)
}

/** Bits of the nearest half, ties to even. Finite values of 65520 and more become infinity. */
export function floatBitsToHalf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude >= 0x47800000) return sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00) // 2^16 and more
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13) // ≥ 2^-14
  if (magnitude <= 0x33000000) return sign // up to 2^-25: halfway to the smallest half, and 0 is even
  const shift = 126 - (magnitude >>> 23) // 14…24: from units of 2^(exponent - 150) to units of 2^-24
  const fraction = (magnitude & 0x7fffff) | 0x800000
  const rounded = fraction + (1 << (shift - 1)) - 1 + ((fraction >>> shift) & 1)
  return sign | (rounded >>> shift)
}

export function floatToHalf(value: number): number {
  floatBits[0] = value
  return floatBitsToHalf(wordBits[0])
}
