import { describe, expect, it } from 'vitest'
import { isTemplate, promptMarks } from '../../../preload/prompt-marks.ts'

/** Marks as the text they cover. */
const seen = (text: string) =>
  promptMarks(text).map(({ kind, from, to }) => `${kind} ${JSON.stringify(text.slice(from, to))}`)

describe('the marks of a prompt', () => {
  it('are emphasis with its factor, nested ones too', () => {
    const text = 'a (red (fox:1.3)) in [snow]'
    expect(seen(text)).toEqual(['emphasis "(red (fox:1.3))"', 'emphasis "(fox:1.3)"', 'emphasis "[snow]"'])
    const factors = promptMarks(text).flatMap((mark) => (mark.kind === 'emphasis' ? [mark.factor] : []))
    expect(factors).toEqual([1.1, 1.3, 1 / 1.1])
  })

  it('are choices with their options, lists, handles, triggers and comments', () => {
    const text = 'a {red|{dark|light} blue} __animals/cat__ of @mira:winter, <ink style> # soon\nmore'
    expect(seen(text)).toEqual([
      'choice "{red|{dark|light} blue}"',
      'choice "{dark|light}"',
      'list "__animals/cat__"',
      'handle "@mira:winter"',
      'trigger "<ink style>"',
      'comment "# soon"',
    ])
    const choice = promptMarks(text)[0]
    const options = choice.kind === 'choice' ? choice.options.map(({ from, to }) => text.slice(from, to)) : []
    expect(options).toEqual(['red', '{dark|light} blue'])
    expect(promptMarks(text)[3]).toMatchObject({ name: 'mira', outfit: 'winter' })
  })

  it('are adapters with weights and steps, 1 where none is given', () => {
    const [plain, weighed, both, timed] = promptMarks(
      '<lora:ink> <lora:ink:0.7> <lora:my ink:0.5:0.9> <lora:ink:0.7@0.2-0.8>',
    )
    expect(plain).toMatchObject({ kind: 'adapter', name: 'ink', weight: 1, textWeight: 1, start: 0, end: 1 })
    expect(weighed).toMatchObject({ weight: 0.7, textWeight: 0.7 })
    expect(both).toMatchObject({ name: 'my ink', textWeight: 0.5, weight: 0.9 })
    expect(timed).toMatchObject({ weight: 0.7, start: 0.2, end: 0.8 })
  })

  it('leave plain text alone: escapes, what is not closed, addresses, hashes inside words', () => {
    expect(seen(String.raw`\(a\) \{b|c\} \# not, C#, mail@example.org, a_b__c, {one} (open | [open`)).toEqual([])
  })

  it('say whether something else is drawn than what stands there', () => {
    expect(isTemplate('a (fox:1.2) <lora:ink>')).toBe(false)
    for (const text of ['{a|b}', '__list__', '# note', '@mira', '<words>']) expect(isTemplate(text), text).toBe(true)
  })
})
