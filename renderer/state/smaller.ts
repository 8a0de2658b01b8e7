import { limits } from '../../preload/limits.ts'
import type { Size } from './shapes.ts'

/** A size that takes about half the memory: three quarters of each side, on what networks divide evenly. */
export function smallerSize({ width, height }: Size): Size | undefined {
  const multiple = Math.min(width, height) >= 256 ? 64 : limits.sizeMultiple
  const shrink = (side: number) => Math.max(limits.minSize, Math.floor((side * 0.75) / multiple) * multiple)
  const smaller = { width: shrink(width), height: shrink(height) }
  return smaller.width < width || smaller.height < height ? smaller : undefined
}
