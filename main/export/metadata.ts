import { AdapterUse, GenerateRequest } from '../../preload/contract/generate.ts'
import type { SamplerName, ScheduleName } from '../../preload/limits.ts'
import { readPng, type TextChunk } from './png.ts'

/**
 * All it needs to make a picture again, as it lies in the PNG under the keyword `vignette`. It holds no date, no timing
 * and no path of the person's disk: the same command twice must give the same bytes, and a shared picture tell nothing
 * about the computer it was made on.
 */
export type Recipe = {
  /** Version of this shape; a reader takes what it knows of a later one. */
  version: 1
  app: string
  /**
   * `mode`: how a 4-bit model ran on the processor; modes differ in the last digits. So do pictures that were drawn in one
   * batch with others: `batch` is how many.
   */
  engine: { runtime: string; provider: string; mode?: string; batch?: number }
  model: { id: string; name: string; family: string; sha256: string }
  /** Complete but for the pictures it started from and the adapters, which are named under `pictures` and `adapters`. */
  request: CompleteRequest
  /** Those that changed the picture; absent when there were none. */
  adapters?: AdapterReference[]
  pictures?: { init?: PictureReference; mask?: PictureReference }
  /** SHA-256 of the RGB bytes, row by row. */
  pixelSha256: string
}

export type PictureReference = { name: string; sha256: string }

/** An adapter as it was applied. It is found again by its content or its name, not by where it lay. */
export type AdapterReference = Omit<AdapterUse, 'file' | 'weight' | 'textWeight'> & {
  name: string
  /** Hash of its tensors, whatever the file around them says. */
  sha256: string
  weight: number
  textWeight: number
  /** Tensors of the file that were applied, of all. */
  matched: number
  total: number
  /** It brought words for the prompt and changed no network. */
  isEmbedding?: boolean
  /** It stood in for guidance, which no other program knows. */
  isGuidance?: boolean
}

export type CompleteRequest = Omit<GenerateRequest, (typeof droppedKeys)[number]> &
  Required<Pick<GenerateRequest, 'width' | 'height' | 'steps' | 'seed' | 'sampler' | 'schedule' | 'guidanceScale'>>

/** What another program's `parameters` text says: the two prompts and its key-value pairs, nothing interpreted. */
export type A1111Text = { prompt: string; negativePrompt: string; parameters: Map<string, string> }

/** What says how a picture was asked for rather than what it is, and all that is a path. */
const droppedKeys = ['count', 'preview', 'initImage', 'maskImage', 'adapters'] as const

export const recipeKeyword = 'vignette'
const a1111Keyword = 'parameters'

/** The names A1111 and Forge use for the same sampler or noise schedule, so that they can load our pictures' settings. */
const a1111Samplers: Record<SamplerName, string> = {
  euler: 'Euler',
  euler_a: 'Euler a',
  ddim: 'DDIM',
  dpmpp_2m: 'DPM++ 2M',
  dpmpp_2m_sde: 'DPM++ 2M SDE',
  dpmpp_3m_sde: 'DPM++ 3M SDE',
  heun: 'Heun',
  unipc: 'UniPC',
  lcm: 'LCM',
  tcd: 'TCD',
}
const a1111Schedules: Record<ScheduleName, string> = {
  normal: 'Normal',
  karras: 'Karras',
  exponential: 'Exponential',
  sgm_uniform: 'SGM Uniform',
  trailing: 'Trailing',
  simple: 'Simple',
  ddim_uniform: 'DDIM',
}

/** The text chunks of a finished picture: A1111's form for other programs, our JSON, and IPTC's "made by AI". */
export function recipeChunks(recipe: Recipe): TextChunk[] {
  return [
    { keyword: a1111Keyword, text: a1111Text(recipe) },
    { keyword: recipeKeyword, text: JSON.stringify(recipe) },
    { keyword: 'XML:com.adobe.xmp', text: xmpMadeByAi },
  ]
}

/** The recipe inside a PNG of ours; undefined when there is none or it makes no sense. Throws when it is no PNG. */
export function recipeOf(png: Uint8Array): Recipe | undefined {
  const text = readPng(png).texts.get(recipeKeyword)
  return text === undefined ? undefined : readRecipe(text)
}

