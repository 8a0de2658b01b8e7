import { createHash } from 'node:crypto'
import { VignetteError } from '../../models/errors.ts'
import type { AdapterInfo } from '../../models/adapters/types.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { limits, modeNames, samplerNames, scheduleNames, type ModeName } from '../../preload/limits.ts'
import type { AdapterUse, GenerateRequest } from '../../preload/contract/generate.ts'
import type { FourBitReport } from '../../preload/contract/models.ts'
import { adapterInfos } from '../engine/adapter-infos.ts'
import { fillBatch, fillFromAdapters } from '../engine/presets.ts'
import type { BatchPicture, DeviceChoice, EngineJob } from '../engine/protocol.ts'
import { checkRequest, fillDefaults, type FilledRequest } from '../engine/request.ts'
import { recipeOf } from '../export/metadata.ts'
import { parseAdapter, readBatch, withTextWeights } from './adapter-option.ts'
import { findModel } from './find-model.ts'
import { checkWritable, numbered, outputFile, writeWhole } from './picture-file.ts'
import { duration, numberOption, runCli, type CommandSpec, type ParsedArguments, type Terminal } from './terminal.ts'

const devices = ['auto', 'cpu', 'gpu'] as const satisfies DeviceChoice[]

const spec = {
  command: 'npm run generate --',
  positionals: '"PROMPT"',
  summary:
    'Draws a picture and saves it as a PNG that carries its recipe. The same command with the same seed gives the same file.',
  options: {
    out: { value: 'FILE', help: 'where to save it; vignette-SEED.png when left out. An existing file is replaced' },
    model: { value: 'NAME', help: 'an installed model; "starter" comes with Vignette' },
    negative: { value: 'TEXT', help: 'what should not be in the picture' },
    size: { value: 'WxH', help: "width and height in pixels, multiples of 8; the model's own size when left out" },
    steps: { value: 'N', help: 'how often the drawing is refined' },
    seed: { value: 'N', help: 'start of the noise, 0 to 4294967295; random and printed when left out' },
    count: { value: 'N', help: 'that many pictures with consecutive seeds: FILE, FILE-2, FILE-3 …' },
    'guidance-scale': { value: 'X', help: 'how strictly to follow the prompt; 1 = off' },
    'guidance-rescale': { value: 'X', help: 'against burnt colours at high guidance, 0 to 1; 0 = off' },
    sampler: { value: 'NAME', help: samplerNames.join(', ') },
    schedule: { value: 'NAME', help: scheduleNames.join(', ') },
    'clip-skip': { value: 'N', help: 'which block of the text encoder to read, 1 = last' },
    adapter: {
      value: 'FILE[:WEIGHT[@START-END]]',
      help: 'an adapter (LoRA and kin), as strong as it prefers or as WEIGHT says, for all steps or for a share of them: ink.safetensors:0.8@0.2-0.8. May be given several times',
    },
    'adapter-text-weight': {
      value: 'X',
      help: 'how strongly adapters change how the prompt is read; as WEIGHT when left out. Once, or once for each adapter',
    },
    batch: {
      value: 'FILE',
      help: 'draw the pictures of a JSON list side by side: [{ "prompt": …, "negativePrompt": …, "seed": …, "guidanceScale": …, "adapters": ["ink.safetensors:0.8"] }, …]',
    },
    speed: {
      value: 'NAME',
      help: 'exact (when left out), faster: nearly the same picture in two thirds of the time, or fastest: roughly the same in half',
    },
    init: { value: 'FILE', help: 'a picture to start from' },
    strength: { value: 'X', help: 'with --init: 0 keeps the picture, 1 ignores it; 0.6 when left out' },
    mask: { value: 'FILE', help: 'with --init: a picture, white where it may change' },
    device: { value: 'NAME', help: 'auto (when left out), cpu or gpu' },
    mode: {
      value: 'NAME',
      help: 'how a 4-bit model runs on the processor: fast or low-memory; what suits this computer when left out',
    },
    verbose: { help: 'also say what was found out about this computer' },
  },
  example: 'npm run generate -- "a red barn at dusk" --steps 20 --seed 7 --out barn.png',
  notes: 'Exit code: 0 done, 2 wrong option or value, 130 stopped with Ctrl-C, 1 anything else.',
} as const satisfies CommandSpec<string>

type Option = keyof typeof spec.options

