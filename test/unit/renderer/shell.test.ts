import { describe, expect, it } from 'vitest'
import { DropsState, kindOf, possibleKinds, type FileKind } from '../../../renderer/state/drops.svelte.ts'
import { fuzzyScore, fuzzySort } from '../../../renderer/state/fuzzy.ts'
import { ToastsState } from '../../../renderer/state/toasts.svelte.ts'
import { UndoState, type UndoScope } from '../../../renderer/state/undo.svelte.ts'

describe('undo', () => {
  const step = (label: string, scope: UndoScope, did: string[]) => ({
    label,
    scope,
    undo: () => did.push(`-${label}`),
    redo: () => did.push(`+${label}`),
  })

  it('takes back the newest of the area, else the newest of all, and does it again', async () => {
    const did: string[] = []
    const undo = new UndoState()
    undo.push(step('prompt', 'studio', did))
    undo.push(step('bin', 'library', did))
    undo.push(step('clear', 'queue', did))
    expect((await undo.undo('studio'))?.label).toBe('prompt')
    expect((await undo.undo('studio'))?.label).toBe('clear')
    expect((await undo.redo('studio'))?.label).toBe('prompt')
    await undo.undo('studio')
    expect(did).toEqual(['-prompt', '-clear', '+prompt', '-prompt'])
  })

  it('keeps 100 steps of the Studio and 50 of the library', async () => {
    const undo = new UndoState()
    for (let i = 0; i < 130; i++) undo.push(step(`s${i}`, 'studio', []))
    for (let i = 0; i < 60; i++) undo.push(step(`l${i}`, 'library', []))
    const labels: string[] = []
    for (let found = await undo.undo(); found; found = await undo.undo()) labels.push(found.label)
    expect(labels.filter((label) => label.startsWith('s'))).toHaveLength(100)
    expect(labels.filter((label) => label.startsWith('l'))).toHaveLength(50)
    expect(labels.at(-1)).toBe('s30')
  })

  it('takes one back out of order once, and says what failed', async () => {
    const did: string[] = []
    const problems: unknown[] = []
    const undo = new UndoState((error) => problems.push(error))
    const first = step('first', 'library', did)
    undo.push(first)
    undo.push(step('second', 'library', did))
    expect(await undo.take(first)).toBe(true)
    expect(await undo.take(first)).toBe(false)
    expect(did).toEqual(['-first'])
    const bad = { ...first, undo: () => Promise.reject(new Error('gone')) }
    undo.push(bad)
    expect(await undo.undo()).toBeUndefined()
    expect(problems).toHaveLength(1)
  })

  it('knows whether somebody typed since the last step', () => {
    let now = 0
    const undo = new UndoState(undefined, () => ++now)
    expect(undo.isNewerThanTyping).toBe(false)
    undo.typed()
    undo.push(step('a', 'library', []))
    expect(undo.isNewerThanTyping).toBe(true)
    undo.typed()
    expect(undo.isNewerThanTyping).toBe(false)
  })
})

