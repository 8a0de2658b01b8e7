import { screenNames } from '../../preload/limits.ts'
import { marked, t } from '../strings.ts'
import { screenTitles } from './labels.ts'

/**
 * Where keys act: everywhere ('global'), or only while the focus is in an element with this `data-keys`. `prompt` is the
 * field for the prompt, `grid` every grid or viewer of pictures, `queue` the list of jobs, `slot` a slot of the Studio.
 */
export type KeyScope = 'global' | 'grid' | 'prompt' | 'queue' | 'slot'

/** A command as it is known before its view was ever shown: for the sheet of shortcuts and to find conflicts. */
export type Shortcut = { id: string; title: string; group: string; keys: readonly string[]; scope: KeyScope }

type Row = readonly [id: string, title: string, keys: readonly string[], scope?: KeyScope]

const rows: readonly (readonly [group: string, rows: readonly Row[]])[] = [
  [
    marked('Make pictures'),
    [
      ['generate', marked('Generate'), ['Mod+Enter']],
      ['generate-front', marked('Generate next'), ['Mod+Shift+Enter']],
      ['cancel', marked('Cancel the current job'), ['Mod+Alt+Enter']],
      ['skip', marked('Skip to the next job'), ['Alt+Enter']],
      ['clear-waiting', marked('Clear waiting jobs'), ['Mod+Shift+x']],
      ['pause', marked('Pause or resume the queue'), ['Mod+.']],
      ['queue-up', marked('Move the job up'), ['Alt+ArrowUp'], 'queue'],
      ['queue-down', marked('Move the job down'), ['Alt+ArrowDown'], 'queue'],
    ],
  ],
  [
    marked('Prompt'),
    [
      ['focus-prompt', marked('Go to the prompt'), ['Alt+a']],
      ['prompt-back', marked('Prompt before'), ['Alt+ArrowUp'], 'prompt'],
      ['prompt-forward', marked('Prompt after'), ['Alt+ArrowDown'], 'prompt'],
      ['emphasis-up', marked('More emphasis'), ['Ctrl+ArrowUp'], 'prompt'],
      ['emphasis-down', marked('Less emphasis'), ['Ctrl+ArrowDown'], 'prompt'],
      ['tag-back', marked('Move the tag back'), ['Alt+ArrowLeft'], 'prompt'],
      ['tag-forward', marked('Move the tag forward'), ['Alt+ArrowRight'], 'prompt'],
    ],
  ],
  [
    marked('Window'),
    [
      ['palette', marked('Find a command'), ['Mod+k']],
      ['shortcuts', marked('Show the shortcuts'), ['?']],
      ['search', marked('Search this screen'), ['Mod+f']],
      ['undo', marked('Undo'), ['Mod+z']],
      ['redo', marked('Redo'), ['Mod+Shift+z', 'Mod+y']],
    ],
  ],
  [
    marked('A picture in a grid or viewer'),
    [
      ['image-look', marked('Quick look'), ['Space'], 'grid'],
      ['image-full', marked('Full screen'), ['f'], 'grid'],
      ['image-all', marked('Use all of its recipe'), ['a'], 'grid'],
      ['image-seed', marked('Use its seed'), ['s'], 'grid'],
      ['image-prompt', marked('Use its prompt'), ['p'], 'grid'],
      ['image-remix', marked('Remix: all but the seed'), ['r'], 'grid'],
      ['image-info', marked('Show its recipe'), ['i'], 'grid'],
      ['image-compare', marked('Compare'), ['c'], 'grid'],
      ['image-star', marked('Star'), ['.'], 'grid'],
      ['image-bin', marked('Move to the bin'), ['Delete'], 'grid'],
      ['zoom-fit', marked('Fit into the window'), ['Mod+0']],
      ['zoom-100', marked('Show at 100 %'), ['Mod+9']],
    ],
  ],
  [marked('Slots'), [['slot-audition', marked('Audition: with and without'), ['a'], 'slot']]],
]

/** All shortcuts of the application, in the words of the language now. */
export function allShortcuts(): Shortcut[] {
  const screens = screenNames.map((name, i): Shortcut => ({
    id: `screen-${name}`,
    title: t('Go to {screen}', { screen: screenTitles[name] }),
    group: t('Screens'),
    keys: name === 'settings' ? [`Mod+${i + 1}`, 'Mod+,'] : [`Mod+${i + 1}`],
    scope: 'global',
  }))
  const others = rows.flatMap(([group, list]) =>
    list.map(([id, title, keys, scope = 'global']) => ({ id, title: t(title), group: t(group), keys, scope })),
  )
  return [...others, ...screens]
}

/** Keys that move in every grid, list and slider, and cannot be changed. */
export function fixedKeys(): { keys: string; title: string }[] {
  return [
    { keys: '← ↑ → ↓', title: t('Move in grids and lists') },
    { keys: 'Home / End', title: t('First and last') },
    { keys: 'PgUp / PgDn', title: t('A page on or back; in sliders ten steps') },
    { keys: 'Esc', title: t('Close the top-most layer, else leave the field') },
  ]
}
