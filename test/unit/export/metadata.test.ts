import { describe, expect, test } from 'vitest'
import {
  a1111Text,
  adapterTagsOf,
  a1111TextOf,
  completeRequest,
  parseA1111,
  recipeChunks,
  recipeOf,
  type AdapterReference,
  type Recipe,
} from '../../../main/export/metadata.ts'
import { encodePng, readPng } from '../../../main/export/png.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import { noisePicture } from './pictures.ts'

const recipe: Recipe = {
  version: 1,
  app: 'Vignette 0.1.0',
  engine: { runtime: 'onnxruntime 1.30.0', provider: 'cpu' },
  model: { id: 'starter', name: 'Starter', family: 'sd15', sha256: '0123456789abcdef'.repeat(4) },
  request: {
    prompt: 'a red barn',
    negativePrompt: 'blur',
    model: 'starter',
    width: 512,
    height: 320,
    steps: 20,
    seed: 4294967295,
    sampler: 'dpmpp_2m',
    schedule: 'karras',
    guidanceScale: 6.5,
    guidanceRescale: 0,
    clipSkip: 2,
    strength: 0.6,
    speed: 'exact',
  },
  pixelSha256: 'f'.repeat(64),
}

const withPrompts = (prompt: string, negativePrompt: string): Recipe => ({
  ...recipe,
  request: { ...recipe.request, prompt, negativePrompt },
})
const pngOf = (of: Recipe) => encodePng(noisePicture(4, 4), recipeChunks(of))

/** Prompts made of everything that means something in the format. */
const pieces = [
  'a barn',
  ', ',
  ': ',
  '\n',
  '"',
  '\\',
  '\\"',
  'é',
  '🐈',
  '\u200b',
  'Negative prompt:',
  'Negative prompt: x',
  'Steps: 20',
  'Steps: 20, Sampler: Euler, CFG scale: 7',
  'a: b, cc: d, ee: f, gg: h',
  '<lora:ink:0.7>',
  '(word:1.3)',
  ' ',
  '\t',
  '  Negative prompt: ',
  '{"a":1}',
  'Size: 1x1',
]

function* randomTexts(count: number): Generator<string> {
  let state = 7
  const next = (below: number) => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8) % below
  for (let i = 0; i < count; i++) yield Array.from({ length: next(9) }, () => pieces[next(pieces.length)]).join('')
}

describe('recipe in a PNG', () => {
  test('comes back exactly, whatever the prompts hold', () => {
    const texts = [
      ...randomTexts(400),
      'null \0 byte',
      'lone \ud800 surrogate',
      'crlf\r\nline',
      'Negative prompt: at the start',
    ]
    for (let i = 0; i + 1 < texts.length; i++) {
      const written = withPrompts(texts[i], texts[i + 1])
      expect(recipeOf(pngOf(written))).toEqual(written)
    }
  })

  test('is undefined when there is none, when it is no JSON, or when it makes no sense', () => {
    const hold = (text: string) => encodePng(noisePicture(4, 4), [{ keyword: 'vignette', text }])
    expect(recipeOf(encodePng(noisePicture(4, 4)))).toBeUndefined()
    for (const text of [
      '',
      '{',
      'null',
      '[]',
      '3',
      '{"version":1}',
      JSON.stringify({ ...recipe, request: { prompt: 3 } }),
    ]) {
      expect(recipeOf(hold(text)), text).toBeUndefined()
    }
  })

  test('of a version that knew no speeds is one of an exact picture', () => {
    const text = JSON.stringify({ ...recipe, request: { ...recipe.request, speed: undefined } }) // JSON leaves it out
    expect(recipeOf(encodePng(noisePicture(4, 4), [{ keyword: 'vignette', text }]))?.request.speed).toBe('exact')
  })

  test('keeps what a later version adds and drops from the request what this one does not know', () => {
    const later = { ...recipe, version: 2, extra: 1, request: { ...recipe.request, unknown: 'x' } }
    const found = recipeOf(encodePng(noisePicture(4, 4), [{ keyword: 'vignette', text: JSON.stringify(later) }]))
    expect(found).toEqual({ ...later, request: recipe.request })
  })

  test('says for IPTC readers that a trained model made it', () => {
    expect(readPng(pngOf(recipe)).texts.get('XML:com.adobe.xmp')).toContain('digitalsourcetype/trainedAlgorithmicMedia')
  })
})

