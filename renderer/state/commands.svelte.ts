export type Command = {
  id: string
  title: string
  /** The heading it stands under in the palette and in the sheet of shortcuts. */
  group: string
  /** 'Mod+Enter', 'Alt+ArrowUp', 'r'. Single letters act only in a grid or viewer: an element with data-keys="grid". */
  keys?: readonly string[]
  /** Not now when false. */
  when?: () => boolean
  run: () => void
  /** Left out of the palette. */
  isHidden?: boolean
}

/** All that can be done by name or key. Views add theirs while they are shown. */
export class CommandsState {
  all = $state.raw<Command[]>([])
  /** Keys that the person has changed, by command. */
  readonly #changed: () => Readonly<Record<string, readonly string[]>>

  constructor(changed: () => Readonly<Record<string, readonly string[]>>) {
    this.#changed = changed
  }

  /** Returns what takes them away again. */
  register(commands: readonly Command[]): () => void {
    const ids = commands.map(({ id }) => id)
    this.all = [...this.all.filter(({ id }) => !ids.includes(id)), ...commands]
    return () => (this.all = this.all.filter((command) => !commands.includes(command)))
  }

  find(id: string): Command | undefined {
    return this.all.find((command) => command.id === id)
  }

  run(id: string): void {
    const command = this.find(id)
    if (command && (command.when?.() ?? true)) command.run()
  }

  keysOf(id: string): readonly string[] {
    return this.#changed()[id] ?? this.find(id)?.keys ?? []
  }

  /** Runs what the keys belong to; true when there was something. */
  handle(event: KeyboardEvent): boolean {
    if (event.defaultPrevented || event.isComposing) return false
    const pressed = keysOf(event)
    const isTyping =
      event.target instanceof HTMLElement && event.target.matches('input, textarea, select, [contenteditable]')
    const inGrid = event.target instanceof Element && event.target.closest('[data-keys="grid"]') !== null
    const found = this.all.find((command) => {
      if (!this.keysOf(command.id).includes(pressed)) return false
      const isSingle = !/(Mod|Alt|Ctrl)\+/.test(pressed) && !/^F\d/.test(pressed)
      return (!isSingle || (inGrid && !isTyping)) && (command.when?.() ?? true)
    })
    if (!found) return false
    event.preventDefault()
    found.run()
    return true
  }
}

const isMac = typeof navigator !== 'undefined' && navigator.platform.startsWith('Mac')

/** How a key press is written in commands. */
export function keysOf(event: KeyboardEvent): string {
  const isMod = isMac ? event.metaKey : event.ctrlKey
  const parts = [
    isMod ? 'Mod' : '',
    isMac && event.ctrlKey ? 'Ctrl' : '',
    event.altKey ? 'Alt' : '',
    event.shiftKey && event.key.length > 1 ? 'Shift' : '',
  ]
  // With Shift, letters say so themselves; with Alt or Mod they would change, so the key is taken by its place.
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
  if (event.shiftKey && event.key.length === 1 && isMod) parts.push('Shift')
  return [...parts, key === ' ' ? 'Space' : key].filter(Boolean).join('+')
}
