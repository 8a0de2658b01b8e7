import { randomInt } from 'node:crypto'
import type { GenerateRequest } from '../../../preload/contract/generate.ts'
import type { jobRequests } from '../../../preload/contract/jobs.ts'
import { limits } from '../../../preload/limits.ts'
import { checkRequest, fillDefaults, fillFromAdapters } from '../../engine/client.ts'
import type { AdapterLibrary } from '../adapters.ts'
import type { HandlersOf } from '../answer.ts'
import type { InstalledModels } from '../installed-models.ts'
import type { Jobs, NewJob } from '../jobs.ts'
import type { Pace } from '../pace.ts'
import type { Prompts } from '../prompts.ts'

type Parts = {
  jobs: Jobs
  models: Pick<InstalledModels, 'find'>
  adapters: Pick<AdapterLibrary, 'infosOf'>
  prompts: Pick<Prompts, 'resolve'>
  pace: Pick<Pace, 'estimate' | 'distils'>
}

export function jobHandlers(parts: Parts): HandlersOf<typeof jobRequests> {
  const { jobs, pace } = parts
  return {
    'jobs:add': async ({ requests, ...options }) => jobs.add(await completeRequests(requests, parts), options),
    'jobs:cancel': ({ ids }) => jobs.cancel(ids),
    'jobs:move': ({ ids, to }) => jobs.move(ids, to),
    'jobs:retry': ({ ids, size }) => jobs.retry(ids, size),
    'jobs:duplicate': ({ ids }) => jobs.duplicate(ids),
    'jobs:hold': ({ ids, isHeld }) => jobs.hold(ids, isHeld),
    'jobs:forget': ({ ids }) => jobs.forget(ids),
    'jobs:clearWaiting': () => jobs.clearWaiting(),
    'jobs:undoClear': ({ undoId }) => jobs.undoClear(undoId),
    'queue:pause': ({ when }) => jobs.pause(when),
    'queue:resume': () => jobs.resume(),
    'queue:discard': () => jobs.discard(),
    'queue:stopAt': ({ at }) => jobs.stopAt(at),
    'jobs:estimate': async ({ request }) => {
      const complete = await completer(parts)(request)
      const { ms, bytes } = pace.estimate(complete.request)
      return { ...(ms === undefined ? {} : { ms: request.count * ms }), bytes: request.count * bytes }
    },
  }
}

/** After so many the window gets its turn. */
const yieldEvery = 50

/** What the person asked for as pictures of which nothing is open: models' and adapters' defaults, seeds and words. */
async function completeRequests(requests: readonly GenerateRequest[], parts: Parts): Promise<NewJob[]> {
  parts.jobs.checkRoom(requests.reduce((total, { count }) => total + count, 0))
  const complete = completer(parts)
  const all: NewJob[] = []
  let sinceYield = 0
  for (const raw of requests) {
    const { request, triggers, notices } = await complete(checkRequest(raw))
    for (let i = 0; i < raw.count; i++) {
      const seed = (request.seed + i) % (limits.maxSeed + 1)
      const worded = await parts.prompts.resolve({ ...request, seed, count: 1 }, triggers)
      all.push({ request: worded.request, notices: [...notices, ...worded.notices] })
      if (++sinceYield % yieldEvery === 0) await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }
  return all
}

/** Looks each model and each set of adapters up once, however many requests use them. */
function completer({ models, adapters, pace }: Pick<Parts, 'models' | 'adapters' | 'pace'>) {
  const manifests = new Map<string, ReturnType<Parts['models']['find']>>()
  const infos = new Map<string, ReturnType<Parts['adapters']['infosOf']>>()
  return async (request: GenerateRequest) => {
    const { model } = request
    if (!manifests.has(model)) manifests.set(model, models.find(model))
    const { manifest } = await manifests.get(model)!
    // In a request of the window `file` is an id of the library; a slot at weight 0 may be of a file that is gone.
    const used = request.adapters.filter(({ weight, textWeight }) => weight !== 0 || (textWeight ?? 0) !== 0)
    const files = used.map(({ file }) => file)
    const key = JSON.stringify([model, files])
    if (!infos.has(key)) infos.set(key, adapters.infosOf(files, model))
    const known = await infos.get(key)!
    known.forEach(({ role }, i) => role === 'guidance' && pace.distils(files[i]))
    const adapted = fillFromAdapters({ ...request, adapters: used }, manifest, known)
    const filled = fillDefaults(adapted.request, manifest, randomInt(limits.maxSeed + 1))
    return { request: filled, notices: adapted.notices, triggers: known.flatMap((info) => info.triggers) }
  }
}