describe('A1111 parameters', () => {
  test('are written as that program writes them', () => {
    expect(a1111Text(recipe)).toBe(
      'a red barn\nNegative prompt: blur\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 4294967295, ' +
        'Size: 512x320, Model hash: 0123456789, Model: Starter, Clip skip: 2, Version: Vignette 0.1.0',
    )
  })

  test('leave out the negative prompt when there is none and quote names with commas, colons and quotes', () => {
    const odd = withPrompts('x', '')
    odd.model = { ...odd.model, name: 'Ink: "wet", v2\\' }
    expect(a1111Text(odd)).not.toContain('Negative')
    expect(a1111Text(odd)).toContain('Model: "Ink: \\"wet\\", v2\\\\"')
    expect(parseA1111(a1111Text(odd)).parameters.get('Model')).toBe('Ink: "wet", v2\\')
  })

  test('give both prompts and all pairs back, whatever the prompts hold', () => {
    const texts = [...randomTexts(1000)]
    for (let i = 0; i + 1 < texts.length; i++) {
      const read = a1111TextOf(pngOf(withPrompts(texts[i], texts[i + 1])))
      // PNG text knows no tabulator, and every reader trims.
      const plain = (text: string) => text.replaceAll('\t', ' ').trim()
      expect(read?.prompt).toBe(plain(texts[i]))
      expect(read?.negativePrompt).toBe(plain(texts[i + 1]))
      expect(read?.parameters.get('Seed')).toBe('4294967295')
      expect(read?.parameters.get('Version')).toBe('Vignette 0.1.0')
    }
  })

  test('never hold a prompt line that a reader would take for a mark', () => {
    for (const text of randomTexts(1000)) {
      const lines = a1111Text(withPrompts(text, '')).split('\n').slice(0, -1)
      for (const line of lines) expect(line.trim()).not.toMatch(/^(Negative prompt:|Steps:)/)
    }
  })

  test('of other programs are read: several lines, CRLF, a quoted list, no parameter line', () => {
    const read = parseA1111(
      'a cat,\r\non a mat\r\nNegative prompt: dog\r\nbird\r\nSteps: 28, Sampler: Euler a, CFG scale: 7.0, Seed: 1, Size: 768x512, Lora hashes: "ink: 0123abcd, wash: 4567", Version: v1.9.4',
    )
    expect(read.prompt).toBe('a cat,\non a mat')
    expect(read.negativePrompt).toBe('dog\nbird')
    expect(read.parameters.get('Lora hashes')).toBe('ink: 0123abcd, wash: 4567')
    expect(read.parameters.get('Size')).toBe('768x512')
    expect(parseA1111('just: words')).toEqual({ prompt: 'just: words', negativePrompt: '', parameters: new Map() })
  })

  test('are read in time that grows with their length', () => {
    const started = performance.now()
    parseA1111('a'.repeat(1_000_000))
    parseA1111('ab:"'.repeat(250_000))
    parseA1111('a b '.repeat(250_000))
    expect(performance.now() - started).toBeLessThan(3000)
  })
})