const phaseNames = {
  loading: 'loading the model',
  encoding: 'reading the prompt',
  denoising: 'drawing',
  decoding: 'developing',
  saving: 'saving',
}
const verdictNames: Record<FourBitReport['verdict'], string> = {
  graphics: 'on the graphics card',
  fast: 'in fast mode',
  'low-memory': 'in low-memory mode',
  plain: 'not here',
}
/** Share of one picture's time that is over when a phase begins; about right for the CPU, where decoding is dear. */
const phaseShares = { loading: 0, encoding: 0, denoising: 0.02, decoding: 0.88, saving: 0.99 }

await runCli<Option>(spec, async (args, terminal) => {
  const startedAt = performance.now()
  const { options, isOn } = args
  const device = oneOf('device', devices, options.device) ?? 'auto'
  const mode = oneOf('mode', modeNames, options.mode)
  // Everything that can be wrong is looked at before anything heavy is loaded.
  const list = options.batch === undefined ? undefined : await readBatch(options.batch, limits.maxCount)
  const typed = requestFrom(args, list)
  const asked = checkRequest(typed)
  // Every picture of a list is checked as if it were asked for alone.
  const pictures = list?.map((picture, i) => checkPicture(typed, picture, i))
  const model = await findModel(asked.model, terminal)
  const { request, batch, notices } = await withAdapters(asked, pictures, model)
  const count = batch?.length ?? request.count
  const file = await outputFile(options.out, `vignette-${request.seed}.png`)
  for (let index = 0; index < count; index++) await checkWritable(numbered(file, index))

  const isRandom = options.seed === undefined
  terminal.say(
    `${count === 1 ? 'One picture' : `${count} pictures`} of ${request.width} × ${request.height}, ${request.steps} steps, ` +
      `${model.manifest.name}, seed ${request.seed}${isRandom ? ' (random)' : ''}`,
  )
  for (const notice of notices) terminal.say(notice)
  const settings = { device, ...(mode ? { mode } : {}), isVerbose: isOn('verbose') }
  const job = { id: 'command', modelFolder: model.folder, request, ...(batch ? { batch } : {}) }
  const { images, report, usedMode } = await draw(job, settings, file, terminal)
  if (terminal.signal.aborted) return
  // Timings go here and not into the picture, whose bytes depend on the request alone.
  const totalMs = Math.round(performance.now() - startedAt)
  for (const image of images) terminal.say(`${image.file}${count > 1 ? `  seed ${image.seed}` : ''}`)
  const how = usedMode ? ` in ${usedMode} mode` : ''
  terminal.say(`Done in ${duration(totalMs)} on ${report.name}${how}.`)
  terminal.result({ images, model: model.manifest.id, request, device: report, mode: usedMode, totalMs })
})

/** The options as the contract's request; what was left out stays out, for the model's defaults. */
function requestFrom(
  { positionals, options, all }: ParsedArguments<Option>,
  list: readonly { prompt?: unknown }[] | undefined,
): Record<string, unknown> {
  const number = (name: Option) => numberOption(name, options[name])
  if (list && options.count !== undefined) {
    throw new VignetteError('bad-request', '--count and --batch cannot be used together.', {
      hint: 'Write every picture into the list.',
    })
  }
  const textWeights = all('adapter-text-weight').map((text) => numberOption('adapter-text-weight', text) as number)
  const adapters = withTextWeights(
    all('adapter').map((text) => parseAdapter(text)),
    textWeights,
  )
  const request: Record<string, unknown> = {
    // Quotes forgotten: meant as one prompt. A list has prompts of its own.
    prompt: positionals.join(' ') || list?.find(({ prompt }) => prompt !== undefined)?.prompt || '',
    ...(adapters.length > 0 ? { adapters } : {}),
    negativePrompt: options.negative,
    model: options.model,
    ...sizeFrom(options.size),
    steps: number('steps'),
    seed: number('seed'),
    count: number('count'),
    guidanceScale: number('guidance-scale'),
    guidanceRescale: number('guidance-rescale'),
    sampler: options.sampler,
    schedule: options.schedule,
    clipSkip: number('clip-skip'),
    speed: options.speed,
    initImage: options.init,
    strength: number('strength'),
    maskImage: options.mask,
    preview: 'off',
  }
  return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined))
}

/** A picture of a list with all that it leaves to the command; says which one is wrong. */
function checkPicture(typed: Record<string, unknown>, picture: object, i: number): BatchPicture {
  try {
    const { prompt, negativePrompt, seed, guidanceScale, adapters } = checkRequest({
      ...typed,
      seed: undefined,
      ...picture,
    })
    const own = { prompt, negativePrompt, seed, guidanceScale, adapters }
    return Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined))
  } catch (error) {
    if (!(error instanceof VignetteError)) throw error
    throw new VignetteError(error.code, `Picture ${i + 1}: ${error.message}`, { hint: error.hint })
  }
}

