import { limits } from '../../preload/limits.ts'

export const shapeNames = ['1:1', '4:3', '3:4', '3:2', '2:3', '16:9', '9:16', 'custom'] as const
export type ShapeName = (typeof shapeNames)[number]

export type Size = { width: number; height: number }

/**
 * Width and height of a shape with about as many pixels as the model was trained on. Sides are multiples of an eighth of
 * its native side (32 for 256, 64 for 512 and more), which networks of this kind divide most evenly.
 */
export function sizeOf(shape: Exclude<ShapeName, 'custom'>, native: Size): Size {
  const [across, down] = shape.split(':').map(Number)
  const area = native.width * native.height
  const multiple = Math.min(64, Math.max(limits.sizeMultiple, native.width / 8))
  const snap = (side: number) => snapSide(side, multiple)
  return { width: snap(Math.sqrt((area * across) / down)), height: snap(Math.sqrt((area * down) / across)) }
}

/** The nearest side length that is allowed. */
export function snapSide(
  side: number,
  multiple: number = limits.sizeMultiple,
  min: number = limits.minSize,
  max: number = limits.maxSize,
): number {
  const snapped = Math.round(side / multiple) * multiple
  const [least, most] = [Math.ceil(min / multiple) * multiple, Math.floor(max / multiple) * multiple]
  return Math.min(most, Math.max(least, Number.isFinite(snapped) ? snapped : least))
}

/** The named shape with exactly this size, or `custom`. */
export function shapeOf(size: Size, native: Size): ShapeName {
  const found = shapeNames.find((name) => {
    if (name === 'custom') return false
    const { width, height } = sizeOf(name, native)
    return width === size.width && height === size.height
  })
  return found ?? 'custom'
}
