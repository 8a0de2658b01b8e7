import type { RgbImage } from '../../../main/pipeline/image.ts'

/** Half gradient, half noise, the same every time: so that every PNG filter wins somewhere. */
export function noisePicture(width: number, height: number): RgbImage {
  const data = new Uint8Array(width * height * 3)
  let state = 1
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    data[i] = i % 2 === 0 ? (i * 3) & 255 : state >>> 24
  }
  return { data, width, height }
}
