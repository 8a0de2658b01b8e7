import type { RecalledRecipe } from '../../preload/contract/images.ts'
import { readJsonObject } from './foreign.ts'
import { fromA1111 } from './foreign-a1111.ts'
import { fromComfy } from './foreign-comfy.ts'
import { fromJson } from './foreign-json.ts'
import { readRecipe, recipeKeyword, type Recipe } from './metadata.ts'

/**
 * How a picture was made, from the texts in its file, whichever program wrote them; undefined when they do not say. What
 * it names is not looked for: models and adapters are resolved by whoever knows what is there.
 */
export function recallFrom(texts: ReadonlyMap<string, string>): RecalledRecipe | undefined {
  const own = texts.get(recipeKeyword)
  const recipe = own === undefined ? undefined : readRecipe(own)
  if (recipe) return recalled(recipe)
  const found = foreign(texts)
  if (found) return found
  // Something is there, and it is not understood: shown as it is.
  const keys = ['parameters', 'prompt', 'workflow', 'invokeai_metadata', 'Comment']
  const raw = keys.filter((key) => texts.has(key)).map((key) => ({ key, value: texts.get(key)!.slice(0, 20_000) }))
  return raw.length > 0
    ? { adapters: [], raw, notices: ['The recipe in this file could not be understood.'] }
    : undefined
}

function foreign(texts: ReadonlyMap<string, string>): RecalledRecipe | undefined {
  const objectAt = (key: string) => (texts.has(key) ? readJsonObject(texts.get(key)!) : undefined)
  const parameters = texts.get('parameters')
  if (parameters !== undefined) {
    const object = readJsonObject(parameters)
    const found = object ? fromJson(object, undefined) : fromA1111(parameters)
    if (found) return found
  }
  const invoke = objectAt('invokeai_metadata')
  const fromInvoke = invoke && fromJson(invoke, 'InvokeAI')
  if (fromInvoke) return fromInvoke
  const fromGraph = fromComfy(objectAt('prompt'), objectAt('workflow'))
  if (fromGraph) return fromGraph
  const comment = objectAt('Comment')
  return comment && fromJson(comment, texts.get('Software') ?? texts.get('Source'))
}

/** A recipe of ours. */
export function recalled(recipe: Recipe): RecalledRecipe {
  const { app, engine, model, request, adapters = [], pictures, pixelSha256 } = recipe
  const { init } = pictures ?? {}
  const { runtime, provider, mode } = engine
  return {
    origin: app,
    request,
    model: { id: model.id, name: model.name ?? model.id, ...(model.sha256 ? { sha256: model.sha256 } : {}) },
    adapters: adapters.map(({ matched: _, total: tensors, ...use }) => ({ ...use, tensors })),
    ...(init ? { source: init } : {}),
    engine: { runtime, provider, ...(mode ? { mode } : {}) },
    pixelSha256,
  }
}
