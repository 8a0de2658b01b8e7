import type { RecalledAdapter, RecalledRecipe } from '../../preload/contract/images.ts'
import type { StudioForm, StudioSlot } from '../../preload/contract/settings.ts'
import { promptMarks } from '../../preload/prompt-marks.ts'
import { t } from '../strings.ts'
import { isReserved } from './weights.ts'

/** What of a picture is taken into the form. `remix`: everything but the seed. */
export type RecallPart = 'all' | 'seed' | 'prompt' | 'remix' | 'adapters'

/** Something the recipe names that is not here. Nothing takes its place. */
export type RecallGap = {
  kind: 'adapter' | 'model' | 'source' | 'setting' | 'seed'
  name: string
  sha256?: string
  /** In words for the person. */
  text: string
}

/** The fields that change; the others stay. `undefined` takes a value back to what speed and model say. */
export type Recalled = { form: Partial<Record<keyof StudioForm, unknown>> & StudioForm; gaps: RecallGap[] }

/** Names of models and samplers that are here. */
export type RecallHere = { models: readonly string[] }

/** What a recipe gives back, and what it cannot. */
export function recalled(recipe: RecalledRecipe, part: RecallPart, here: RecallHere): Recalled {
  const gaps: RecallGap[] = []
  const form: Recalled['form'] = {}
  const isWhole = part === 'all' || part === 'remix'
  const { request = {} } = recipe
  if (part === 'prompt' || isWhole) Object.assign(form, prompts(request, part === 'all'))
  if (part === 'seed' || part === 'all') {
    if (request.seed === undefined) gaps.push({ kind: 'seed', name: '', text: t('The picture does not say its seed.') })
    else Object.assign(form, { seed: request.seed, seedMode: 'fixed' })
  }
  if (part === 'adapters' || isWhole) form.slots = slotsOf(recipe.adapters, gaps)
  if (part === 'adapters') form.slots = withoutSpeed(form.slots ?? [], gaps)
  if (isWhole) {
    Object.assign(form, settings(request), modelOf(recipe, here, gaps), sourceOf(recipe, gaps))
    gaps.push(...(recipe.notices ?? []).map((text): RecallGap => ({ kind: 'setting', name: '', text })))
  }
  return { form, gaps }
}

type Request = NonNullable<RecalledRecipe['request']>

/**
 * As it was typed, so that it can be gone on with. Only to make the very picture again do lists stand as the words that were
 * drawn: their files may have changed since, where choices fall as they fell by the seed.
 */
function prompts(request: Request, isExact: boolean): StudioForm {
  const typed = (template: string | undefined, words: string | undefined) => {
    const hasLists = promptMarks(template ?? '').some(({ kind }) => kind === 'list' || kind === 'handle')
    return template !== undefined && !(isExact && hasLists) ? template : (words ?? '')
  }
  return {
    prompt: typed(request.promptTemplate, request.prompt),
    negativePrompt: typed(request.negativeTemplate, request.negativePrompt),
  }
}

/** What is absent in a recipe of another program goes back to the model's own. */
function settings(request: Request): StudioForm {
  const { width, height, steps, guidanceScale, sampler, schedule, speed, timesteps, eta, zeroTerminalSnr } = request
  return {
    ...{ width, height, steps, guidanceScale, sampler, schedule, speed, timesteps, eta, zeroTerminalSnr },
    guidanceRescale: request.guidanceRescale ?? 0,
    clipSkip: request.clipSkip ?? 1,
    // The recipe says it all: no choice of speed adds to it.
    pace: 'balanced',
    ...{ guidanceMode: undefined, isPhased: undefined, phases: undefined, isCustomShape: undefined },
  }
}

function modelOf({ model }: RecalledRecipe, { models }: RecallHere, gaps: RecallGap[]): StudioForm {
  if (!model) return {}
  const { id, name, sha256, isChanged } = model
  const gap = (text: string) => gaps.push({ kind: 'model', name, ...(sha256 ? { sha256 } : {}), text })
  if (id === undefined || !models.includes(id)) {
    gap(t('The model "{name}" is not here. The model that was chosen stays.', { name }))
    return {}
  }
  if (isChanged) gap(t('The model "{name}" has other weights now than the picture was made with.', { name }))
  return { model: id }
}

function sourceOf({ source, request }: RecalledRecipe, gaps: RecallGap[]): StudioForm {
  const none = { initImage: undefined, sourceId: undefined }
  if (!source) return none
  const { name, sha256, file, id } = source
  if (file) return { initImage: file, sourceId: id, strength: request?.strength ?? 0.6 }
  const text = t('It started from the picture "{name}", which is not in the library.', { name })
  gaps.push({ kind: 'source', name, ...(sha256 ? { sha256 } : {}), text })
  return none
}

/** Adapters for speed and guidance go with the steps they are made for, not with the others. */
function withoutSpeed(slots: readonly StudioSlot[], gaps: RecallGap[]): StudioSlot[] {
  return slots.filter(({ role, name }) => {
    if (!isReserved(role) || role === 'watermark') return true
    const text = t('"{name}" belongs to the speed of the picture and was left out; Use all brings it.', { name })
    gaps.push({ kind: 'setting', name, text })
    return false
  })
}

function slotsOf(adapters: readonly RecalledAdapter[], gaps: RecallGap[]): StudioSlot[] {
  return adapters.flatMap((adapter): StudioSlot[] => {
    const { id, name, sha256, weight, textWeight, start, end, ramp } = adapter
    if (id === undefined) {
      const hash = sha256?.slice(0, 12)
      const text = hash
        ? t('The adapter "{name}" ({hash}) is not in the library.', { name, hash })
        : t('The adapter "{name}" is not in the library.', { name })
      gaps.push({ kind: 'adapter', name, ...(sha256 ? { sha256 } : {}), text })
      return []
    }
    const role = adapter.role ?? (adapter.isGuidance ? 'guidance' : 'style')
    return [
      {
        ...{ id, name, role, isOn: true, weight: weight ?? 1, start, end, ramp },
        ...(textWeight === undefined || textWeight === weight ? {} : { textWeight }),
      },
    ]
  })
}
