import { reportError, type ErrorReport } from '../../models/errors.ts'
import type { ImageRecord } from '../../preload/contract/images.ts'
import type { EngineClient, JobEvent } from '../engine/client.ts'
import type { Library } from './library.ts'
import type { Pace } from './pace.ts'
import type { Entry, FilledRequest } from './queue-list.ts'

export type Outcome = { type: 'done' } | { type: 'cancelled' } | { type: 'failed'; error: ErrorReport; cause?: unknown }

export type RunOptions = {
  engine: Pick<EngineClient, 'run'>
  library: Pick<Library, 'add'>
  /** The folder of an installed model; throws `model-missing`. */
  folderOf: (model: string) => Promise<string>
  /** The file of an adapter in the library, by the id that requests of the window hold; throws when it is gone. */
  adapterFileOf: (id: string) => Promise<string>
  pace: Pace
  now: () => number
  whySlow: () => string
  /** Where what is done of a job is kept, if it is. */
  checkpointOf: (id: string) => string | undefined
  /** Something about it is different. */
  onProgress: () => void
  /** Its picture is about to be saved: to be on disk first, so that after a crash one looks whether it was. */
  onSaving: () => Promise<void>
  /** Its picture is saved: to be on disk before anything else happens. */
  onSaved: (image: ImageRecord) => Promise<void>
}

/** Makes the picture of one job and saves it. Whoever wants it to stop sets `entry.stop` and tells the engine. */
export async function runEntry(entry: Entry, options: RunOptions): Promise<Outcome> {
  const { job } = entry
  try {
    if (entry.unsaved) {
      job.phase = 'saving'
      options.onProgress()
      await entry.unsaved()
      return { type: 'done' }
    }
    entry.clock = options.pace.start(job.request as FilledRequest, options.now())
    const modelFolder = await options.folderOf(job.request.model)
    const request = await withFiles(job.request as FilledRequest, options.adapterFileOf)
    if (entry.stop) return { type: 'cancelled' } // before the engine heard of it
    const checkpointFile = options.checkpointOf(job.id)
    for await (const event of options.engine.run({
      id: job.id,
      modelFolder,
      request,
      makesThumb: true,
      ...(checkpointFile === undefined ? {} : { checkpointFile }),
    })) {
      const outcome = await apply(entry, event, options)
      if (outcome) return outcome
    }
    throw new Error(`the engine said nothing of the end of job ${job.id}`)
  } catch (cause) {
    return { type: 'failed', error: reportError(cause), cause }
  }
}

async function apply(entry: Entry, event: JobEvent, options: RunOptions): Promise<Outcome | undefined> {
  const { job, clock } = entry
  const now = options.now()
  switch (event.type) {
    case 'phase':
      job.phase = event.phase
      if (event.phase === 'denoising') clock!.firstStepAt = now
      break
    case 'step':
      job.step = event.step
      job.steps = event.steps
      clock!.stepTimes.push(now)
      if (event.previewPng) job.preview = dataUrl(event.previewPng)
      break
    case 'resumed':
      job.step = event.step
      job.steps = event.steps
      if (event.previewPng) job.preview = dataUrl(event.previewPng)
      break
    case 'applied':
      job.appliedMs = event.ms
      break
    case 'image':
      await save(entry, event, options)
      break
    case 'notice':
      if (!job.notices?.includes(event.message)) job.notices = [...(job.notices ?? []), event.message]
      break
    case 'finished':
      return { type: 'done' }
    case 'cancelled':
      return { type: 'cancelled' }
    case 'failed':
      return { type: 'failed', error: event.error }
    default:
      event satisfies never
  }
  tellTime(entry, options)
  options.onProgress()
  return undefined
}

/** A picture that finds no room is kept until there is some, so that it need not be made again. */
async function save(entry: Entry, event: Extract<JobEvent, { type: 'image' }>, options: RunOptions): Promise<void> {
  const { job, clock } = entry
  const { seed, width, height, png, thumb } = event
  entry.unsaved = async () => {
    failOnPurpose()
    job.phase = 'saving'
    await options.onSaving()
    const image = await options.library.add(png, { prompt: job.request.prompt, seed, width, height }, thumb)
    delete entry.unsaved
    job.imageId = image.id
    await options.onSaved(image)
  }
  await entry.unsaved()
  options.pace.finished(clock!, options.now(), png.length)
}

function tellTime({ job, clock }: Entry, { pace, now, whySlow }: RunOptions): void {
  const said = pace.say(clock!, job.step, job.steps, now())
  delete job.etaMs
  if (said) job.etaMs = Math.round(said.ms)
  if (!said?.isSlow) delete job.slowReason
  else job.slowReason ??= whySlow()
}

function dataUrl(png: Uint8Array): string {
  return `data:image/png;base64,${Buffer.from(png).toString('base64')}`
}

/** As a full disk does, for tests: only with VIGNETTE_E2E=1, which a packaged application takes out of its environment. */
function failOnPurpose(): void {
  const { VIGNETTE_E2E, VIGNETTE_FAIL } = process.env
  if (VIGNETTE_E2E === '1' && VIGNETTE_FAIL === 'disk')
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
}

/** The request as the engine takes it: adapters by their files. */
async function withFiles(
  request: FilledRequest,
  adapterFileOf: (id: string) => Promise<string>,
): Promise<FilledRequest> {
  const adapters = await Promise.all(
    request.adapters.map(async (use) => ({ ...use, file: await adapterFileOf(use.file) })),
  )
  return { ...request, adapters }
}
