/** Networks that share latents and text encoders. */
export type FamilyId = 'sd15' | 'sd2' | 'sdxl'

/** What the denoising network estimates: the noise, or v = √ᾱ·noise − √(1−ᾱ)·image (Salimans & Ho 2022). */
export type PredictionType = 'epsilon' | 'v_prediction'

/** The training noise schedule, as diffusers' scheduler_config.json names it. */
export type NoiseSchedule = {
  betaStart: number
  betaEnd: number
  betaSchedule: 'scaled_linear' | 'linear'
  trainTimesteps: number
  predictionType: PredictionType
  /** Rescale the betas so that the last timestep is pure noise (Lin et al. 2023). */
  zeroTerminalSnr: boolean
}

export const sdNoiseSchedule: NoiseSchedule = {
  betaStart: 0.00085,
  betaEnd: 0.012,
  betaSchedule: 'scaled_linear',
  trainTimesteps: 1000,
  predictionType: 'epsilon',
  zeroTerminalSnr: false,
}

/** One family as data: what differs between them outside the networks themselves. */
export type Family = {
  id: FamilyId
  name: string
  /** Names of the text encoders in order; their outputs are joined on the embedding axis. */
  textEncoders: readonly ('text_encoder' | 'text_encoder_2')[]
  /** Token id that fills each encoder's unused positions. CLIP-L repeats the end token, OpenCLIP uses 0. */
  padTokenIds: readonly number[]
  /** SDXL takes the block before the last, without the final norm; the others the last one with it. */
  usesPenultimate: boolean
  /** SDXL also feeds a pooled text vector and six size numbers. */
  hasSizeConditioning: boolean
  /** Width and height the family was trained for, in pixels; used when a model does not say. */
  nativeSize: number
  /** latents = (mean − shift) · scale, when the VAE's own config does not say. */
  latentScale: number
}

export const families: Record<FamilyId, Family> = {
  sd15: {
    id: 'sd15',
    name: 'Stable Diffusion 1.x',
    textEncoders: ['text_encoder'],
    padTokenIds: [49407],
    usesPenultimate: false,
    hasSizeConditioning: false,
    nativeSize: 512,
    latentScale: 0.18215,
  },
  sd2: {
    id: 'sd2',
    name: 'Stable Diffusion 2.x',
    textEncoders: ['text_encoder'],
    padTokenIds: [0],
    usesPenultimate: false,
    hasSizeConditioning: false,
    nativeSize: 768,
    latentScale: 0.18215,
  },
  sdxl: {
    id: 'sdxl',
    name: 'Stable Diffusion XL',
    textEncoders: ['text_encoder', 'text_encoder_2'],
    padTokenIds: [49407, 0],
    usesPenultimate: true,
    hasSizeConditioning: true,
    nativeSize: 1024,
    latentScale: 0.13025,
  },
}
