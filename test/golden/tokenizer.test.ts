import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { createTokenizer } from '../../main/pipeline/tokenizer.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'

const cases = JSON.parse(
  gunzipSync(readFileSync(new URL('./tokenizer.json.gz', import.meta.url))).toString('utf8'),
) as [string, number[]][]

test('gives the ids of transformers’ CLIPTokenizer for every string', async () => {
  const tokenizer = createTokenizer(await readClipMerges())
  expect(cases.length).toBeGreaterThan(500)
  const wrong = cases
    .map(([text, expected]) => ({ text, expected, actual: tokenizer.encode(text) }))
    .filter(({ expected, actual }) => expected.join() !== actual.join())
  expect(wrong).toEqual([])
})

test('reads a typed end mark as plain characters', async () => {
  const tokenizer = createTokenizer(await readClipMerges())
  expect(tokenizer.encode('a cat <|endoftext|> a dog')).not.toContain(49407)
})

test('takes the packed file as bytes or by path', async () => {
  const file = new URL('../../models/tokenizer/clip-merges.txt.gz', import.meta.url)
  expect(await readClipMerges(new Uint8Array(readFileSync(file)))).toBe(await readClipMerges(file))
})
