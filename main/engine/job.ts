import { createHash } from 'node:crypto'
import { version } from '../../package.json'
import type { GenerateRequest } from '../../preload/contract/generate.ts'
import { limits } from '../../preload/limits.ts'
import { writeGraphs } from '../../models/checkpoint/graphs.ts'
import { fromSystemError, reportError } from '../../models/errors.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { completeRequest, recipeChunks, type Recipe } from '../export/metadata.ts'
import { encodePng } from '../export/png.ts'
import { generate } from '../pipeline/generate.ts'
import { weightsAt } from '../pipeline/steps.ts'
import { createTokenizer, type Tokenizer } from '../pipeline/tokenizer.ts'
import type { GenerateJob, PictureChoice } from '../pipeline/types.ts'
import { openAdapterFiles, type AdapterFiles } from './adapters.ts'
import { openCheckpoint, type Checkpoint } from './checkpoint.ts'
import { failAfter, failBefore } from './fail.ts'
import { openAdapters } from './job-adapters.ts'
import { tileAbovePixels } from './memory.ts'
import { runtimeVersion, type OpenNetworks } from './networks.ts'
import { readMask, readPicture, thumbnail } from './pictures.ts'
import type { BatchPicture, EngineEvent, EngineJob } from './protocol.ts'
import { checkAgainstModel } from './request.ts'

const previewIntervalMs = 250
const defaultCheckpointMs = 5000

/** Built on first use, then kept: it takes a tenth of a second. */
let tokenizer: Promise<Tokenizer> | undefined
function clipTokenizer(): Promise<Tokenizer> {
  return (tokenizer ??= readClipMerges().then(createTokenizer))
}

/** Adapters that were read for the model that is open, so that the next job has them at once. */
let adapterFiles: { networks: OpenNetworks; files: AdapterFiles } | undefined
async function adapterFilesOf(networks: OpenNetworks): Promise<AdapterFiles> {
  if (adapterFiles?.networks !== networks) {
    await adapterFiles?.files.release()
    adapterFiles = { networks, files: openAdapterFiles(networks.folder) }
  }
  return adapterFiles.files
}

/** Adapters that these networks have been opened with. */
const readBefore = new WeakMap<OpenNetworks, Set<string>>()

/**
 * All pictures of one job from `firstIndex` on, one after the other with consecutive seeds: a picture of a series then
 * is, to the byte, the one its seed makes alone. Those of a `batch` are drawn side by side, and are what they would be alone
 * but for the last digits. Ends by returning; whoever stops iterating cancels it. Every finished picture is a whole PNG
 * that carries its recipe.
 */
export async function* runJob(job: EngineJob, networks: OpenNetworks, firstIndex = 0): AsyncGenerator<EngineEvent> {
  try {
    yield* drawJob(job, networks, firstIndex)
  } catch (error) {
    if (reportError(error).code === 'out-of-memory') {
      await adapterFiles?.files.release()
      adapterFiles = undefined
    }
    throw error
  }
}

