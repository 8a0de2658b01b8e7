import { VignetteError } from '../../models/errors.ts'
import type { DeviceReport } from '../../preload/contract.ts'
import { checkRequest, fillDefaults } from '../engine/client.ts'
import type { Handlers } from './answer.ts'
import { modelRecord, type InstalledModels } from './installed-models.ts'
import type { Jobs } from './jobs.ts'
import type { Library } from './library.ts'
import { samplePrompts } from './sample-prompts.ts'
import type { SettingsStore } from './settings.ts'

export type HandlerParts = {
  version: string
  jobs: Jobs
  library: Library
  models: InstalledModels
  settings: SettingsStore
  device: () => DeviceReport | undefined
  /** Shows a file in the system's file manager. */
  reveal: (file: string) => void
}

/** One short function per request of the contract. */
export function createHandlers({ version, jobs, library, models, settings, device, reveal }: HandlerParts): Handlers {
  return {
    'app:state': async () => ({
      version,
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
      return { jobId: await jobs.add(fillDefaults(request, manifest)) }
    },
    'jobs:cancel': ({ jobId }) => jobs.cancel(jobId),
    'settings:save': (part) => settings.change(part),
    'images:reveal': ({ id }) => {
      const file = library.fileOf(id)
      if (file === undefined) throw new VignetteError('file-unreadable', 'This picture is not in the library any more.')
      reveal(file)
    },
  }
}
