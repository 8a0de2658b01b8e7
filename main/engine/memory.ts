import { freemem, totalmem } from 'node:os'

/** Memory this process may use in all: the machine's, or the limit of the container it runs in. */
export function totalMemoryBytes(): number {
  // 0 or a huge number when there is no limit.
  const limit = process.constrainedMemory?.() ?? 0
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem()
}

/** Most that loaded weights may take when nobody said otherwise: the rest is for activations and other programs. */
export function defaultBudgetBytes(): number {
  return 0.75 * totalMemoryBytes()
}

/** Working memory of SD's VAE decoder per pixel: 1.05 GB at 512 × 512. */
export const decodeBytesPerPixel = 4000

/**
 * Pictures with more pixels than this are decoded in tiles. Follows from the memory of the machine and not from what is
 * free at the moment: tiles differ a little from a whole decoding, and the same request must give the same picture.
 */
export function tileAbovePixels(totalBytes = totalMemoryBytes()): number {
  return Math.min(768 * 768, Math.floor((0.4 * totalBytes) / decodeBytesPerPixel))
}

/** What is free now, as the operating system counts it (on Linux with reclaimable caches). */
export function freeMemoryBytes(): number {
  const limit = totalMemoryBytes()
  return Math.max(0, Math.min(freemem(), limit - process.memoryUsage.rss()))
}

/** The same where the number means something: macOS counts memory that it would give back at once as taken. */
export function spareMemoryBytes(): number | undefined {
  return process.platform === 'darwin' ? undefined : freeMemoryBytes()
}

/** "3.4 GB", "120 MB": powers of ten, as file managers show them. */
export function gigabytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`
  return `${Math.max(1, Math.round(bytes / 1e6))} MB`
}
