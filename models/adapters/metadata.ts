import { adapterRoles, type AdapterInfo, type AdapterRole, type SpeedPreset } from './types.ts'

// What a file says of itself. All of it is text from strangers: cut to length, never trusted over the shapes of tensors.

export type Described = Pick<
  AdapterInfo,
  'triggers' | 'preferredWeight' | 'weightRange' | 'title' | 'description' | 'author' | 'licence' | 'tags'
> & { role?: AdapterRole; preset?: SpeedPreset }

/** Text without control characters and markup, at most `most` characters; undefined when nothing is left. */
export function cleanText(value: unknown, most: number): string | undefined {
  if (typeof value !== 'string') return undefined
  const plain = Array.from(value.slice(0, 50_000), (c) => (c < ' ' || c === '\u007f' ? ' ' : c)).join('')
  const text = plain
    .replace(/<[^<>]{0,400}>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()
  if (text === '' || text === 'None') return undefined
  return text.length > most ? `${text.slice(0, most - 1)}…` : text
}

/** A number written as text, "0.8" or the middle of "0.6-0.8"; undefined when there is none or it is out of reason. */
export function weightFrom(value: unknown): number | undefined {
  const range = rangeFrom(value)
  return range && (range[0] + range[1]) / 2
}

export function rangeFrom(given: unknown): readonly [number, number] | undefined {
  const value = typeof given === 'string' ? given.slice(0, 200) : given
  const numbers =
    typeof value === 'number'
      ? [value]
      : typeof value === 'string'
        ? (value.match(/-?\d+(?:[.,]\d+)?/g) ?? []).map((text) => Number(text.replace(',', '.')))
        : []
  // "0.6-0.8" reads as 0.6 and -0.8.
  const [from, to = from] = typeof value === 'string' && /\d\s*[-–]\s*\d/.test(value) ? numbers.map(Math.abs) : numbers
  if (from === undefined || !Number.isFinite(from) || !Number.isFinite(to)) return undefined
  return Math.abs(from) <= 4 && Math.abs(to) <= 4 ? [Math.min(from, to), Math.max(from, to)] : undefined
}

/** Words that call the adapter, from a list or a text with commas. */
export function wordsFrom(value: unknown, most = 20): string[] {
  const list = Array.isArray(value) ? value : typeof value === 'string' ? value.slice(0, 50_000).split(/[,\n]/) : []
  const words = list.slice(0, 1000).flatMap((word) => cleanText(word, 100) ?? [])
  return [...new Set(words)].slice(0, most)
}

/** Reads kohya's, modelspec's and our own notes. */
export function describe(metadata: ReadonlyMap<string, string>): Described {
  const get = (key: string) => metadata.get(key)
  const spec = (key: string) => get(`modelspec.${key}`)
  const own = (key: string) => get(`vignette_${key}`)
  const trigger = wordsFrom(own('trigger') ?? spec('trigger_phrase'))
  const role = adapterRoles.find((each) => each === own('role'))
  const range = rangeFrom(own('weight')) ?? rangeFrom(hinted(spec('usage_hint')))
  return {
    triggers: trigger.length > 0 ? trigger : tagTriggers(get('ss_tag_frequency')),
    preferredWeight: range && (range[0] + range[1]) / 2,
    ...(range && range[0] !== range[1] ? { weightRange: range } : {}),
    title: cleanText(own('title') ?? spec('title'), 120),
    description: cleanText(
      own('description') ?? spec('description') ?? get('ss_training_comment') ?? own('about'),
      2000,
    ),
    author: cleanText(own('author') ?? spec('author'), 120),
    licence: cleanText(own('licence') ?? spec('license'), 200),
    tags: wordsFrom(spec('tags')),
    ...(role ? { role } : {}),
    ...ownPreset(metadata, role),
  }
}

/** The numbers after "weight" or "strength" in a sentence. */
const hinted = (text: string | undefined) =>
  /(?:weight|strength)\D{0,20}?(\d(?:\.\d+)?(?:\s*[-–]\s*\d(?:\.\d+)?)?)/i.exec(text?.slice(0, 2000) ?? '')?.[1]

/** The commonest tag of each folder of training pictures, and the folder's own name ("10_inkstyle"). */
function tagTriggers(text: string | undefined): string[] {
  const folders = parseJson(text)
  if (!isRecord(folders)) return []
  const words: string[] = []
  for (const [folder, tags] of Object.entries(folders).slice(0, 8)) {
    const name = cleanText(folder.replace(/^\d+_/, ''), 60)
    if (!isRecord(tags)) continue
    const counts = Object.entries(tags).filter((entry): entry is [string, number] => typeof entry[1] === 'number')
    const most = counts.reduce((largest, [, count]) => Math.max(largest, count), 0)
    // What stands under nearly every picture is likely what the adapter answers to.
    const common = counts.filter(([, count]) => count >= 0.9 * most && most > 1).map(([tag]) => tag.trim())
    const isTag = name !== undefined && counts.some(([tag]) => tag.trim() === name)
    words.push(...(isTag ? [name] : []), ...common.slice(0, 3))
  }
  return wordsFrom(words, 6)
}

/** A preset of a file that Vignette's own training wrote. */
function ownPreset(metadata: ReadonlyMap<string, string>, role: AdapterRole | undefined): { preset?: SpeedPreset } {
  const steps = Number(metadata.get('vignette_steps') ?? NaN)
  if (!Number.isInteger(steps) || steps < 1 || steps > 150) return {}
  const timesteps = numbersFrom(metadata.get('vignette_timesteps'))
  const active = numbersFrom(metadata.get('vignette_active_steps'))
  const guidance = Number(metadata.get('vignette_guidance_scale') ?? 1)
  const preset: SpeedPreset = {
    name: role === 'speed-slow' || role === 'speed-fast' ? `Slow and fast, ${steps} steps` : `${steps} steps`,
    sampler: cleanText(metadata.get('vignette_sampler'), 40) ?? 'euler',
    steps,
    guidanceScale: Number.isFinite(guidance) && guidance >= 1 && guidance <= 30 ? guidance : 1,
    ...(timesteps && timesteps.length === steps ? { timesteps } : {}),
    ...(active?.length === 2 && active[0] >= 0 && active[1] > active[0] && active[1] <= steps
      ? { activeSteps: [active[0], active[1]] as const }
      : {}),
  }
  const eta = Number(metadata.get('vignette_eta') ?? NaN)
  return { preset: Number.isFinite(eta) ? { ...preset, eta } : preset }
}

function numbersFrom(text: string | undefined): number[] | undefined {
  const list = parseJson(text)
  return Array.isArray(list) &&
    list.length <= 150 &&
    list.every((value) => typeof value === 'number' && Number.isFinite(value))
    ? (list as number[])
    : undefined
}

export function parseJson(text: string | undefined): unknown {
  if (text === undefined || text.length > 5_000_000) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
