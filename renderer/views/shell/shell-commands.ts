import { tick } from 'svelte'
import { screenNames, type ScreenName } from '../../../preload/limits.ts'
import type { AppModel } from '../../state/app.svelte.ts'
import type { Command } from '../../state/commands.svelte.ts'
import { allShortcuts } from '../../state/shortcuts.ts'
import type { UndoScope } from '../../state/undo.svelte.ts'
import { t } from '../../strings.ts'

const scopes: Partial<Record<ScreenName, UndoScope>> = {
  studio: 'studio',
  adapters: 'library',
  models: 'library',
  gallery: 'library',
}

/** What can be done on every screen. */
export function shellCommands(app: AppModel): Command[] {
  const { shell, settings, undo, announcer, drops } = app
  const titles = new Map(allShortcuts().map(({ id, title }) => [id, title]))
  const inWindow = (id: string, run: () => void, more: Partial<Command> = {}): Command => ({
    id,
    title: titles.get(id) ?? id,
    group: t('Window'),
    run,
    ...more,
  })
  /** In a field its own undo comes first, until something else was done; the prompt's history is the application's. */
  const actsWhileTyping = () =>
    undo.isNewerThanTyping || document.activeElement?.closest('[data-keys~="prompt"]') !== null
  const said = (text: string) => announcer.say(text)
  const look = (id: string, title: string, run: () => void): Command => ({ id, title, group: t('Look'), run })
  return [
    ...screenNames.map((name): Command => ({
      id: `screen-${name}`,
      title: titles.get(`screen-${name}`)!,
      group: t('Screens'),
      run: () => shell.go(name),
    })),
    inWindow('palette', () => (shell.isPaletteOpen = true), { isHidden: true, when: () => noDialog() }),
    inWindow('shortcuts', () => (shell.areShortcutsOpen = true), { scope: 'global', when: () => noDialog() }),
    inWindow('search', () => searchField()?.focus(), { when: () => searchField() !== undefined }),
    inWindow(
      'undo',
      () =>
        void undo.undo(scopes[shell.screen]).then((step) => step && said(t('Undone: {what}', { what: step.label }))),
      { when: () => undo.next(scopes[shell.screen]) !== undefined, actsWhileTyping },
    ),
    inWindow(
      'redo',
      () =>
        void undo
          .redo(scopes[shell.screen])
          .then((step) => step && said(t('Done again: {what}', { what: step.label }))),
      { when: () => undo.nextRedo(scopes[shell.screen]) !== undefined, actsWhileTyping },
    ),
    inWindow('bring-files', () => void app.chooseFiles(), {
      title: t('Bring in files…'),
      words: 'import open add drop',
      when: () => drops.all.length > 0,
    }),
    inWindow('bring-folders', bringFolders, {
      title: t('Bring in my model folders'),
      words: 'link import comfyui automatic1111',
    }),
    inWindow('messages', () => (shell.areMessagesOpen = true), { title: t('Show the messages') }),
    inWindow('fold-rail', () => (shell.isRailNarrow = !shell.isRailNarrow), {
      title: shell.isRailNarrow ? t('Show the names in the rail') : t('Hide the names in the rail'),
    }),
    look('theme-system', t('Colours as the system has them'), () => settings.set({ theme: 'system' })),
    look('theme-light', t('Light colours'), () => settings.set({ theme: 'light' })),
    look('theme-dark', t('Dark colours'), () => settings.set({ theme: 'dark' })),
    look('theme-contrast', t('High contrast'), () => settings.set({ theme: 'contrast' })),
    look('text-larger', t('Larger text'), () => scaleText(10)),
    look('text-smaller', t('Smaller text'), () => scaleText(-10)),
    look('text-usual', t('Text at its usual size'), () => settings.set({ textScale: 100 })),
    look('density', settings.get('density') === 'compact' ? t('Roomy layout') : t('Compact layout'), () =>
      settings.set({ density: settings.get('density') === 'compact' ? 'comfortable' : 'compact' }),
    ),
  ]

  /** The screen of the adapters looks at a folder and says what is in it before anything is linked. */
  function bringFolders() {
    shell.go('adapters')
    void tick().then(() => app.commands.run('adapters-folder'))
  }

  function scaleText(by: number) {
    const textScale = Math.min(200, Math.max(80, settings.get('textScale') + by))
    settings.set({ textScale })
    said(t('Text at {percent} %', { percent: textScale }))
  }
}

function noDialog(): boolean {
  return document.querySelector('dialog[open]') === null
}

/** Of the screen that is shown; the first that stands in it. */
function searchField(): HTMLInputElement | undefined {
  return (
    document.querySelector<HTMLInputElement>('#screen input[data-search], #screen input[type="search"]') ?? undefined
  )
}
