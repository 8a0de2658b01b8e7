import type { FamilyId, NoiseSchedule } from './family.ts'

/** The networks a model folder can hold. Each is `<name>.onnx` (graph only) over `<weights>` files beside it. */
export type NetworkName =
  | 'text_encoder'
  | 'text_encoder_2'
  | 'unet'
  | 'unet_shallow'
  | 'vae_encoder'
  | 'vae_decoder'
  | 'tiny_vae_encoder'
  | 'tiny_vae_decoder'

/**
 * Inputs and outputs of every network; all floats are float32 whatever the storage, ids are int64.
 * n batch, t tokens (77 per chunk), d embedding width, c latent channels, f the VAE's spatial factor.
 *
 * text_encoder*   input_ids [n, 77] i64, eos_index [n] i64
 *                 -> hidden_states [layers + 1, n, 77, d]  (0 = embeddings, layers = last block; no final norm)
 *                    normed_states [layers + 1, n, 77, d]  (the same after the final LayerNorm)
 *                    pooled [n, p]                         (last block, final norm, row eos_index, projection if any)
 * unet            sample [n, c, h, w], timestep [n] f32, encoder_hidden_states [n, t, d]
 *                 SDXL also: text_embeds [n, 1280], time_ids [n, 6]
 *                 key_stride [1] i64 (1; 2: attention at the outermost level looks at every other pixel each way)
 *                 -> out_sample [n, c, h, w]
 *                    deep [n, d, h, w] (what the outermost layers get from below; opaque: handed on as it came)
 * unet_shallow    as unet, and `deep` of a run of it at another noise level -> out_sample (main/pipeline/reuse.ts)
 * vae_encoder     sample [n, 3, f·h, f·w] in −1…1 -> latent_mean [n, c, h, w], latent_logvar [n, c, h, w] (clamped −30…20)
 * vae_decoder     latent_sample [n, c, h, w] (already divided by the scale) -> sample [n, 3, f·h, f·w]
 * tiny_vae_*      as above, but on scaled latents; the encoder has latent_sample as its only output (TAESD)
 */
export type ModelManifest = {
  /** Version of this file's own shape. */
  version: 1
  /** Folder name and the name used with --model, e.g. "starter". */
  id: string
  /** What the person reads. */
  name: string
  family: FamilyId
  schedule: NoiseSchedule
  latents: { channels: number; scale: number; shift: number; spatialFactor: number }
  /** Per text encoder: embedding width, number of blocks, and the block the family reads (1 = last). */
  textEncoders: { width: number; layers: number; padTokenId: number }[]
  nativeSize: { width: number; height: number }
  /** How the weights of the drawing network lie on disk; int4 is the format of kernels/README.md. */
  storage: 'fp32' | 'fp16' | 'int4'
  networks: NetworkName[]
  /** Scaled latents to RGB in −1…1 in one multiplication, for previews: [channels + 1][3], last row the bias. */
  previewMatrix?: number[][]
  defaults: { steps: number; guidanceScale: number; sampler: string; schedule: string }
  source: { file: string; sha256: string; bytes: number }
  /** Bytes of all weight files. */
  weightBytes: number
}
