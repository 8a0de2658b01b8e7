import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import type { RecalledAdapter, RecalledRecipe } from '../../preload/contract/images.ts'
import { bareName } from '../export/foreign.ts'
import type { AdapterLibrary } from './adapters.ts'
import type { InstalledModel, InstalledModels } from './installed-models.ts'

export type RecallParts = {
  models: Pick<InstalledModels, 'list'>
  adapters: Pick<AdapterLibrary, 'scan' | 'list' | 'hashOf'>
  /** A picture of the library with these bytes, for recipes that name what they started from. */
  pictureOf: (source: { name: string; sha256?: string }) => Promise<{ id: string; file: string } | undefined>
}

/** Where names are not enough, so many files of the right shape are read for their hash. */
const maxReadFiles = 12

/**
 * What a recipe names, looked for here: models and adapters by their content, and by name alone only where the writer gave
 * no hash. What is not found stays without an id; nothing takes its place.
 */
export async function resolveRecipe(recipe: RecalledRecipe, parts: RecallParts): Promise<RecalledRecipe> {
  const models = await parts.models.list()
  const model = recipe.model && resolveModel(recipe.model, models)
  const judged = model?.id ?? models[0]?.manifest.id ?? ''
  const adapters = recipe.adapters.length > 0 ? await resolveAdapters(recipe.adapters, judged, parts) : []
  const source = recipe.source && { ...recipe.source, ...(await parts.pictureOf(recipe.source)) }
  const resolved: RecalledRecipe = { ...recipe, adapters, ...(model ? { model } : {}), ...(source ? { source } : {}) }
  const reason = replayReason(resolved)
  return { ...resolved, ...(reason === undefined ? {} : { replayReason: reason }) }
}

type NamedModel = NonNullable<RecalledRecipe['model']>

function resolveModel(named: NamedModel, models: readonly InstalledModel[]): NamedModel {
  const { id, name, sha256 } = named
  const isSame = ({ manifest }: InstalledModel) => sha256 !== undefined && matches(manifest.source.sha256, sha256)
  const called = ({ manifest }: InstalledModel) =>
    id === undefined ? sameName(manifest.name, name) || sameName(manifest.id, name) : manifest.id === id
  const found = models.find((one) => called(one) && isSame(one)) ?? models.find(isSame) ?? models.find(called)
  if (!found) return { name, ...(sha256 ? { sha256 } : {}) }
  const isChanged = sha256 !== undefined && !isSame(found)
  // Other programs' models of that name and another hash are other models; ours were made anew under their id.
  if (isChanged && id === undefined) return { name, ...(sha256 ? { sha256 } : {}) }
  return { ...named, id: found.manifest.id, ...(isChanged ? { isChanged } : {}) }
}

async function resolveAdapters(
  named: readonly RecalledAdapter[],
  model: string,
  { adapters }: RecallParts,
): Promise<RecalledAdapter[]> {
  await adapters.scan(model)
  const records = adapters.list(model).adapters.filter(({ isMissing }) => !isMissing)
  const resolved: RecalledAdapter[] = []
  for (const one of named) {
    const record = await findAdapter(one, records, adapters)
    const other = record ? undefined : records.find((candidate) => isCalled(candidate, one.name))
    const role = one.isGuidance ? 'guidance' : (record ?? other)?.role
    resolved.push({ ...one, id: record?.id, otherId: other?.id, ...(role ? { role } : {}) })
  }
  return resolved
}

async function findAdapter(
  { name, sha256, tensors }: RecalledAdapter,
  records: readonly AdapterRecord[],
  adapters: RecallParts['adapters'],
): Promise<AdapterRecord | undefined> {
  const called = records.filter((one) => isCalled(one, name))
  if (sha256 === undefined) return called[0]
  const known = records.find(({ hash }) => hash !== undefined && matches(hash, sha256))
  if (known) return known
  const shaped = records.filter((one) => tensors !== undefined && one.total === tensors && !called.includes(one))
  for (const record of [...called, ...shaped.slice(0, maxReadFiles)]) {
    const hash = record.hash ?? (await adapters.hashOf(record.id).catch(() => undefined))
    if (hash !== undefined && matches(hash, sha256)) return record
  }
  // Other programs hash the file and not its tensors: theirs can only be compared by name.
  return sha256.length < 64 ? called[0] : undefined
}

function isCalled(record: AdapterRecord, name: string): boolean {
  return sameName(record.name, name) || sameName(record.fileName, name)
}

/** The same hash, or the first digits of it. */
function matches(full: string, given: string): boolean {
  return given.length >= 8 && full.toLowerCase().startsWith(given.toLowerCase())
}

function sameName(one: string, other: string): boolean {
  const plain = (name: string) =>
    bareName(name)
      .toLowerCase()
      .replace(/[^\p{L}\p{N}]/gu, '')
  return plain(one) === plain(other)
}

function replayReason({ engine, model, adapters, source, request }: RecalledRecipe): string | undefined {
  if (!engine) return 'It was made by another program, whose pictures come out differently here.'
  if (!request || model?.id === undefined) return `The model "${model?.name ?? ''}" is not here.`
  const missing = adapters.find(({ id, otherId, isEmbedding }) => !(id ?? otherId) && !isEmbedding)
  if (missing) return `The adapter "${missing.name}" is not here.`
  if (source && source.file === undefined) return `The picture "${source.name}" that it started from is not here.`
  return undefined
}
