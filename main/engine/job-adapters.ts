import { basename } from 'node:path'
import type { AdapterInfo, AdapterTarget } from '../../models/adapters/types.ts'
import { VignetteError } from '../../models/errors.ts'
import type { SlotGroup } from '../../models/graph/graph.ts'
import type { AdapterUse } from '../../preload/contract/generate.ts'
import type { AdapterReference } from '../export/metadata.ts'
import type { AppliedAdapter, LiveWeights, LoadedAdapter, LoadedGuidance } from '../pipeline/adapter-types.ts'
import type { GenerateOptions } from '../pipeline/generate.ts'
import { createSlots, type Slots } from '../pipeline/slots.ts'
import { changes, effective } from '../pipeline/steps.ts'
import type { OpenNetworks } from './networks.ts'
import { withWeights } from './presets.ts'
import { usualSlots } from './variants.ts'

/** What reading a file gives: numbers for the networks, or for guidance. */
export type LoadedFile = {
  info: AdapterInfo
  adapter?: LoadedAdapter
  guidance?: LoadedGuidance
  /** What the person should know of it. */
  notices?: readonly string[]
}

/** Reads adapters for one model. */
export interface AdapterSource {
  load(file: string, rankBudget: number | undefined): Promise<LoadedFile>
  readonly live: LiveWeights
}

/** The adapters of a job, with the networks open for them. */
export type JobAdapters = {
  /** Of each picture: what is applied, and what its recipe says of it. */
  pictures: { applied: AppliedAdapter[]; references: AdapterReference[] }[]
  guidance?: LoadedGuidance
  slots: NonNullable<GenerateOptions['slots']>
  notices: string[]
}

const targets = ['unet', 'text_encoder', 'text_encoder_2'] as const

/**
 * Loads what the pictures of a job use and opens the networks that are changed by it with slots; the others, and all of
 * them where no adapter changes anything, stay as they are without.
 */
export async function openAdapters(
  uses: readonly (readonly AdapterUse[])[],
  steps: number,
  networks: OpenNetworks,
  source: AdapterSource,
): Promise<JobAdapters> {
  const notices = new Set<string>()
  const files = new Map<string, LoadedFile>()
  const pictures: JobAdapters['pictures'] = []
  const guidances: (LoadedGuidance | undefined)[] = []
  for (const own of uses) {
    const picture: JobAdapters['pictures'][number] = { applied: [], references: [] }
    let guidance: LoadedGuidance | undefined
    for (const use of own) {
      if (use.weight === 0 && (use.textWeight ?? 0) === 0) continue // not even read
      const key = `${use.rankBudget ?? ''} ${use.file}`
      const file = files.get(key) ?? (await source.load(use.file, use.rankBudget))
      files.set(key, file)
      for (const notice of file.notices ?? []) notices.add(notice)
      const filled = withWeights(use, file.info)
      if (file.guidance) {
        if (guidance) throw twoDistillers(guidance, file.guidance)
        guidance = file.guidance
        if (filled.weight !== 1 || filled.start > 0 || filled.end < 1) {
          notices.add(`"${guidance.name}" acts at every step, as strongly as the guidance scale says.`)
        }
        picture.references.push({ ...referenceOf(filled, file, guidance), isGuidance: true })
      }
      if (!file.adapter) continue
      const { start, end, ramp, weight = 0, textWeight = 0 } = filled
      const [applied] = effective([{ adapter: file.adapter, weight, textWeight, start, end, ramp }], steps)
      if (!applied) continue
      picture.applied.push(applied)
      picture.references.push(referenceOf(filled, file, file.adapter))
    }
    pictures.push(picture)
    guidances.push(guidance)
  }
  const [guidance] = guidances
  if (guidances.some((other) => other !== guidance)) {
    throw new VignetteError(
      'bad-request',
      'Only some pictures of the batch have the adapter that stands in for guidance.',
      {
        hint: 'Give it to all of them, or to none.',
      },
    )
  }
  const slots = await openSlots(
    pictures.map(({ applied }) => applied),
    guidance,
    networks,
    source.live,
  )
  return { pictures, ...(guidance ? { guidance } : {}), slots, notices: [...notices] }
}

