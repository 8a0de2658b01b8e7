import { VignetteError } from '../../../models/errors.ts'
import type { setRequests } from '../../../preload/contract/sets.ts'
import type { AdapterSets } from '../adapter-sets.ts'
import type { HandlersOf } from '../answer.ts'
import type { Library } from '../library.ts'
import type { Dialogs } from '../services.ts'

export function setHandlers(parts: {
  sets: AdapterSets
  library: Pick<Library, 'fileOf'>
  dialogs: Dialogs
}): HandlersOf<typeof setRequests> {
  const { sets, library, dialogs } = parts
  return {
    'sets:list': () => sets.list(),
    'sets:save': ({ name, slots, id }) => sets.save(name, slots, id),
    'sets:rename': ({ id, name }) => sets.rename(id, name),
    'sets:remove': ({ id }) => sets.remove(id),
    'sets:restore': ({ set }) => sets.restore(set),
    'sets:slots': ({ id, model }) => sets.slots(id, model),
    'sets:export': async ({ id }) => {
      const file = await dialogs.saveAs(`${sets.nameOf(id).replace(/[^\p{L}\p{N} ._-]+/gu, '-')}.vgset`)
      if (file === undefined) return {}
      await sets.write(id, file)
      return { file }
    },
    'sets:import': ({ file }) => sets.read(file),
    'sets:fromImage': ({ imageId, name, model }) => {
      const file = library.fileOf(imageId)
      if (file === undefined) throw new VignetteError('file-unreadable', 'This picture is not in the library any more.')
      return sets.readPicture(file, name, model)
    },
  }
}
