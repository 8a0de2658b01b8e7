import { describe, expect, it } from 'vitest'
import { settingDefaults } from '../../../preload/defaults.ts'
import type { Settings } from '../../../preload/contract/settings.ts'
import { CommandsState } from '../../../renderer/state/commands.svelte.ts'
import { ariaKeys, canonical, isPlain, keysText, pressedKeys } from '../../../renderer/state/keys.ts'
import { allShortcuts } from '../../../renderer/state/shortcuts.ts'

const press = (key: string, held = '', code = '') => ({
  key,
  code,
  ctrlKey: held.includes('c'),
  metaKey: held.includes('m'),
  altKey: held.includes('a'),
  shiftKey: held.includes('s'),
  getModifierState: (name: string) => name === 'AltGraph' && held.includes('g'),
})

describe('keys', () => {
  it('are written in one way whatever was typed', () => {
    expect(canonical('shift+ctrl+K', false)).toBe('Mod+Shift+k')
    expect(canonical('shift+ctrl+K', true)).toBe('Ctrl+Shift+k')
    expect(canonical('Mod++')).toBe('Mod++')
    expect(canonical('+')).toBe('+')
    expect(canonical('Shift+?')).toBe('?')
  })

  it.each([
    [press('k', 'c'), 'Mod+k'],
    [press('K', 'cs'), 'Mod+Shift+k'],
    [press('Enter', 'ca'), 'Mod+Alt+Enter'],
    [press('?', 's', 'Slash'), '?'],
    [press(' '), 'Space'],
    [press('R', 's'), 'Shift+r'],
    [press('&', 'c', 'Digit1'), 'Mod+1'], // French: digits need Shift
    [press('{', 'cag', 'Digit7'), undefined], // AltGr types a letter
    [press('Control', 'c'), undefined],
  ])('are read from a key press: %#', (event, keys) => expect(pressedKeys(event, false)).toBe(keys))

  it('are the Command key on a Mac, where Alt changes letters', () => {
    expect(pressedKeys(press('k', 'm'), true)).toBe('Mod+k')
    expect(pressedKeys(press('å', 'a', 'KeyA'), true)).toBe('Alt+a')
    expect(pressedKeys(press('ArrowUp', 'c'), true)).toBe('Ctrl+ArrowUp')
  })

  it('are shown and told as each system does', () => {
    expect([keysText('Mod+Shift+x', false), keysText('Mod+Shift+x', true)]).toEqual(['Ctrl+Shift+X', '⌘⇧X'])
    expect(keysText('Alt+ArrowUp', false)).toBe('Alt+↑')
    expect([ariaKeys('Mod+Enter', false), ariaKeys('Mod+Enter', true)]).toEqual(['Control+Enter', 'Meta+Enter'])
  })

  it('are plain without a modifier that keeps them from being text', () => {
    expect(['r', 'Shift+r', '?', 'Delete'].every(isPlain)).toBe(true)
    expect(['Mod+r', 'Alt+a', 'F2', 'Shift+F2'].some(isPlain)).toBe(false)
  })
})

function commands(saved: Settings = {}): { state: CommandsState; saved: Settings } {
  const all = { ...saved }
  const state = new CommandsState({
    get: (key) => (all[key] ?? settingDefaults[key]) as never,
    set: (part) => void Object.assign(all, part),
    reset: (keys) => keys.forEach((key) => delete all[key]),
  })
  return { state, saved: all }
}

describe('shortcuts', () => {
  it('are no two the same in one place', () => {
    const { state } = commands()
    for (const { id, keys } of allShortcuts())
      for (const each of keys) expect([id, state.conflictOf(id, each)]).toEqual([id, undefined])
  })

  it('AC54 refuses keys that are taken and names the owner', () => {
    const { state, saved } = commands()
    expect(state.rebind('palette', ['Mod+Enter'])).toMatchObject({ owner: { id: 'generate', title: 'Generate' } })
    expect(state.rebind('image-star', ['Mod+k'])?.owner.id).toBe('palette') // everywhere is also in grids
    expect(state.rebind('image-star', ['r'])?.owner.id).toBe('image-remix')
    expect(saved.shortcuts).toBeUndefined()
    expect(state.keysOf('palette')).toEqual(['Mod+k'])
  })

  it('AC54 keeps other keys, frees the old ones, and goes back', () => {
    const { state, saved } = commands()
    expect(state.rebind('palette', ['Mod+Shift+P'])).toBeUndefined()
    expect(saved.shortcuts).toEqual({ palette: ['Mod+Shift+p'] })
    expect(commands(saved).state.keysOf('palette')).toEqual(['Mod+Shift+p']) // after the next start
    expect(state.rebind('search', ['Mod+k'])).toBeUndefined()
    expect(state.resetKeys('palette')?.owner.id).toBe('search')
    expect(state.resetKeys('search')).toBeUndefined()
    expect(state.resetKeys('palette')).toBeUndefined()
    expect(saved.shortcuts).toEqual({})
    state.rebind('palette', [])
    expect(state.label('palette')).toBeUndefined()
    state.resetAllKeys()
    expect(state.keysOf('palette')).toEqual(['Mod+k'])
  })

  it('lets the same key mean something else in another place', () => {
    const { state } = commands()
    expect(state.conflictOf('queue-up', 'Alt+ArrowUp')).toBeUndefined()
    expect(state.conflictOf('slot-audition', 'a')).toBeUndefined()
  })
})

describe('commands', () => {
  it('run when they can, and of two with one id the one that can', () => {
    const { state } = commands()
    const ran: string[] = []
    let isOpen = false
    state.register([{ id: 'search', title: 'a', group: '', run: () => ran.push('a') }])
    const leave = state.register([
      { id: 'search', title: 'b', group: '', when: () => isOpen, run: () => ran.push('b') },
    ])
    state.run('search')
    isOpen = true
    state.run('search')
    leave()
    state.choose('search')
    expect(ran).toEqual(['a', 'b', 'a'])
    expect(state.run('nothing')).toBe(false)
    expect(state.recent).toEqual(['search'])
  })
})
