import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { pathToFileURL } from 'node:url'
import type { Catalogue } from '../renderer/strings.ts'

/** A text of the window: for one that depends on a count `one` is the English singular. */
export type Text = { text: string; one?: string; file: string }

const literal =
  String.raw`(?:'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)"|` +
  '`' +
  String.raw`((?:[^` +
  '`' +
  String.raw`\\$]|\\.)*)` +
  '`)'
const texts = new RegExp(String.raw`\b(?:t|marked)\(\s*${literal}`, 'g')
// tn(count, 'one', 'many'): the count may hold brackets of its own, one deep.
const counted = new RegExp(String.raw`\btn\(\s*(?:[^(),]|\([^()]*\))+,\s*${literal},\s*${literal}`, 'g')

/** The texts in a source file that go through t(), tn() or marked() as literals. */
export function textsIn(source: string, file = ''): Text[] {
  const plain = (...found: (string | undefined)[]) =>
    (found.find((one) => one !== undefined) ?? '').replace(/\\(.)/g, '$1')
  const single = [...source.matchAll(texts)].map(([, a, b, c]) => ({ text: plain(a, b, c), file }))
  const many = [...source.matchAll(counted)].map(([, a, b, c, d, e, f]) => ({
    text: plain(d, e, f),
    one: plain(a, b, c),
    file,
  }))
  return [...single, ...many]
}

/** Every text of the window, each once, by file. */
export async function allTexts(folder = 'renderer'): Promise<Text[]> {
  const files = (await readdir(folder, { recursive: true })).filter(
    (file) => /\.(ts|svelte)$/.test(file) && !/^strings(\.ts|[\\/])/.test(file),
  )
  const lists = await Promise.all(
    files.sort().map(async (file) => textsIn(await readFile(join(folder, file), 'utf8'), file)),
  )
  const seen = new Set<string>()
  return lists.flat().filter(({ text }) => !seen.has(text) && seen.add(text))
}

/** What a catalogue lacks, what it holds for nothing, and what lost or gained a mark such as {name}. */
export function gapsOf(
  catalogue: Catalogue,
  all: readonly Text[],
): { missing: Text[]; unused: string[]; marks: string[] } {
  const marksIn = (text: string) => [...new Set(text.match(/\{\w+\}/g))].sort().join(' ')
  const known = new Map(all.map((one) => [one.text, one]))
  return {
    missing: all.filter(({ text }) => !(text in catalogue)),
    unused: Object.keys(catalogue).filter((text) => !known.has(text)),
    marks: Object.entries(catalogue)
      .filter(([text, value]) => {
        const forms = typeof value === 'string' ? [value] : Object.values(value)
        // A singular may say "one" where others have the number.
        const without = (words: string) => (typeof value === 'string' ? words : words.replaceAll('{n}', ''))
        return forms.some((form) => marksIn(without(form)) !== marksIn(without(text)))
      })
      .map(([text]) => text),
  }
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { help: { type: 'boolean', short: 'h' } },
  })
  if (values.help) {
    console.log(
      'The texts of the window. With a catalogue, what that lacks.\n\n  npx tsx scripts/strings.ts renderer/strings/de.ts',
    )
    return
  }
  const all = await allTexts()
  if (positionals.length === 0) {
    for (const { text, file } of all) console.log(`${file}\t${text}`)
    console.log(`${all.length} texts`)
    return
  }
  for (const file of positionals) {
    const { words } = (await import(pathToFileURL(file).href)) as { words: Catalogue }
    const { missing, unused, marks } = gapsOf(words, all)
    for (const { text, file: where } of missing) console.log(`lacks\t${where}\t${text}`)
    for (const text of unused) console.log(`unused\t${text}`)
    for (const text of marks) console.log(`other marks\t${text}`)
    console.log(`${file}: ${all.length - missing.length} of ${all.length} texts`)
    if (missing.length + marks.length > 0) process.exitCode = 1
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main()
