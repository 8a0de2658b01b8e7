import { VignetteError } from '../../models/errors.ts'
import type { FourBitReport } from '../../preload/contract/models.ts'
import type { ModeName } from '../../preload/limits.ts'
import { gigabytes } from './memory.ts'

export type ModeFacts = {
  /** Left out: the fastest that is right and fits. */
  asked?: ModeName
  fourBit: FourBitReport
  /** What the model's weights take in fast mode. */
  fastBytes: number
  /** Most that loaded weights may take together, and what is free at the moment, where that can be told. */
  budgetBytes: number
  spareBytes?: number
}

/** `notice`: why it is not what one would expect. */
export type ModeChoice = { mode: ModeName; notice?: string }

/**
 * How a 4-bit model runs on this processor. A seed gives the same picture in both modes but not the same bytes, so what
 * decides is what the machine has and not what it is busy with. Only where the memory would run out at once the choice
 * differs from one time to the next, and then it is said; the picture's recipe says it always.
 */
export function chooseMode({ asked, fourBit, fastBytes, budgetBytes, spareBytes = Infinity }: ModeFacts): ModeChoice {
  const { verdict, usable, reason } = fourBit
  if (usable.length === 0) {
    throw new VignetteError('checkpoint-unsupported', `4-bit models do not run right on this processor: ${reason}.`, {
      hint: 'Use the model in half precision.',
    })
  }
  if (asked && !usable.includes(asked)) {
    throw new VignetteError('bad-request', `The ${asked} mode does not run right on this processor: ${reason}.`, {
      hint: `Use the mode ${usable[0]}, or leave the choice to Vignette.`,
    })
  }
  if (asked) return { mode: asked }
  if (verdict !== 'fast') return { mode: usable.includes('low-memory') ? 'low-memory' : 'fast' }
  // The other half is for text encoders and pictures.
  const isLarge = fastBytes > budgetBytes / 2
  if ((isLarge || fastBytes > spareBytes) && usable.includes('low-memory')) {
    const have = isLarge
      ? `of ${gigabytes(budgetBytes)} for models half may be used`
      : `${gigabytes(spareBytes)} are free`
    const notice = `The fast mode needs ${gigabytes(fastBytes)}, and ${have}: the low-memory mode is slower.`
    return { mode: 'low-memory', notice }
  }
  return { mode: 'fast' }
}
