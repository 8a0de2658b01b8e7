import type { Denoiser } from './samplers.ts'

/**
 * Estimates of the clean latents, in the order a sampler asked for them. All else a sampler does is arithmetic and seeded
 * noise: with the same answers it comes, to the bit, to where it was, whatever it keeps from step to step.
 */
export type DenoiserMemory = {
  readonly recorded: readonly Float32Array[]
  /** Called with every estimate that is computed; drawing goes on when it resolves. */
  onDenoised?(denoised: Float32Array): Promise<void> | void
}

/** A step's part in what is remembered: computed anew, remembered with more to come, or the last remembered one. */
export type Recall = 'none' | 'between' | 'last'

/** `denoise` that answers from memory as long as it can, for `length` values; `recallOf` is asked once after each step. */
export function recalling(
  denoise: Denoiser,
  length: number,
  memory: DenoiserMemory | undefined,
): { denoise: Denoiser; recallOf(): Recall } {
  const recorded = memory?.recorded ?? []
  if (recorded.some((estimate) => estimate.length !== length))
    throw new Error('recalling: estimates of another picture')
  let asked = 0
  let before = 0
  return {
    async denoise(x, sigma) {
      const known = recorded[asked++]
      if (known) return known.slice()
      const denoised = await denoise(x, sigma)
      await memory?.onDenoised?.(denoised)
      return denoised
    },
    recallOf() {
      const inStep = asked - before
      before = asked
      if (asked > recorded.length) return 'none'
      // Samplers differ in how often they ask within a step, but for their last step they do not change it.
      return recorded.length - asked < inStep ? 'last' : 'between'
    },
  }
}
