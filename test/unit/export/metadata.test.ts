import { describe, expect, test } from 'vitest'
import {
  a1111Text,
  a1111TextOf,
  parseA1111,
  recipeChunks,
  recipeOf,
  type Recipe,
} from '../../../main/export/metadata.ts'
import { encodePng, readPng } from '../../../main/export/png.ts'
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
