import { whole } from './algebra.ts'

/**
 * What the fast mode's int8 rows make of `x` [rows, k]: 'tensor' is ONNX's DynamicQuantizeLinear (0 … 255, the range
 * includes 0), 'token' one symmetric scale per row (±127).
 */
export function roundActivations(x: Float32Array, k: number, per: 'tensor' | 'token'): Float32Array {
  const out = new Float32Array(x.length)
  if (per === 'token') {
    for (let start = 0; start < x.length; start += k) {
      let largest = 0
      for (let i = start; i < start + k; i++) {
        const magnitude = x[i] < 0 ? -x[i] : x[i]
        if (magnitude > largest) largest = magnitude
      }
      const scale = largest / 127 || 1
      const inverse = 1 / scale
      for (let i = start; i < start + k; i++) out[i] = (x[i] * inverse + whole - whole) * scale
    }
    return out
  }
  let [low, high] = [0, 0]
  for (let i = 0; i < x.length; i++) {
    if (x[i] < low) low = x[i]
    else if (x[i] > high) high = x[i]
  }
  const scale = (high - low) / 255 || 1
  const zero = Math.round(-low / scale)
  const inverse = 1 / scale
  for (let i = 0; i < x.length; i++) {
    let code = x[i] * inverse + whole - whole + zero
    if (code > 255) code = 255
    else if (code < 0) code = 0
    out[i] = (code - zero) * scale
  }
  return out
}
