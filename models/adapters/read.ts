import { open, readFile, stat } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import { readSafetensors, type SafetensorsFile } from '../checkpoint/safetensors.ts'
import { fromSystemError, VignetteError } from '../errors.ts'
import { embeddingsIn, takesWords } from './embeddings.ts'
import { familyByMetadata, familyName, familyOf } from './family.ts'
import { firstNumbers } from './first-numbers.ts'
import { kindOf, precisionOf, rankOf } from './fit.ts'
import { groupsOf, type Group } from './groups.ts'
import { readGuidanceFile } from './guidance-file.ts'
import { describe, isRecord, parseJson, type Described } from './metadata.ts'
import { partRules, partsOf, type Leftover } from './parts.ts'
import { presetFor } from './presets.ts'
import { standardShape } from './shape.ts'
import { readSidecars } from './sidecar.ts'
import type { AdapterFile, AdapterInfo, AdapterPart, ModelShape } from './types.ts'
import { kindWords, verdictOf } from './verdict.ts'

/**
 * Reads an adapter of any layout against a model (against the published model of its own family when left out): header
 * and sidecars, and no weights. Throws what its verdict says when nothing of it can be used: `adapter-mismatch`, or what a
 * damaged or unsafe file throws.
 */
export async function readAdapter(file: string, shape?: ModelShape): Promise<AdapterFile> {
  const found = await examine(await openFile(file), shape)
  const { fit, message, hint } = found.info.verdict
  if (fit === 'fits' || fit === 'partly') return found
  const code =
    fit === 'refused' ? 'file-unreadable' : fit === 'unsupported' ? 'checkpoint-unsupported' : 'adapter-mismatch'
  throw new VignetteError(code, message, { hint })
}

/** As `readAdapter`, for a card: whatever the file is, there is a verdict. */
export async function inspectAdapter(file: string, shape?: ModelShape): Promise<AdapterInfo> {
  try {
    return (await examine(await openFile(file), shape)).info
  } catch (error) {
    const known = error instanceof VignetteError ? error : fromSystemError(error)
    const message = known?.message ?? `${basename(file)} cannot be read as an adapter.`
    const bytes = await stat(file).then(
      ({ size }) => size,
      () => 0,
    )
    return {
      ...bareInfo(file, bytes),
      verdict: { fit: 'refused', message, ...(known?.hint ? { hint: known.hint } : {}) },
    }
  }
}

/** Names that programs give to every file they write: there the folder says more. */
const generic = /^(adapter_model|pytorch_lora_weights|diffusion_pytorch_model|model|lora)$/

function nameOf(file: string): string {
  const stem = basename(file).replace(/\.safetensors$/i, '')
  return (generic.test(stem) && basename(dirname(file))) || stem
}

function bareInfo(file: string, bytes: number): AdapterInfo {
  return {
    ...{
      file,
      name: nameOf(file),
      bytes,
      kinds: [],
      precision: 'unknown',
      matched: 0,
      total: 0,
      hasTextEncoder: false,
    },
    ...{ triggers: [], tags: [], role: 'style', notices: [], verdict: { fit: 'refused', message: '' } },
  }
}

type Opened = SafetensorsFile & { config?: Record<string, unknown> }

const maxConfigBytes = 2_000_000

/** A file, or a folder as PEFT and diffusers write it. */
async function openFile(path: string): Promise<Opened> {
  const found = await stat(path).catch((error: unknown) => {
    throw fromSystemError(error) ?? error
  })
  const file = found.isDirectory() ? await fileIn(path) : path
  await refusePicture(file)
  const opened = await readSafetensors(file)
  const beside = join(dirname(file), 'adapter_config.json')
  const isPeft = basename(file) === 'adapter_model.safetensors'
  const { size } = isPeft ? await stat(beside).catch(() => ({ size: 0 })) : { size: 0 }
  if (size === 0 || size > maxConfigBytes) return opened
  const config = parseJson(await readFile(beside, 'utf8').catch(() => undefined))
  return isRecord(config) ? { ...opened, config } : opened
}

