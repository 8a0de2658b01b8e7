import type { RecalledAdapter, RecalledRecipe } from '../../preload/contract/images.ts'
import { bareName, checked, isObject, numberOf, samplerValues, type ForeignValue } from './foreign.ts'

/** What programs call the same field, without case and marks. */
const fields: Record<string, ForeignValue['field']> = {
  prompt: 'prompt',
  positiveprompt: 'prompt',
  negativeprompt: 'negativePrompt',
  uc: 'negativePrompt',
  seed: 'seed',
  steps: 'steps',
  numinferencesteps: 'steps',
  cfgscale: 'guidanceScale',
  guidancescale: 'guidanceScale',
  scale: 'guidanceScale',
  cfg: 'guidanceScale',
  cfgrescalemultiplier: 'guidanceRescale',
  clipskip: 'clipSkip',
  width: 'width',
  height: 'height',
}
const modelKeys = ['model', 'basemodel', 'modelname', 'checkpoint', 'sdmodel']
const modelHashKeys = ['modelhash', 'basemodelhash']
const sizeKeys = ['resolution', 'size']
const samplerKeys = ['sampler', 'samplername', 'scheduler', 'schedulername']

/**
 * A recipe as one JSON object: Fooocus and SwarmUI under `parameters`, InvokeAI under `invokeai_metadata`, NovelAI under
 * `Comment`. They agree in what they say and differ in what they call it.
 */
export function fromJson(outer: Record<string, unknown>, program: string | undefined): RecalledRecipe | undefined {
  const inner = outer.sui_image_params
  const object = isObject(inner) ? inner : outer
  const origin = program ?? (isObject(inner) ? 'SwarmUI' : programOf(object))
  const values: ForeignValue[] = []
  const adapters: RecalledAdapter[] = []
  let model: RecalledRecipe['model']
  let hash: string | undefined
  const named: Record<string, { key: string; value: unknown }> = {}
  for (const [key, value] of Object.entries(object)) {
    const plain = key.toLowerCase().replace(/[^a-z0-9]/g, '')
    const field = fields[plain]
    if (field !== undefined) {
      const isText = field === 'prompt' || field === 'negativePrompt'
      values.push({ key, value: isText ? textOf(value) : (numberOf(value) ?? value), field })
    } else if (modelKeys.includes(plain) && modelOf(value)) model = modelOf(value)
    else if (modelHashKeys.includes(plain) && typeof value === 'string') hash = value
    else if (sizeKeys.includes(plain) && sizeOf(value)) {
      const [width, height] = sizeOf(value)!
      values.push({ key: 'Width', value: width, field: 'width' }, { key: 'Height', value: height, field: 'height' })
    } else if (samplerKeys.includes(plain) && typeof value === 'string') named[plain] = { key, value }
    else if (plain === 'loras') adapters.push(...adaptersOf(value, object))
    else if (plain !== 'loraweights') values.push({ key, value })
  }
  if (!values.some(({ field }) => field !== undefined)) return undefined
  // InvokeAI and diffusers call the sampler a scheduler; where both are named, the scheduler is the noise schedule.
  const sampler = named.sampler ?? named.samplername ?? named.scheduler ?? named.schedulername
  const schedule = sampler === named.scheduler ? undefined : (named.scheduler ?? named.schedulername)
  const keys = { sampler: sampler?.key ?? '', schedule: schedule?.key ?? 'Schedule' }
  values.push(...samplerValues(sampler?.value, schedule?.value, keys))
  if (model && hash !== undefined) model = { ...model, sha256: hash }
  return checked({ origin, values, ...(model ? { model } : {}), adapters })
}

function programOf(object: Record<string, unknown>): string {
  if (typeof object.version === 'string' && /fooocus/i.test(object.version)) return object.version
  if ('base_model' in object) return 'Fooocus'
  return typeof object.app === 'string' ? object.app : 'Another program'
}

function textOf(value: unknown): unknown {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string').join('\n') : value
}

function modelOf(value: unknown): RecalledRecipe['model'] {
  if (typeof value === 'string' && value !== '') return { name: bareName(value) }
  if (!isObject(value)) return undefined
  const name = value.name ?? value.model_name ?? value.key
  return typeof name === 'string' ? { name: bareName(name), ...hashOf(value.hash) } : undefined
}

function hashOf(value: unknown): { sha256?: string } {
  // InvokeAI names the kind of hash in front; only SHA-256 can be compared with ours.
  const [, digits] = (typeof value === 'string' && /^(?:sha256:)?([0-9a-f]{8,64})$/i.exec(value)) || []
  return digits ? { sha256: digits.toLowerCase() } : {}
}

/** `1024x768`, `(832, 1216)` or a list of two. */
function sizeOf(value: unknown): [number, number] | undefined {
  const text = Array.isArray(value) ? value.join('x') : String(value)
  const [, width, height] = /^\s*\(?\s*(\d{1,6})\s*[x×*,]\s*(\d{1,6})\s*\)?\s*$/i.exec(text) ?? []
  return width === undefined ? undefined : [Number(width), Number(height)]
}

/** Lists of names with weights beside them (SwarmUI), of [name, weight, hash] (Fooocus), or of objects (InvokeAI). */
function adaptersOf(list: unknown, { loraweights }: Record<string, unknown>): RecalledAdapter[] {
  if (!Array.isArray(list)) return []
  const weights = Array.isArray(loraweights) ? loraweights : []
  return list.slice(0, 100).flatMap((one: unknown, i): RecalledAdapter[] => {
    let name: unknown
    let weight: unknown = weights[i]
    let hash: unknown
    if (typeof one === 'string') name = one
    else if (Array.isArray(one)) [name, weight, hash] = one as unknown[]
    else if (isObject(one)) {
      const inner = isObject(one.model) ? one.model : isObject(one.lora) ? one.lora : one
      name = inner.name ?? inner.model_name ?? one.lora
      hash = inner.hash
      weight = one.weight ?? one.strength
    }
    if (typeof name !== 'string') return []
    const value = numberOf(weight) ?? 1
    return [{ name: bareName(name), weight: value, textWeight: value, start: 0, end: 1, ramp: 'flat', ...hashOf(hash) }]
  })
}
