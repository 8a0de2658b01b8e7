import * as z from 'zod'
import { adapterEvents, adapterRequests } from './contract/adapters.ts'
import { appEvents, appRequests } from './contract/app.ts'
import { ErrorReport } from './contract/generate.ts'
import { imageEvents, ImageRecord, imageRequests } from './contract/images.ts'
import { Job, jobEvents, jobRequests, QueueState } from './contract/jobs.ts'
import { DeviceReport, modelEvents, ModelRecord, modelRequests } from './contract/models.ts'
import { promptRequests } from './contract/prompt.ts'
import { setEvents, setRequests } from './contract/sets.ts'
import { networkEvents, networkRequests } from './contract/network.ts'
import { settingEvents, settingRequests, Settings } from './contract/settings.ts'

/** What the window asks for first; it then lives on events. */
export const AppState = z.object({
  version: z.string(),
  /** When the application started (ms since 1970); the window may be loaded again later. */
  startedAt: z.number(),
  jobs: z.array(Job),
  queue: QueueState,
  /** The newest pictures; the others come with `images:query`. */
  images: z.array(ImageRecord),
  models: z.array(ModelRecord),
  device: DeviceReport.optional(),
  samplePrompts: z.array(z.string()),
  /** The model that comes with Vignette is being put in place; `models:changed` says when that is over. */
  isSettingUp: z.boolean(),
  settings: Settings,
})
export type AppState = z.infer<typeof AppState>

/** Every request the window can make: the key is the channel. */
export const requests = {
  'app:state': { input: z.void(), output: AppState },
  ...appRequests,
  ...jobRequests,
  ...imageRequests,
  ...adapterRequests,
  ...modelRequests,
  ...promptRequests,
  ...setRequests,
  ...settingRequests,
  ...networkRequests,
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export type RequestName = keyof typeof requests
export type Input<K extends RequestName> = z.input<(typeof requests)[K]['input']>
export type Output<K extends RequestName> = z.output<(typeof requests)[K]['output']>
export type Reply<T> = { ok: true; value: T } | { ok: false; error: z.infer<typeof ErrorReport> }

/** Everything main tells the window unasked. */
export const AppEvent = z.discriminatedUnion('type', [
  ...jobEvents,
  ...imageEvents,
  ...adapterEvents,
  ...modelEvents,
  ...setEvents,
  ...settingEvents,
  ...networkEvents,
  ...appEvents,
])
export type AppEvent = z.infer<typeof AppEvent>

/** All that the window can reach outside itself: what preload/index.ts puts at `window.vignette`. It does not grow. */
export type Bridge = {
  invoke<K extends RequestName>(name: K, input: Input<K>): Promise<Reply<Output<K>>>
  /** Returns a function that ends the listening. */
  onEvent(listener: (event: AppEvent) => void): () => void
  /** Where a file dropped on the window lies on disk. */
  pathOf(file: File): string
}