/** Reads the headers of all adapters, lets them decide what was left open, and the model the rest. */
async function withAdapters(
  asked: GenerateRequest,
  pictures: readonly BatchPicture[] | undefined,
  { folder, manifest }: { folder: string; manifest: ModelManifest },
): Promise<{ request: FilledRequest; batch?: BatchPicture[]; notices: string[] }> {
  const files = [asked, ...(pictures ?? [])].flatMap(({ adapters }) => adapters ?? []).map(({ file }) => file)
  const known = await adapterInfos(folder, files)
  const infosOf = (adapters: readonly AdapterUse[]) => adapters.map(({ file }) => known.get(file) as AdapterInfo)
  if (!pictures) {
    const { request, notices } = fillFromAdapters(asked, manifest, infosOf(asked.adapters))
    return { request: fillDefaults(request, manifest), notices }
  }
  const { request, batch, notices } = fillBatch(asked, pictures, manifest, infosOf)
  return { request: fillDefaults(request, manifest), batch, notices }
}

function sizeFrom(text: string | undefined): { width?: number; height?: number } {
  if (text === undefined) return {}
  const match = /^(\d+)\s*[x×X*]\s*(\d+)$/.exec(text.trim())
  if (!match) throw new VignetteError('bad-request', `Expected --size to look like 512x512, got "${text}".`)
  return { width: Number(match[1]), height: Number(match[2]) }
}

/** The value of an option that takes one of a few words. */
function oneOf<T extends string>(name: Option, choices: readonly T[], value: string | undefined): T | undefined {
  if (value === undefined) return undefined
  const found = choices.find((choice) => choice === value)
  if (found !== undefined) return found
  throw new VignetteError('bad-request', `There is no ${name} "${value}".`, {
    hint: `Choose one of: ${choices.join(', ')}.`,
  })
}

type DrawSettings = { device: DeviceChoice; mode?: ModeName; isVerbose: boolean }
type SavedImage = { file: string; seed: number; width: number; height: number; sha256: string }

/** Runs the job in this process and saves every picture as it comes; finished ones stay when the rest is stopped. */
async function draw(job: EngineJob, { device, mode, isVerbose }: DrawSettings, file: string, terminal: Terminal) {
  const count = job.batch?.length ?? job.request.count
  const { connectDirect } = await import('../engine/direct.ts')
  const engine = connectDirect({ device, mode })
  const images: SavedImage[] = []
  let usedMode: string | undefined
  const stop = () => engine.cancel('command')
  terminal.signal.addEventListener('abort', stop)
  try {
    const report = await engine.device()
    if (device !== 'cpu' || isVerbose) terminal.say(`${report.name}: ${report.reason}`)
    if (isVerbose && report.fourBit)
      terminal.say(`4-bit models: ${verdictNames[report.fourBit.verdict]} (${report.fourBit.reason})`)
    for await (const event of engine.run(job)) {
      switch (event.type) {
        case 'phase':
          terminal.progress.update(
            `${phaseNames[event.phase]}${of(event.index, count, job)}`,
            share(event.index, phaseShares[event.phase], count),
          )
          break
        case 'resumed':
        case 'step':
          terminal.progress.update(
            `step ${event.step} of ${event.steps}${of(event.index, count, job)}`,
            share(
              event.index,
              phaseShares.denoising + (event.step / event.steps) * (phaseShares.decoding - phaseShares.denoising),
              count,
            ),
          )
          break
        case 'applied':
          break // the phase that follows says that it goes on
        case 'notice':
          terminal.say(event.message)
          break
        case 'image': {
          const target = numbered(file, event.index)
          await writeWhole(target, event.png)
          const sha256 = createHash('sha256').update(event.png).digest('hex')
          usedMode = recipeOf(event.png)?.engine.mode
          images.push({ file: target, seed: event.seed, width: event.width, height: event.height, sha256 })
          break
        }
        case 'failed':
          throw new VignetteError(event.error.code, event.error.message, { hint: event.error.hint })
        case 'finished':
        case 'cancelled':
          break
        default:
          event satisfies never
      }
    }
    return { images, report, usedMode }
  } finally {
    terminal.signal.removeEventListener('abort', stop)
    await engine.stop()
  }
}

function share(index: number, part: number, count: number): number {
  return (index + part) / count
}

function of(index: number, count: number, { batch }: EngineJob): string {
  if (batch) return `, ${count} pictures side by side`
  return count === 1 ? '' : `, picture ${index + 1} of ${count}`
}
