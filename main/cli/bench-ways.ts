import type { ModeName, SpeedName } from '../../preload/limits.ts'
import type { Experiment } from '../engine/quantize-plan.ts'

/** One way of storing and running a model, compared with its half precision form at the same seeds. */
export type Way = { id: string; about: string } & (
  | { mode: ModeName; experiment: Experiment }
  /** The model as it is, skipping work between steps. */
  | { speed: SpeedName }
)

/** From the plainest to all that Vignette does: the table shows what each part earns. */
export const ways: readonly Way[] = [
  { id: 'int8', about: '8 bits, int8 activations', mode: 'fast', experiment: { bits: 8 } },
  {
    id: 'nearest',
    about: '4 bits, nearest codes',
    mode: 'low-memory',
    experiment: { rank: 0, smooth: false, gptq: false },
  },
  { id: 'smooth', about: '+ smoothing', mode: 'low-memory', experiment: { rank: 0, gptq: false } },
  { id: 'feedback', about: '+ error feedback, no branch', mode: 'low-memory', experiment: { rank: 0 } },
  {
    id: 'branch',
    about: 'branch, no smoothing, no feedback',
    mode: 'low-memory',
    experiment: { smooth: false, gptq: false },
  },
  { id: 'rank-8', about: 'all, rank 8', mode: 'low-memory', experiment: { rank: 8 } },
  { id: 'rank-16', about: 'all, rank 16', mode: 'low-memory', experiment: { rank: 16 } },
  { id: 'rank-32', about: 'all, rank 32', mode: 'low-memory', experiment: { rank: 32 } },
  { id: 'vignette', about: 'as shipped', mode: 'low-memory', experiment: {} },
  { id: 'vignette-fast', about: 'as shipped, fast mode', mode: 'fast', experiment: {} },
  { id: 'faster', about: 'half precision, --speed faster', speed: 'faster' },
  { id: 'fastest', about: 'half precision, --speed fastest', speed: 'fastest' },
]

export const wayNames = ways.map(({ id }) => id)
