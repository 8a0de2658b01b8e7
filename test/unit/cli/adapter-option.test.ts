import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseAdapter, readBatch, splitAdapter, withTextWeights } from '../../../main/cli/adapter-option.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-adapter-option-'))
  for (const name of ['ink.safetensors', 'a b.safetensors']) writeFileSync(join(folder, name), '')
})
afterAll(() => rmSync(folder, { recursive: true }))

describe('an adapter on the command line', () => {
  test.each([
    ['ink.safetensors', { file: 'ink.safetensors' }],
    ['ink.safetensors:0.8', { file: 'ink.safetensors', weight: 0.8 }],
    ['ink.safetensors:-.5', { file: 'ink.safetensors', weight: -0.5 }],
    ['ink.safetensors:1@0.2-0.8', { file: 'ink.safetensors', weight: 1, start: 0.2, end: 0.8 }],
    ['ink.safetensors:@0-.5', { file: 'ink.safetensors', start: 0, end: 0.5 }],
    ['../some dir/ink.safetensors:+2', { file: '../some dir/ink.safetensors', weight: 2 }],
    ['C:\\ada\\ink.safetensors', { file: 'C:\\ada\\ink.safetensors' }],
    ['C:\\ada\\ink.safetensors:0.8', { file: 'C:\\ada\\ink.safetensors', weight: 0.8 }],
    ['C:/ada/ink.safetensors:0.8@0-0.5', { file: 'C:/ada/ink.safetensors', weight: 0.8, start: 0, end: 0.5 }],
    ['d:ink.safetensors', { file: 'd:ink.safetensors' }],
    ['\\\\server\\share\\ink.safetensors:1', { file: '\\\\server\\share\\ink.safetensors', weight: 1 }],
    ['a:b.safetensors', { file: 'a:b.safetensors' }],
    ['ink: wet.safetensors:0.3', { file: 'ink: wet.safetensors', weight: 0.3 }],
  ])('%s', (text, expected) => {
    expect(splitAdapter(text)).toEqual(expected)
  })

  test('whose name ends like a weight is that file', () => {
    expect(splitAdapter('ink:1', (name) => name === 'ink:1')).toEqual({ file: 'ink:1' })
    expect(splitAdapter('ink:1')).toEqual({ file: 'ink', weight: 1 })
  })

  test.each([
    'ink.safetensors:',
    'ink.safetensors:strong',
    'ink.safetensors:0,8',
    'ink.safetensors:1@0.2',
    'ink.safetensors:1@a-b',
    'ink.safetensors:1e9x',
  ])('%s is refused in words', (text) => {
    expect(() => splitAdapter(text)).toThrow(/^Expected a weight after "ink\.safetensors:", got /)
  })

  test('is looked up where it was named, and must be there', () => {
    expect(parseAdapter('a b.safetensors:0.5', folder)).toEqual({ file: join(folder, 'a b.safetensors'), weight: 0.5 })
    expect(() => parseAdapter('wash.safetensors:0.5', folder)).toThrow(
      `There is no adapter ${join(folder, 'wash.safetensors')}.`,
    )
  })

  test('takes one text weight for all or one for each', () => {
    const two = [{ file: 'a' }, { file: 'b' }]
    expect(withTextWeights(two, [])).toEqual(two)
    expect(withTextWeights(two, [0.5]).map(({ textWeight }) => textWeight)).toEqual([0.5, 0.5])
    expect(withTextWeights(two, [0.5, 0]).map(({ textWeight }) => textWeight)).toEqual([0.5, 0])
    expect(() => withTextWeights(two, [1, 2, 3])).toThrow('got 3')
  })
})

describe('a list of pictures', () => {
  const read = (value: unknown) => {
    const file = join(folder, 'pictures.json')
    writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value))
    return readBatch(file, 4)
  }

  test('takes adapters as on the command line or as objects, from beside the list', async () => {
    const ink = join(folder, 'ink.safetensors')
    expect(
      await read([
        { prompt: 'a fox', seed: 3, adapters: ['ink.safetensors:0.5@0-0.5'] },
        {
          prompt: 'a barn',
          negativePrompt: 'rain',
          guidanceScale: 4,
          adapters: [{ file: 'ink.safetensors', ramp: 'ease-in' }],
        },
        { prompt: 'a cat' },
      ]),
    ).toEqual([
      { prompt: 'a fox', seed: 3, adapters: [{ file: ink, weight: 0.5, start: 0, end: 0.5 }] },
      { prompt: 'a barn', negativePrompt: 'rain', guidanceScale: 4, adapters: [{ file: ink, ramp: 'ease-in' }] },
      { prompt: 'a cat' },
    ])
  })

  test.each([
    ['{', /this is no JSON/],
    [{}, /expected a list of pictures/],
    [[], /expected a list of pictures/],
    [[3], /picture 1 is no object/],
    [[{ prompt: 'a' }, { promt: 'b' }], /picture 2 has "promt"/],
    [[{ prompt: 'a', adapters: 'ink' }], /adapters of picture 1 are no list/],
    [[{ prompt: 'a', adapters: [3] }], /an adapter of picture 1 names no file/],
    [[{ prompt: 'a', adapters: ['none.safetensors'] }], /There is no adapter/],
    [Array(5).fill({ prompt: 'a' }), /at most 4 pictures, got 5/],
  ])('%j is refused in words', async (value, words) => {
    await expect(read(value)).rejects.toThrow(words)
  })

  test('that is not there is said', async () => {
    await expect(readBatch(join(folder, 'none.json'), 4)).rejects.toMatchObject({ code: 'file-unreadable' })
  })
})
