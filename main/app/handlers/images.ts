import { VignetteError } from '../../../models/errors.ts'
import type { imageRequests } from '../../../preload/contract/images.ts'
import type { HandlersOf } from '../answer.ts'
import type { Library } from '../library.ts'

export function imageHandlers(parts: {
  library: Library
  /** Shows a file in the system's file manager. */
  reveal: (file: string) => void
}): HandlersOf<typeof imageRequests> {
  const { library, reveal } = parts
  return {
    'images:reveal': ({ id }) => {
      const file = library.fileOf(id)
      if (file === undefined) throw new VignetteError('file-unreadable', 'This picture is not in the library any more.')
      reveal(file)
    },
  }
}
