import { resolve } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { gigabytes } from '../engine/memory.ts'
import { quantizeModel } from '../engine/quantize-model.ts'
import { findModel } from './find-model.ts'
import { freeFolder } from './model-place.ts'
import { qualityLine, quantizeStep } from './quantize-text.ts'
import { duration, numberOption, runCli, type CommandSpec } from './terminal.ts'

const spec = {
  command: 'npm run quantize --',
  positionals: 'MODEL',
  summary:
    'Makes a 4-bit version of an installed model: a quarter of the disk and memory, and faster on the processor. The model itself stays as it is.',
  options: {
    name: { value: 'NAME', help: 'what to call the new one; the model\'s name and "4 bit" when left out' },
    to: { value: 'FOLDER', help: 'the new model folder; one among the installed models when left out' },
    rank: { value: 'N', help: 'rank of the 16-bit branch beside each 4-bit layer, 0 to 256; by layer when left out' },
    'no-calibration': { help: 'look at the weights only: quicker, but less true to the model' },
    replace: { help: 'replace a model of the same name' },
  },
  example: 'npm run quantize -- dreamy-8',
  notes:
    'A run that was killed goes on where it stopped when the same command runs again. Ctrl-C leaves nothing behind.',
} as const satisfies CommandSpec<string>

const largestRank = 256

await runCli<keyof typeof spec.options>(spec, async ({ positionals, options, isOn }, terminal) => {
  const startedAt = performance.now()
  const [model, ...more] = positionals
  if (model === undefined || more.length > 0) {
    throw new VignetteError(
      'bad-request',
      model === undefined ? 'Which model should be stored in four bits?' : 'Only one model can be done at a time.',
      { hint: spec.example },
    )
  }
  const rank = numberOption('rank', options.rank)
  if (rank !== undefined && !(Number.isInteger(rank) && rank >= 0 && rank <= largestRank)) {
    throw new VignetteError('bad-request', `Expected --rank to be a whole number from 0 to ${largestRank}.`)
  }
  const found = await findModel(model, terminal)
  const folder =
    options.to === undefined
      ? freeFolder(options.name ?? `${found.manifest.id}-4bit`, isOn('replace'))
      : resolve(options.to)
  terminal.say(`Storing ${found.manifest.name} in four bits in ${folder}`)
  const { manifest, quality } = await quantizeModel(found.folder, folder, {
    ...(options.name === undefined ? {} : { name: options.name }),
    experiment: rank === undefined ? {} : { rank },
    calibration: !isOn('no-calibration'),
    replace: isOn('replace'),
    signal: terminal.signal,
    onProgress: (progress) => terminal.progress.update(quantizeStep(progress), progress.fraction),
  })
  const totalMs = Math.round(performance.now() - startedAt)
  terminal.say(
    `${manifest.name}: ${gigabytes(found.manifest.weightBytes)} became ${gigabytes(manifest.weightBytes)}, ready in ${duration(totalMs)}.`,
  )
  terminal.say(qualityLine(quality))
  terminal.say(
    `Try it: npm run generate -- "a red barn at dusk" --model ${options.to === undefined ? manifest.id : folder}`,
  )
  terminal.result({ folder, manifest, quality, totalMs })
})
