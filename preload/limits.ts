/** Plain numbers that form, contract and command line share. */
export const limits = {
  promptCharacters: 4000,
  minSize: 64,
  maxSize: 2048,
  sizeMultiple: 8,
  maxSteps: 150,
  maxGuidanceScale: 30,
  maxCount: 64,
  maxWaitingJobs: 10_000,
  maxJobsAtOnce: 1000,
  maxSeed: 4294967295,
  /** Slots of the person's own, and those that speed, guidance and watermark take. */
  maxAdapters: 12,
  userAdapters: 8,
  maxAdapterWeight: 4,
  /** Of all adapters together at one layer. */
  maxAdapterRank: 1024,
  maxRampPoints: 6,
  maxSetName: 80,
  /** Pictures of one audition. */
  maxAudition: 5,
  /** Files offered to the library at once. */
  maxDroppedFiles: 200,
  /** Pictures that one request may name. */
  maxPicturesAtOnce: 100_000,
  /** Adapters changed with one request. */
  maxAdaptersAtOnce: 20_000,
} as const

export const samplerNames = [
  'euler',
  'euler_a',
  'ddim',
  'dpmpp_2m',
  'dpmpp_2m_sde',
  'dpmpp_3m_sde',
  'heun',
  'unipc',
  'lcm',
  'tcd',
] as const
export type SamplerName = (typeof samplerNames)[number]

export const scheduleNames = [
  'normal',
  'karras',
  'exponential',
  'sgm_uniform',
  'trailing',
  'simple',
  'ddim_uniform',
] as const
export type ScheduleName = (typeof scheduleNames)[number]

/**
 * How much of each step is computed. `exact`: all of it. The others let what changes little from step to step stand, and
 * give nearly (`faster`) or roughly (`fastest`) the same picture.
 */
export const speedNames = ['exact', 'faster', 'fastest'] as const
export type SpeedName = (typeof speedNames)[number]

/** Choices of speed in the Studio: steps, guidance, sampler and adapters that belong together. */
export const paceNames = ['draft', 'fast', 'balanced', 'quality'] as const
export type PaceName = (typeof paceNames)[number]

/** How a 4-bit model runs on the processor: over bytes expanded from it, or over its packed weights as they lie. */
export const modeNames = ['fast', 'low-memory'] as const
export type ModeName = (typeof modeNames)[number]

/** How an adapter's weight goes from its first step to its last. */
export const rampNames = ['flat', 'ease-in', 'ease-out'] as const
export type RampName = (typeof rampNames)[number]

/** The screens, in the order of the rail. */
export const screenNames = ['studio', 'story', 'characters', 'adapters', 'models', 'gallery', 'settings'] as const
export type ScreenName = (typeof screenNames)[number]
