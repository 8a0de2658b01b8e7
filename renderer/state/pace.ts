import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import type { PaceName } from '../../preload/limits.ts'
import { canUse } from './adapters.svelte.ts'
import { preferredWeight } from './weights.ts'

// The choices of speed: which steps, guidance and adapters belong together.

export type GuidanceMode = 'classic' | 'distilled'
export type Phases = { slow: number; fast: number }

/** Adapters of the library that make pictures in less time, as far as they fit the model. */
export type SpeedAdapters = {
  /** Stands in for the second pass of guidance. */
  guidance?: AdapterRecord
  /** Draws in few steps. */
  few?: AdapterRecord
  /** Two that share the steps: the first draws the early ones, the second the late ones. */
  pair?: { slow: AdapterRecord; fast: AdapterRecord }
}

export type PacePlan = { steps: number; guidanceMode: GuidanceMode; isPhased: boolean; few?: AdapterRecord }

/** Shares of the steps a model wants: 4, 8, 20 and 36 where it says nothing. */
const shares: Record<PaceName, number> = { draft: 0.2, fast: 0.4, balanced: 1, quality: 1.8 }
const phaseDefault: Phases = { slow: 5, fast: 5 }

export function paceSteps(pace: PaceName, modelSteps: number): number {
  return Math.min(60, Math.max(1, Math.round(shares[pace] * modelSteps)))
}

/** The first of each kind that fits; of the pair, two that are made for each other. */
export function speedAdapters(records: readonly AdapterRecord[]): SpeedAdapters {
  const usable = records.filter(canUse)
  const of = (role: AdapterRecord['role']) => usable.filter((record) => record.role === role)
  const slow = of('speed-slow').find((one) => partnerOf(one, of('speed-fast')))
  const fast = slow && partnerOf(slow, of('speed-fast'))
  const [guidance] = of('guidance')
  const few = of('speed').find(({ preset }) => preset !== undefined)
  return {
    ...(guidance ? { guidance } : {}),
    ...(few ? { few } : {}),
    ...(slow && fast ? { pair: { slow, fast } } : {}),
  }
}

/** Both declare the same steps, one after the other; or neither declares any. */
function partnerOf({ preset }: AdapterRecord, others: readonly AdapterRecord[]): AdapterRecord | undefined {
  return others.find(({ preset: other }) =>
    preset && other
      ? preset.steps === other.steps &&
        preset.sampler === other.sampler &&
        preset.activeSteps?.[1] === other.activeSteps?.[0]
      : !preset && !other,
  )
}

/** What a choice of speed means for a model with these adapters. */
export function planOf(pace: PaceName, modelSteps: number, { guidance, few, pair }: SpeedAdapters): PacePlan {
  const steps = paceSteps(pace, modelSteps)
  const classic: PacePlan = { steps, guidanceMode: 'classic', isPhased: false }
  if (pace === 'balanced' || pace === 'quality') return classic
  if (few?.preset) {
    const { stepRange, steps: own, guidanceScale } = few.preset
    const isOnePass = guidanceScale <= 1
    return {
      steps: stepRange ? Math.min(stepRange[1], Math.max(stepRange[0], steps)) : own,
      guidanceMode: isOnePass ? 'distilled' : 'classic',
      isPhased: false,
      few,
    }
  }
  if (pace === 'fast' && pair) return { ...classic, guidanceMode: 'distilled', isPhased: true }
  return guidance ? { ...classic, guidanceMode: 'distilled' } : classic
}

/** How many steps each of a pair takes; `isLocked` when they are made for exactly these. */
export function phasesOf(pair: SpeedAdapters['pair'], chosen: Phases | undefined): Phases & { isLocked: boolean } {
  const [slow, fast] = [pair?.slow.preset?.activeSteps, pair?.fast.preset?.activeSteps]
  if (slow && fast) return { slow: slow[1] - slow[0], fast: fast[1] - fast[0], isLocked: true }
  return { ...(chosen ?? phaseDefault), isLocked: false }
}

/** The slots that are put in for it. Windows that main sets from the adapters' own steps stay open here. */
export function automaticSlots(
  { guidanceMode, isPhased, few }: PacePlan,
  { guidance, pair }: SpeedAdapters,
  phases: ReturnType<typeof phasesOf>,
): StudioSlot[] {
  if (isPhased && pair) {
    const border = phases.isLocked ? undefined : phases.slow / (phases.slow + phases.fast)
    return [
      { ...slotFor(pair.slow), ...(border === undefined ? {} : { end: border }) },
      { ...slotFor(pair.fast), ...(border === undefined ? {} : { start: border }) },
    ]
  }
  if (few) return [slotFor(few)]
  return guidanceMode === 'distilled' && guidance ? [slotFor(guidance)] : []
}

function slotFor(record: AdapterRecord): StudioSlot {
  const { id, name, role } = record
  return {
    ...{ id, name, role, isOn: true, weight: preferredWeight(record), start: 0, end: 1 },
    ...{ ramp: 'flat' as const, isAutomatic: true },
  }
}
