import type { adapterRequests } from '../../../preload/contract/adapters.ts'
import type { AdapterLibrary } from '../adapters.ts'
import type { HandlersOf } from '../answer.ts'
import { lookAtRoot } from '../linked-roots.ts'
import type { Dialogs } from '../services.ts'

export function adapterHandlers(parts: {
  adapters: AdapterLibrary
  dialogs: Dialogs
}): HandlersOf<typeof adapterRequests> {
  const { adapters, dialogs } = parts
  const { notebook } = adapters
  let looking = new AbortController()
  const endLook = () => {
    looking.abort()
    looking = new AbortController()
    return looking.signal
  }
  return {
    'adapters:list': ({ model }) => adapters.show(model),
    'adapters:choose': ({ what }) => dialogs.choose(what),
    'adapters:inspect': ({ files, model }) => adapters.inspect(files, model),
    'adapters:add': ({ file, model, isLink }) => adapters.add(file, model, isLink),
    'adapters:cancel': ({ file }) => adapters.cancel(file),
    'adapters:remove': ({ id }) => adapters.remove(id),
    'adapters:undo': async ({ undoId, model }) => {
      const adapter = await adapters.undo(undoId, model)
      return adapter ? { adapter } : {}
    },
    'adapters:lookAt': ({ folder }) => lookAtRoot(folder, endLook()),
    'adapters:cancelLook': () => void endLook(),
    'adapters:link': async ({ folder }) => {
      const { layout } = await lookAtRoot(folder)
      await (layout === 'plain' ? adapters.link(folder) : adapters.linkRoot(folder))
    },
    'adapters:unlink': ({ folder }) => adapters.unlink(folder),
    'adapters:cancelScan': () => adapters.cancelScan(),
    'adapters:detail': ({ id, model }) => notebook.detail(id, model),
    'adapters:edit': ({ ids, change }) => notebook.edit(ids, change),
    'adapters:undoEdit': ({ undoId }) => notebook.undoEdit(undoId),
    'adapters:setThumb': ({ id, ...from }) => notebook.setThumb(id, from),
    'adapters:locate': async ({ id, file, model }) => ({ adapter: await adapters.locate(id, file, model) }),
    'adapters:forget': ({ ids }) => adapters.forget(ids),
    'adapters:findTwins': () => void notebook.findTwins(),
    'adapters:cancelTwins': () => notebook.cancelTwins(),
    'adapters:bin': () => adapters.bin(),
    'adapters:emptyBin': () => adapters.emptyBin(),
    'adapters:export': ({ ids, folder }) => notebook.export(ids, folder),
  }
}
