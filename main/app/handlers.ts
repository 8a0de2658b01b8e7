import { VignetteError } from '../../models/errors.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import { checkRequest, fillDefaults, fillFromAdapters } from '../engine/client.ts'
import type { AdapterSets } from './adapter-sets.ts'
import type { AdapterLibrary } from './adapters.ts'
import { promptHandlers } from './handlers/prompt.ts'
import type { Prompts } from './prompts.ts'
import type { Handlers } from './answer.ts'
import { appHandlers, type AppParts } from './handlers/app.ts'
import { setHandlers } from './handlers/sets.ts'
import { networkHandlers, settingHandlers } from './handlers/settings.ts'
import { modelRecord, type InstalledModels } from './installed-models.ts'
import type { Jobs } from './jobs.ts'
import type { Library } from './library.ts'
import type { Network } from './network.ts'
import { samplePrompts } from './sample-prompts.ts'
import type { Dialogs } from './services.ts'
import type { SettingsStore } from './settings.ts'

export type HandlerParts = Omit<AppParts, 'census'> & {
  version: string
  startedAt: number
  jobs: Jobs
  library: Library
  models: InstalledModels
  adapters: Pick<
    AdapterLibrary,
    'list' | 'inspect' | 'add' | 'cancel' | 'remove' | 'undo' | 'link' | 'unlink' | 'infosOf'
  >
  sets: AdapterSets
  settings: SettingsStore
  network: Network
  prompts: Prompts
  device: () => DeviceReport | undefined
  /** Shows a file in the system's file manager. */
  reveal: (file: string) => void
  dialogs: Dialogs
}

/** One short function per request of the contract. */
export function createHandlers(parts: HandlerParts): Handlers {
  const { version, startedAt, jobs, library, models, adapters, settings, prompts, device, reveal, dialogs } = parts
  return {
    'app:state': async () => ({
      version,
      startedAt,
      jobs: jobs.list(),
      images: library.list(),
      models: (await models.list()).map(modelRecord),
      device: device(),
      samplePrompts,
      isSettingUp: !models.isReady,
      settings: settings.get(),
    }),
    'jobs:add': async (raw) => {
      const request = checkRequest(raw)
      const { manifest } = await models.find(request.model)
      // In a request of the window `file` is an id of the library; a slot at weight 0 may be of a file that is gone.
      const used = request.adapters.filter(({ weight, textWeight }) => weight !== 0 || (textWeight ?? 0) !== 0)
      const infos = await adapters.infosOf(
        used.map(({ file }) => file),
        request.model,
      )
      const adapted = fillFromAdapters({ ...request, adapters: used }, manifest, infos)
      return { jobId: await jobs.add(fillDefaults(adapted.request, manifest), adapted.notices) }
    },
    'jobs:cancel': ({ jobId }) => jobs.cancel(jobId),
    ...setHandlers(parts),
    ...settingHandlers(parts),
    ...networkHandlers(parts),
    ...appHandlers({ ...parts, census: () => census(parts) }),
    ...promptHandlers({ prompts }),
    'images:reveal': ({ id }) => {
      const file = library.fileOf(id)
      if (file === undefined) throw new VignetteError('file-unreadable', 'This picture is not in the library any more.')
      reveal(file)
    },
    'adapters:list': ({ model }) => adapters.list(model),
    'adapters:choose': ({ what }) => dialogs.choose(what),
    'adapters:inspect': ({ files, model }) => adapters.inspect(files, model),
    'adapters:add': ({ file, model, isLink }) => adapters.add(file, model, isLink),
    'adapters:cancel': ({ file }) => adapters.cancel(file),
    'adapters:remove': ({ id }) => adapters.remove(id),
    'adapters:undo': async ({ undoId, model }) => {
      const adapter = await adapters.undo(undoId, model)
      return adapter ? { adapter } : {}
    },
    'adapters:link': ({ folder }) => adapters.link(folder),
    'adapters:unlink': ({ folder }) => adapters.unlink(folder),
  }
}

/** For the diagnostics file: how much there is of what, and all that was ever written into a prompt and is at hand. */
async function census({ jobs, library, models, settings }: HandlerParts) {
  const images = library.list()
  const { form, promptHistory = [] } = settings.get()
  const written = [form?.prompt, form?.negativePrompt, ...promptHistory, ...images.map(({ prompt }) => prompt)]
  const waiting = jobs.list().flatMap(({ request }) => [request.prompt, request.negativePrompt])
  return {
    counts: {
      'pictures, newest': images.length,
      jobs: jobs.list().length,
      models: (await models.list()).length,
    },
    secrets: [...written, ...waiting].filter((text) => text !== undefined),
  }
}
