// Gives a drawing another main colour by rewriting its fills: fur changes, eyes, noses and tongues stay.
import { HEX, clamp, hexToRgb, hslToHex, hueDistance, rgbToHsl, type Hsl } from './colour.js'
import { raster } from './svg.js'

const HUE_WIDTH = 28
const SAMPLE = 48

export async function recolour(svg: string, target: string): Promise<string> {
  const colours = [...new Set(svg.match(HEX) ?? [])]
  if (colours.length === 0) return svg
  const area = await visibleArea(svg, colours)
  const hsl = new Map(colours.map((c) => [c, rgbToHsl(hexToRgb(c))]))
  const at = (c: string): Hsl => hsl.get(c)!
  const total = (group: string[]): number => group.reduce((sum, c) => sum + area.get(c)!, 0)

  const group = mainGroup(colours, at, total)
  const size = total(group.members)
  if (size === 0) return svg
  const mean = (i: 1 | 2): number => group.members.reduce((sum, c) => sum + at(c)[i] * area.get(c)!, 0) / size
  const [lightness, saturation] = [mean(2), group.neutral ? 0 : mean(1)]

  // Lightness differences inside the group are its shading; keeping them keeps the drawing.
  const [hue, wantedSaturation, wantedLightness] = rgbToHsl(hexToRgb(target))
  const exchange = new Map(
    group.members.map((c) => {
      const relative = saturation > 0.15 ? Math.min(1.25, at(c)[1] / saturation) : 1
      const s = wantedSaturation < 0.12 ? wantedSaturation : clamp(wantedSaturation * relative, 0.1, 1)
      return [c, hslToHex([hue, s, clamp(wantedLightness + (at(c)[2] - lightness) * 0.85, 0.08, 0.97)])]
    })
  )
  return svg.replace(HEX, (c) => exchange.get(c) ?? c)
}

/** How many pixels of a small rendering show each colour (nearest colour wins). */
async function visibleArea(svg: string, colours: string[]): Promise<Map<string, number>> {
  const pixels = await raster(svg, SAMPLE)
  const rgb = colours.map(hexToRgb)
  const area = new Map(colours.map((c) => [c, 0]))
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 3]! < 200) continue
    let nearest = 0
    let smallest = Infinity
    rgb.forEach(([r, g, b], j) => {
      const d = (pixels[i]! - r) ** 2 + (pixels[i + 1]! - g) ** 2 + (pixels[i + 2]! - b) ** 2
      if (d < smallest) [smallest, nearest] = [d, j]
    })
    const c = colours[nearest]!
    area.set(c, area.get(c)! + 1)
  }
  return area
}

/** The hue group with the largest visible area, or the greys if they cover more. */
function mainGroup(
  colours: string[],
  at: (c: string) => Hsl,
  total: (group: string[]) => number
): { members: string[]; neutral: boolean } {
  const usable = colours.filter((c) => at(c)[2] > 0.16 && at(c)[2] < 0.97)
  const saturated = usable.filter((c) => at(c)[1] > 0.14)
  let best = { members: usable.filter((c) => at(c)[1] <= 0.2 && at(c)[2] > 0.3), neutral: true }
  let bestArea = total(best.members)
  for (const c of saturated) {
    const members = saturated.filter((d) => hueDistance(at(c)[0], at(d)[0]) < HUE_WIDTH)
    if (total(members) > bestArea * 1.02) {
      bestArea = total(members)
      best = { members, neutral: false }
    }
  }
  return best
}
