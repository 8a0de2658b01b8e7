/** Interleaved red, green, blue bytes, row by row: `data.length = width · height · 3`. */
export type RgbImage = { data: Uint8Array; width: number; height: number }
