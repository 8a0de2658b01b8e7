/**
 * What the fast mode's int8 rows make of `x` [rows, k]: 'tensor' is ONNX's DynamicQuantizeLinear (0 … 255, the range
 * includes 0), 'token' one symmetric scale per row (±127).
 */
export function roundActivations(x: Float32Array, k: number, per: 'tensor' | 'token'): Float32Array {
  const out = new Float32Array(x.length)
  if (per === 'token') {
    for (let start = 0; start < x.length; start += k) {
      let largest = 0
      for (let i = start; i < start + k; i++) largest = Math.max(largest, Math.abs(x[i]))
      const scale = largest / 127 || 1
      for (let i = start; i < start + k; i++) out[i] = Math.round(x[i] / scale) * scale
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
  for (let i = 0; i < x.length; i++) {
    out[i] = (Math.max(0, Math.min(255, Math.round(x[i] / scale) + zero)) - zero) * scale
  }
  return out
}
