import { stat } from 'node:fs/promises'
import { basename, extname } from 'node:path'
import { fromSystemError, VignetteError } from '../errors.ts'
import { embeddingsIn, takesWords } from './embeddings.ts'
import { familyName, familyOf } from './family.ts'
import { kindOf, precisionOf, rankOf } from './fit.ts'
import { groupsOf, type Group } from './groups.ts'
import { readGuidanceFile } from './guidance-file.ts'
import { describe, type Described } from './metadata.ts'
import { noticesOf, strengthsOf } from './notices.ts'
import { nameOf, openFile, type Opened } from './open-file.ts'
import { partRules, partsOf, type Leftover } from './parts.ts'
import { presetFor } from './presets.ts'
import { standardShape } from './shape.ts'
import { readSidecars } from './sidecar.ts'
import type { AdapterFile, AdapterInfo, AdapterPart, AdapterRole, ModelShape } from './types.ts'
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
  return (await lookAtAdapter(file, shape)).info
}

/** The same with the places of its tensors, which are absent when there is no reading them. */
export async function lookAtAdapter(
  file: string,
  shape?: ModelShape,
): Promise<{ info: AdapterInfo; tensors?: AdapterFile['tensors'] }> {
  try {
    const { info, tensors } = await examine(await openFile(file), shape)
    return { info, tensors }
  } catch (error) {
    const known = error instanceof VignetteError ? error : fromSystemError(error)
    const message = known?.message ?? `${basename(file)} cannot be read as an adapter.`
    const bytes = await stat(file).then(
      ({ size }) => size,
      () => 0,
    )
    return {
      info: {
        ...bareInfo(file, bytes),
        verdict: { fit: 'refused', message, ...(known?.hint ? { hint: known.hint } : {}) },
      },
    }
  }
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

  const named = familyOf(all, metadata)
  const groups = groupsOf(all, () => wanted ?? standardShape(named?.id ?? 'sd15'))
  const isAlone = groups.every(({ tensors }) => Object.keys(tensors).length === 0)
  const { embeddings, used, family } = embeddingsIn(opened, isAlone, wanted)
  const guess = named ?? (family && { id: family, name: familyName(family) })
  const isForeign = guess !== undefined && !guess.id
  const shape = wanted ?? standardShape(guess?.id ?? 'sd15')
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
  info.notices = noticesOf(strengths, groups, parts, info, metadata)
  return { info, tensors: all, parts, embeddings: fitting, ignored }
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
  return {
    ...texts,
    triggers,
    tags,
    role: role ?? (named ? 'speed' : roleFrom(tags)),
    ...(named ? { preset: named } : {}),
  }
}

/** What model sites call an adapter. */
function roleFrom(tags: readonly string[]): AdapterRole {
  const has = (...words: string[]) => tags.some((tag) => words.includes(tag.toLowerCase()))
  if (has('character', 'celebrity', 'person', 'clothing', 'objects', 'animal', 'vehicle')) return 'subject'
  return has('tool', 'detail', 'details', 'detailed', 'enhancer') ? 'detail' : 'style'
}
