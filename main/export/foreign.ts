import type { RecalledAdapter, RecalledRecipe } from '../../preload/contract/images.ts'
import { GenerateRequest } from '../../preload/contract/generate.ts'
import type { SamplerName, ScheduleName } from '../../preload/limits.ts'

// What the readers of other programs' files have in common. They take what strangers wrote: nothing is trusted, and
// what has no place here is kept as it was written.

export type RecalledRequest = NonNullable<RecalledRecipe['request']>
type Field = keyof RecalledRequest

/** A value of another program, under its own name there, and the field of ours that it would be. */
export type ForeignValue = { key: string; value: unknown; field?: Field }

/** What was found, before it is checked. */
export type Findings = {
  origin: string
  values: ForeignValue[]
  model?: RecalledRecipe['model']
  adapters?: RecalledAdapter[]
  notices?: string[]
}

/** Of what is only shown, and of how much of it. */
const maxRawCharacters = 20_000
const maxRawFields = 200
const maxAdapters = 32

/** Keeps the values that our fields can hold; the others are shown as they were written, with the reason. */
export function checked({ origin, values, model, adapters = [], notices = [] }: Findings): RecalledRecipe {
  const request: Record<string, unknown> = {}
  const raw: { key: string; value: string }[] = []
  const said = [...notices]
  for (const { key, value, field } of values) {
    if (value === undefined || value === null || value === '') continue
    if (field !== undefined && !(field in request)) {
      const parsed = GenerateRequest.shape[field].safeParse(value)
      if (parsed.success) {
        request[field] = parsed.data
        continue
      }
      said.push(unfit(field, key, value))
    }
    if (raw.length < maxRawFields) raw.push({ key: key.slice(0, 200), value: shown(value).slice(0, maxRawCharacters) })
  }
  return {
    origin: origin.slice(0, 200),
    request: request as RecalledRequest,
    ...(model ? { model: { ...model, name: model.name.slice(0, 300) } } : {}),
    adapters: adapters.slice(0, maxAdapters),
    ...(said.length > 0 ? { notices: [...new Set(said)] } : {}),
    ...(raw.length > 0 ? { raw } : {}),
  }
}

function unfit(field: Field, key: string, value: unknown): string {
  const written = shown(value).slice(0, 80)
  if (field === 'sampler') return `The sampler "${written}" is not one of Vignette's; the model's own is used.`
  if (field === 'schedule') return `The noise schedule "${written}" is not one of Vignette's; the model's own is used.`
  if (field === 'seed') return `The seed ${written} is larger than Vignette's seeds are.`
  return `${key} ${written} is not something Vignette can set.`
}

function shown(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value, null, 1)
}

/** Parses JSON of a stranger; undefined when it is none or no object. Python's NaN and Infinity become null. */
export function readJsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const repaired = /\b(NaN|Infinity)\b/.test(text)
      ? text.replace(/([[:,]\s*)-?(?:NaN|Infinity)(?=\s*[,\]}])/g, '$1null')
      : text
    const value: unknown = JSON.parse(repaired)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** `models/ink.safetensors` -> `ink`. */
export function bareName(path: string): string {
  const name = path.split(/[\\/]/).at(-1) ?? path
  return name.replace(/\.(safetensors|ckpt|pt|pth|bin|gguf|sft)$/i, '')
}

/** A number, also from a string that is one. */
export function numberOf(value: unknown): number | undefined {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
  return typeof number === 'number' && Number.isFinite(number) ? number : undefined
}

/** Names of samplers elsewhere, without case, spaces and marks. Some carry the schedule at their end. */
const samplers: Record<string, SamplerName> = {
  euler: 'euler',
  eulera: 'euler_a',
  eulerancestral: 'euler_a',
  ddim: 'ddim',
  dpmpp2m: 'dpmpp_2m',
  dpmpp2msde: 'dpmpp_2m_sde',
  dpmpp2msdegpu: 'dpmpp_2m_sde',
  dpmpp3msde: 'dpmpp_3m_sde',
  dpmpp3msdegpu: 'dpmpp_3m_sde',
  heun: 'heun',
  unipc: 'unipc',
  lcm: 'lcm',
  tcd: 'tcd',
}
const schedules: Record<string, ScheduleName> = {
  normal: 'normal',
  karras: 'karras',
  exponential: 'exponential',
  sgmuniform: 'sgm_uniform',
  trailing: 'trailing',
  simple: 'simple',
  ddim: 'ddim_uniform',
  ddimuniform: 'ddim_uniform',
}
/** Says that the sampler decides. */
const noSchedule = ['automatic', 'auto', 'default']

/** Sampler and schedule as another program names them; what is not known here keeps its name, so that it is told. */
export function samplerValues(sampler: unknown, schedule: unknown, keys: { sampler: string; schedule: string }) {
  const values: ForeignValue[] = []
  const plain = plainName(sampler)
  let fromSampler: ScheduleName | undefined
  if (plain !== '') {
    const ending = Object.keys(schedules).find((name) => name.length > 4 && plain.endsWith(name) && plain !== name)
    const base = ending ? plain.slice(0, -ending.length) : plain
    fromSampler = ending ? schedules[ending] : undefined
    values.push({ key: keys.sampler, value: samplers[base] ?? samplers[plain] ?? sampler, field: 'sampler' })
  }
  const named = plainName(schedule)
  if (named !== '' && !noSchedule.includes(named)) {
    values.push({ key: keys.schedule, value: schedules[named] ?? schedule, field: 'schedule' })
  } else if (fromSampler) values.push({ key: keys.schedule, value: fromSampler, field: 'schedule' })
  return values
}

function plainName(value: unknown): string {
  if (typeof value !== 'string') return ''
  return value
    .toLowerCase()
    .replaceAll('++', 'pp')
    .replace(/^k_/, '')
    .replace(/[^a-z0-9]/g, '')
}
