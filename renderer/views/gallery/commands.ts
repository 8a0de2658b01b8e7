import type { AppModel } from '../../state/app.svelte.ts'
import type { Command } from '../../state/commands.svelte.ts'
import type { RecallPart } from '../../state/recall.ts'
import { t } from '../../strings.ts'

/** What can be done with a picture. The Studio has those of its canvas under the same names; each screen brings its own. */
function pictureCommands(app: AppModel): Command[] {
  const { gallery } = app
  const group = t('Picture')
  const isHere = () => gallery.targets().length > 0
  const isInBin = () => gallery.scope === 'bin'
  const first = () => gallery.targets()[0]
  const recall = (id: string, title: string, part: RecallPart, keys?: string[]): Command => ({
    ...{ id, title, group, when: isHere, ...(keys ? { keys } : {}) },
    run: () => void gallery.recall({ id: first() }, part),
  })
  return [
    recall('image-all', t('Use all of its recipe'), 'all', ['a']),
    recall('image-prompt', t('Use its prompt'), 'prompt', ['p']),
    recall('image-remix', t('Remix: all but the seed'), 'remix', ['r']),
    recall('image-adapters', t('Use its adapters'), 'adapters'),
    {
      ...{ id: 'image-restore', title: t('Restore from the bin'), group },
      when: () => isHere() && isInBin(),
      run: () => void gallery.restore(gallery.targets()),
    },
    {
      ...{ id: 'image-replay', title: t('Replay: make it again and compare'), group, when: isHere },
      run: () => void gallery.replay(first()),
    },
    { id: 'image-copy', title: t('Copy the picture'), group, when: isHere, run: () => void gallery.copyImage(first()) },
    {
      ...{ id: 'image-copy-recipe', title: t('Copy its recipe'), group, when: isHere },
      run: () => void gallery.copyRecipe(first()),
    },
    { id: 'image-reveal', title: t('Show in folder'), group, when: isHere, run: () => void gallery.reveal(first()) },
  ]
}

export type GalleryView = {
  search: () => void
  look: (how: 'quick' | 'full') => void
}

/** While the Gallery is on the screen. */
export function galleryCommands(app: AppModel, view: GalleryView): Command[] {
  const { gallery, library, shell } = app
  const group = t('Picture')
  const has = () => gallery.targets().length > 0
  const isInspected = shell.place('galleryInspector', true)
  const inGrid = () => document.activeElement?.closest('[data-keys="grid"]') !== null
  return [
    ...pictureCommands(app),
    {
      ...{ id: 'gallery-star', title: t('Star, or take the star away'), group, keys: ['.'], when: has },
      run() {
        const ids = gallery.targets()
        const known = (id: string) => gallery.pages.find(id) ?? library.find(id)
        void gallery.star(ids, !ids.every((id) => known(id)?.isStarred))
      },
    },
    {
      ...{ id: 'gallery-bin', title: t('Move to the bin'), group, keys: ['Delete'] },
      when: () => has() && gallery.scope !== 'bin',
      run: () => void gallery.moveToBin(gallery.targets()),
    },
    {
      ...{ id: 'image-seed', title: t('Use its seed'), group, keys: ['s'], when: has },
      run: () => void gallery.recall({ id: gallery.targets()[0] }, 'seed'),
    },
    {
      ...{ id: 'image-compare', title: t('Compare two chosen pictures'), group, keys: ['c'] },
      when: () => gallery.targets().length === 2,
      run() {
        const pair = gallery.targets().map((id) => gallery.pages.find(id))
        if (!pair[0] || !pair[1]) return
        library.endCompare()
        for (const image of pair) if (image) library.add(image)
        for (const image of pair) if (image) library.compare(image.id)
        shell.go('studio')
      },
    },
    {
      ...{ id: 'image-info', title: t('About this picture'), group, keys: ['i'] },
      run: () => (isInspected.value = !isInspected.value),
    },
    { id: 'image-look', title: t('Quick look'), group, keys: ['Space'], when: has, run: () => view.look('quick') },
    { id: 'image-full', title: t('Full screen'), group, keys: ['f'], when: has, run: () => view.look('full') },
    {
      ...{ id: 'search', title: t('Search pictures'), group: t('Gallery'), keys: ['Mod+f'] },
      run: view.search,
    },
    {
      ...{ id: 'gallery-all', title: t('Choose all pictures'), group: t('Gallery'), keys: ['Mod+a'], when: inGrid },
      run: () => void gallery.selectAll(),
    },
    {
      ...{ id: 'gallery-none', title: t('Choose no picture'), group: t('Gallery') },
      when: () => gallery.selected.size > 0,
      run: () => gallery.selectNone(),
    },
  ]
}

/** What works on every screen: pictures brought in by command, and pictures that are dropped on the window. Returns what ends it. */
export function registerPictures(app: AppModel): () => void {
  const { commands, drops, gallery, shell } = app
  const ends = [
    commands.register([
      {
        ...{ id: 'gallery-import', title: t('Bring pictures into the gallery…'), group: t('Gallery') },
        run() {
          shell.go('gallery')
          void gallery.import()
        },
      },
    ]),
    drops.register({
      id: 'picture-recipe',
      label: t('Load its recipe'),
      note: t('Prompt, seed and settings go into the Studio.'),
      kinds: ['image'],
      take: ([first]) => void gallery.recall({ file: first.file }, 'all'),
    }),
    drops.register({
      id: 'picture-import',
      label: t('Add to gallery'),
      note: t('A copy, with what its file says of how it was made.'),
      kinds: ['image'],
      take(files) {
        shell.go('gallery')
        void gallery.import(files.map(({ file }) => file))
      },
    }),
  ]
  return () => ends.forEach((end) => end())
}
