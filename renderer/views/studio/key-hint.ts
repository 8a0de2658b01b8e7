import type { CommandsState } from '../../state/commands.svelte.ts'

/** A tooltip with the key that does the same. */
export function keyHint(commands: CommandsState, text: string, id: string): string {
  const [keys] = commands.keysOf(id)
  if (!keys) return text
  const isMac = navigator.platform.startsWith('Mac')
  const said = keys.replace('Mod', isMac ? '⌘' : 'Ctrl').replace('Delete', 'Del')
  return `${text} (${said.length === 1 ? said.toUpperCase() : said})`
}
