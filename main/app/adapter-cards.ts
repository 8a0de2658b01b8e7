import { basename } from 'node:path'
import type { AdapterInfo } from '../../models/adapters/types.ts'
import { VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { AdapterCard, AdapterPreset, AdapterRecord } from '../../preload/contract/adapters.ts'
import type { FoundFile } from './adapter-places.ts'

/** What the person is shown of an adapter file. */
export function cardOf(info: AdapterInfo): AdapterCard {
  const { bytes, kinds, familyName, rank, precision, matched, total, hasTextEncoder, triggers, preferredWeight } = info
  const { title, description, author, licence, tags, role, preset, guidanceRange, verdict, notices } = info
  return {
    name: title ?? basename(info.file).replace(/\.safetensors$/i, ''),
    fileName: basename(info.file),
    bytes,
    kinds,
    precision,
    matched,
    total,
    hasTextEncoder,
    triggers,
    tags,
    role,
    verdict,
    notices,
    ...defined({ familyName, rank, preferredWeight, description, author, licence }),
    ...(preset ? { preset: presetOf(preset) } : {}),
    ...(guidanceRange ? { guidanceRange: [...guidanceRange] } : {}),
  }
}

export function recordOf(found: FoundFile, info: AdapterInfo): AdapterRecord {
  return { ...cardOf(info), id: found.id, place: found.place.kind, modifiedAt: found.modifiedAt }
}

/** The card of a file that could not be read at all. */
export function refusedCard(file: string, bytes: number, { message, hint }: ErrorReport): AdapterCard {
  return {
    name: basename(file),
    fileName: basename(file),
    bytes,
    kinds: [],
    precision: '',
    matched: 0,
    total: 0,
    hasTextEncoder: false,
    triggers: [],
    tags: [],
    role: 'style',
    verdict: { fit: 'refused', message, ...(hint === undefined ? {} : { hint }) },
    notices: [],
  }
}

/** Throws what a refused file is refused for. */
export function expectAdapter({ verdict }: AdapterCard, error: ErrorReport | undefined): void {
  if (verdict.fit !== 'refused') return
  const { code, message, hint } = error ?? { code: 'file-unreadable' as const, ...verdict }
  throw new VignetteError(code, message, hint === undefined ? {} : { hint })
}

function presetOf(preset: NonNullable<AdapterInfo['preset']>): AdapterPreset {
  const { name, sampler, schedule, steps, guidanceScale, stepRange, timesteps, activeSteps } = preset
  return {
    ...{ name, sampler, steps, guidanceScale },
    ...(schedule === undefined ? {} : { schedule }),
    ...(stepRange ? { stepRange: [...stepRange] } : {}),
    ...(timesteps ? { hasLevels: true } : {}),
    ...(activeSteps ? { activeSteps: [...activeSteps] } : {}),
  }
}

function defined<T extends object>(all: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as never
}
