import type { DeviceReport } from '../../preload/contract/models.ts'
import type { AdapterSets } from './adapter-sets.ts'
import type { AdapterLibrary } from './adapters.ts'
import type { Handlers } from './answer.ts'
import { adapterHandlers } from './handlers/adapters.ts'
import { appHandlers, type AppParts } from './handlers/app.ts'
import { imageHandlers, type ImageParts } from './handlers/images.ts'
import { jobHandlers } from './handlers/jobs.ts'
import { modelHandlers, type ModelParts } from './handlers/models.ts'
import { promptHandlers } from './handlers/prompt.ts'
import { setHandlers } from './handlers/sets.ts'
import { networkHandlers, settingHandlers } from './handlers/settings.ts'
import type { InstalledModels } from './installed-models.ts'
import type { Jobs } from './jobs.ts'
import type { Library } from './library.ts'
import type { Network } from './network.ts'
import type { Pace } from './pace.ts'
import type { Prompts } from './prompts.ts'
import { samplePrompts } from './sample-prompts.ts'
import type { Dialogs } from './services.ts'
import type { SettingsStore } from './settings.ts'

export type HandlerParts = Omit<AppParts, 'census'> &
  Pick<ImageParts, 'pictures' | 'replays' | 'resolve'> &
  ModelParts & {
    version: string
    startedAt: number
    jobs: Jobs
    pace: Pace
    library: Library
    models: InstalledModels
    adapters: AdapterLibrary
    sets: AdapterSets
    settings: SettingsStore
    network: Network
    prompts: Prompts
    device: () => DeviceReport | undefined
    /** Shows a file in the system's file manager. */
    reveal: (file: string) => void
    dialogs: Dialogs
  }

/** One short function per request of the contract: each area has a file of its own. */
export function createHandlers(parts: HandlerParts): Handlers {
  const { version, startedAt, jobs, library, models, settings, device } = parts
  return {
    'app:state': async () => ({
      version,
      startedAt,
      jobs: jobs.list(),
      queue: jobs.state(),
      images: library.list(),
      models: await parts.modelLibrary.records(),
      device: device(),
      samplePrompts,
      isSettingUp: !models.isReady,
      settings: settings.get(),
    }),
    ...appHandlers({ ...parts, census: () => census(parts) }),
    ...jobHandlers(parts),
    ...imageHandlers(parts),
    ...adapterHandlers(parts),
    ...setHandlers(parts),
    ...modelHandlers(parts),
    ...promptHandlers(parts),
    ...settingHandlers(parts),
    ...networkHandlers(parts),
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