/** A recipe from its text, checked; undefined when it makes no sense. */
export function readRecipe(text: string): Recipe | undefined {
  let raw: Partial<Recipe> | null
  try {
    raw = JSON.parse(text) as Partial<Recipe> | null
  } catch {
    return undefined
  }
  if (raw === null || typeof raw !== 'object' || typeof raw.version !== 'number') return undefined
  const { app, engine, model, pixelSha256 } = raw
  const isNamed = typeof app === 'string' && typeof pixelSha256 === 'string' && typeof engine?.provider === 'string'
  const request = GenerateRequest.safeParse(raw.request)
  const adapters = readReferences(raw.adapters)
  if (!isNamed || typeof model?.id !== 'string' || !request.success || !adapters) return undefined
  // Strangers write files too: only what was checked is handed on as the request.
  const recipe = { ...(raw as Recipe), request: completeRequest(request.data) }
  return adapters.length > 0 ? { ...recipe, adapters } : recipe
}

function readReferences(raw: unknown): AdapterReference[] | undefined {
  if (raw === undefined) return []
  if (!Array.isArray(raw)) return undefined
  const read = raw.map((one: Partial<AdapterReference> | null): AdapterReference | undefined => {
    const use = AdapterUse.safeParse({ ...one, file: one?.name })
    const { name, sha256, matched, total, isEmbedding, isGuidance } = one ?? {}
    const isNamed = typeof name === 'string' && typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256)
    if (!use.success || !isNamed || typeof matched !== 'number' || typeof total !== 'number') return undefined
    const { weight, textWeight, start, end, ramp, rankBudget } = use.data
    if (weight === undefined || textWeight === undefined) return undefined
    return {
      ...{ name, sha256, weight, textWeight, start, end, ramp, matched, total },
      ...(rankBudget === undefined ? {} : { rankBudget }),
      ...(isEmbedding === true ? { isEmbedding } : {}),
      ...(isGuidance === true ? { isGuidance } : {}),
    }
  })
  return read.every((one) => one !== undefined) ? read : undefined
}

/** The `parameters` text of a PNG by any program of the A1111 family, or undefined. */
export function a1111TextOf(png: Uint8Array): A1111Text | undefined {
  const text = readPng(png).texts.get(a1111Keyword)
  return text === undefined ? undefined : parseA1111(text)
}

/**
 * Drops what says how a picture was asked for rather than what it is: batch size, previews, paths. Always in the same
 * order, whatever was typed and whatever came from the model: the order shows in the bytes of the file.
 */
export function completeRequest(request: GenerateRequest): CompleteRequest {
  const keys = Object.keys(GenerateRequest.shape) as (keyof GenerateRequest)[]
  const dropped: readonly (keyof GenerateRequest)[] = droppedKeys
  const kept = keys.filter((key) => !dropped.includes(key) && request[key] !== undefined)
  return Object.fromEntries(kept.map((key) => [key, request[key]])) as CompleteRequest
}

/**
 * The text AUTOMATIC1111's web UI writes (modules/infotext_utils.py, modules/processing.py describe it). Adapters are tags
 * at the end of the prompt; what that program has no words for, such as when they act, stands in our own chunk alone.
 */
export function a1111Text(recipe: Recipe): string {
  const { request, model, adapters = [] } = recipe
  const changing = adapters.filter((one) => !one.isEmbedding && !one.isGuidance)
  const hashes = (list: readonly AdapterReference[]) =>
    list.map(({ name, sha256 }) => `${tagName(name)}: ${sha256.slice(0, 12)}`).join(', ')
  const pairs: [string, string | number | undefined][] = [
    ['Steps', request.steps],
    ['Sampler', a1111Samplers[request.sampler]],
    ['Schedule type', a1111Schedules[request.schedule]],
    ['CFG scale', request.guidanceScale],
    ['Seed', request.seed],
    ['Size', `${request.width}x${request.height}`],
    ['Model hash', model.sha256.slice(0, 10)],
    ['Model', model.name],
    ['Denoising strength', recipe.pictures?.init ? request.strength : undefined],
    ['Clip skip', request.clipSkip > 1 ? request.clipSkip : undefined],
    ['Lora hashes', hashes(changing)],
    ['TI hashes', hashes(adapters.filter((one) => one.isEmbedding))],
    ['Version', recipe.app],
  ]
  const line = pairs
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([key, value]) => `${key}: ${quote(String(value))}`)
  const negative = request.negativePrompt === '' ? [] : [`Negative prompt: ${guardLines(request.negativePrompt)}`]
  const tags = changing.map(({ name, weight, textWeight }) => {
    const weights = weight === textWeight ? [weight] : [textWeight, weight] // text encoder first, then the network
    return `<lora:${tagName(name)}:${weights.map((value) => Number(value.toFixed(4))).join(':')}>`
  })
  return [[guardLines(request.prompt), ...tags].join(' '), ...negative, line.join(', ')].join('\n')
}

