import { describe, expect, it } from 'vitest'
import type { AdapterRecord } from '../../../preload/contract/adapters.ts'
import { takeAdapterTags } from '../../../renderer/state/adapter-tags.ts'
import { changeEmphasis, moveTag, type Edited } from '../../../renderer/state/prompt-edit.ts'
import { PromptHistory } from '../../../renderer/state/prompt-history.svelte.ts'

/** Text with its selection: `a |fox|`, or one bar for a caret. */
const read = (marked: string): Edited => {
  const start = marked.indexOf('|')
  const end = marked.lastIndexOf('|')
  return { text: marked.replaceAll('|', ''), start, end: start === end ? start : end - 1 }
}
const write = ({ text, start, end }: Edited): string =>
  start === end
    ? `${text.slice(0, start)}|${text.slice(start)}`
    : `${text.slice(0, start)}|${text.slice(start, end)}|${text.slice(end)}`

describe('emphasis by keys', () => {
  const change = (marked: string, direction: 1 | -1) => {
    const { text, start, end } = read(marked)
    return write(changeEmphasis(text, start, end, direction))
  }

  it('weighs the word at the caret, and takes the brackets away at 1', () => {
    expect(change('a fo|x runs', 1)).toBe('a (|fox|:1.1) runs')
    expect(change('a (|fox|:1.1) runs', 1)).toBe('a (|fox|:1.2) runs')
    expect(change('a (|fox|:1.1) runs', -1)).toBe('a |fox| runs')
    expect(change('a f|ox runs', -1)).toBe('a (|fox|:0.9) runs')
    expect(change('a (|fox|:0.9) runs', 1)).toBe('a |fox| runs')
  })

  it('weighs what is selected, without the blanks around it', () => {
    expect(change('a| red fox| runs', 1)).toBe('a (|red fox|:1.1) runs')
    expect(change('a (|red fox|) runs', 1)).toBe('a (|red fox|:1.2) runs')
  })

  it('weighs the innermost of several', () => {
    expect(change('((a fo|x:1.2) runs:0.8)', 1)).toBe('((a (|fox|:1.1):1.2) runs:0.8)')
    expect(change('((|fox|:1.2) runs:0.8)', 1)).toBe('((|fox|:1.3) runs:0.8)')
  })

  it('goes by half a step inside an adapter', () => {
    expect(change('a <lora:in|k:0.7>', 1)).toBe('a <lora:in|k:0.75>')
    expect(change('a <lora:in|k>', -1)).toBe('a <lora:in|k:0.95>')
    expect(change('a <lora:in|k:0.5:0.7@0.2-0.8>', -1)).toBe('a <lora:in|k:0.5:0.65@0.2-0.8>')
  })

  it('does nothing where there is no word', () => {
    expect(change('a |', 1)).toBe('a |')
  })
})

describe('moving a tag by keys', () => {
  const move = (marked: string, direction: 1 | -1) => {
    const { text, start } = read(marked)
    return write(moveTag(text, start, direction))
  }

  it('swaps it with its neighbour, and the caret goes with it', () => {
    expect(move('a fox, in s|now, at night', -1)).toBe('in s|now, a fox, at night')
    expect(move('a fox, in s|now, at night', 1)).toBe('a fox, at night, in s|now')
    expect(move('a f|ox, snow', -1)).toBe('a f|ox, snow')
    expect(move('a fox, sn|ow', 1)).toBe('a fox, sn|ow')
  })

  it('keeps what is in brackets together', () => {
    const text = 'a fox, {red, warm|blue} snow, night'
    expect(moveTag(text, text.indexOf('now'), -1).text).toBe('{red, warm|blue} snow, a fox, night')
    expect(move('(a, b:1.2), c|', -1)).toBe('c|, (a, b:1.2)')
  })
})

describe('the history of prompts', () => {
  it('goes to older ones and back to what was being written', () => {
    const history = new PromptHistory()
    for (const prompt of ['one', 'two', 'one', ' ']) history.used(prompt)
    expect(history.all).toEqual(['one', 'two'])
    expect(history.step(1, 'new')).toBe('one')
    expect(history.step(1, 'one')).toBe('two')
    expect(history.step(1, 'two')).toBeUndefined()
    expect(history.step(-1, 'two')).toBe('one')
    expect(history.step(-1, 'one')).toBe('new')
    expect(history.step(-1, 'new')).toBeUndefined()
  })

  it('begins again from what was changed, skips what is shown already, and keeps 100', () => {
    const history = new PromptHistory()
    for (const prompt of ['one', 'two']) history.used(prompt)
    expect(history.step(1, 'two')).toBe('one')
    expect(history.step(1, 'one, changed')).toBe('two')
    expect(history.step(-1, 'two')).toBe('one, changed')
    for (let i = 0; i < 150; i++) history.used(`prompt ${i}`)
    expect(history.all).toHaveLength(100)
  })
})

describe('adapters named in a prompt', () => {
  const record = (name: string, fileName: string, part: object = {}): AdapterRecord =>
    ({ id: fileName, name, fileName, verdict: { fit: 'fits', message: '' }, ...part }) as unknown as AdapterRecord
  const records = [
    record('Ink and wash', 'ink.safetensors', { hash: 'ab12cd34ef56'.padEnd(64, '0') }),
    record('Pip', 'pip-v2.safetensors'),
    record('Other', 'other.safetensors', { verdict: { fit: 'wrong-family', message: '' } }),
  ]

  it('become slots with their weights and steps, and leave the words', () => {
    const { prompt, taken, unknown } = takeAdapterTags(
      'a fox, <lora:ink:0.7>, in snow <lora:pip-v2:0.5:0.9@0.2-0.8>',
      records,
    )
    expect(prompt).toBe('a fox, in snow')
    expect(taken.map(({ record, ...rest }) => ({ id: record.id, ...rest }))).toEqual([
      { id: 'ink.safetensors', weight: 0.7, textWeight: 0.7, start: 0, end: 1 },
      { id: 'pip-v2.safetensors', weight: 0.9, textWeight: 0.5, start: 0.2, end: 0.8 },
    ])
    expect(unknown).toEqual([])
  })

  it('leave neither blanks nor commas behind, and touch nothing else', () => {
    const without = (text: string) => takeAdapterTags(text, records).prompt
    expect(without('<lora:ink>, a  fox')).toBe('a  fox')
    expect(without('a fox <lora:ink>, snow')).toBe('a fox, snow')
    expect(without('a fox,<lora:ink>,snow')).toBe('a fox, snow')
    expect(without('a fox\n<lora:ink>\nsnow <lora:pip-v2>')).toBe('a fox\n\nsnow')
  })

  it('stay in the prompt when no slot is free for them', () => {
    const { prompt, taken, crowded } = takeAdapterTags(
      'a <lora:ink> b <lora:pip-v2> c',
      records,
      ({ name }) => name !== 'Pip',
    )
    expect([prompt, taken.length, crowded]).toEqual(['a b <lora:pip-v2> c', 1, ['Pip']])
  })

  it('are found by file, name or hash, whatever the spelling', () => {
    for (const name of ['ink', 'INK.safetensors', 'Ink and wash', 'ink_and_wash', 'ab12cd34ef56'])
      expect(takeAdapterTags(`fox <lora:${name}>`, records).taken, name).toHaveLength(1)
  })

  it('stay where they are when there is none that fits', () => {
    const text = 'a fox <lora:other:1> <lora:nothing>'
    expect(takeAdapterTags(text, records)).toEqual({
      ...{ prompt: text, taken: [] },
      ...{ unknown: ['other', 'nothing'], crowded: [] },
    })
  })
})
