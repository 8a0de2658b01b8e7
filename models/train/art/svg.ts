// SVG text and its rasterisation. Sizes are written as WW in the text and filled in at the moment of drawing.
import sharp from 'sharp'

sharp.concurrency(1)

export interface Icon {
  body: string
  width?: number
  height?: number
  left?: number
  top?: number
}

export interface IconSet {
  width?: number
  height?: number
  icons: Record<string, Icon>
  aliases?: Record<string, { parent: string }>
}

export function findIcon(set: IconSet, names: string[]): Icon | undefined {
  for (const name of names) {
    const icon = set.icons[name] ?? set.icons[set.aliases?.[name]?.parent ?? '']
    if (icon) return icon
  }
  return undefined
}

export function iconSvg(set: IconSet, icon: Icon): string {
  const width = icon.width ?? set.width ?? 16
  const height = icon.height ?? set.height ?? 16
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
    `viewBox="${icon.left ?? 0} ${icon.top ?? 0} ${width} ${height}" width="WW" height="WW">${icon.body}</svg>`
  )
}

export async function raster(svg: string, size: number): Promise<Buffer> {
  return sharp(Buffer.from(svg.replaceAll('WW', String(size))))
    .resize(size, size, { fit: 'contain', background: { r: 0, g: 0, b: 0, alpha: 0 } })
    .ensureAlpha()
    .raw()
    .toBuffer()
}
