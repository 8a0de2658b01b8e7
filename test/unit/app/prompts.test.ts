import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chooseLongest, expandPrompt, placeInTemplate, seededChoice, textOf } from '../../../main/app/prompt-choices.ts'
import { PromptLists } from '../../../main/app/prompt-lists.ts'
import { Prompts } from '../../../main/app/prompts.ts'
import { measurePrompt } from '../../../main/pipeline/prompt.ts'
import { createTokenizer, type Tokenizer } from '../../../main/pipeline/tokenizer.ts'
import { readClipMerges } from '../../../models/tokenizer/load.ts'

let home: string
let tokenizer: Tokenizer
let prompts: Prompts
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'vignette-lists-'))
  await mkdir(join(home, 'lists', 'animals'), { recursive: true })
  await writeFile(join(home, 'lists', 'colours.txt'), '# warm ones\nred\norange\n\n')
  await writeFile(join(home, 'lists', 'animals', 'cat.txt'), 'a __colours__ cat\n')
  await writeFile(join(home, 'lists', 'loop.txt'), 'x __loop__\n')
  await writeFile(join(home, 'secret.txt'), 'secret\n')
  tokenizer = createTokenizer(await readClipMerges())
  const reader = { measure: async (texts: string[]) => texts.map((text) => measurePrompt(text, tokenizer)) }
  prompts = new Prompts({ lists: new PromptLists(join(home, 'lists')), reader })
})
afterAll(() => rm(home, { recursive: true, force: true }))

const resolve = async (prompt: string, seed = 1, triggers: string[] = []) =>
  prompts.resolve({ prompt, negativePrompt: '', seed }, triggers)

describe('a prompt with choices', () => {
  it('becomes one of them by the seed, and stays beside the words', async () => {
    const template = 'a {red|green|blue} fox'
    const first: { prompt: string; promptTemplate?: string } = (await resolve(template, 5)).request
    expect(first.promptTemplate).toBe(template)
    expect(first.prompt).toMatch(/^a (red|green|blue) fox$/)
    expect((await resolve(template, 5)).request).toEqual(first)
    const words = await Promise.all(
      Array.from({ length: 40 }, async (_, seed) => (await resolve(template, seed)).request.prompt),
    )
    expect(new Set(words).size).toBe(3)
  })

  it('takes each of many options about equally often', () => {
    const counts = [0, 0, 0, 0]
    for (let seed = 0; seed < 4000; seed++) counts[seededChoice(seed, 0)(['a', 'b', 'c', 'd'])]++
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(120)
  })

  it('is what it was when it is resolved again', async () => {
    const { request } = await resolve(String.raw`a {red|(blue:1.2)} \{fox\} \# 9`, 3)
    const again = await prompts.resolve({ ...request, promptTemplate: undefined })
    expect(again.request.prompt).toBe(request.prompt)
  })

  it('takes lines of lists, which may name lists, and none from outside their folder', async () => {
    const { request } = await resolve('__animals/cat__ at dusk')
    expect(request.prompt).toMatch(/^a (red|orange) cat at dusk$/)
    const outside = await resolve('fox __../secret__')
    expect(outside.request.prompt).not.toContain('secret\n')
    expect(outside.request.prompt).toBe('fox __../secret__') // not even a name of a list
    const looped = await resolve('__loop__')
    expect(looped.request.prompt.startsWith('x x x')).toBe(true)
    expect(await prompts.lists()).toMatchObject({ names: ['animals/cat', 'colours', 'loop'] })
  })

  it('names what is not there, and leaves it out', async () => {
    const { request, notices } = await resolve('a fox __nothing__ with @mira # and a note\n# a line of notes\nin snow')
    expect(request.prompt).toBe('a fox  with \nin snow')
    expect(notices).toEqual([
      'There is no list "nothing"; __nothing__ was left out.',
      'There is no character @mira; it was left out.',
    ])
    await expect(resolve('# only a note')).rejects.toMatchObject({ code: 'bad-request' })
  })

  it('writes triggers as their adapters spell them, and leaves the words of embeddings alone', async () => {
    expect((await resolve('<Ink Style>, <cat-toy>', 1, ['ink style', '<cat-toy>'])).request.prompt).toBe(
      'ink style, <cat-toy>',
    )
  })

  it('leaves a plain prompt as it is, without a template', async () => {
    const request = { prompt: 'a (fox:1.2), [snow]', negativePrompt: 'rain', seed: 1 }
    expect((await prompts.resolve(request)).request).toEqual(request)
  })
})

describe('how much of a prompt is read', () => {
  const read = async (text: string) => (await prompts.read([text]))[0]

  it('counts exactly what the encoder gets, with its marks', async () => {
    expect(await read('a fox')).toMatchObject({ tokens: 4, limit: 77, parts: 1, isLongest: false })
    expect(await read('')).toMatchObject({ tokens: 2, limit: 77, parts: 1 })
    expect(await read('a (fox:1.3) # note')).toMatchObject({ tokens: 4 })
    expect(await read(Array(76).fill('fox').join(' '))).toMatchObject({ tokens: 76 + 4, limit: 154, parts: 2 })
  })

  it('counts the longest choice, and says so', async () => {
    expect(await read('a {fox|big brown bear}')).toMatchObject({ tokens: 2 + 4, isLongest: true })
    expect(await read('__colours__ fox __none__ @mira')).toMatchObject({
      tokens: 4,
      isLongest: true,
      missingLists: ['none'],
      unknownHandles: ['mira'],
    })
  })

  it('finds where the tail begins that no part has room for, in the text as typed', async () => {
    const head = Array.from({ length: 600 }, (_, i) => 'abcdefgh'[i % 8]).join(' ')
    const text = `# note\n{a|long} ${head} and the tail`
    const reading = await read(text)
    expect(reading.limit).toBe(8 * 77)
    expect(reading.tokens).toBeGreaterThan(reading.limit)
    const tail = text.slice(reading.unreadFrom)
    expect(tokenizer.encode(tail)).toHaveLength(1 + 600 + 3 - 600)
    expect(text.endsWith(tail)).toBe(true)
    expect(tail).toMatch(/^h and the tail$/)
  })

  it('finds it without blanks between words, too', async () => {
    const text = '狐'.repeat(1500)
    const { unreadFrom } = await read(text)
    expect(unreadFrom).toBeGreaterThan(100)
    expect(unreadFrom).toBeLessThan(1500)
  })

  it('keeps places through marks of another length', () => {
    const expanded = expandPrompt('ab {c|dd} ef', { choose: chooseLongest, linesOf: () => undefined })
    expect(textOf(expanded)).toBe('ab dd ef')
    expect(placeInTemplate(expanded, textOf(expanded).indexOf('ef'))).toBe(10)
    expect(placeInTemplate(expanded, 3)).toBe(6)
    expect(placeInTemplate(expanded, 99)).toBe(12)
  })
})
