import { beforeAll, describe, expect, test } from 'vitest'
import type { LoadedAdapter } from '../../../main/pipeline/adapter-types.ts'
import { encodePrompts } from '../../../main/pipeline/conditioning.ts'
import { embeddingWords, splitAtWords, vectorInputs } from '../../../main/pipeline/embeddings.ts'
import { chunkPrompt, frameChunk, parsePrompt } from '../../../main/pipeline/prompt.ts'
import { createSlots } from '../../../main/pipeline/slots.ts'
import { tensor, type FloatTensor, type IdTensor } from '../../../main/pipeline/tensor.ts'
import { createTokenizer, type Tokenizer } from '../../../main/pipeline/tokenizer.ts'
import type { Networks } from '../../../main/pipeline/types.ts'
import { readClipMerges } from '../../../models/tokenizer/load.ts'
import { numbers } from './fake-adapters.ts'
import { gaussianNetworks } from './gaussian-networks.ts'

let tokenizer: Tokenizer
beforeAll(async () => {
  tokenizer = createTokenizer(await readClipMerges())
})

const width = 6
function wordAdapter(words: Record<string, number>, sha256 = 'aa'): LoadedAdapter {
  const embeddings = Object.entries(words).map(([word, count], i) => {
    const vectors = tensor(numbers(count * width, i + 1), [count, width])
    return [word, { text_encoder: vectors, text_encoder_2: vectors }] as const
  })
  return { name: sha256, sha256, layers: {}, embeddings: new Map(embeddings) }
}
const pieces = (text: string, words: Record<string, number>) =>
  splitAtWords(text, embeddingWords([wordAdapter(words)])).map((piece) =>
    typeof piece === 'string' ? piece : [piece.word],
  )

describe('words of embeddings in a prompt', () => {
  test('are found as wholes, in any case, the longest first', () => {
    expect(pieces('a photo of <s1>, at dusk', { '<s1>': 1 })).toEqual(['a photo of ', ['<s1>'], ', at dusk'])
    expect(pieces('EasyNegative, bad', { easynegative: 2 })).toEqual(['', ['easynegative'], ', bad'])
    expect(pieces('an inky inkpot, ink', { ink: 1 })).toEqual(['an inky inkpot, ', ['ink'], ''])
    expect(pieces('bad-hands-5', { 'bad-hands': 1, 'bad-hands-5': 2 })).toEqual(['', ['bad-hands-5'], ''])
    expect(pieces('a (b) [c] d.e', { 'd.e': 1 })).toEqual(['a (b) [c] ', ['d.e'], ''])
    expect(pieces('dxe', { 'd.e': 1 })).toEqual(['dxe'])
    expect(pieces('a<s1>cat', { '<s1>': 1 })).toEqual(['a', ['<s1>'], 'cat'])
    expect(pieces('ein schöner tag', { schön: 1 })).toEqual(['ein schöner tag'])
  })

  test('take as many places as they have vectors, with the weight of their brackets, and the end mark stands behind', () => {
    const words = embeddingWords([wordAdapter({ fable: 3 })])
    const { chunks } = chunkPrompt(parsePrompt('a (fable:1.3) fox'), tokenizer, words)
    expect(chunks).toHaveLength(1)
    const framed = frameChunk(chunks[0], 49407)
    expect(framed.eosIndex).toBe(6)
    expect(framed.ids.slice(0, 8)).toEqual([49406, 320, 0, 0, 0, 3240, 49407, 49407])
    expect(framed.weights.slice(0, 7)).toEqual([1, 1, 1.3, 1.3, 1.3, 1, 1])
    expect(framed.vectors.map((place) => place?.index)).toEqual([undefined, undefined, 0, 1, 2, ...Array(72)])
    const { token_vectors, token_mask } = vectorInputs(framed.vectors, 'text_encoder', width)
    expect([...token_mask.data.slice(0, 7)]).toEqual([0, 0, 1, 1, 1, 0, 0])
    expect(token_vectors.data.slice(2 * width, 5 * width)).toEqual(words[0].vectors.text_encoder!.data)
    expect(token_vectors.shape).toEqual([1, 77, width])
  })

  test('are not cut at the end of a chunk', () => {
    const words = embeddingWords([wordAdapter({ fable: 4 })])
    const { chunks } = chunkPrompt(parsePrompt(`${'cat '.repeat(72)}fable dog`), tokenizer, words)
    expect(chunks.map((chunk) => chunk.length)).toEqual([72, 5])
    expect(chunks[1].map(({ vector }) => vector?.index)).toEqual([0, 1, 2, 3, undefined])
    const { chunks: exact } = chunkPrompt(parsePrompt(`${'cat '.repeat(71)}fable dog`), tokenizer, words)
    expect(exact.map((chunk) => chunk.length)).toEqual([75, 1])
  })

  test('are refused when they cannot be: too many vectors, two adapters for one word, towers that disagree', () => {
    const long = embeddingWords([wordAdapter({ fable: 76 })])
    expect(() => chunkPrompt(parsePrompt('fable'), tokenizer, long)).toThrow('stands for 76 vectors')
    expect(() => embeddingWords([wordAdapter({ Ink: 1 }), wordAdapter({ ink: 1 }, 'bb')])).toThrow('Two adapters bring')
    const uneven = {
      text_encoder: tensor(new Float32Array(6), [1, 6]),
      text_encoder_2: tensor(new Float32Array(12), [2, 6]),
    }
    const odd = { name: 'odd', sha256: 'cc', layers: {}, embeddings: new Map([['ink', uneven]]) }
    expect(() => embeddingWords([odd])).toThrow('1 and 2 vectors')
  })
})

describe('through the text encoder', () => {
  type Fed = Record<string, FloatTensor | IdTensor>
  const encode = async (prompt: string, adapter: LoadedAdapter, negativePrompt = '', texts?: Networks['texts']) => {
    const runs: Fed[] = []
    const inner = gaussianNetworks({ family: 'sdxl' })
    const networks: Networks = {
      ...inner,
      ...(texts ? { texts } : {}),
      run(network, inputs, outputs) {
        runs.push({ ...inputs })
        return inner.run(network, inputs, outputs)
      },
    }
    const slots = { text_encoder: createSlots('text_encoder', []), text_encoder_2: createSlots('text_encoder_2', []) }
    const conditioning = await encodePrompts(networks, tokenizer, {
      pictures: [{ prompt, negativePrompt, guided: true, weights: new Map([[adapter, 1]]) }],
      ...{ clipSkip: 1, width: 64, height: 64, slots },
    })
    return { runs, conditioning }
  }

  test('both towers get their vectors, in the negative prompt too; without a word there are none, and that is said', async () => {
    const adapter = wordAdapter({ fable: 2, grain: 1 })
    const { runs, conditioning } = await encode('a fable', adapter, 'grain')
    expect(runs).toHaveLength(4)
    const masked = runs.map(({ token_mask }) =>
      [...(token_mask as FloatTensor).data].flatMap((on, i) => (on ? [i] : [])),
    )
    expect(masked).toEqual([[1], [2, 3], [1], [2, 3]])
    expect(conditioning.notices).toEqual([])
    // The fake pooled vector starts with the place of the end mark.
    expect(conditioning.rows.map(({ pooled }) => pooled?.data[0])).toEqual([2, 4])
    const without = await encode('a fox', adapter)
    expect(without.conditioning.notices).toEqual([
      '"fable" is in neither prompt, so what it stands for has no effect.',
      '"grain" is in neither prompt, so what it stands for has no effect.',
    ])
  })
})
