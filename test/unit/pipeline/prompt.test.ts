import { beforeAll, describe, expect, test } from 'vitest'
import { chunkPrompt, frameChunk, parsePrompt } from '../../../main/pipeline/prompt.ts'
import { createTokenizer, type Tokenizer } from '../../../main/pipeline/tokenizer.ts'
import { readClipMerges } from '../../../models/tokenizer/load.ts'

let tokenizer: Tokenizer
beforeAll(async () => {
  tokenizer = createTokenizer(await readClipMerges())
})

const spansOf = (text: string) =>
  parsePrompt(text).spans.map((span) => (span === 'break' ? 'BREAK' : `${span.text}|${Number(span.weight.toFixed(6))}`))
const chunksOf = (text: string) => chunkPrompt(parsePrompt(text), tokenizer).chunks

describe('attention syntax', () => {
  // The first six are the published examples of AUTOMATIC1111's parser.
  test.each([
    ['normal text', ['normal text|1']],
    ['an (important) word', ['an |1', 'important|1.1', ' word|1']],
    ['(unbalanced', ['unbalanced|1.1']],
    ['\\(literal\\]', ['(literal]|1']],
    ['(unnecessary)(parens)', ['unnecessaryparens|1.1']],
    [
      'a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).',
      ['a |1', 'house|1.573', ' |1.1', 'on|1', ' a |1.1', 'hill|0.55', ', sun, |1.1', 'sky|1.4641', '.|1.1'],
    ],
    ['((x:1.3))', ['x|1.43']],
    ['[x]', ['x|0.909091']],
    ['[[x]] y', ['x|0.826446', ' y|1']],
    ['(x: +1.5 )', ['x|1.5']],
    ['(x:0)', ['x|0']],
    ['x) y] :) 3:4', ['x) y] :) 3:4|1']],
    ['(a:b:1.2)', ['a:b|1.2']],
    ['a:1.5)', ['a:1.5)|1']],
    ['\\\\ back\\slash', ['\\ backslash|1']],
    ['one BREAK two', ['one|1', 'BREAK', 'two|1']],
    ['(one BREAK two:1.2)', ['one|1.2', 'BREAK', 'two|1.2']],
    ['BREAKFAST', ['BREAKFAST|1']],
  ])('%s', (text, spans) => {
    expect(spansOf(text).filter((span) => span !== '|1')).toEqual(spans)
  })
})

test('adapter tags are taken out, with a notice', () => {
  const { spans, notices } = parsePrompt('a fox <lora:ink:0.8>, night')
  expect(spans).toEqual([{ text: 'a fox  , night', weight: 1 }])
  expect(notices).toHaveLength(1)
  expect(notices[0]).toContain('<lora:ink:0.8>')
})

test.each(['a [cat:dog:0.5]', 'a [cat:5]', 'a [cat|dog]', 'a cat AND a dog'])(
  '%s is read as words, with a notice',
  (text) => {
    expect(parsePrompt(text).notices).toHaveLength(1)
  },
)

test.each(['a [cat]', 'a \\[cat:dog:0.5\\]', 'a cat and a dog', 'x < y > z'])('%s needs no notice', (text) => {
  expect(parsePrompt(text).notices).toEqual([])
})

describe('chunks', () => {
  test('an empty prompt is one empty chunk', () => {
    expect(chunksOf('')).toEqual([[]])
  })

  test('75 tokens fill one chunk, one more opens the next', () => {
    const words = (n: number) => Array(n).fill('cat').join(' ')
    expect(chunksOf(words(75)).map((chunk) => chunk.length)).toEqual([75])
    expect(chunksOf(words(76)).map((chunk) => chunk.length)).toEqual([75, 1])
    expect(chunksOf(words(200)).map((chunk) => chunk.length)).toEqual([75, 75, 50])
  })

  test('what follows a comma in the last 20 tokens moves to the next chunk as a whole', () => {
    const text = (before: number, after: number) => `${'cat '.repeat(before)}, ${'dog '.repeat(after)}`
    expect(chunksOf(text(60, 20)).map((chunk) => chunk.length)).toEqual([61, 20])
    expect(chunksOf(text(55, 25)).map((chunk) => chunk.length)).toEqual([56, 25])
    expect(chunksOf(text(54, 26)).map((chunk) => chunk.length)).toEqual([75, 6]) // the comma is 21 tokens back
    expect(chunksOf(text(75, 3)).map((chunk) => chunk.length)).toEqual([75, 4])
  })

  test('BREAK closes a chunk early', () => {
    expect(chunksOf('cat dog BREAK bird').map((chunk) => chunk.length)).toEqual([2, 1])
  })

  test('weights reach every token of their words', () => {
    const [chunk] = chunksOf('a (yellow raincoat:1.3), fox')
    expect(chunk.map(({ weight }) => weight)).toEqual([1, 1.3, 1.3, 1.3, 1, 1]) // raincoat is two
  })

  test('says how many tokens of an endless prompt are not read', () => {
    const { chunks, unread } = chunkPrompt(parsePrompt('cat '.repeat(700)), tokenizer)
    expect([chunks.length, unread]).toEqual([8, 100])
  })

  test('are framed by start and end, and padded as their encoder wants', () => {
    for (const pad of [49407, 0]) {
      const { ids, weights, eosIndex } = frameChunk(
        [
          { id: 320, weight: 1 },
          { id: 2368, weight: 1.2 },
        ],
        pad,
      )
      expect(ids).toEqual([49406, 320, 2368, 49407, ...Array(73).fill(pad)])
      expect(weights).toEqual([1, 1, 1.2, ...Array(74).fill(1)])
      expect(eosIndex).toBe(3)
    }
    expect(frameChunk(Array(75).fill({ id: 320, weight: 1 }), 0).ids).toHaveLength(77)
  })
})
