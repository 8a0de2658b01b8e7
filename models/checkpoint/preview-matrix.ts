import type { FamilyId } from '../family.ts'
import type { VaeConfig } from '../vae.ts'

/**
 * Scaled latents to RGB in −1…1, fitted by others on pictures of the published VAEs (the factors that ComfyUI's
 * previews use): [channels + 1][3], last row the bias.
 */
const sd = [
  [0.3512, 0.2297, 0.3227],
  [0.325, 0.4974, 0.235],
  [-0.2829, 0.1762, 0.2721],
  [-0.212, -0.2616, -0.7177],
  [0, 0, 0],
]
const sdxl = [
  [0.3651, 0.4232, 0.4341],
  [-0.2533, -0.0042, 0.1068],
  [0.1076, 0.1111, -0.0362],
  [-0.3165, -0.2492, -0.2188],
  [0.1084, -0.0175, -0.0011],
]

/** The published matrix where the VAE has the published form; for any other one it would show noise. */
export function knownPreviewMatrix(
  family: FamilyId,
  { latentChannels, blockOutChannels, scalingFactor }: VaeConfig,
): number[][] | undefined {
  const isPublished = latentChannels === 4 && blockOutChannels.join() === '128,256,512,512'
  if (!isPublished) return undefined
  const matrix = family === 'sdxl' ? sdxl : sd
  return Math.abs(scalingFactor - (family === 'sdxl' ? 0.13025 : 0.18215)) < 1e-4 ? matrix : undefined
}
