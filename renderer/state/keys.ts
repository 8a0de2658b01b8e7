/** True on a Mac, where Mod is the Command key; elsewhere it is Ctrl. */
export const isMac = typeof navigator !== 'undefined' && navigator.platform.startsWith('Mac')

const modifiers = ['Mod', 'Ctrl', 'Alt', 'Shift'] as const
type Modifier = (typeof modifiers)[number]

/** One way to write each combination, so that two can be compared: "Ctrl+shift+K" -> "Mod+Shift+k" where Mod is Ctrl. */
export function canonical(keys: string, mac = isMac): string {
  const parts = keys === '+' ? ['+'] : keys.endsWith('++') ? [...keys.slice(0, -2).split('+'), '+'] : keys.split('+')
  const key = parts.at(-1)!
  const held = new Set(
    parts.slice(0, -1).map((part): Modifier => {
      const name = modifiers.find((one) => one.toLowerCase() === part.toLowerCase())
      if (!name) throw new Error(`${keys}: ${part} is no modifier`)
      return name === 'Ctrl' && !mac ? 'Mod' : name
    }),
  )
  return joined(held, key)
}

function joined(held: ReadonlySet<Modifier>, key: string): string {
  const isLetter = /^\p{L}$/u.test(key)
  // Of a sign such as "?" the Shift is part already: which keys make it differs from keyboard to keyboard.
  const dropsShift = key.length === 1 && !isLetter && !/^\d$/.test(key)
  const names = modifiers.filter((name) => held.has(name) && !(name === 'Shift' && dropsShift))
  return [...names, key === ' ' ? 'Space' : isLetter ? key.toLowerCase() : key].join('+')
}

/** What was pressed; undefined for a modifier alone, and for letters that AltGr makes. */
export function pressedKeys(
  event: Pick<KeyboardEvent, 'key' | 'code' | 'ctrlKey' | 'metaKey' | 'altKey' | 'shiftKey' | 'getModifierState'>,
  mac = isMac,
): string | undefined {
  if (['Control', 'Meta', 'Alt', 'AltGraph', 'Shift', 'Dead', 'Process', 'CapsLock'].includes(event.key))
    return undefined
  if (!mac && event.getModifierState('AltGraph')) return undefined
  const held = new Set<Modifier>()
  if (mac ? event.metaKey : event.ctrlKey) held.add('Mod')
  if (mac && event.ctrlKey) held.add('Ctrl')
  if (event.altKey) held.add('Alt')
  if (event.shiftKey) held.add('Shift')
  return joined(held, plainKey(event, held))
}

/** With Alt or Mod a key may give another sign than its own (å for Alt+a on a Mac, & for 1 in French): then by its place. */
function plainKey({ key, code }: Pick<KeyboardEvent, 'key' | 'code'>, held: ReadonlySet<Modifier>): string {
  if (!held.has('Mod') && !held.has('Alt')) return key
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(code)?.[1]
  if (digit) return digit
  const letter = /^Key([A-Z])$/.exec(code)?.[1]
  return letter && !/^[a-z]$/i.test(key) ? letter.toLowerCase() : key
}

/** Without Mod, Ctrl or Alt, and no function key: acts only where such keys are for, never while somebody types. */
export function isPlain(keys: string): boolean {
  return !/^(Mod|Ctrl|Alt)\+/.test(keys) && !/(^|\+)F\d+$/.test(keys)
}

const signs: Readonly<Record<string, string>> = {
  ArrowUp: '↑',
  ArrowDown: '↓',
  ArrowLeft: '←',
  ArrowRight: '→',
  Escape: 'Esc',
  PageUp: 'PgUp',
  PageDown: 'PgDn',
}
const macSigns: Readonly<Record<string, string>> = {
  Mod: '⌘',
  Ctrl: '⌃',
  Alt: '⌥',
  Shift: '⇧',
  Enter: '↵',
  Delete: '⌫',
}

/** As written beside a command: "Ctrl+Shift+X", "⇧⌘X". */
export function keysText(keys: string, mac = isMac): string {
  const parts = canonical(keys, mac).split(/\+(?=.)/)
  const names = parts.map((part) => {
    if (mac && macSigns[part]) return macSigns[part]
    if (part === 'Mod') return 'Ctrl'
    return signs[part] ?? (part.length === 1 ? part.toUpperCase() : part)
  })
  return mac ? names.join('') : names.join('+')
}

/** For `aria-keyshortcuts`. */
export function ariaKeys(keys: string, mac = isMac): string {
  return canonical(keys, mac)
    .split(/\+(?=.)/)
    .map((part) => ({ Mod: mac ? 'Meta' : 'Control', Ctrl: 'Control' })[part] ?? part)
    .join('+')
}
