import type { adapterRequests } from '../../../preload/contract/adapters.ts'
import type { AdapterLibrary } from '../adapters.ts'
import type { HandlersOf } from '../answer.ts'
import type { Dialogs } from '../services.ts'

export function adapterHandlers(parts: {
  adapters: Pick<AdapterLibrary, 'list' | 'inspect' | 'add' | 'cancel' | 'remove' | 'undo' | 'link' | 'unlink'>
  dialogs: Dialogs
}): HandlersOf<typeof adapterRequests> {
  const { adapters, dialogs } = parts
  return {
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
