import { beforeAll, expect, test } from 'vitest'
import { encodePrompts, type ConditioningOptions, type PictureText } from '../../../main/pipeline/conditioning.ts'
import { stack } from '../../../main/pipeline/tensor.ts'
import { createTokenizer, type Tokenizer } from '../../../main/pipeline/tokenizer.ts'
import type { Networks } from '../../../main/pipeline/types.ts'
import { readClipMerges } from '../../../models/tokenizer/load.ts'
import { expectClose } from '../../expect-close.ts'
import { gaussianNetworks } from './gaussian-networks.ts'

let tokenizer: Tokenizer
beforeAll(async () => {
  tokenizer = createTokenizer(await readClipMerges())
})

type Changes = Partial<PictureText & Pick<ConditioningOptions, 'clipSkip'>>

/** One picture's rows [negative, positive], or [positive], as one tensor. */
async function encode({ clipSkip = 1, ...text }: Changes, networks: Networks = gaussianNetworks()) {
  const picture = { prompt: 'a red barn', negativePrompt: '', guided: true, ...text }
  const options = { pictures: [picture], clipSkip, width: 96, height: 64 }
  const { rows, ...rest } = await encodePrompts(networks, tokenizer, options)
  const pooled = rows.every((row) => row.pooled) ? stack(rows.map((row) => row.pooled!)) : undefined
  return { ...rest, context: stack(rows.map(({ context }) => context)), pooled }
}
const mean = (values: Float32Array) => values.reduce((sum, value) => sum + value, 0) / values.length

test('rows are negative and positive; without guidance only the positive', async () => {
  const both = await encode({ negativePrompt: 'a barn' })
  const swapped = await encode({ prompt: 'a barn', negativePrompt: 'a red barn' })
  const alone = await encode({ guided: false })
  expect(both.context.shape).toEqual([2, 77, 6])
  expect(alone.context.shape).toEqual([1, 77, 6])
  const half = both.context.data.length / 2
  expect(both.context.data.slice(half)).toEqual(alone.context.data)
  expect(swapped.context.data.slice(0, half)).toEqual(alone.context.data)
})

test('the shorter prompt is padded with empty chunks', async () => {
  const long = 'cat '.repeat(100)
  const { context } = await encode({ prompt: long })
  expect(context.shape).toEqual([2, 154, 6])
  const empty = (await encode({ prompt: '', guided: false })).context.data
  expect(context.data.slice(0, empty.length)).toEqual(empty)
  expect(context.data.slice(empty.length, 2 * empty.length)).toEqual(empty)
})

test('weights scale their tokens and leave the mean of the chunk as it was', async () => {
  const plain = (await encode({ prompt: 'a red barn', guided: false })).context.data
  const weighted = (await encode({ prompt: 'a (red:1.5) barn', guided: false })).context.data
  expect(mean(weighted)).toBeCloseTo(mean(plain), 6)
  const ratio = (token: number) => weighted[token * 6] / plain[token * 6]
  expect(ratio(2) / ratio(1)).toBeCloseTo(1.5, 5) // start, a, red, barn
  expect(ratio(3)).toBeCloseTo(ratio(1), 5)
})

test('clip skip counts blocks from the last, with the final norm; the first block is the lowest', async () => {
  const inner = gaussianNetworks()
  const all: Float32Array[] = []
  const networks: Networks = {
    ...inner,
    async run(...call) {
      const outputs = await inner.run(...call)
      all.push(outputs.normed_states.data)
      return outputs
    },
  }
  for (const [clipSkip, block] of [
    [1, 2],
    [2, 1],
    [12, 1],
  ]) {
    const { context } = await encode({ clipSkip, guided: false }, networks)
    expect(context.data).toEqual(all[0].slice(block * context.data.length, (block + 1) * context.data.length))
  }
})

test('SDXL joins both towers before the last norm, adds the pooled vector and the sizes', async () => {
  const xl = await encode({ negativePrompt: 'a barn' }, gaussianNetworks({ family: 'sdxl' }))
  expect(xl.context.shape).toEqual([2, 77, 12])
  expect(xl.pooled?.shape).toEqual([2, 6])
  expect(xl.timeIds).toEqual([64, 96, 0, 0, 64, 96])
  // The fake pooled vector starts with the position of the first end mark: start, words, end.
  expect([xl.pooled?.data[0], xl.pooled?.data[6]]).toEqual([3, 4])
  const skipped = await encode({ negativePrompt: 'a barn', clipSkip: 2 }, gaussianNetworks({ family: 'sdxl' }))
  expect(skipped.context.data).toEqual(xl.context.data)
})

test('an empty negative prompt is zeros on SDXL, and encoded elsewhere', async () => {
  const xl = await encode({}, gaussianNetworks({ family: 'sdxl' }))
  const half = xl.context.data.length / 2
  expect(xl.context.data.subarray(0, half).every((value) => value === 0)).toBe(true)
  expect(xl.context.data.subarray(half).some((value) => value !== 0)).toBe(true)
  expect(xl.pooled?.data.subarray(0, 6)).toEqual(new Float32Array(6))
  const sd = await encode({})
  expectClose(
    sd.context.data.subarray(0, sd.context.data.length / 2),
    (await encode({ prompt: '', guided: false })).context.data,
    { abs: 0 },
  )
})

test('pads with the token of each tower', async () => {
  const seen: bigint[] = []
  const inner = gaussianNetworks({ family: 'sdxl' })
  const networks: Networks = {
    ...inner,
    run(network, inputs, outputs) {
      if (network.startsWith('text_encoder')) seen.push((inputs.input_ids.data as BigInt64Array)[76])
      return inner.run(network, inputs, outputs)
    },
  }
  await encode({ guided: false }, networks)
  expect(seen).toEqual([49407n, 0n])
})

test('says what it did not read', async () => {
  const { notices } = await encode({ prompt: 'cat '.repeat(700), negativePrompt: '<lora:x:1>' })
  expect(notices).toHaveLength(2)
  expect(notices[0]).toBe('The prompt is too long: its last 100 words or parts of words were not read.')
})
