import type { Tokenizer } from './tokenizer.ts'
import type { GenerateEvent, GenerateJob, Networks } from './types.ts'

export type GenerateOptions = {
  /** Several pictures of the job in one batch, one per seed; each equals the picture made alone. Default `[job.seed]`. */
  seeds?: readonly number[]
  /** Both guidance passes in one batch of two (default), or one after the other for half the memory. */
  batchGuidance?: boolean
  /** Pictures with more pixels than this are encoded and decoded in tiles. Default 1024 × 1024. */
  tileAbovePixels?: number
}

/**
 * Makes the picture (or pictures) of one job and reports on the way. To cancel, stop iterating:
 * nothing runs after the current step. `tokenizer` is `createTokenizer(await readClipMerges())`.
 */
export async function* generate(
  job: GenerateJob,
  networks: Networks,
  tokenizer: Tokenizer,
  options: GenerateOptions = {},
): AsyncGenerator<GenerateEvent> {
  void [job, networks, tokenizer, options]
  yield { type: 'phase', phase: 'encoding' }
  throw new Error('generate: the samplers are not in place yet')
}
