const keyNames: Record<string, string> = {
  ...{ ArrowUp: 'Up', ArrowDown: 'Down', ArrowLeft: 'Left', ArrowRight: 'Right', Mod: 'CommandOrControl' },
  ...{ Enter: 'Return', Ctrl: 'Control' },
}

/**
 * `Mod+Shift+Enter` as Electron writes it; undefined for what it has no name for. macOS gives keys of a menu to the menu
 * whatever is said, so there only those with Cmd are shown: they never belong to a text field.
 */
export function acceleratorOf(keys: string, platform = process.platform): string | undefined {
  const parts = keys.split('+').map((part) => keyNames[part] ?? (part.length === 1 ? part.toUpperCase() : part))
  const isKnown = parts.every((part) =>
    /^(CommandOrControl|Control|Alt|Shift|[A-Z0-9.,;=/\\[\]'`-]|F\d{1,2}|Up|Down|Left|Right|Return|Space|Delete|Home|End|PageUp|PageDown|Escape|Tab|Backspace)$/.test(
      part,
    ),
  )
  if (!isKnown || (platform === 'darwin' && !parts.includes('CommandOrControl'))) return undefined
  return parts.join('+')
}
