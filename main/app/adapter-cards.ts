import { basename } from 'node:path'
import type { AdapterInfo } from '../../models/adapters/types.ts'
import { VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { AdapterCard, AdapterPreset, AdapterRecord } from '../../preload/contract/adapters.ts'
import type { StoredEdit } from './adapter-edits.ts'
import { folderOf, type FoundFile } from './adapter-places.ts'

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

/** What a record is put together from. */
export type RecordParts = {
  found: Pick<FoundFile, 'id' | 'file' | 'place' | 'modifiedAt'>
  info: AdapterInfo
  edit: Readonly<StoredEdit>
  hash?: string
  twins?: string
  thumbUrl?: string
  isMissing?: boolean
}

/** A file of the library as the window shows it: the person's own words before those of the file. */
export function recordOf({ found, info, edit, hash, twins, thumbUrl, isMissing }: RecordParts): AdapterRecord {
  const card = cardOf(info)
  const { timesUsed = 0, lastUsedAt, thumb, samples = [], tags: ownTags = [], collections = [], ...own } = edit
  const { isFavourite = false, isMature = false, ...fields } = own
  const weightRange = fields.weightRange ?? info.weightRange
  return {
    ...card,
    ...fields,
    tags: [...new Set([...ownTags, ...card.tags])],
    id: found.id,
    place: found.place.kind,
    folder: folderOf(found.place, found.file),
    modifiedAt: found.modifiedAt,
    ...{ ownTags, collections, isFavourite, isMature, timesUsed },
    samples: samples.map((image) => ({ id: image, url: `vignette-image://${image}/thumb` })),
    edited: [...Object.keys(own), ...(thumb ? ['thumb'] : [])],
    ...(weightRange ? { weightRange: [...weightRange] } : {}),
    ...defined({ hash, twins, thumbUrl, lastUsedAt }),
    ...(isMissing ? { isMissing: true } : {}),
  }
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
