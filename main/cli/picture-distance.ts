import type { RgbImage } from '../pipeline/image.ts'

// How far apart two pictures of one size are.

/** Peak signal-to-noise ratio over all channels in dB; Infinity for equal pictures. */
export function psnr(a: RgbImage, b: RgbImage): number {
  checkSizes(a, b)
  let sum = 0
  for (let i = 0; i < a.data.length; i++) sum += (a.data[i] - b.data[i]) ** 2
  return 10 * Math.log10(255 ** 2 / (sum / a.data.length))
}

/**
 * 1 − multi-scale structural similarity of the luma (Wang, Simoncelli & Bovik 2003): 0 for equal pictures. Structure at
 * up to five scales by the paper's exponents (as many as the size allows, their sum set back to 1), in Gaussian windows
 * of 11 × 11. It stands in for LPIPS, whose network is not at hand, and like it forgives small shifts of tone.
 */
export function structuralDistance(a: RgbImage, b: RgbImage): number {
  checkSizes(a, b)
  let [x, y] = [luma(a), luma(b)]
  let { width, height } = a
  const scales = Math.min(exponents.length, 1 + Math.floor(Math.log2(Math.min(width, height) / kernel.length)))
  if (scales < 1) throw new Error(`${width} × ${height} is too small for windows of ${kernel.length}`)
  const total = exponents.slice(0, scales).reduce((sum, value) => sum + value, 0)
  let similarity = 1
  for (let scale = 0; scale < scales; scale++) {
    const { structure, whole } = meanSimilarity(x, y, width, height)
    // Only the coarsest scale compares brightness as well; a negative mean has no power and counts as none.
    const part = Math.max(0, scale === scales - 1 ? whole : structure)
    similarity *= part ** (exponents[scale] / total)
    ;[x, y] = [halved(x, width, height), halved(y, width, height)]
    width >>= 1
    height >>= 1
  }
  return 1 - similarity
}

const exponents = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
const kernel = gaussian(11, 1.5)
/** (0.01 · 255)² and (0.03 · 255)²: keep flat regions from dividing by nothing. */
const [c1, c2] = [6.5025, 58.5225]

function gaussian(size: number, sigma: number): Float64Array {
  const values = Float64Array.from({ length: size }, (_, i) =>
    Math.exp(-((i - (size - 1) / 2) ** 2) / (2 * sigma ** 2)),
  )
  const sum = values.reduce((total, value) => total + value, 0)
  return values.map((value) => value / sum)
}

function luma({ data, width, height }: RgbImage): Float64Array {
  return Float64Array.from(
    { length: width * height },
    (_, i) => 0.299 * data[3 * i] + 0.587 * data[3 * i + 1] + 0.114 * data[3 * i + 2],
  )
}

/** Means over all windows inside the picture: contrast and structure alone, and with brightness. */
function meanSimilarity(x: Float64Array, y: Float64Array, width: number, height: number) {
  const blur = (values: Float64Array) => windowed(values, width, height)
  const [mx, my] = [blur(x), blur(y)]
  const [xx, yy, xy] = [blur(x.map((v) => v * v)), blur(y.map((v) => v * v)), blur(x.map((v, i) => v * y[i]))]
  let structure = 0
  let whole = 0
  for (let i = 0; i < mx.length; i++) {
    const product = mx[i] * my[i]
    const squares = mx[i] ** 2 + my[i] ** 2
    const s = (2 * (xy[i] - product) + c2) / (xx[i] + yy[i] - squares + c2)
    structure += s
    whole += (s * (2 * product + c1)) / (squares + c1)
  }
  return { structure: structure / mx.length, whole: whole / mx.length }
}

/** Gaussian means over every window that lies inside, rows first. */
function windowed(values: Float64Array, width: number, height: number): Float64Array {
  const size = kernel.length
  const [w, h] = [width - size + 1, height - size + 1]
  const rows = new Float64Array(w * height)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < w; x++) {
      let sum = 0
      for (let k = 0; k < size; k++) sum += kernel[k] * values[y * width + x + k]
      rows[y * w + x] = sum
    }
  }
  const out = new Float64Array(w * h)
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      let sum = 0
      for (let k = 0; k < size; k++) sum += kernel[k] * rows[(y + k) * w + x]
      out[y * w + x] = sum
    }
  }
  return out
}

function halved(values: Float64Array, width: number, height: number): Float64Array {
  const [w, h] = [width >> 1, height >> 1]
  return Float64Array.from({ length: w * h }, (_, i) => {
    const at = 2 * Math.floor(i / w) * width + 2 * (i % w)
    return (values[at] + values[at + 1] + values[at + width] + values[at + width + 1]) / 4
  })
}

function checkSizes(a: RgbImage, b: RgbImage): void {
  if (a.width !== b.width || a.height !== b.height)
    throw new Error(`pictures of ${a.width} × ${a.height} and ${b.width} × ${b.height} cannot be compared`)
}
