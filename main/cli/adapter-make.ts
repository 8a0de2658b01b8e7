import { mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { contentHash } from '../../models/adapters/content-hash.ts'
import { asLowRank, notesOf } from '../../models/adapters/convert.ts'
import { readChanges, scaled } from '../../models/adapters/deltas.ts'
import { extractLora, extractSparse } from '../../models/adapters/extract.ts'
import { inverseMetadata, readInverse } from '../../models/adapters/inverse.ts'
import { mergeAdapters, type Member } from '../../models/adapters/merge.ts'
import { sparseMasks, sparseTensors } from '../../models/adapters/sparse.ts'
import { writeSplit } from '../../models/adapters/split.ts'
import type { ModelShape } from '../../models/adapters/types.ts'
import { writeAdapter, writeTensors, type AdapterNotes } from '../../models/adapters/write.ts'
import { readSafetensors } from '../../models/checkpoint/safetensors.ts'
import { VignetteError } from '../../models/errors.ts'
import type { MatMul } from '../../models/quantize/algebra.ts'
import { physicalCores } from '../engine/networks.ts'
import { openMatMul } from '../engine/quantize-matmul.ts'
import type { AdapterArguments } from './adapter-spec.ts'
import {
  beside,
  bytesOf,
  expectCount,
  newFile,
  openAdapter,
  percent,
  rankOption,
  shapeOf,
  stemOf,
  withWeights,
} from './adapter-files.ts'
import { parseAdapter } from './adapter-option.ts'
import { numberOption, type Terminal } from './terminal.ts'

async function withMatMul<T>(work: (matMul: MatMul) => Promise<T>): Promise<T> {
  const runtime = await openMatMul(physicalCores())
  try {
    return await work(runtime.matMul)
  } finally {
    await runtime.release()
  }
}

/** `convert FILE --to LAYOUT`: the same adapter for other programs, or a smaller one. */
export async function convert({ positionals, options, isOn }: AdapterArguments, terminal: Terminal): Promise<void> {
  expectCount(positionals, 1, 'Which adapter should be converted?', 'convert ink.safetensors --to kohya')
  const { to = 'kohya' } = options
  if (!['kohya', 'diffusers', 'vignette'].includes(to))
    throw new VignetteError('bad-request', `There is no layout "${to}".`, {
      hint: 'Choose kohya, diffusers or vignette.',
    })
  const [source] = positionals
  const rank = rankOption(options.rank)
  const { adapter, shape } = await openAdapter(source, await shapeOf(options.model, terminal))
  const out = await newFile(options.out, beside(source, `${stemOf(source)}-${rank ? `r${rank}` : to}`), [source])
  const low = await withMatMul((matMul) => {
    const onProgress = (fraction: number) => terminal.progress.update('converting', fraction)
    const settings = { matMul, onProgress, ...(rank === undefined ? {} : { rank }) }
    if (
      options.model === undefined ||
      adapter.parts.every(({ kind, tensors }) => kind === 'lora' && !tensors.magnitude)
    )
      return asLowRank(adapter, shape, settings)
    return withWeights(options.model, terminal, (base) => asLowRank(adapter, shape, { ...settings, base }))
  })
  const notes = await notesOf(adapter.info)
  const layout = to === 'diffusers' ? 'diffusers' : 'kohya'
  const storage = await writeAdapter(out, low.layers, {
    ...{ shape, layout, storage: isOn('fp32') ? 'F32' : 'F16' },
    notes: { ...notes, ...(options.name === undefined ? {} : { title: options.name }) },
  })
  for (const notice of [...low.notices, ...ignoredNotice(adapter.ignored)]) terminal.say(notice)
  terminal.say(`${low.layers.length} layers in ${out}, ${await bytesOf(out)}; left out: ${percent(low.error)}`)
  terminal.result({ file: out, layers: low.layers.length, error: low.error, storage, notices: low.notices })
}

const ignoredNotice = (ignored: readonly string[]) =>
  ignored.length === 0 ? [] : [`${ignored.length} tensors fit nowhere and are left out, first ${ignored[0]}.`]

/** `merge FILE[:WEIGHT] …`: several adapters in one. */
export async function merge({ positionals, options, isOn }: AdapterArguments, terminal: Terminal): Promise<void> {
  if (positionals.length < 2)
    throw new VignetteError('bad-request', 'Which adapters should become one? There must be two at least.', {
      hint: 'npm run adapter -- merge ink.safetensors:0.8 fox.safetensors --out inkfox.safetensors',
    })
  if (options.out === undefined)
    throw new VignetteError('bad-request', 'Where should the merged adapter go?', { hint: 'Say so with --out FILE.' })
  const model = await shapeOf(options.model, terminal)
  const rank = rankOption(options.rank)
  const keepInverse = isOn('keep-inverse')
  const members: Member[] = []
  const notes: AdapterNotes[] = []
  let shape: ModelShape | undefined
  for (const text of positionals) {
    const { file, weight = 1 } = parseAdapter(text)
    const opened = await openAdapter(file, model ?? shape)
    shape ??= opened.shape
    const { layers, sparse, others, biases } = await readChanges(opened.adapter, opened.shape)
    if (sparse.length + others.length > 0)
      throw new VignetteError(
        'adapter-mismatch',
        `${stemOf(file)} is no sum of low ranks (${opened.adapter.info.kinds.join(', ')}).`,
        {
          hint: `Convert it first: npm run adapter -- convert ${file} --rank 32 --model MODEL`,
        },
      )
    if (biases.length > 0) terminal.say(`${stemOf(file)}: changes of ${biases.length} biases are left out.`)
    const { metadata, tensors } = await readSafetensors(opened.adapter.info.file)
    const sha256 = await contentHash(tensors)
    members.push({ name: stemOf(file), layers, weight, sha256, metadata: Object.fromEntries(metadata) })
    notes.push(await notesOf(opened.adapter.info))
  }
  const out = await newFile(
    options.out,
    '',
    positionals.map((text) => parseAdapter(text).file),
  )
  const merged = await mergeAdapters(members, {
    ...{ keepInverse, signal: terminal.signal },
    onProgress: (fraction) => terminal.progress.update('merging', fraction),
    ...(rank === undefined ? {} : { rank }),
  })
  await writeAdapter(out, merged.layers, {
    shape: shape!,
    storage: isOn('fp32') || keepInverse ? 'F32' : 'F16',
    notes: {
      title: options.name ?? members.map(({ name }) => name).join(' + '),
      triggers: [...new Set(notes.flatMap(({ triggers = [] }) => triggers))],
      tags: [...new Set(notes.flatMap(({ tags = [] }) => tags))],
      weight: 1,
      more: {
        'modelspec.merged_from': members.map(({ name, weight }) => `${name}:${weight}`).join(', '),
        ...(merged.inverse ? inverseMetadata(merged.inverse) : {}),
      },
    },
  })
  const ranks = merged.layers.map((layer) => layer.rank)
  terminal.say(
    `${merged.layers.length} layers of rank ${Math.min(...ranks)} to ${Math.max(...ranks)} in ${out}, ${await bytesOf(out)}`,
  )
  if (rank !== undefined)
    terminal.say(
      `Left out: ${percent(merged.error)}${merged.worst ? `, most at ${merged.worst.path} (${percent(merged.worst.error)})` : ''}`,
    )
  for (const { name, error } of merged.inverse?.members ?? [])
    terminal.say(`${name} comes out again ${error === 0 ? 'as it was' : `with an error of ${percent(error)}`}.`)
  const errors = merged.inverse?.members.map(({ name, error }) => ({ name, error }))
  terminal.result({
    file: out,
    layers: merged.layers.length,
    error: merged.error,
    ...(errors ? { members: errors } : {}),
  })
}

/** `split FILE --out FOLDER`: the adapters out of a merged file. */
export async function split({ positionals, options }: AdapterArguments, terminal: Terminal): Promise<void> {
  expectCount(positionals, 1, 'Which file should be taken apart?', 'split inkfox.safetensors --out parts')
  const [source] = positionals
  const inverse = readInverse((await readSafetensors(resolve(source))).metadata, source)
  if (!inverse)
    throw new VignetteError('adapter-mismatch', `${stemOf(source)} does not hold what is needed to take it apart.`, {
      hint: 'Only files that were merged with --keep-inverse do.',
    })
  const { adapter, shape } = await openAdapter(source, await shapeOf(options.model, terminal))
  const { layers } = await readChanges(adapter, shape)
  const folder = resolve(options.out ?? beside(source, `${stemOf(source)}-parts`))
  await mkdir(folder, { recursive: true })
  const files = []
  for (const [i, { name, sha256, error }] of inverse.members.entries()) {
    // Names come out of a file of whoever made it.
    const plain = name.replace(/[^\p{L}\p{N} _-]+/gu, '_').slice(0, 80) || 'adapter'
    const isTaken = inverse.members.slice(0, i).some((other) => other.name === name)
    const file = await newFile(join(folder, isTaken ? `${plain}-${i + 1}` : plain), '', [source])
    const { isOriginal } = await writeSplit(file, inverse, i, layers, shape)
    const isSame = isOriginal && (await contentHash((await readSafetensors(file)).tensors)) === sha256
    const how = isSame ? 'as it was, bit for bit' : isOriginal ? 'the layers as they were' : `error ${percent(error)}`
    terminal.say(`${file}: ${how}`)
    files.push({ file, name, isSame, error })
  }
  terminal.result(files)
}

/** `extract`: a low-rank adapter out of two models, or a sparse one out of a low-rank one. */
export async function extract(args: AdapterArguments, terminal: Terminal): Promise<void> {
  expectCount(args.positionals, 0, '', 'extract --base A --tuned B --out b.safetensors')
  if (args.options.sparse !== undefined) return sparse(args, terminal)
  const { base: baseName, tuned: tunedName, name } = args.options
  if (baseName === undefined || tunedName === undefined)
    throw new VignetteError('bad-request', 'Between which two models is the difference?', {
      hint: 'npm run adapter -- extract --base MODEL --tuned MODEL --rank 32 --out FILE',
    })
  const rank = rankOption(args.options.rank) ?? 32
  const out = await newFile(args.options.out, `${stemOf(tunedName)}-r${rank}`, [baseName, tunedName])
  await withWeights(baseName, terminal, (base) =>
    withWeights(tunedName, terminal, async (tuned) => {
      const found = await withMatMul((matMul) =>
        extractLora(base, tuned, {
          ...{ rank, matMul, signal: terminal.signal },
          onProgress: (fraction) => terminal.progress.update('comparing layers', fraction),
        }),
      )
      const more: Record<string, string> = base.sha256 === undefined ? {} : { vignette_base_sha256: base.sha256 }
      const notes = { title: name ?? tuned.name, weight: 1, more }
      await writeAdapter(out, found.layers, { shape: base.shape, storage: args.isOn('fp32') ? 'F32' : 'F16', notes })
      const [worst] = [...found.errors].sort((a, b) => b.error - a.error)
      terminal.say(`${found.layers.length} layers of at most rank ${rank} in ${out}, ${await bytesOf(out)}`)
      terminal.say(`Left out: ${percent(found.error)}, most at ${worst.path} (${percent(worst.error)})`)
      if (found.leftOut.length > 0)
        terminal.say(`Biases, norms and embeddings cannot be in it; ${found.leftOut.length} of them differ.`)
      const { layers, error, errors, unchanged, leftOut } = found
      terminal.result({ file: out, layers: layers.length, error, errors, unchanged, leftOut })
    }),
  )
}

async function sparse({ options }: AdapterArguments, terminal: Terminal): Promise<void> {
  const mask = sparseMasks.find((known) => known === options.sparse)
  if (!mask)
    throw new VignetteError('bad-request', `There is no mask "${options.sparse}".`, {
      hint: 'Choose wm (the largest weights), rand, struct (rows and the diagonal) or largest (the largest changes).',
    })
  const { from } = options
  if (from === undefined)
    throw new VignetteError('bad-request', 'Which low-rank adapter should become sparse?', {
      hint: 'npm run adapter -- extract --sparse wm --from ink.safetensors --model MODEL',
    })
  const model = options.model ?? options.base
  const { adapter, shape } = await openAdapter(from, await shapeOf(model, terminal))
  const rank = rankOption(options.rank) ?? 32
  const out = await newFile(options.out, beside(from, `${stemOf(from)}-${mask}`), [from])
  const changes = await readChanges(adapter, shape)
  const layers = changes.layers.map(scaled)
  if (layers.length === 0)
    throw new VignetteError('adapter-mismatch', `${stemOf(from)} has no low-rank layers.`, { hint: 'Choose a LoRA.' })
  const found = await withMatMul((matMul) => {
    const settings = { mask, rank, matMul, seed: numberOption('seed', options.seed) ?? 1 }
    const onProgress = (fraction: number) => terminal.progress.update('choosing weights', fraction)
    if (model === undefined) return extractSparse(layers, { ...settings, onProgress })
    return withWeights(model, terminal, (base) => extractSparse(layers, { ...settings, base, onProgress }))
  })
  const { tensors, metadata } = sparseTensors(found.layers)
  const { info } = adapter
  await writeTensors(out, tensors, {
    ...metadata,
    vignette_title: options.name ?? `${info.title ?? info.name} (${mask})`,
    vignette_role: info.role,
    ...(info.triggers.length > 0 ? { vignette_trigger: info.triggers.join(', ') } : {}),
    ...(info.preferredWeight === undefined ? {} : { vignette_weight: String(info.preferredWeight) }),
  })
  const places = found.errors.reduce((sum, layer) => sum + layer.places, 0)
  terminal.say(`${places} weights of ${found.layers.length} layers in ${out}, ${await bytesOf(out)}`)
  terminal.say(`Left out of the adapter's change: ${percent(found.error)}`)
  if (model === undefined)
    terminal.say('Without --model the file has no check values: it can be put on any model of this kind.')
  terminal.result({ file: out, layers: found.layers.length, places, error: found.error, errors: found.errors })
}
