// Which art may be read, and what recolouring does. Run with `npm test` in models/train.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadSet } from '../atlas.js'
import { ART, COLOURS, checkArt } from '../art/allowlist.js'
import { hexToRgb, hslToHex, rgbToHsl } from '../art/colour.js'
import { recolour } from '../art/recolour.js'
import { raster } from '../art/svg.js'
import { clipVocabulary } from '../vocabulary.js'

test('share-alike art is refused, listed or not', () => {
  assert.throws(() => checkArt('@iconify-json/openmoji', '1.2.29', 'CC-BY-SA-4.0'), /share-alike/)
  assert.throws(() => checkArt('@iconify-json/noto', '1.2.9', 'CC-BY-SA-4.0'), /share-alike/)
  assert.throws(() => checkArt('@iconify-json/noto', '1.2.9', 'GPL-3.0'), /share-alike/)
})

test('art outside the list, in another version or under another licence is refused', () => {
  assert.throws(() => checkArt('@iconify-json/fxemoji', '1.2.2', 'Apache-2.0'), /not on the list/)
  assert.throws(() => checkArt('@iconify-json/noto', '1.3.0', 'Apache-2.0'), /expected version/)
  assert.throws(() => checkArt('@iconify-json/noto', '1.2.9', 'MIT'), /expected Apache-2\.0/)
})

test('the installed sets state the licences we rely on', () => {
  for (const style of Object.keys(ART) as (keyof typeof ART)[]) assert.ok(Object.keys(loadSet(style).icons).length > 1000)
})

test('colours survive the way to HSL and back', () => {
  for (const hex of Object.values(COLOURS)) {
    const back = hexToRgb(hslToHex(rgbToHsl(hexToRgb(hex))))
    hexToRgb(hex).forEach((v, i) => assert.ok(Math.abs(v - back[i]!) <= 1))
  }
})

test('recolouring changes the main colour and leaves the eyes', async () => {
  const svg =
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" width="WW" height="WW">' +
    '<rect width="10" height="10" fill="#f0862e"/><rect width="5" height="10" fill="#d06a1e"/><circle cx="5" cy="5" r="1" fill="#111111"/></svg>'
  const blue = await recolour(svg, COLOURS.blue!)
  assert.ok(blue.includes('#111111'))
  assert.ok(!blue.includes('#f0862e') && !blue.includes('#d06a1e'))
  const pixels = await raster(blue, 10)
  assert.ok(pixels[2]! > pixels[0]!, 'more blue than red')
})

test('the vocabulary is built in the order of the published tokenizer', () => {
  const { vocabulary, merges } = clipVocabulary(['#version', 'i n', 't h', ...Array<string>(48_892).fill('a b'), 'too many'].join('\n'))
  assert.equal(merges.length, 48_894)
  assert.equal(vocabulary['!'], 0)
  assert.equal(vocabulary['!</w>'], 256)
  assert.equal(vocabulary['in'], 512)
  assert.equal(vocabulary['<|endoftext|>'], 49_407)
})
