import { readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { suggestionCard } from '../../models/adapters/cards.ts'
import { compareAdapters, type Conflict } from '../../models/adapters/conflict.ts'
import type { Change } from '../../models/adapters/overlap.ts'
import { comparable, readChanges } from '../../models/adapters/deltas.ts'
import { inspectAdapter } from '../../models/adapters/read.ts'
import type { AdapterInfo, ModelShape } from '../../models/adapters/types.ts'
import { VignetteError } from '../../models/errors.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { openNetworks } from '../engine/networks.ts'
import { suggestAdapters } from '../pipeline/suggest.ts'
import { createTextVectors } from '../pipeline/text-vectors.ts'
import { createTokenizer } from '../pipeline/tokenizer.ts'
import type { AdapterArguments } from './adapter-spec.ts'
import { expectCount, openAdapter, shapeOf, stemOf } from './adapter-files.ts'
import { findModel } from './find-model.ts'
import type { Terminal } from './terminal.ts'

/** `compare FILE FILE`: how far two adapters change the same things. */
export async function compare({ positionals, options }: AdapterArguments, terminal: Terminal): Promise<void> {
  expectCount(positionals, 2, 'Which two adapters should be compared?', 'compare ink.safetensors fox.safetensors')
  const model = await shapeOf(options.model, terminal)
  const [a, b] = positionals
  const first = await openAdapter(a, model)
  const changes = [await changesOf(a, first.shape), await changesOf(b, first.shape)]
  const conflict = compareAdapters(changes[0], changes[1])
  terminal.say(`${stemOf(a)} and ${stemOf(b)}: ${conflict.overlap.toFixed(2)} of 1. ${conflict.words}`)
  for (const line of table(conflict)) terminal.say(line)
  const { sparse } = conflict
  if (sparse)
    terminal.say(`Sparse: AWOM ${sparse.awom.toPrecision(3)}, AWOR ${sparse.awor.toFixed(4)} (1: nothing in common)`)
  terminal.result(conflict)
}

async function changesOf(file: string, shape: ModelShape): Promise<Change[]> {
  const { adapter } = await openAdapter(file, shape)
  const changes = comparable(await readChanges(adapter, shape))
  if (changes.length > 0) return changes
  throw new VignetteError('adapter-mismatch', `${stemOf(file)} has no layers that can be compared.`, {
    hint: 'Convert it first: npm run adapter -- convert FILE --rank 32 --model MODEL',
  })
}

function table({ blocks }: Conflict): string[] {
  const rows = [
    ['block', 'overlap', 'inputs', 'outputs', 'agreement', 'layers'],
    ...blocks.map(({ target, block, overlap, input, output, agreement, shared, layers }) => [
      target === 'unet' ? block : `${target} ${block}`,
      ...[overlap, input, output, agreement].map((value) => value.toFixed(2)),
      `${shared} of ${layers}`,
    ]),
  ]
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)))
  return rows.map(
    (row) => `  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  ')}`,
  )
}

/** `suggest "PROMPT" --from FOLDER`: which adapters the prompt asks for. Nothing is put on. */
export async function suggest({ positionals, options }: AdapterArguments, terminal: Terminal): Promise<void> {
  expectCount(positionals, 1, 'For which prompt?', 'suggest "a fox, ink wash style" --from adapters')
  if (options.from === undefined)
    throw new VignetteError('bad-request', 'Among which adapters?', {
      hint: 'Say in which folder they are with --from.',
    })
  const [prompt] = positionals
  const { folder } = await findModel(options.model ?? 'starter', terminal)
  const shape = await shapeOf(folder, terminal)
  const infos: AdapterInfo[] = []
  for (const file of await adaptersIn(resolve(options.from))) infos.push(await inspectAdapter(file, shape))
  if (infos.length === 0)
    throw new VignetteError('file-unreadable', `There are no adapters in ${options.from}.`, {
      hint: 'Adapters are files that end in .safetensors.',
    })
  const networks = openNetworks(folder)
  try {
    const vectors = createTextVectors(networks, createTokenizer(await readClipMerges()))
    const cards = infos.map((info) => suggestionCard(info))
    const first = await suggestAdapters(prompt, cards, { vectors })
    // Only those that are up for choice are read whole, which takes a moment each.
    const overlaps = await overlapsOf(
      first.suggestions.map(({ id }) => id),
      shape!,
    )
    const conflict = (a: string, b: string) => overlaps.get([a, b].sort().join('\n'))
    const { suggestions, declined } = await suggestAdapters(prompt, cards, { vectors, conflict })
    if (suggestions.length === 0) terminal.say('The prompt asks for none of these adapters.')
    for (const { id, title, weight, reason } of suggestions) {
      terminal.say(`${title} at ${weight}: ${reason}`)
      terminal.say(`  --adapter ${id}:${weight}`)
    }
    for (const { title, why } of declined) terminal.say(`Not ${title}: ${why}`)
    terminal.result({ suggestions, declined })
  } finally {
    await networks.release?.()
  }
}

async function adaptersIn(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true })
  return names
    .filter((name) => /\.(safetensors|sft)$/i.test(name))
    .sort()
    .map((name) => join(folder, name))
}

/** How far each pair of files changes the same things, by both names; pairs that cannot be compared are left out. */
async function overlapsOf(files: readonly string[], shape: ModelShape): Promise<Map<string, number>> {
  const overlaps = new Map<string, number>()
  if (files.length < 2) return overlaps
  const changes = await Promise.all(files.map((file) => changesOf(file, shape).catch(() => undefined)))
  files.forEach((a, i) =>
    files.slice(0, i).forEach((b, j) => {
      const [x, y] = [changes[i], changes[j]]
      if (x && y) overlaps.set([a, b].sort().join('\n'), compareAdapters(x, y).overlap)
    }),
  )
  return overlaps
}
