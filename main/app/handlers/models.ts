import type { modelRequests } from '../../../preload/contract/models.ts'
import type { HandlersOf } from '../answer.ts'
import { capabilitiesOf } from '../capabilities.ts'
import type { InstalledModels } from '../installed-models.ts'

export function modelHandlers(parts: { models: InstalledModels }): HandlersOf<typeof modelRequests> {
  const { models } = parts
  return {
    'models:capabilities': async ({ model }) => capabilitiesOf((await models.find(model)).manifest),
  }
}