async function* drawJob(job: EngineJob, networks: OpenNetworks, firstIndex: number): AsyncGenerator<EngineEvent> {
  const { id: jobId, request } = job
  const { width, height } = request
  checkAgainstModel(request, networks.manifest)
  if (request.speed !== 'exact' && !networks.has('unet_shallow')) await addOuterLayers(job.modelFolder, networks)
  const choices = picturesOf(job)
  const first = networks.manifest.networks.filter((name) => name.startsWith('text_encoder') || name === 'unet')
  const wanted = choices.flatMap(({ adapters }) =>
    adapters.map(({ file, rankBudget }) => `${rankBudget ?? ''} ${file}`),
  )
  const read = readBefore.get(networks) ?? new Set<string>()
  readBefore.set(networks, read)
  // Other weights of what is there are in place in a moment: nothing is loaded for them.
  if (wanted.some((one) => !read.has(one))) yield { type: 'phase', jobId, index: firstIndex, phase: 'loading' }
  const steps = request.timesteps?.length ?? request.steps
  const files = await adapterFilesOf(networks)
  const appliedFrom = performance.now()
  const adapters = await openAdapters(
    choices.map((choice) => choice.adapters),
    steps,
    networks,
    files,
  )
  for (const one of wanted) read.add(one)
  // Their factors are joined when a step first wants them: done here, so that it is measured. The step finds them made.
  const [sample] = adapters.pictures.slice(firstIndex)
  if (sample && sample.applied.length > 0) {
    const rows = Array.from({ length: steps }, (_, step) => weightsAt(sample.applied, step, steps))
    await adapters.slots.unet?.inputs([rows.find((weights) => weights.size > 0) ?? rows[0]])
    yield { type: 'applied', jobId, ms: performance.now() - appliedFrom }
  }
  for (const message of adapters.notices) yield { type: 'notice', jobId, message }
  if (first.some((name) => !networks.loaded().includes(name))) {
    yield { type: 'phase', jobId, index: firstIndex, phase: 'loading' }
    await networks.preload(first)
  }
  const clip = await clipTokenizer()
  const init = request.initImage === undefined ? undefined : await readPicture(request.initImage, width, height)
  const mask = request.maskImage === undefined ? undefined : await readMask(request.maskImage, width, height)

  const common: GenerateJob = {
    prompt: request.prompt,
    negativePrompt: request.negativePrompt,
    width,
    height,
    steps: request.steps,
    seed: request.seed,
    sampler: request.sampler,
    schedule: request.schedule,
    guidanceScale: request.guidanceScale,
    guidanceRescale: request.guidanceRescale,
    clipSkip: request.clipSkip,
    zeroTerminalSnr: request.zeroTerminalSnr ?? networks.manifest.schedule.zeroTerminalSnr,
    ...(init ? { init: { image: init.pixels, strength: request.strength } } : {}),
    ...(mask ? { mask: mask.pixels } : {}),
    preview: request.preview,
    speed: request.speed,
    timesteps: request.timesteps,
    eta: request.eta,
    guidanceAdapter: adapters.guidance,
  }
  const all = choices.map((choice, i): PictureChoice => ({ ...choice, adapters: adapters.pictures[i].applied }))
  const left = all.slice(firstIndex)
  if (left.length === 0) return
  const said = new Set<string>(adapters.notices)
  let index = firstIndex
  for (const pictures of job.batch ? [left] : left.map((one) => [one])) {
    // All that goes into them; only what comes out is still missing.
    const recipes = pictures.map((_, i) => {
      const { references } = adapters.pictures[index + i]
      return {
        ...describe({ ...request, ...choices[index + i] }, networks, pictures.length),
        ...(references.length > 0 ? { adapters: references } : {}),
        ...(init ? { pictures: { init: init.reference, ...(mask ? { mask: mask.reference } : {}) } } : {}),
      }
    })
    const begin = index
    const checkpoint = await checkpointOf(job, recipes, networks)
    const options = { tileAbovePixels: tileAbovePixels(), pictures, slots: adapters.slots, memory: checkpoint }
    let previewAt = -Infinity
    try {
      for await (const event of generate(common, networks, clip, options)) {
        switch (event.type) {
          case 'phase':
            yield { type: 'phase', jobId, index, phase: event.phase }
            break
          case 'resumed':
          case 'step': {
            const { type, step, steps, preview } = event
            if (type === 'step') failBefore(step)
            const isDue = preview !== undefined && performance.now() - previewAt >= previewIntervalMs
            if (isDue) previewAt = performance.now()
            yield { type, jobId, index, step, steps, ...(isDue ? { previewPng: encodePng(preview) } : {}) }
            if (type === 'step') await failAfter(step)
            break
          }
          case 'notice':
            // Mostly the same for every picture of the job: said once.
            if (!said.has(event.message)) yield { type: 'notice', jobId, message: event.message }
            said.add(event.message)
            break
          case 'image': {
            yield { type: 'phase', jobId, index, phase: 'saving' }
            const { seed, image } = event
            const pixelSha256 = createHash('sha256').update(image.data).digest('hex')
            const png = encodePng(image, recipeChunks({ ...recipes[index - begin], pixelSha256 }))
            const thumb = job.makesThumb ? await thumbnail(image) : undefined
            await networks.trim()
            const size = { width: image.width, height: image.height }
            yield { type: 'image', jobId, index, seed, ...size, png, ...(thumb ? { thumb } : {}) }
            index++
            break
          }
          default:
            event satisfies never
        }
      }
    } finally {
      await checkpoint?.close()
    }
  }
}

/** What an earlier run of these very pictures left, and where this one's is kept. */
async function checkpointOf(
  { checkpointFile, checkpointEveryMs = defaultCheckpointMs, request }: EngineJob,
  recipes: readonly object[],
  { manifest }: OpenNetworks,
): Promise<Checkpoint | undefined> {
  if (checkpointFile === undefined) return undefined
  const { channels, spatialFactor } = manifest.latents
  return openCheckpoint(checkpointFile, {
    // Several models may come from one file: whole, and in four bits.
    key: JSON.stringify([recipes, manifest.storage, manifest.weightBytes]),
    values: (recipes.length * channels * request.width * request.height) / spatialFactor ** 2,
    everyMs: checkpointEveryMs,
  })
}

type Choice = Required<BatchPicture>

/** What each picture of a job has of its own. */
function picturesOf({ request, batch }: EngineJob): Choice[] {
  const { prompt, negativePrompt, guidanceScale, adapters, count } = request
  const own: readonly BatchPicture[] = batch ?? Array.from({ length: count }, () => ({}))
  return own.map((picture, i) => ({
    ...{ prompt, negativePrompt, guidanceScale, adapters, seed: (request.seed + i) % (limits.maxSeed + 1) },
    ...picture,
  }))
}

/** Graphs of a folder that an earlier Vignette made, which had no outer layers; one that cannot be written stays as it is. */
async function addOuterLayers(modelFolder: string, networks: OpenNetworks): Promise<void> {
  await networks.release()
  try {
    await writeGraphs(modelFolder)
  } catch (error) {
    if (!fromSystemError(error)) throw error
  }
}

/** A recipe but for the picture that came of it; `pictures` were drawn in one batch. */
function describe(
  request: GenerateRequest,
  { manifest, provider, mode }: OpenNetworks,
  pictures: number,
): Omit<Recipe, 'pixelSha256'> {
  const batch = pictures > 1 ? { batch: pictures } : {}
  return {
    version: 1,
    app: `Vignette ${version}`,
    engine: { runtime: runtimeVersion, provider, ...(mode ? { mode } : {}), ...batch },
    model: { id: manifest.id, name: manifest.name, family: manifest.family, sha256: manifest.source.sha256 },
    request: completeRequest(request) as Recipe['request'],
  }
}
