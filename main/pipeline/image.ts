import { tensor, type FloatTensor } from './tensor.ts'

/** Interleaved red, green, blue bytes, row by row: `data.length = width · height · 3`. */
export type RgbImage = { data: Uint8Array; width: number; height: number }

/** Bytes 0…255 -> planes [1, 3, h, w] in −1…1, as networks take pictures. */
export function imageToTensor({ data, width, height }: RgbImage): FloatTensor {
  const plane = width * height
  const values = new Float32Array(3 * plane)
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) values[channel * plane + i] = data[3 * i + channel] / 127.5 - 1
  }
  return tensor(values, [1, 3, height, width])
}

/** Planes [1, 3, h, w] in −1…1 -> bytes; what lies outside is clamped. */
export function tensorToImage({ data, shape }: FloatTensor): RgbImage {
  const [height, width] = shape.slice(-2)
  const plane = width * height
  const bytes = new Uint8Array(3 * plane)
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) bytes[3 * i + channel] = toByte(data[channel * plane + i])
  }
  return { data: bytes, width, height }
}

/** −1…1 to 0…255. */
export function toByte(value: number): number {
  return Math.round(Math.min(Math.max(value * 127.5 + 127.5, 0), 255))
}
