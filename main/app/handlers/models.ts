import type { DeviceReport, modelRequests } from '../../../preload/contract/models.ts'
import type { HandlersOf } from '../answer.ts'
import { capabilitiesOf } from '../capabilities.ts'
import type { InstalledModels } from '../installed-models.ts'
import type { ModelLibrary } from '../model-library.ts'
import type { Dialogs } from '../services.ts'

export type ModelParts = {
  models: InstalledModels
  modelLibrary: ModelLibrary
  unloadModel: () => void
  dialogs: Dialogs
  device: () => DeviceReport | undefined
}

export function modelHandlers(parts: ModelParts): HandlersOf<typeof modelRequests> {
  const { models, modelLibrary: library, unloadModel, dialogs, device } = parts
  return {
    'models:capabilities': async ({ model }) => capabilitiesOf((await models.find(model)).original, device()?.provider),
    'models:list': async () => {
      void library.lookForFiles()
      return { models: await library.records(), tasks: library.tasks(), found: library.found() }
    },
    'models:choose': ({ what }) => dialogs.choose(what === 'folder' ? 'model-folder' : 'models'),
    'models:inspect': ({ sources }) => library.inspect(sources),
    'models:import': async ({ source, name, isFourBit }) => ({ taskId: await library.import(source, name, isFourBit) }),
    'models:makeFourBit': async ({ model }) => ({ taskId: await library.makeFourBit(model) }),
    'models:verify': async ({ model }) => ({ taskId: await library.verify(model) }),
    'models:cancelTask': ({ taskId }) => library.cancelTask(taskId),
    'models:forgetTask': ({ taskId }) => library.forgetTask(taskId),
    'models:setDefault': ({ model }) => library.setDefault(model),
    'models:hide': ({ model, isHidden }) => library.hide(model, isHidden),
    'models:remove': async ({ model }) => ({ undoId: await library.remove(model) }),
    'models:undoRemove': async ({ undoId }) => ({ model: await library.undoRemove(undoId) }),
    'models:unload': () => unloadModel(),
    'models:saveDefaults': ({ model, defaults }) => library.saveDefaults(model, defaults),
    'models:exportDefaults': async ({ model }) => {
      const file = await dialogs.saveAs(`${model}-defaults.json`)
      if (file !== undefined) await library.exportDefaults(model, file)
      return { file }
    },
  }
}