describe('files that are brought', () => {
  it.each([
    ['ink.safetensors', 'adapter'],
    ['IMG.PNG', 'image'],
    ['story.md', 'text'],
    ['style.vgset', 'recipe'],
    ['old.ckpt', 'model'],
    ['strange', 'unknown'],
  ] as const)('%s is %s', (name, kind) => expect(kindOf({ name })).toBe(kind))

  it('are known by more than their name where it tells nothing', () => {
    expect(kindOf({ name: 'models', isFolder: true })).toBe('folder')
    expect(kindOf({ name: 'image', data: { type: 'image/png', size: 1 } as File })).toBe('image')
    expect(kindOf({ name: 'sd.safetensors', data: { type: '', size: 2e9 } as File })).toBe('model')
  })

  it('show only what the dragging reveals', () => {
    expect(possibleKinds({ kind: 'file', type: 'image/png' })).toEqual(['image'])
    expect(possibleKinds({ kind: 'file', type: '' })).toContain('adapter')
    expect(possibleKinds({ kind: 'string', type: 'text/plain' })).toEqual([])
  })

  function drops() {
    const said: string[] = []
    const got: string[] = []
    const state = new DropsState((text) => said.push(text))
    const add = (id: string, kinds: FileKind[], isVariant = false) =>
      state.register({
        id,
        label: id,
        kinds,
        isVariant,
        take: (files, { isLink }) => got.push(`${id}${isLink ? ' linked' : ''}: ${files.map(({ name }) => name)}`),
      })
    add('keep', ['adapter', 'unknown'])
    add('use', ['adapter', 'unknown'], true)
    return { state, said, got, add }
  }
  const files = (...names: string[]) => names.map((name) => ({ file: `/tmp/${name}`, name }))

  it('show the zones that accept what is dragged, and none for text', () => {
    const { state, add } = drops()
    add('source', ['image'])
    state.dragged = [{ kind: 'file', type: 'image/png' }]
    expect(state.zones.map(({ id }) => id)).toEqual(['source'])
    state.dragged = [{ kind: 'file', type: '' }]
    expect(state.zones.map(({ id }) => id)).toEqual(['keep', 'use'])
    state.dragged = [{ kind: 'string', type: 'text/plain' }]
    expect(state.isOpen).toBe(false)
  })

  it('go each to who takes it, and what nobody takes to where it was dropped, so that it is refused there', () => {
    const { state, said, got, add } = drops()
    add('source', ['image'])
    state.take(files('a.safetensors', 'notes.txt', 'fox.png'), 'use', true)
    expect(got).toEqual(['use linked: a.safetensors,notes.txt', 'source linked: fox.png'])
    expect(said).toEqual(['use: 2 files · source: 1 file'])
  })

  it('ask where there is a choice, and go straight on where there is none', () => {
    const { state, got, add } = drops()
    state.offer(files('a.safetensors'))
    expect(got).toEqual(['keep: a.safetensors'])
    add('source', ['image'])
    add('recipe', ['image'])
    state.offer(files('fox.png'))
    expect(state.choices.map(({ id }) => id)).toEqual(['source', 'recipe'])
    state.answer('recipe')
    expect(got.at(-1)).toBe('recipe: fox.png')
    expect(state.asked).toEqual([])
  })

  it('say so when nothing takes them', () => {
    const said: string[] = []
    const state = new DropsState((text) => said.push(text))
    state.take(files('a.xyz'))
    expect(said).toEqual(['Nothing can be done with a.xyz.'])
  })
})

describe('the palette', () => {
  it('finds by letters in order, the beginnings of words first', () => {
    const items = ['Signing', 'Generate next', 'Generate', 'Go to Gallery']
    expect(fuzzySort('gen', items, (one) => one)[0]).toBe('Generate')
    expect(fuzzySort('gn', items, (one) => one)[0]).toBe('Generate next')
    expect(fuzzySort('gg', items, (one) => one)[0]).toBe('Go to Gallery')
    expect(fuzzyScore('xyz', 'Generate')).toBeUndefined()
    expect(fuzzySort('ü', ['Uber', 'fox'], (one) => one)).toEqual(['Uber'])
  })
})

it('messages are kept after they are gone, the newest first', () => {
  const toasts = new ToastsState()
  for (let i = 0; i < 6; i++) toasts.show({ text: `m${i}` })
  expect(toasts.shown.map(({ text }) => text)).toEqual(['m2', 'm3', 'm4', 'm5'])
  toasts.hide(toasts.shown[0].id)
  expect(toasts.past.map(({ text }) => text)).toEqual(['m5', 'm4', 'm3', 'm2', 'm1', 'm0'])
  expect([toasts.unseen, toasts.shown[0].ms]).toEqual([6, 6000])
})
