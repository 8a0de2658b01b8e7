import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { reportError } from '../../../models/errors.ts'
import type { imageRequests, RecalledRecipe } from '../../../preload/contract/images.ts'
import type { PictureClient } from '../../engine/picture-client.ts'
import type { HandlersOf } from '../answer.ts'
import type { Library } from '../library.ts'
import type { Replays } from '../replays.ts'
import type { Dialogs } from '../services.ts'
import type { Desktop } from './app.ts'

export type ImageParts = {
  library: Library
  pictures: Pick<PictureClient, 'look'>
  replays: Pick<Replays, 'start'>
  /** What a recipe names, looked for here. */
  resolve: (recipe: RecalledRecipe) => Promise<RecalledRecipe>
  /** Shows a file in the system's file manager. */
  reveal: (file: string) => void
  desktop: Pick<Desktop, 'copyImage' | 'dragOut'>
  dialogs: Pick<Dialogs, 'choose'>
}

export function imageHandlers(parts: ImageParts): HandlersOf<typeof imageRequests> {
  const { library, pictures, replays, resolve, reveal, desktop, dialogs } = parts
  const { marks } = library
  return {
    'images:reveal': ({ id }) => reveal(library.pathOf(id)),
    'images:query': ({ offset, limit, ...query }) => library.query(query, offset, limit),
    'images:days': (query) => library.days(query),
    'images:ids': ({ offset, limit, ...query }) => library.ids(query, offset, limit),
    async 'images:detail'({ id }) {
      const about = { ...library.get(id), ...marks.of(id) }
      // A damaged file is shown as what it is; its recipe is only one part of it.
      const { recipe, text } = await library.recipeOf(id).catch(() => ({ recipe: undefined, text: undefined }))
      return { ...about, ...(recipe ? { recipe: await resolve(recipe) } : {}), ...(text ? { text } : {}) }
    },
    async 'images:recipe'(of) {
      const { recipe } = 'id' in of ? await library.recipeOf(of.id) : await pictures.look(of.file)
      return recipe ? resolve(recipe) : { adapters: [], notices: ['The file does not say how it was made.'] }
    },
    async 'images:preview'({ file }) {
      const folder = await mkdtemp(join(tmpdir(), 'vignette-preview-'))
      try {
        const small = join(folder, 'small.webp')
        const { width, height } = await pictures.look(file, small)
        return { url: `data:image/webp;base64,${(await readFile(small)).toString('base64')}`, width, height }
      } finally {
        await rm(folder, { recursive: true, force: true })
      }
    },
    'images:star': ({ ids, isStarred }) => marks.star(ids, isStarred),
    'images:tag': ({ ids, add, remove }) => marks.tag(ids, add, remove),
    'images:describe': ({ id, alt, note }) => marks.describe(id, { alt, note }),
    'images:tags': () => marks.tags(),
    'albums:list': () => marks.albums(),
    'albums:create': ({ name }) => marks.createAlbum(name),
    'albums:rename': ({ id, name }) => marks.renameAlbum(id, name),
    'albums:remove': ({ id }) => ({ pictures: marks.removeAlbum(id) }),
    'albums:restore': ({ id, name, pictures }) => marks.restoreAlbum(id, name, pictures),
    'albums:put': ({ id, ids }) => marks.put(id, ids),
    'albums:take': ({ id, ids }) => marks.take(id, ids),
    'images:bin': ({ ids }) => library.bin(ids),
    'images:restore': ({ ids }) => library.restore(ids),
    'images:binSize': () => library.binSize(),
    'images:emptyBin': () => library.emptyBin(),
    async 'images:import'({ files }) {
      const images = []
      const refused = []
      for (const file of files) {
        try {
          images.push((await library.import(file)).image)
        } catch (error) {
          refused.push({ name: basename(file), error: reportError(error) })
        }
      }
      return { images, refused }
    },
    'images:choose': () => dialogs.choose('pictures'),
    'images:rebuildThumb': ({ id }) => library.rebuildThumb(id),
    'images:drag': ({ ids }) => desktop.dragOut(ids.map((id) => library.pathOf(id))),
    'images:copy': ({ id }) => desktop.copyImage(library.pathOf(id)),
    'images:replay': ({ id }) => replays.start(id),
  }
}