/** Opens each network with the slots that its adapters need. */
async function openSlots(
  pictures: readonly (readonly AppliedAdapter[])[],
  guidance: LoadedGuidance | undefined,
  networks: OpenNetworks,
  weights: LiveWeights,
): Promise<JobAdapters['slots']> {
  const slots: JobAdapters['slots'] = {}
  const all = [...new Set(pictures.flat().map(({ adapter }) => adapter))]
  const keys = pictures.map((own) => keyOf(own, all))
  for (const target of targets) {
    if (!networks.has(target)) continue
    // Whoever weighs nothing on this network leaves it as it is: the plain one is faster, and has read more texts.
    const acting = pictures.flat().filter((own) => (target === 'unet' ? own.weight : own.textWeight) !== 0)
    const adapters = [...new Set(acting.map(({ adapter }) => adapter))]
    const paths = new Set(adapters.flatMap(({ layers }) => [...(layers[target]?.keys() ?? [])]))
    const hasWords = target !== 'unet' && adapters.some(({ embeddings }) => embeddings?.size)
    const livePaths = weights.paths(target, adapters)
    const hasSlots = paths.size > 0 || hasWords
    const isMixed = target === 'unet' && !networks.singleRows && keys.some((key) => key !== keys[0])
    const groups = hasSlots ? await groupsOf(target, paths, networks) : undefined
    const places = await networks.use(target, {
      ...(groups ? { slots: groups, mixed: isMixed } : {}),
      ...(livePaths.size > 0 ? { live: livePaths } : {}),
      ...(target === 'unet' && guidance ? { guidance: { width: guidance.width } } : {}),
    })
    const live = livePaths.size > 0 ? { paths: livePaths, weights } : undefined
    if (!hasSlots && !live) continue
    const key = JSON.stringify([target, isMixed, places.map(({ path }) => path), [...livePaths].sort()])
    const made = slotsOf(networks).get(key) ?? createSlots(target, places, { isMixed, live })
    slotsOf(networks).set(key, made)
    slots[target] = made
  }
  return slots
}

/** Joined factors outlive a job: the next one often has the same adapters. */
const kept = new WeakMap<OpenNetworks, Map<string, Slots>>()
function slotsOf(networks: OpenNetworks): Map<string, Slots> {
  const slots = kept.get(networks) ?? new Map<string, Slots>()
  kept.set(networks, slots)
  return slots
}

/** The groups that most adapters change, and further ones where these layers are in them. */
async function groupsOf(
  target: AdapterTarget,
  paths: ReadonlySet<string>,
  networks: OpenNetworks,
): Promise<ReadonlySet<SlotGroup>> {
  const places = await networks.slots(target)
  return new Set([...usualSlots, ...places.filter(({ path }) => paths.has(path)).map(({ group }) => group)])
}

/** Pictures with the same key have the same weights in the slots of the drawing network at every step. */
function keyOf(applied: readonly AppliedAdapter[], adapters: readonly LoadedAdapter[]): string {
  return applied
    .filter(({ adapter, weight }) => (adapter.layers.unet?.size ?? 0) > 0 && weight !== 0)
    .map(({ adapter, weight, start, end, ramp }) =>
      // One file may be in twice, cut to several rank budgets.
      JSON.stringify([adapter.sha256, adapters.indexOf(adapter), weight, start, end, ramp]),
    )
    .sort()
    .join()
}

function referenceOf(use: AdapterUse, { info, adapter }: LoadedFile, { sha256 }: { sha256: string }): AdapterReference {
  const { start, end, ramp, rankBudget, weight = 0, textWeight = 0 } = use
  const isEmbedding = adapter !== undefined && targets.every((target) => !changes(adapter, target))
  return {
    ...{ name: basename(info.file), sha256, weight, textWeight, start, end, ramp },
    ...{ matched: info.matched, total: info.total },
    ...(rankBudget === undefined ? {} : { rankBudget }),
    ...(isEmbedding ? { isEmbedding } : {}),
  }
}

function twoDistillers(one: LoadedGuidance, other: LoadedGuidance): VignetteError {
  return new VignetteError('bad-request', `"${one.name}" and "${other.name}" both stand in for guidance.`, {
    hint: 'Use one of them at a time.',
  })
}
