import { readFile, stat } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import type { Described } from './metadata.ts'
import { cleanText, isRecord, parseJson, rangeFrom, weightFrom, wordsFrom } from './metadata.ts'

// Files that other programs put beside an adapter. They are read and never written.

const maxBytes = 2_000_000

/** What the sidecars of an adapter file say; what none says is absent. */
export async function readSidecars(file: string): Promise<Partial<Described>> {
  const stem = join(dirname(file), basename(file, extname(file)))
  const own = await readJson(`${stem}.json`)
  const civitai = (await readJson(`${stem}.civitai.info`)) ?? (await readJson(`${stem}.metadata.json`))
  const manager = await readJson(`${stem}.cm-info.json`)
  return { ...fromManager(manager), ...fromCivitai(civitai), ...fromA1111(own) }
}

async function readJson(file: string): Promise<Record<string, unknown> | undefined> {
  try {
    if ((await stat(file)).size > maxBytes) return undefined
    const json = parseJson((await readFile(file, 'utf8')).replace(/^\ufeff/, ''))
    return isRecord(json) ? json : undefined
  } catch {
    return undefined // none, or none that can be read
  }
}

/** A1111's user metadata: "activation text", "preferred weight", "description", "notes". */
function fromA1111(json: Record<string, unknown> | undefined): Partial<Described> {
  if (!json) return {}
  return present({
    triggers: wordsFrom(json['activation text']),
    preferredWeight: nonZero(weightFrom(json['preferred weight'])),
    description: cleanText(json.description ?? json.notes, 2000),
  })
}

/** Civitai's description of a version, or ComfyUI's lora manager's, which wraps it. */
function fromCivitai(json: Record<string, unknown> | undefined): Partial<Described> {
  const version = json && isRecord(json.civitai) ? json.civitai : json
  if (!version) return {}
  const model = isRecord(version.model) ? version.model : {}
  const tips = isRecord(json?.usage_tips)
    ? json.usage_tips
    : parseJson(typeof json?.usage_tips === 'string' ? json.usage_tips : undefined)
  const settings = isRecord(version.settings) ? version.settings : {}
  const strength = isRecord(tips) ? (tips.strength ?? tips.strength_range) : undefined
  return present({
    triggers: wordsFrom(version.trainedWords),
    title: cleanText(model.name ?? json?.model_name, 120),
    description: cleanText(version.description ?? model.description ?? json?.modelDescription, 2000),
    tags: wordsFrom(model.tags ?? json?.tags),
    preferredWeight: weightFrom(strength ?? settings.strength),
    weightRange: isRecord(tips) ? rangeFrom(tips.strength_range) : undefined,
  })
}

/** Stability Matrix. */
function fromManager(json: Record<string, unknown> | undefined): Partial<Described> {
  if (!json) return {}
  return present({
    triggers: wordsFrom(json.TrainedWords),
    title: cleanText(json.ModelName, 120),
    description: cleanText(json.VersionDescription ?? json.ModelDescription, 2000),
    tags: wordsFrom(json.Tags),
  })
}

/** A1111 writes 0 where nobody has said anything. */
const nonZero = (value: number | undefined) => (value === 0 ? undefined : value)

function present(all: { [K in keyof Described]?: Described[K] | undefined }): Partial<Described> {
  const said = Object.entries(all).filter(
    ([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0),
  )
  return Object.fromEntries(said) as Partial<Described>
}
