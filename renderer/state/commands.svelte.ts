import { canonical, isPlain, keysText, pressedKeys } from './keys.ts'
import type { SettingsState } from './settings.svelte.ts'
import { allShortcuts, type KeyScope, type Shortcut } from './shortcuts.ts'

export type Command = {
  id: string
  title: string
  /** The heading it stands under in the palette and in the sheet of shortcuts. */
  group: string
  /** 'Mod+Enter', 'Alt+ArrowUp', 'r'. Those of commands in shortcuts.ts stand there. */
  keys?: readonly string[]
  /** Where its keys act. Left out: keys with Mod, Ctrl or Alt everywhere, others in elements with data-keys="grid". */
  scope?: KeyScope
  /** Not now when false. */
  when?: () => boolean
  /** Whether its keys act while somebody types in a field, where they may mean something; always when left out. */
  actsWhileTyping?: () => boolean
  /** Other words it is found by in the palette. */
  words?: string
  run: () => void
  /** Left out of the palette. */
  isHidden?: boolean
}

/** A key that was asked for belongs to another command already. */
export type Conflict = { keys: string; owner: Shortcut }

const remembered = 8

/** All that can be done by name or key. Views add theirs while they are shown. */
export class CommandsState {
  all = $state.raw<Command[]>([])
  /** The same, not as a signal: where an effect ends, a signal still has the value it had when that effect ran. */
  #list: readonly Command[] = []
  readonly #settings: Pick<SettingsState, 'get' | 'set' | 'reset'>
  /** Ids of the commands that were chosen by name, newest first. */
  recent = $state.raw<string[]>([])