async function fileIn(folder: string): Promise<string> {
  for (const name of ['adapter_model.safetensors', 'pytorch_lora_weights.safetensors']) {
    const file = join(folder, name)
    if (
      await stat(file).then(
        (found) => found.isFile(),
        () => false,
      )
    )
      return file
  }
  throw new VignetteError('file-unreadable', `${basename(folder)} is a folder without an adapter in it.`, {
    hint: 'Choose the .safetensors file, or a folder with adapter_model.safetensors.',
  })
}

/** Embeddings are also passed on inside pictures, as pixels or as text that a pickle is packed in. */
async function refusePicture(file: string): Promise<void> {
  const handle = await open(file, 'r')
  try {
    const start = Buffer.alloc(8192)
    const { bytesRead } = await handle.read(start, 0, start.length, 0)
    const text = start.toString('latin1', 0, bytesRead)
    const isPicture =
      text.startsWith('\x89PNG') ||
      text.startsWith('\xff\xd8\xff') ||
      (text.startsWith('RIFF') && text.startsWith('WEBP', 8))
    if (!isPicture) return
    const isEmbedding = text.includes('sd-ti-embedding')
    throw new VignetteError(
      'file-unreadable',
      isEmbedding
        ? `${basename(file)} is a picture with an embedding packed into it, which Vignette does not unpack.`
        : `${basename(file)} is a picture, not an adapter.`,
      { hint: isEmbedding ? 'Look for the .safetensors version of the embedding.' : 'Choose a .safetensors file.' },
    )
  } finally {
    await handle.close()
  }
}

type Placed = { parts: AdapterPart[]; leftovers: Leftover[] }

/** Every module's tensors to their places in a model; `anySize`: by their names alone. */
async function place(groups: readonly Group[], shape: ModelShape, opened: Opened, anySize: boolean): Promise<Placed> {
  const rules = partRules(opened.metadata, opened.config)
  const placed: Placed = { parts: [], leftovers: [] }
  const seen = new Set<string>()
  for (const group of groups) {
    const found = await partsOf(group, shape, rules, anySize)
    if (!Array.isArray(found)) {
      placed.leftovers.push(found)
      continue
    }
    const keys = found.map(({ target, path, kind }) => `${kind} ${target} ${path}`)
    if (keys.some((key) => seen.has(key))) {
      placed.leftovers.push({ names: group.names, reason: 'twice', kind: found[0].kind })
      continue
    }
    for (const key of keys) seen.add(key)
    placed.parts.push(...found)
  }
  return placed
}