describe('adapters', () => {
  const ink: AdapterReference = {
    name: 'ink wash.safetensors',
    sha256: 'ab'.repeat(32),
    weight: 0.7,
    textWeight: 0.7,
    start: 0,
    end: 0.5,
    ramp: 'ease-in',
    matched: 190,
    total: 192,
  }
  const fox: AdapterReference = {
    ...ink,
    name: 'fox',
    sha256: 'cd'.repeat(32),
    weight: 1,
    textWeight: 0.25,
    rankBudget: 8,
  }
  const word: AdapterReference = { ...ink, name: 'fable', sha256: 'ef'.repeat(32), isEmbedding: true }
  const guidance: AdapterReference = { ...ink, name: 'one pass', sha256: '12'.repeat(32), isGuidance: true }
  const with4: Recipe = { ...recipe, adapters: [ink, fox, word, guidance] }

  test('come back with the recipe; a picture without any says nothing of them', () => {
    expect(recipeOf(pngOf(with4))).toEqual(with4)
    expect(recipeChunks(recipe)[1].text).not.toContain('adapters')
    expect(
      recipeOf(
        pngOf({
          ...recipe,
          adapters: [
            {
              ...ink,
              ramp: [
                [0, 1],
                [0.5, 0.2],
                [1, 0],
              ],
            },
          ],
        }),
      )?.adapters?.[0].ramp,
    ).toEqual([
      [0, 1],
      [0.5, 0.2],
      [1, 0],
    ])
  })

  test('that make no sense are no recipe', () => {
    for (const wrong of [
      { weight: 99 },
      { start: -1 },
      { name: 3 },
      { sha256: '../../etc' },
      { matched: '1' },
      { ramp: 'up' },
      { weight: undefined },
    ]) {
      const text = JSON.stringify({ ...recipe, adapters: [{ ...ink, ...wrong }] })
      expect(
        recipeOf(encodePng(noisePicture(4, 4), [{ keyword: 'vignette', text }])),
        JSON.stringify(wrong),
      ).toBeUndefined()
    }
    for (const adapters of [{}, 'ink', [null], [3]]) {
      const text = JSON.stringify({ ...recipe, adapters })
      expect(recipeOf(encodePng(noisePicture(4, 4), [{ keyword: 'vignette', text }]))).toBeUndefined()
    }
  })

  test('leave no path in the file', () => {
    const request = {
      ...recipe.request,
      adapters: [{ file: '/home/ada/secret/ink.safetensors' }],
      count: 1,
      preview: 'off',
    }
    const complete = completeRequest(GenerateRequest.parse(request))
    expect(JSON.stringify(complete)).not.toContain('secret')
    expect(complete).toEqual(recipe.request)
  })

  test('are tags and hashes for other programs, which have none for words and guidance', () => {
    expect(a1111Text(with4)).toBe(
      'a red barn <lora:ink_wash:0.7> <lora:fox:0.25:1>\nNegative prompt: blur\nSteps: 20, Sampler: DPM++ 2M, ' +
        'Schedule type: Karras, CFG scale: 6.5, Seed: 4294967295, Size: 512x320, Model hash: 0123456789, Model: Starter, ' +
        'Clip skip: 2, Lora hashes: "ink_wash: abababababab, fox: cdcdcdcdcdcd", TI hashes: "fable: efefefefefef", Version: Vignette 0.1.0',
    )
  })

  test('are read back from such a text, and the prompt without them', () => {
    const read = adapterTagsOf(parseA1111(a1111Text(with4)))
    expect(read.prompt).toBe('a red barn')
    expect(read.adapters).toEqual([
      { name: 'ink_wash', weight: 0.7, textWeight: 0.7, start: 0, end: 1, hash: 'abababababab' },
      { name: 'fox', weight: 1, textWeight: 0.25, start: 0, end: 1, hash: 'cdcdcdcdcdcd' },
    ])
    const other = adapterTagsOf(parseA1111('a cat <lora:ink> and <lyco:wash:-.5@0.2-0.8>, <hypernet:x:1> mat'))
    expect(other.prompt).toBe('a cat and, <hypernet:x:1> mat')
    expect(other.adapters).toEqual([
      { name: 'ink', weight: 1, textWeight: 1, start: 0, end: 1 },
      { name: 'wash', weight: -0.5, textWeight: -0.5, start: 0.2, end: 0.8 },
    ])
  })

  test('names cannot break the text', () => {
    const odd = { ...ink, name: 'a<b>:c,"d"\n.safetensors' }
    const read = parseA1111(a1111Text({ ...recipe, adapters: [odd] }))
    expect(adapterTagsOf(read)).toEqual({
      prompt: 'a red barn',
      adapters: [{ name: 'a_b_c_d_', weight: 0.7, textWeight: 0.7, start: 0, end: 1, hash: 'abababababab' }],
    })
    expect(read.parameters.get('Version')).toBe('Vignette 0.1.0')
  })
})