  readonly #known = $derived<Record<string, Shortcut | undefined>>(
    Object.fromEntries(allShortcuts().map((one) => [one.id, one])),
  )
  /** Every command with keys or that had some, also of views that are not shown. */
  readonly shortcuts = $derived.by((): Shortcut[] => {
    const others = this.all.filter(({ id, keys, isHidden }) => keys && !isHidden && !this.#known[id])
    return [
      ...Object.values(this.#known).filter((one) => one !== undefined),
      ...others.map((command) => this.#shortcut(command)),
    ]
  })

  constructor(settings: Pick<SettingsState, 'get' | 'set' | 'reset'>) {
    this.#settings = settings
  }

  /** Returns what takes them away again. The same id from two views: the later goes first, where its `when` allows. */
  register(commands: readonly Command[]): () => void {
    this.#setAll([...this.#list, ...commands])
    return () => this.#setAll(this.#list.filter((command) => !commands.includes(command)))
  }

  #setAll(commands: readonly Command[]): void {
    this.#list = commands
    this.all = [...commands]
  }

  /** The command of this id that can run now, else one that cannot. */
  find(id: string): Command | undefined {
    const same = this.all.filter((command) => command.id === id)
    return same.filter(canRun).at(-1) ?? same.at(-1)
  }

  /** False when it cannot be done now. */
  run(id: string): boolean {
    const command = this.find(id)
    if (!command || !canRun(command)) return false
    command.run()
    return true
  }

  /** As `run`, and remembers that it was asked for by name. */
  choose(id: string): boolean {
    this.recent = [id, ...this.recent.filter((one) => one !== id)].slice(0, remembered)
    return this.run(id)
  }

  keysOf(id: string): readonly string[] {
    return this.#settings.get('shortcuts')[id] ?? this.defaultKeysOf(id)
  }

  defaultKeysOf(id: string): readonly string[] {
    return this.#known[id]?.keys ?? this.find(id)?.keys ?? []
  }

  /** The first of its keys as shown to the person; nothing when it has none. */
  label(id: string): string | undefined {
    const keys = this.keysOf(id).at(0)
    return keys === undefined ? undefined : keysText(keys)
  }

  isRebound(id: string): boolean {
    return id in this.#settings.get('shortcuts')
  }

  /** Whose keys these are already, where both would act in the same place. */
  conflictOf(id: string, keys: string): Conflict | undefined {
    const wanted = canonical(keys)
    const scope = this.shortcuts.find((one) => one.id === id)?.scope ?? 'global'
    const owner = this.shortcuts.find(
      (one) =>
        one.id !== id &&
        (one.scope === scope || one.scope === 'global' || scope === 'global') &&
        this.keysOf(one.id).some((each) => canonical(each) === wanted),
    )
    return owner && { keys: wanted, owner }
  }

  /** Gives a command other keys, or none. Refused, with whose they are, when one of them is taken. */
  rebind(id: string, keys: readonly string[]): Conflict | undefined {
    const wanted = keys.map((each) => canonical(each))
    for (const each of wanted) {
      const conflict = this.conflictOf(id, each)
      if (conflict) return conflict
    }
    const shortcuts = { ...this.#settings.get('shortcuts') }
    const usual = this.defaultKeysOf(id).map((each) => canonical(each))
    if (usual.join(' ') === wanted.join(' ')) delete shortcuts[id]
    else shortcuts[id] = wanted
    this.#settings.set({ shortcuts })
    return undefined
  }

  /** Back to what they were; refused when the usual keys were given to another command meanwhile. */
  resetKeys(id: string): Conflict | undefined {
    return this.rebind(id, this.defaultKeysOf(id))
  }

  resetAllKeys(): void {
    this.#settings.reset(['shortcuts'])
  }

  /** Runs what the keys belong to; true when there was something. */
  handle(event: KeyboardEvent): boolean {
    if (event.defaultPrevented || event.isComposing) return false
    const pressed = pressedKeys(event)
    if (pressed === undefined) return false
    const target = event.target instanceof Element ? event.target : undefined
    const isTyping = target !== undefined && takesText(target)
    if (isPlain(pressed)) {
      if (isTyping || !this.#settings.get('hasSingleKeys')) return false
      if (target && ownsKey(target, pressed)) return false
    }
    const bound = this.all.filter(
      (command) =>
        this.keysOf(command.id).some((keys) => canonical(keys) === pressed) &&
        canRun(command) &&
        (!isTyping || (command.actsWhileTyping?.() ?? true)),
    )
    // The innermost place that knows the key has it; of two commands there, the one registered last.
    const places: KeyScope[] = [...scopesAround(target), 'global']
    const found = places
      .map((scope) => bound.filter((command) => this.#scopeOf(command) === scope).at(-1))
      .find((command) => command !== undefined)
    if (!found) return false
    event.preventDefault()
    found.run()
    return true
  }

  #scopeOf(command: Command): KeyScope {
    return command.scope ?? this.#shortcut(command).scope
  }

  #shortcut({ id, title, group, keys = [], scope }: Command): Shortcut {
    const known = this.#known[id]
    if (known) return known
    const usual = keys.length > 0 && keys.every((each) => isPlain(canonical(each))) ? 'grid' : 'global'
    return { id, title, group, keys, scope: scope ?? usual }
  }
}

function canRun(command: Command): boolean {
  return command.when?.() ?? true
}

const noText = ['checkbox', 'radio', 'range', 'button', 'submit', 'reset', 'file', 'color', 'image']

/** Whether keys are letters there. */
export function takesText(target: Element): boolean {
  if (target instanceof HTMLInputElement) return !noText.includes(target.type)
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true
  return target.closest('[contenteditable="true"], [contenteditable=""], [role="textbox"]') !== null
}

/** Keys that the control with the focus takes itself. A picture that is a button leaves Space to the quick look. */
function ownsKey(target: Element, keys: string): boolean {
  if (keys === 'Space' && target.matches('[data-image]')) return false
  if (keys === 'Space' || keys === 'Enter')
    return target.matches('button, a[href], summary, input, [role="switch"], [role="tab"], [role^="menuitem"]')
  return /Arrow|Home|End|Page/.test(keys) && target.matches('input, [role="slider"], [role="tab"], [role^="menuitem"]')
}

/** Names of the places around an element, the innermost first. A viewer is a grid of one. */
function scopesAround(target: Element | undefined): KeyScope[] {
  const scopes: KeyScope[] = []
  for (
    let at = target?.closest<HTMLElement>('[data-keys]');
    at;
    at = at.parentElement?.closest<HTMLElement>('[data-keys]')
  )
    scopes.push(...(at.dataset.keys ?? '').split(' ').map((name) => (name === 'viewer' ? 'grid' : (name as KeyScope))))
  return scopes
}