async function examine(opened: Opened, wanted: ModelShape | undefined): Promise<AdapterFile> {
  const { path: file, bytes, metadata, tensors: all } = opened
  const said = { ...describe(metadata), ...(await readSidecars(file)) }
  const info: AdapterInfo = {
    ...bareInfo(file, bytes),
    ...describedInfo(said, [nameOf(file), basename(file, extname(file)), metadata.get('ss_output_name')]),
    total: all.size,
    precision: precisionOf(all.values()),
  }
  if (metadata.get('vignette_kind') === 'guidance') return readGuidanceFile(opened, info, wanted)

  const anyGroups = groupsOf(all, wanted ?? standardShape('sd15'))
  const isAlone = anyGroups.every(({ tensors }) => Object.keys(tensors).length === 0)
  const { embeddings, used, family } = embeddingsIn(opened, isAlone, wanted)
  const guess = familyOf(all, metadata) ?? (family && { id: family, name: familyName(family) })
  const isForeign = guess !== undefined && !guess.id
  const shape = wanted ?? standardShape(guess?.id ?? 'sd15')
  const groups = shape === standardShape('sd15') || wanted ? anyGroups : groupsOf(all, shape)
  let placed: Placed = isForeign
    ? { parts: [], leftovers: groups.map(leftOf) }
    : await place(groups, shape, opened, false)
  const fitting = embeddings.length > 0 && takesWords(shape, embeddings) ? embeddings : []
  // The small models that people train have sizes of their own, which only the model itself can tell.
  const isSized =
    wanted !== undefined ||
    isForeign ||
    placed.parts.length > 0 ||
    placed.leftovers.every(({ reason }) => reason !== 'shape')
  if (!isSized) placed = await place(groups, shape, opened, true)
  const { parts, leftovers } = placed

  const taken = new Set(fitting.length > 0 ? used : [])
  const isLeft = new Set(leftovers.flatMap(({ names }) => names))
  for (const { names } of groups) for (const name of names) if (!isLeft.has(name)) taken.add(name)
  const ignored = [...all.keys()].filter((name) => !taken.has(name))
  info.matched = all.size - ignored.length
  if (guess?.id && isSized) info.family = guess.id
  info.familyName = isSized ? guess?.name : 'Stable Diffusion of a size of its own'
  if (info.familyName === undefined) delete info.familyName
  const kinds = parts.length > 0 ? parts : groups.flatMap(asPart)
  info.kinds = kindWords(kinds, embeddings.length > 0)
  for (const { kind, tensors } of kinds) {
    const rank = rankOf(kind, tensors)
    if (rank === undefined) continue
    const { min, max } = info.rank ?? { min: rank, max: rank }
    info.rank = { min: Math.min(min, rank), max: Math.max(max, rank) }
  }
  info.hasTextEncoder =
    fitting.length > 0 ||
    parts.some(({ target }) => target !== 'unet') ||
    groups.some(({ module }) => textModule.test(module))
  info.verdict = verdictOf({
    info,
    parts,
    embeddings: fitting,
    words: embeddings,
    leftovers,
    ignored,
    guess,
    wanted,
    isSized,
    all,
  })
  const strengths = await strengthsOf(parts)
  if (strengths.some((value) => !Number.isFinite(value))) {
    const message = `"${info.name}" is damaged: how strong it is, is not a number.`
    info.verdict = { fit: 'refused', message, hint: 'The training that made it went wrong. Look for another version.' }
  }
  info.notices = noticesOf(strengths, groups, info, metadata)
  return { info, parts, embeddings: fitting, ignored }
}

const textModule = /^(lora_te|text_encoder|te\d?_)|self_attn|text_model/

/** A kind for the card of a file whose parts fit nowhere. */
function asPart({ tensors }: Group): Pick<AdapterPart, 'kind' | 'tensors'>[] {
  const kind = kindOf(tensors)
  return kind ? [{ kind, tensors }] : []
}

function leftOf({ names, tensors }: Group): Leftover {
  const kind = kindOf(tensors)
  return { names, reason: 'unknown', ...(kind ? { kind } : {}) }
}

function describedInfo(said: Partial<Described>, names: readonly (string | undefined)[]): Partial<AdapterInfo> {
  const { role, preset, triggers = [], tags = [], ...rest } = said
  const named = preset ?? presetFor([...names, said.title])
  const texts = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
  return { ...texts, triggers, tags, role: role ?? (named ? 'speed' : 'style'), ...(named ? { preset: named } : {}) }
}

/** As many of the numbers in a file that say how strong its parts are as can be read in a moment. */
async function strengthsOf(parts: readonly AdapterPart[]): Promise<number[]> {
  const stored = parts.flatMap(({ kind, scale }) =>
    'tensor' in scale && kind !== 'oft' && kind !== 'boft' ? scale.tensor : [],
  )
  const stride = Math.max(1, Math.ceil(stored.length / 64))
  return firstNumbers(stored.filter((_, i) => i % stride === 0))
}

function noticesOf(
  strengths: readonly number[],
  groups: readonly Group[],
  info: AdapterInfo,
  metadata: ReadonlyMap<string, string>,
): string[] {
  const notices: string[] = []
  const zeros = strengths.filter((value) => value === 0).length
  if (zeros > 0 && zeros === strengths.length)
    notices.push('Its own strength (alpha) is zero, so it changes nothing at any weight.')
  else if (zeros > 0) notices.push('The strength (alpha) of some of its parts is zero: those change nothing.')
  if (groups.some(({ alpha, scale, tensors }) => alpha && scale && tensors.down))
    notices.push('It says twice how strong it is (alpha and scale); other programs may read it another way.')
  const said = familyByMetadata(metadata)
  if (said && info.familyName !== undefined && info.family !== undefined && said.name !== info.familyName)
    notices.push(`It says that it was made for ${said.name}, but it is built for ${info.familyName}.`)
  return notices
}
