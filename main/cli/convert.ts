import { basename, extname, resolve } from 'node:path'
import type { ConvertProgress } from '../../models/checkpoint/convert.ts'
import { convertCheckpoint } from '../../models/checkpoint/convert.ts'
import { VignetteError } from '../../models/errors.ts'
import { families } from '../../models/family.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import type { QuantizeResult } from '../engine/quantize-model.ts'
import { freeFolder } from './model-place.ts'
import { qualityLine, quantizeStep } from './quantize-text.ts'
import { duration, runCli, type CommandSpec } from './terminal.ts'

const spec = {
  command: 'npm run convert --',
  positionals: 'FILE.safetensors|FOLDER',
  summary:
    'Imports a Stable Diffusion 1.x, 2.x or XL model: a single checkpoint file, or a folder in the diffusers layout.',
  options: {
    name: { value: 'NAME', help: "what to call it; the file's name when left out" },
    to: { value: 'FOLDER', help: 'the new model folder; one among the installed models when left out' },
    storage: {
      value: 'fp16|fp32|int4',
      help: 'precision of the weights on disk; as in the source when left out; int4 takes a while (see npm run quantize)',
    },
    replace: { help: 'replace a model of the same name' },
  },
  example: 'npm run convert -- dreamy-v8.safetensors --name "Dreamy 8"',
  notes:
    'An import that was killed goes on where it stopped when the same command runs again. Ctrl-C leaves nothing behind.',
} as const satisfies CommandSpec<string>

const phases: Record<ConvertProgress['phase'], string> = {
  checking: 'checking the file',
  copying: 'copying weights',
  building: 'building graphs',
}
const gigabytes = (bytes: number) =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`

await runCli<keyof typeof spec.options>(spec, async ({ positionals, options, isOn }, terminal) => {
  const startedAt = performance.now()
  const [source, ...more] = positionals
  if (source === undefined || more.length > 0) {
    throw new VignetteError(
      'bad-request',
      source === undefined ? 'Which file should be imported?' : 'Only one model can be imported at a time.',
      {
        hint: spec.example,
      },
    )
  }
  const storage = options.storage
  if (storage !== undefined && storage !== 'fp16' && storage !== 'fp32' && storage !== 'int4') {
    throw new VignetteError('bad-request', `There is no storage "${storage}".`, { hint: 'Choose fp16, fp32 or int4.' })
  }
  const stem = basename(resolve(source))
  const name = options.name ?? (/\.(safetensors|sft)$/i.test(stem) ? stem.slice(0, -extname(stem).length) : undefined)
  const folder = options.to === undefined ? freeFolder(name ?? stem, isOn('replace')) : resolve(options.to)
  terminal.say(`Importing ${source} into ${folder}`)
  const showImport = ({ phase, fraction, bytes, totalBytes }: ConvertProgress) =>
    terminal.progress.update(
      totalBytes > 0 ? `${phases[phase]}, ${gigabytes(bytes)} of ${gigabytes(totalBytes)}` : phases[phase],
      fraction,
    )
  const common = {
    ...(name === undefined ? {} : { name }),
    replace: isOn('replace'),
    signal: terminal.signal,
    probe: async (target: string) => (await import('../engine/probe-prediction.ts')).probePrediction(target),
  }
  let manifest: ModelManifest
  let quality: QuantizeResult['quality'] | undefined
  if (storage === 'int4') {
    const { convertToInt4 } = await import('../engine/convert-int4.ts')
    const result = await convertToInt4(source, folder, {
      ...common,
      onImport: showImport,
      onQuantize: (progress) => terminal.progress.update(quantizeStep(progress), progress.fraction),
    })
    manifest = result.manifest
    quality = result.quality
  } else {
    manifest = await convertCheckpoint(source, folder, {
      ...common,
      storage: storage ?? 'auto',
      onProgress: showImport,
    })
  }
  const seconds = performance.now() - startedAt
  terminal.say(
    `${manifest.name}: ${families[manifest.family].name}, ${manifest.nativeSize.width} × ${manifest.nativeSize.height}, ` +
      `${manifest.storage}, ${gigabytes(manifest.weightBytes)}, ready in ${duration(seconds)}.`,
  )
  if (quality) terminal.say(qualityLine(quality))
  terminal.say(
    `Try it: npm run generate -- "a red barn at dusk" --model ${options.to === undefined ? manifest.id : folder}`,
  )
  terminal.result({ folder, manifest, ...(quality ? { quality } : {}), totalMs: Math.round(seconds) })
})
