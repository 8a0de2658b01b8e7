import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import type { Job } from '../../preload/contract/jobs.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import { limits } from '../../preload/limits.ts'
import { t } from '../strings.ts'
import { tidyWeight, weightText } from './weights.ts'

/** What an audition may try beside the picture without the adapter and the one with it as it is set. */
export const auditionExtras = ['negative', 'half', 'full', 'more'] as const
export type AuditionExtra = (typeof auditionExtras)[number]

/** One picture of an audition: undefined is without the adapter. */
export type AuditionTake = { weight: number | undefined; label: string }

const factors: Record<AuditionExtra, number> = { negative: -1, half: 0.5, full: 1, more: 1.5 }

/** The takes in the order of their weights; without first. No weight comes twice, and there are at most five. */
export function takesOf(slot: Pick<StudioSlot, 'name' | 'weight'>, extras: readonly AuditionExtra[]): AuditionTake[] {
  const weights = [slot.weight, ...extras.map((extra) => tidyWeight(factors[extra] * slot.weight))]
    .filter((weight, i, all) => weight !== 0 && all.indexOf(weight) === i)
    .slice(0, limits.maxAudition - 1)
    .sort((a, b) => a - b)
  return [
    { weight: undefined, label: t('Without {name}', { name: slot.name }) },
    ...weights.map((weight) => ({ weight, label: `${slot.name} ${weightText(weight)}` })),
  ]
}

/** The request of one take: all else as it is, one picture, and the same seed for all of them. */
export function auditionRequest(
  request: GenerateRequestInput,
  slot: StudioSlot,
  { weight }: AuditionTake,
  seed: number,
): GenerateRequestInput {
  const others = request.adapters ?? []
  const at = others.findIndex(({ file }) => file === slot.id)
  const { id, start, end, ramp, textWeight } = slot
  // A weight of its own on the prompt goes along in proportion.
  const text = textWeight === undefined || weight === undefined ? undefined : (textWeight * weight) / slot.weight
  const use = { file: id, weight, start, end, ramp, ...(text === undefined ? {} : { textWeight: tidyWeight(text) }) }
  const adapters =
    weight === undefined
      ? others.filter(({ file }) => file !== slot.id)
      : at < 0
        ? [...others, use]
        : others.map((other, i) => (i === at ? use : other))
  return { ...request, count: 1, seed, adapters }
}

/** Whether an audition of it would show anything, and why not. */
export function auditionReason(slot: StudioSlot, canUse: boolean): string | undefined {
  if (!canUse) return t('This adapter is not for this model.')
  if (slot.weight === 0) return t('At weight 0 it changes nothing.')
  return undefined
}

/** What an audition's jobs try: the adapter that the first has not, and its weight in each; undefined is without it. */
export function auditionOf(jobs: readonly Job[]): { file: string; weights: (number | undefined)[] } | undefined {
  if (jobs[0]?.source !== 'audition') return undefined
  const has = ({ request }: Job, file: string) => request.adapters.some((use) => use.file === file)
  const file = jobs.flatMap(({ request }) => request.adapters).find((use) => !has(jobs[0], use.file))?.file
  if (file === undefined) return undefined
  return { file, weights: jobs.map(({ request }) => request.adapters.find((use) => use.file === file)?.weight) }
}
