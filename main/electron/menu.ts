import { app, Menu, type MenuItemConstructorOptions } from 'electron'
import type { MenuCommand } from '../../preload/contract/app.ts'
import { acceleratorOf } from './accelerators.ts'

const isMac = process.platform === 'darwin'
/** Commands of a group of this name stand in the system's own menu for windows, so that there are not two. */
const windowLabel = 'Window'

/**
 * The native menu: the window's own commands under the words and keys they have there, and what a window always has.
 * `run` is told the command that was chosen.
 */
export function setMenu(commands: readonly MenuCommand[], run: (id: string) => void): void {
  const groups = [...new Set(commands.map(({ group }) => group))]
  const itemsOf = (group: string) =>
    commands.filter((command) => command.group === group).map((command) => itemOf(command, run))
  const windowItems = itemsOf(windowLabel)
  const template: MenuItemConstructorOptions[] = [
    ...(isMac ? [{ role: 'appMenu' } as const] : [{ label: 'File', submenu: [{ role: 'quit' } as const] }]),
    {
      label: 'Edit',
      // Undo is a command of the window, which knows what was done; in a text field the keys are the field's own.
      submenu: (['cut', 'copy', 'paste', 'selectAll'] as const).map((role) => ({ role })),
    },
    ...groups
      .filter((group) => group !== windowLabel)
      .map((group) => ({ label: plain(group), submenu: itemsOf(group) })),
    {
      label: windowLabel,
      role: 'windowMenu',
      submenu: [
        ...windowItems,
        ...(windowItems.length > 0 ? [{ type: 'separator' } as const] : []),
        { role: 'minimize' },
        { role: 'togglefullscreen' },
        { role: 'close' },
        ...(app.isPackaged
          ? []
          : ([{ type: 'separator' }, { role: 'reload' }, { role: 'toggleDevTools' }] as MenuItemConstructorOptions[])),
      ],
    },
  ]
  Menu.setApplicationMenu(Menu.buildFromTemplate(template))
}

function itemOf({ id, title, keys, isEnabled }: MenuCommand, run: (id: string) => void): MenuItemConstructorOptions {
  const accelerator = keys === undefined ? undefined : acceleratorOf(keys)
  return {
    id,
    label: plain(title),
    enabled: isEnabled,
    click: () => run(id),
    // The keys are shown here and heard by the window, which knows whether a text field has them.
    ...(accelerator === undefined ? {} : { accelerator, registerAccelerator: false }),
  }
}

/** An ampersand in a menu means an underlined letter. */
function plain(text: string): string {
  return text.replaceAll('&', '&&')
}
