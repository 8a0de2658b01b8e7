// Colour arithmetic for recolouring.

export type Rgb = [number, number, number]
export type Hsl = [hue: number, saturation: number, lightness: number]

export const HEX = /#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b/g

export function hexToRgb(hex: string): Rgb {
  let h = hex.slice(1)
  if (h.length === 3) h = [...h].map((c) => c + c).join('')
  return [0, 2, 4].map((i) => parseInt(h.slice(i, i + 2), 16)) as Rgb
}

export function rgbToHsl([r8, g8, b8]: Rgb): Hsl {
  const [r, g, b] = [r8 / 255, g8 / 255, b8 / 255]
  const max = Math.max(r, g, b)
  const range = max - Math.min(r, g, b)
  const lightness = max - range / 2
  if (range < 1e-6) return [0, 0, lightness]
  const saturation = range / (1 - Math.abs(2 * lightness - 1))
  const sector = max === r ? ((g - b) / range + 6) % 6 : max === g ? (b - r) / range + 2 : (r - g) / range + 4
  return [sector * 60, saturation, lightness]
}

export function hslToHex([h, s, l]: Hsl): string {
  const channel = (n: number): string => {
    const k = (n + h / 30) % 12
    const v = l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1))
    return Math.round(255 * clamp(v, 0, 1)).toString(16).padStart(2, '0')
  }
  return `#${channel(0)}${channel(8)}${channel(4)}`
}

export function clamp(v: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, v))
}

export function hueDistance(a: number, b: number): number {
  const d = Math.abs(a - b)
  return Math.min(d, 360 - d)
}
