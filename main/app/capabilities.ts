import type { ModelManifest } from '../../models/manifest.ts'
import type { Capabilities, DeviceReport } from '../../preload/contract/models.ts'
import { limits } from '../../preload/limits.ts'

/** What can be done with a model here. What comes in a later version says so. */
export function capabilitiesOf(
  { id, nativeSize, latents, networks }: ModelManifest,
  provider: DeviceReport['provider'] = 'cpu',
): Capabilities {
  const canReadPictures = networks.includes('vae_encoder') || networks.includes('tiny_vae_encoder')
  return {
    model: id,
    adapterSlots: limits.userAdapters,
    perStepAdapterWeights: true,
    regionalAdapters: false,
    negativePrompt: true,
    promptWeights: true,
    distilledGuidance: 'scaled',
    phaseSpeed: 'slowFast',
    conditions: { types: [], max: 0 },
    imageToImage: canReadPictures,
    resumeFromLatent: true,
    deterministic: provider === 'cpu',
    watermark: 'none',
    sizes: { min: limits.minSize, max: limits.maxSize, multiple: latents.spatialFactor, native: [nativeSize] },
    tinyPreview: false,
    reasons: {
      ...(canReadPictures ? {} : { imageToImage: 'This model brings no network that reads pictures.' }),
      ...(provider === 'cpu' ? {} : { deterministic: 'Graphics cards may differ in the last digits.' }),
      conditions: 'Guiding a picture by edges, lines or depth comes with a later version of Vignette.',
      regionalAdapters: 'Placing characters in parts of the picture comes with a later version of Vignette.',
      watermark: 'Invisible marks come with a later version of Vignette.',
      tinyPreview: 'This model brings no small decoder for sharp previews.',
    },
  }
}
