import type { ImageRecord } from '../../../preload/contract/images.ts'
import type { AppModel } from '../../state/app.svelte.ts'
import type { Command } from '../../state/commands.svelte.ts'
import type { RecallPart } from '../../state/recall.ts'
import { zoomLimits, type Viewport } from '../../state/viewport.svelte.ts'
import { t } from '../../strings.ts'

/** What a single key means: the picture that has the focus, else the one on the canvas. */
export function targetOf({ library, jobs }: AppModel): ImageRecord | undefined {
  const focused = document.activeElement?.closest<HTMLElement>('[data-image]')?.dataset.image
  return library.find(focused) ?? library.selected ?? (jobs.running ? undefined : library.newest)
}

/** The commands of the Studio right of the prompt. */
export function stageCommands(app: AppModel, viewport: Viewport): Command[] {
  const { gallery, library, shell } = app
  const group = t('Picture')
  const has = () => targetOf(app) !== undefined
  const withTarget = (act: (image: ImageRecord) => void) => () => {
    const image = targetOf(app)
    if (image) act(image)
  }
  const recall = (part: RecallPart) => withTarget(({ id }) => void gallery.recall({ id }, part))
  return [
    {
      ...{ id: 'image-all', title: t('Use all of its settings'), group, keys: ['a'], when: has },
      run: recall('all'),
    },
    { ...{ id: 'image-seed', title: t('Use its seed'), group, keys: ['s'], when: has }, run: recall('seed') },
    { ...{ id: 'image-prompt', title: t('Use its prompt'), group, keys: ['p'], when: has }, run: recall('prompt') },
    {
      ...{ id: 'image-remix', title: t('Remix: all but the seed'), group, keys: ['r'], when: has },
      run: recall('remix'),
    },
    { ...{ id: 'image-adapters', title: t('Use its adapters'), group, when: has }, run: recall('adapters') },
    {
      ...{ id: 'image-compare', title: t('Compare with another picture'), group, keys: ['c'] },
      when: () => library.isComparing || has(),
      run: () => (library.isComparing ? library.endCompare() : withTarget(({ id }) => library.compare(id))()),
    },
    {
      ...{ id: 'image-info', title: t('About this picture'), group, keys: ['i'], when: has },
      run: () => (shell.isInspectorOpen = !shell.isInspectorOpen),
    },
    {
      ...{ id: 'image-look', title: t('Quick look'), group, keys: ['Space'], when: has },
      run: withTarget(({ id }) => {
        library.select(id)
        library.look = 'quick'
      }),
    },
    {
      ...{ id: 'image-full', title: t('Full screen'), group, keys: ['f'], when: has },
      run: withTarget(({ id }) => {
        library.select(id)
        library.look = 'full'
      }),
    },
    {
      ...{ id: 'image-star', title: t('Star'), group, keys: ['.'], when: has },
      run: withTarget(({ id, isStarred }) => void gallery.star([id], !isStarred)),
    },
    {
      ...{ id: 'image-bin', title: t('Move to the bin'), group, keys: ['Delete'], when: has },
      run: withTarget(({ id }) => void gallery.moveToBin([id])),
    },
    { id: 'zoom-fit', title: t('Fit the picture'), group, keys: ['Mod+0'], run: () => viewport.fit() },
    { id: 'zoom-100', title: t('See it at 100 %'), group, keys: ['Mod+9'], run: () => viewport.actual() },
    {
      id: 'zoom-in',
      title: t('Zoom in'),
      group,
      keys: ['Mod+=', 'Mod++'],
      run: () => viewport.zoomBy(zoomLimits.step),
    },
    { id: 'zoom-out', title: t('Zoom out'), group, keys: ['Mod+-'], run: () => viewport.zoomBy(1 / zoomLimits.step) },
    {
      ...{ id: 'canvas-follow', title: t('Show what is being made'), group: t('Studio') },
      when: () => library.selectedId !== undefined || library.isComparing,
      run: () => library.follow(),
    },
    {
      ...{ id: 'sets', title: t('Sets of adapters'), group: t('Adapters') },
      run: () => (app.sets.isOpen = true),
    },
  ]
}
