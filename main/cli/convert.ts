import { existsSync } from 'node:fs'
import { basename, extname, join, resolve } from 'node:path'
import type { ConvertProgress } from '../../models/checkpoint/convert.ts'
import { convertCheckpoint, predictionProbe } from '../../models/checkpoint/convert.ts'
import { VignetteError } from '../../models/errors.ts'
import { families } from '../../models/family.ts'
import { modelHome } from '../../models/home.ts'
import { duration, runCli, type CommandSpec } from './terminal.ts'

const spec = {
  command: 'npm run convert --',
  positionals: 'FILE.safetensors|FOLDER',
  summary:
    'Imports a Stable Diffusion 1.x, 2.x or XL model: a single checkpoint file, or a folder in the diffusers layout.',
  options: {
    name: { value: 'NAME', help: "what to call it; the file's name when left out" },
    to: { value: 'FOLDER', help: 'the new model folder; one among the installed models when left out' },
    storage: { value: 'fp16|fp32', help: 'precision of the weights on disk; as in the source when left out' },
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
  if (storage !== undefined && storage !== 'fp16' && storage !== 'fp32') {
    throw new VignetteError('bad-request', `There is no storage "${storage}".`, { hint: 'Choose fp16 or fp32.' })
  }
  const stem = basename(resolve(source))
  const name = options.name ?? (/\.(safetensors|sft)$/i.test(stem) ? stem.slice(0, -extname(stem).length) : undefined)
  const folder = options.to === undefined ? await freeFolder(name ?? stem, isOn('replace')) : resolve(options.to)
  terminal.say(`Importing ${source} into ${folder}`)
  const manifest = await convertCheckpoint(source, folder, {
    ...(storage === undefined ? {} : { storage }),
    ...(name === undefined ? {} : { name }),
    replace: isOn('replace'),
    signal: terminal.signal,
    onProgress: ({ phase, fraction, bytes, totalBytes }) =>
      terminal.progress.update(
        totalBytes > 0 ? `${phases[phase]}, ${gigabytes(bytes)} of ${gigabytes(totalBytes)}` : phases[phase],
        fraction,
      ),
    probe: probePrediction,
  })
  const seconds = performance.now() - startedAt
  terminal.say(
    `${manifest.name}: ${families[manifest.family].name}, ${manifest.nativeSize.width} × ${manifest.nativeSize.height}, ` +
      `${manifest.storage}, ${gigabytes(manifest.weightBytes)}, ready in ${duration(seconds)}.`,
  )
  terminal.say(
    `Try it: npm run generate -- "a red barn at dusk" --model ${options.to === undefined ? manifest.id : folder}`,
  )
  terminal.result({ folder, manifest, totalMs: Math.round(seconds) })
})

/** A folder among the installed models, named after the model in plain letters. */
async function freeFolder(name: string, isReplacing: boolean): Promise<string> {
  const id =
    name
      .normalize('NFKD')
      .replace(/[^\w.-]+/g, '-')
      .replace(/^[-.]+|[-.]+$/g, '')
      .slice(0, 64)
      .toLowerCase() || 'model'
  if (id === 'starter')
    throw new VignetteError('bad-request', '"starter" is the model that comes with Vignette.', {
      hint: 'Choose another name with --name.',
    })
  const folder = join(modelHome(), id)
  if (existsSync(folder) && !isReplacing) {
    throw new VignetteError('bad-request', `There is already a model called "${id}" (${folder}).`, {
      hint: 'Choose another name with --name, or add --replace.',
    })
  }
  return folder
}

/** Runs the UNet once on a constant picture: the answer shows what it was trained to predict. */
async function probePrediction(folder: string): Promise<number> {
  const { openNetworks } = await import('../engine/networks.ts')
  const networks = openNetworks(folder)
  const { manifest } = networks
  try {
    const filled = (shape: number[], value: number) => ({
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
      shape,
    })
    const [n, , h, w] = predictionProbe.sample
    const context = [predictionProbe.context[0], predictionProbe.context[1], manifest.textEncoders[0].width]
    const { out_sample: out } = await networks.run('unet', {
      sample: filled([n, manifest.latents.channels, h, w], predictionProbe.value),
      timestep: filled([n], predictionProbe.timestep),
      encoder_hidden_states: filled(context, predictionProbe.value),
    })
    return out.data.reduce((sum, value) => sum + value - predictionProbe.value, 0) / out.data.length
  } finally {
    await networks.release()
  }
}
