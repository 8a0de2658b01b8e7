import { randomInt } from 'node:crypto'
import { VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { GenerateRequest } from '../../preload/contract/generate.ts'
import { limits, samplerNames, scheduleNames, type SamplerName, type ScheduleName } from '../../preload/limits.ts'
import type { EngineJob } from './protocol.ts'

/** A request in which nothing is left to the model. */
export type FilledRequest = EngineJob['request']

/** What the words of the contract are called in a sentence; the rest is named as it is. */
const spoken: Record<string, string> = {
  prompt: 'the prompt',
  negativePrompt: 'the negative prompt',
  guidanceScale: 'guidance scale',
  guidanceRescale: 'guidance rescale',
  clipSkip: 'clip skip',
  textWeight: 'text weight',
  rankBudget: 'rank budget',
  timesteps: 'noise levels',
}

/** Validates what came from a person; the first thing wrong becomes a `bad-request` that says what to type instead. */
export function checkRequest(raw: unknown): GenerateRequest {
  const parsed = GenerateRequest.safeParse(raw)
  if (!parsed.success) throw explain(parsed.error.issues[0], raw)
  const request = parsed.data
  if (request.prompt.trim() === '') {
    throw new VignetteError('bad-request', 'The prompt is empty.', { hint: 'Say in a few words what to draw.' })
  }
  if (request.maskImage !== undefined && request.initImage === undefined) {
    throw new VignetteError('bad-request', 'A mask needs a picture to change.', {
      hint: 'Give the picture to start from as well.',
    })
  }
  const { steps, timesteps } = request
  if (timesteps && steps !== undefined && steps !== timesteps.length) {
    throw new VignetteError(
      'bad-request',
      `Expected ${timesteps.length} steps, one for each noise level, got ${steps}.`,
      {
        hint: 'Leave out the steps, or the noise levels.',
      },
    )
  }
  const closed = request.adapters.findIndex(({ start, end }) => start >= end)
  if (closed >= 0) {
    const { start, end } = request.adapters[closed]
    throw new VignetteError('bad-request', `Adapter ${closed + 1} starts at ${start} and ends at ${end}.`, {
      hint: 'Let it end after it starts; both are shares of the steps, 0 to 1.',
    })
  }
  return request
}

/** The request with the model's own defaults where the person chose nothing, and a random seed. */
export function fillDefaults(
  request: GenerateRequest,
  manifest: ModelManifest,
  seed = randomInt(limits.maxSeed + 1),
): FilledRequest {
  const { defaults, nativeSize } = manifest
  const sampler = samplerNames.includes(defaults.sampler as SamplerName) ? (defaults.sampler as SamplerName) : 'euler'
  const schedule = scheduleNames.includes(defaults.schedule as ScheduleName)
    ? (defaults.schedule as ScheduleName)
    : 'normal'
  return {
    ...request,
    width: request.width ?? nativeSize.width,
    height: request.height ?? nativeSize.height,
    steps: request.timesteps?.length ?? request.steps ?? defaults.steps,
    seed: request.seed ?? seed,
    sampler: request.sampler ?? sampler,
    schedule: request.schedule ?? schedule,
    guidanceScale: request.guidanceScale ?? defaults.guidanceScale,
  }
}

/** Checks what depends on the model: its latents must cover whole blocks of pixels. */
export function checkAgainstModel(request: FilledRequest, manifest: ModelManifest): void {
  const multiple = Math.max(limits.sizeMultiple, manifest.latents.spatialFactor)
  for (const side of ['width', 'height'] as const) {
    if (request[side] % multiple !== 0) throw notMultiple(side, request[side], multiple)
  }
}

type Issue = NonNullable<ReturnType<typeof GenerateRequest.safeParse>['error']>['issues'][number]

function explain(issue: Issue, raw: unknown): VignetteError {
  const [key, index, field] = ['request', ...issue.path].slice(issue.path.length > 0 ? 1 : 0).map(String)
  const name = field === undefined ? (spoken[key] ?? key) : `${spoken[field] ?? field} of adapter ${Number(index) + 1}`
  const value = issue.path.reduce<unknown>(valueAt, raw)
  const bad = (message: string, hint?: string) =>
    new VignetteError('bad-request', message, hint === undefined ? {} : { hint })
  switch (issue.code) {
    case 'custom':
      return notMultiple(name, Number(value), limits.sizeMultiple)
    case 'invalid_value': {
      const choices = issue.values.map(String)
      return bad(`There is no ${name} "${String(value)}".`, `Choose one of: ${choices.join(', ')}.`)
    }
    case 'too_big':
      if (issue.origin === 'string') {
        const count = String(value).length
        return bad(
          `Expected ${the(name)} to have at most ${number(issue.maximum)} characters, got ${number(count)}.`,
          'Shorten it.',
        )
      }
      return bad(
        `Expected ${name} to be at most ${number(issue.maximum)}, got ${String(value)}.`,
        `Try ${issue.maximum}.`,
      )
    case 'too_small':
      return bad(
        `Expected ${name} to be at least ${number(issue.minimum)}, got ${String(value)}.`,
        `Try ${issue.minimum}.`,
      )
    case 'invalid_type':
      if (value === undefined) return bad(`${the(name)[0].toUpperCase()}${the(name).slice(1)} is missing.`)
      return bad(
        `Expected ${name} to be ${kind(issue.expected)}, got ${typeof value === 'number' ? value : JSON.stringify(value)}.`,
      )
    default:
      return bad(`${name}: ${issue.message}`)
  }
}

function notMultiple(name: string, value: number, multiple: number): VignetteError {
  const lower = Math.max(limits.minSize, Math.floor(value / multiple) * multiple)
  const upper = Math.min(limits.maxSize, Math.ceil(value / multiple) * multiple)
  return new VignetteError('bad-request', `Expected ${name} to be a multiple of ${multiple}, got ${value}.`, {
    hint: lower === upper ? `Try ${lower}.` : `Try ${lower} or ${upper}.`,
  })
}

function valueAt(raw: unknown, key: PropertyKey): unknown {
  return typeof raw === 'object' && raw !== null ? (raw as Record<PropertyKey, unknown>)[key] : undefined
}

function the(name: string): string {
  return name.startsWith('the ') ? name : `the ${name}`
}

/** 10000 -> "10,000": the same on every system, whatever its language. */
function number(value: number | bigint): string {
  return value.toLocaleString('en-GB')
}

function kind(expected: string): string {
  const names: Record<string, string> = {
    int: 'a whole number',
    number: 'a number',
    string: 'text',
    boolean: 'yes or no',
  }
  return names[expected] ?? expected
}
