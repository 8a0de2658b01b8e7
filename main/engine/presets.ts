import { lcmTimesteps } from '../../models/adapters/presets.ts'
import type { AdapterInfo, SpeedPreset } from '../../models/adapters/types.ts'
import { VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import type { AdapterUse, GenerateRequest } from '../../preload/contract/generate.ts'
import { samplerNames, scheduleNames, type SamplerName } from '../../preload/limits.ts'
import type { BatchPicture } from './protocol.ts'

// What the adapters of a request decide where the person decided nothing: their weights, and for those that draw in few
// steps the sampler, the steps, the noise levels and the guidance, which belong together (methods.md, sections 3 and 10.1).

export type AdaptedRequest = { request: GenerateRequest; notices: string[] }

type Chosen = { use: AdapterUse; info: AdapterInfo; index: number }

/** The request with all that its adapters decide; `infos` are theirs, in order. Refuses what does not go together. */
export function fillFromAdapters(
  request: GenerateRequest,
  manifest: ModelManifest,
  infos: readonly AdapterInfo[],
): AdaptedRequest {
  const adapters = request.adapters.map((use, i) => withWeights(use, infos[i]))
  const acting = adapters
    .map((use, index): Chosen => ({ use, info: infos[index], index }))
    .filter(({ use }) => use.weight !== 0 || use.textWeight !== 0)
  const notices = acting.flatMap(({ info }) => fitNotices(info))
  const distillers = acting.filter(({ info }) => info.role === 'guidance')
  if (distillers.length > 1) {
    throw new VignetteError('bad-request', `${namesOf(distillers)} both stand in for guidance.`, {
      hint: 'Use one of them at a time.',
    })
  }
  const marks = acting.filter(({ info }) => info.role === 'watermark')
  if (marks.length > 1) notices.push(`${namesOf(marks)} each put a mark into the picture; neither may be read back.`)
  const filled = { ...request, adapters }
  const plan = planOf(acting.filter(({ info }) => info.preset))
  return plan ? withPlan(filled, manifest, plan, notices) : { request: filled, notices }
}

/** What all pictures of a batch share: they go through the same steps. */
const shared = ['sampler', 'schedule', 'steps', 'timesteps', 'eta'] as const

/**
 * The request of a batch with what the adapters of all its pictures decide, and those pictures with weights and guidance.
 * `infosOf` has the infos of a list of adapters, in order.
 */
export function fillBatch(
  request: GenerateRequest,
  pictures: readonly BatchPicture[],
  manifest: ModelManifest,
  infosOf: (adapters: readonly AdapterUse[]) => AdapterInfo[],
): AdaptedRequest & { batch: BatchPicture[] } {
  const own = pictures.map((picture) => ({ ...request, ...picture }))
  const filled = own.map((one) => fillFromAdapters(one, manifest, infosOf(one.adapters)))
  const settings = filled.map(({ request: one }) => JSON.stringify(shared.map((key) => one[key])))
  const other = settings.findIndex((text) => text !== settings[0])
  if (other > 0) {
    throw new VignetteError(
      'bad-request',
      `The adapters of picture ${other + 1} are made for other steps than those of picture 1, and a batch is drawn in the same.`,
      {
        hint: 'Give all pictures the adapter for few steps, or none; or say which sampler, steps and schedule to use.',
      },
    )
  }
  const distillers = filled.map(({ request: { adapters } }) => {
    const infos = infosOf(adapters)
    return adapters.find((use, i) => infos[i].role === 'guidance' && use.weight !== 0)?.file
  })
  if (distillers.some((file) => file !== distillers[0])) {
    throw new VignetteError(
      'bad-request',
      'Only some pictures of the batch have the adapter that stands in for guidance.',
      {
        hint: 'Give it to all of them, or to none.',
      },
    )
  }
  const [first] = filled
  const common = Object.fromEntries(
    shared.flatMap((key) => (first.request[key] === undefined ? [] : [[key, first.request[key]]])),
  )
  const batch = filled.map(({ request: { adapters, guidanceScale } }, i) => ({
    ...pictures[i],
    adapters,
    ...(guidanceScale === undefined ? {} : { guidanceScale }),
  }))
  return { request: { ...request, ...common }, batch, notices: [...new Set(filled.flatMap(({ notices }) => notices))] }
}

/** Weight of an adapter that nobody gave one: what its file prefers, else by what it is for. */
export function withWeights(use: AdapterUse, { preferredWeight, role }: AdapterInfo): AdapterUse {
  const isWhole = role !== 'style' && role !== 'subject' && role !== 'detail' && role !== 'condition'
  const weight = use.weight ?? preferredWeight ?? (isWhole ? 1 : 0.8)
  return { ...use, weight, textWeight: use.textWeight ?? weight }
}

/** Throws for an adapter that cannot be applied; says what of it is left out. */
function fitNotices({ verdict, notices }: AdapterInfo): string[] {
  const { fit, message, hint } = verdict
  if (fit === 'fits') return notices
  if (fit === 'partly') return [[message, hint].filter(Boolean).join(' '), ...notices]
  throw new VignetteError('adapter-mismatch', message, hint === undefined ? {} : { hint })
}

/** One way of drawing that an adapter, or a pair of them, is made for. */
type Plan = {
  /** The adapters, in words. */
  names: string
  preset: SpeedPreset
  /** Where each of the adapters acts, by its place in the request. */
  windows: { index: number; first: number; end: number }[]
  notices: string[]
}

/** What the adapters with presets ask for together; undefined when there are none. */
function planOf(speeds: readonly Chosen[]): Plan | undefined {
  if (speeds.length === 0) return undefined
  const slow = speeds.filter(({ info }) => info.role === 'speed-slow')
  const fast = speeds.filter(({ info }) => info.role === 'speed-fast')
  if (slow.length === 1 && fast.length === 1 && speeds.length === 2) return pairOf(slow[0], fast[0])
  const [first] = speeds
  const contradiction = speeds.find(({ info }) => settingsOf(info.preset!) !== settingsOf(first.info.preset!))
  if (contradiction) throw contradictory([first, contradiction])

  const preset = first.info.preset!
  const steps = preset.timesteps?.length ?? preset.steps
  const [from, to] = preset.activeSteps ?? [0, steps]
  const windows = speeds.map(({ index }) => ({ index, first: from, end: to }))
  const partner = slow.length > 0 ? 'fast' : fast.length > 0 ? 'slow' : undefined
  const notices = partner
    ? [
        `"${first.info.name}" is one of a pair; without the ${partner} one the other steps are drawn as the model draws them.`,
      ]
    : []
  return { names: namesOf(speeds), preset, windows, notices }
}

/** A slow and a fast phase: the noise levels of both, each adapter at its own. */
function pairOf(slow: Chosen, fast: Chosen): Plan {
  const [a, b] = [slow.info.preset!, fast.info.preset!]
  const isOne = a.sampler === b.sampler && a.guidanceScale === b.guidanceScale
  const names = namesOf([slow, fast])
  if (!isOne) throw contradictory([slow, fast])
  if (!a.timesteps || !b.timesteps) {
    // Noise levels by a schedule: only the steps can say who acts when.
    const [ends, starts] = [a.activeSteps?.[1], b.activeSteps?.[0]]
    if (a.steps !== b.steps || a.schedule !== b.schedule || ends === undefined || ends !== starts) {
      throw contradictory([slow, fast])
    }
    const windows = [
      { index: slow.index, first: 0, end: ends },
      { index: fast.index, first: ends, end: a.steps },
    ]
    return { names, preset: { ...a, timesteps: undefined }, windows, notices: [] }
  }
  const own = ({ timesteps, activeSteps }: SpeedPreset) => timesteps!.slice(...(activeSteps ?? []))
  const timesteps = [...new Set([...own(a), ...own(b)])].sort((x, y) => y - x)
  const windows = [slow, fast].map(({ index, info }) => {
    const places = own(info.preset!).map((timestep) => timesteps.indexOf(timestep))
    return { index, first: Math.min(...places), end: Math.max(...places) + 1 }
  })
  if (windows[0].end !== windows[1].first) throw contradictory([slow, fast])
  return { names, preset: { ...a, timesteps, steps: timesteps.length, stepRange: undefined }, windows, notices: [] }
}

const settingsOf = ({ sampler, schedule, steps, guidanceScale, timesteps, activeSteps, eta }: SpeedPreset) =>
  JSON.stringify([sampler, schedule, steps, guidanceScale, timesteps, activeSteps, eta])

function contradictory(chosen: readonly Chosen[]): VignetteError {
  const ways = chosen.map(({ info }) => `"${info.name}" is made for ${wayOf(info.preset!)}`)
  return new VignetteError('bad-request', `${ways.join(', and ')}; a picture can be drawn in one way only.`, {
    hint: 'Use one of them at a time, or set the weight of the other to 0.',
  })
}

/** "LCM (sampler lcm, 4 steps, guidance 1)". */
function wayOf({ name, sampler, steps, guidanceScale }: SpeedPreset): string {
  return `${name} (sampler ${sampler}, ${count(steps, 'step')}, guidance ${guidanceScale})`
}

function withPlan(
  request: GenerateRequest,
  { schedule }: ModelManifest,
  { names, preset, windows, notices: said }: Plan,
  before: readonly string[],
): AdaptedRequest {
  const notices = [...before, ...said]
  const set: string[] = []
  const isOne = windows.length === 1
  const ownLevels = `noise levels of ${isOne ? 'its' : 'their'} own`
  const filled = { ...request }
  const warn = (what: string, asked: string | number) =>
    notices.push(`${names} ${isOne ? 'is' : 'are'} made for ${what}; this is ${asked}.`)

  if (samplerNames.includes(preset.sampler as SamplerName)) {
    if (request.sampler === undefined) {
      filled.sampler = preset.sampler as SamplerName
      set.push(`sampler ${preset.sampler}`)
    } else if (request.sampler !== preset.sampler) warn(`the sampler ${preset.sampler}`, request.sampler)
  }
  const steps = request.steps ?? request.timesteps?.length ?? preset.steps
  const [least, most] = preset.stepRange ?? [preset.steps, preset.steps]
  if (steps < least || steps > most) warn(least === most ? count(least, 'step') : `${least} to ${most} steps`, steps)
  if (request.steps === undefined && request.timesteps === undefined) {
    filled.steps = steps
    set.push(count(steps, 'step'))
  }
  const ownSchedule = scheduleNames.find((schedule) => schedule === preset.schedule)
  if (request.timesteps === undefined) {
    if (request.schedule !== undefined) {
      const own = ownSchedule ? `the schedule ${ownSchedule}` : preset.timesteps && ownLevels
      if (own && ownSchedule !== request.schedule) warn(own, request.schedule)
    } else {
      const timesteps = timestepsFor({ ...preset, sampler: filled.sampler ?? '' }, steps, schedule.trainTimesteps)
      if (timesteps) filled.timesteps = timesteps
      if (ownSchedule) filled.schedule = ownSchedule
      if (ownSchedule || timesteps) set.push(ownSchedule ? `schedule ${ownSchedule}` : ownLevels)
    }
  }
  if (request.guidanceScale === undefined) {
    filled.guidanceScale = Math.max(preset.guidanceScale, 1) // "0" in some cards means off, which here is 1
    set.push(`guidance ${filled.guidanceScale}`)
  } else if (request.guidanceScale !== Math.max(preset.guidanceScale, 1)) {
    warn(`guidance ${Math.max(preset.guidanceScale, 1)}`, request.guidanceScale)
  }
  if (request.eta === undefined && filled.sampler === 'tcd' && preset.eta !== undefined) {
    filled.eta = Math.min(Math.max(preset.eta, 0), 1)
  }

  // A window that the person moved is theirs.
  const total = preset.timesteps?.length ?? preset.steps
  filled.adapters = request.adapters.map((use, i) => {
    const own = windows.find(({ index }) => index === i)
    if (!own || use.start !== 0 || use.end !== 1) return use
    return { ...use, start: own.first / total, end: own.end / total }
  })
  if (set.length > 0) notices.push(`${names} ${isOne ? 'sets' : 'set'} ${set.join(', ')}.`)
  return { request: filled, notices }
}

/** Noise levels for this many steps where the preset does not follow a schedule. */
function timestepsFor(preset: SpeedPreset, steps: number, trainTimesteps: number): number[] | undefined {
  const { timesteps, schedule, sampler, stepRange } = preset
  // Files are written by anybody.
  const isSound = timesteps?.every((timestep) => timestep >= 0 && timestep < trainTimesteps)
  if (isSound && steps === timesteps?.length) return [...timesteps]
  // Consistency models know 50 levels, of which any number of steps takes some.
  const isConsistency = (sampler === 'lcm' || sampler === 'tcd') && schedule === undefined && steps <= 50
  return isConsistency && (stepRange || !timesteps) ? lcmTimesteps(steps, 50, trainTimesteps) : undefined
}

function namesOf(chosen: readonly Chosen[]): string {
  return chosen.map(({ info }) => `"${info.name}"`).join(' and ')
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}