/** An adapter that a prompt names, in the language of A1111 (`<lora:ink:0.7>`) or ours (`<lora:ink:0.7@0.2-0.8>`). */
export type AdapterTag = {
  name: string
  weight: number
  textWeight: number
  start: number
  end: number
  /** First digits of a hash, when the writer gave one. */
  hash?: string
}

/** Takes the adapters out of a text by any program of the A1111 family. */
export function adapterTagsOf({ prompt, parameters }: A1111Text): { prompt: string; adapters: AdapterTag[] } {
  const hashes = new Map(pairsIn(parameters.get('Lora hashes') ?? ''))
  const adapters: AdapterTag[] = []
  const numeral = String.raw`[-+]?\d*\.?\d+`
  const form = new RegExp(
    String.raw`\s?<(?:lora|lyco):([^<>:]{1,200})(?::(${numeral}))?(?::(${numeral}))?(?:@(${numeral})-(${numeral}))?>`,
    'g',
  )
  const rest = prompt.replace(
    form,
    (_, name: string, first?: string, second?: string, start?: string, end?: string) => {
      const textWeight = Number(first ?? 1)
      const hash = hashes.get(name)
      adapters.push({
        ...{ name, textWeight, weight: Number(second ?? textWeight), start: Number(start ?? 0), end: Number(end ?? 1) },
        ...(hash ? { hash } : {}),
      })
      return ''
    },
  )
  return { prompt: rest.trim(), adapters }
}

/** A name that fits into a tag and into a list of hashes. */
function tagName(name: string): string {
  return name.replace(/\.(safetensors|pt|bin)$/i, '').replace(/[<>:,"\\\s]+/g, '_')
}

/** Reads a `parameters` text of any writer; prompts come back line by line as written, less space around them. */
export function parseA1111(text: string): A1111Text {
  const lines = text.replaceAll('\r\n', '\n').split('\n')
  const last = pairsIn(lines[lines.length - 1])
  const isParameterLine = last.length >= 3
  if (isParameterLine) lines.pop()
  const negativeAt = lines.findIndex((line) => line.trim().startsWith(negativeMark))
  const positive = negativeAt < 0 ? lines : lines.slice(0, negativeAt)
  const negative = negativeAt < 0 ? [] : lines.slice(negativeAt)
  if (negative.length > 0) negative[0] = negative[0].trimStart().slice(negativeMark.length)
  return {
    prompt: unguardLines(positive).trim(),
    negativePrompt: unguardLines(negative).trim(),
    parameters: new Map(isParameterLine ? last : []),
  }
}

const negativeMark = 'Negative prompt:'
const zeroWidthSpace = '\u200b'

/**
 * A prompt line that reads like the format's own marks would end the prompt early. An invisible zero-width space in
 * front keeps every reader from taking it for one; ours removes it again. Other control characters are dropped, since
 * PNG text allows none but the line feed; the exact prompt is in the JSON chunk.
 */
function guardLines(prompt: string): string {
  // eslint-disable-next-line no-control-regex
  const clean = prompt.replaceAll('\r\n', '\n').replace(/[\x00-\x09\x0b-\x1f\x7f]/g, ' ')
  return clean
    .split('\n')
    .map((line) => (isMark(line) ? line.replace(/^\s*/, `$&${zeroWidthSpace}`) : line))
    .join('\n')
}

function unguardLines(lines: readonly string[]): string {
  return lines
    .map((line) => {
      const without = line.replace(/^(\s*)\u200b/, '$1')
      return without !== line && isMark(without) ? without : line
    })
    .join('\n')
}

/** True for what a reader would take for a mark, also behind zero-width spaces: those lines get one more. */
function isMark(line: string): boolean {
  const bare = line.replace(/^[\s\u200b]+/, '').trim()
  return bare.startsWith(negativeMark) || bare.startsWith('Steps:') || pairsIn(bare).length >= 3
}

/** `Key: value` pairs joined by commas; a value is a double-quoted string or reaches to the next comma. */
function pairsIn(line: string): [string, string][] {
  return [...line.matchAll(/\s*(\w[\w \-/]{1,63}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/g)].map(([, key, value]) => [
    key,
    unquote(value),
  ])
}

function quote(value: string): string {
  return /[,:\n]|^"/.test(value) ? JSON.stringify(value) : value
}

function unquote(value: string): string {
  if (!/^".*"$/s.test(value)) return value
  try {
    return String(JSON.parse(value))
  } catch {
    return value
  }
}

/** IPTC's digital source type: wholly made by a trained model (Photo Metadata Standard 2023.1, cv.iptc.org). */
const xmpMadeByAi = [
  '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
  '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">',
  '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"',
  ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>',
  '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>',
].join('\n')
