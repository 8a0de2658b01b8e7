import { VignetteError } from '../../models/errors.ts'
import type { AppEvent } from '../../preload/contract.ts'
import { GenerateRequest } from '../../preload/contract/generate.ts'
import type { RecalledRecipe, ReplayResult } from '../../preload/contract/images.ts'
import type { PictureClient } from '../engine/picture-client.ts'
import type { Library } from './library.ts'

export type ReplayParts = {
  library: Pick<Library, 'fileOf' | 'recipeOf'>
  pictures: Pick<PictureClient, 'compare'>
  /** A recipe with what it names looked for here. */
  recall: (id: string) => Promise<RecalledRecipe | undefined>
  /** Puts one picture into the queue as it is, with no word of its prompt drawn anew. */
  addJob: (request: GenerateRequest) => Promise<string>
  emit: (event: AppEvent) => void
}

/** Pictures that are made again to see whether they come out the same. */
export class Replays {
  readonly #parts: ReplayParts
  /** The picture that each running job makes again. */
  readonly #running = new Map<string, string>()

  constructor(parts: ReplayParts) {
    this.#parts = parts
  }

  async start(id: string): Promise<{ jobId: string }> {
    const recipe = await this.#parts.recall(id)
    const reason = recipe ? recipe.replayReason : 'The file does not say how it was made.'
    if (!recipe || reason !== undefined) {
      throw new VignetteError('bad-request', `This picture cannot be made again. ${reason}`, {
        hint: 'Use all puts what is known of it into the Studio.',
      })
    }
    const jobId = await this.#parts.addJob(replayRequest(recipe))
    this.#running.set(jobId, id)
    return { jobId }
  }

  /** Hears how the jobs go. */
  apply(event: AppEvent): void {
    if (event.type !== 'jobs:changed') return
    for (const { id: jobId, status, imageId, error } of event.jobs) {
      const id = this.#running.get(jobId)
      if (id === undefined || status === 'waiting' || status === 'running') continue
      this.#running.delete(jobId)
      if (status === 'done' && imageId !== undefined) void this.#compare(id, imageId)
      else this.#tell({ id, verdict: 'failed', reasons: [error?.message ?? 'It was stopped.'] })
    }
  }

  async #compare(id: string, againId: string): Promise<void> {
    const { library, pictures } = this.#parts
    const [file, again] = [library.fileOf(id), library.fileOf(againId)]
    try {
      const [before, after] = [await library.recipeOf(id), await library.recipeOf(againId)]
      const reasons = changes(before.recipe, after.recipe)
      const isIdentical = before.recipe?.pixelSha256 === after.recipe?.pixelSha256
      if (isIdentical) return this.#tell({ id, againId, verdict: 'identical', reasons })
      const { isSameSize, pixels, most } = await pictures.compare(file!, again!)
      const isSame = isSameSize && most <= visibleDifference
      this.#tell({ id, againId, verdict: isSame ? 'same' : 'different', pixels, most, reasons })
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      this.#tell({ id, againId, verdict: 'failed', reasons: [message] })
    }
  }

  #tell(result: ReplayResult): void {
    this.#parts.emit({ type: 'images:replayed', result })
  }
}

/** Of 255, in any channel: less is not seen, and is what other processors and batches differ by. */
const visibleDifference = 6

function replayRequest({ request, model, adapters, source }: RecalledRecipe): GenerateRequest {
  return GenerateRequest.parse({
    ...request,
    promptTemplate: undefined,
    negativeTemplate: undefined,
    model: model!.id,
    count: 1,
    ...(source?.file ? { initImage: source.file } : {}),
    adapters: adapters.flatMap(({ id, otherId, weight, textWeight, start, end, ramp, rankBudget }) => {
      const file = id ?? otherId
      return file === undefined ? [] : [{ file, weight, textWeight, start, end, ramp, rankBudget }]
    }),
  })
}

/** What was not the same for both pictures, in words. */
function changes(before: RecalledRecipe | undefined, after: RecalledRecipe | undefined): string[] {
  if (!before || !after) return []
  const found: string[] = []
  const { engine: a, model: m } = before
  const { engine: b, model: n } = after
  if (a?.provider !== b?.provider) found.push(`It was made on ${a?.provider}, and now on ${b?.provider}.`)
  if (a?.runtime !== b?.runtime) found.push(`The engine was ${a?.runtime}, and is ${b?.runtime} now.`)
  if (a?.mode !== b?.mode) found.push('4-bit weights are worked with in another way now.')
  if (m?.sha256 !== n?.sha256) found.push(`The model "${m?.name}" has other weights now.`)
  for (const { name, sha256 } of before.adapters)
    if (!after.adapters.some((one) => one.sha256 === sha256)) found.push(`The adapter "${name}" is not the same.`)
  if (before.origin !== after.origin) found.push(`It was made with ${before.origin}, and now with ${after.origin}.`)
  return found
}
