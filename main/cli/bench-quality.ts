import { spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { VignetteError } from '../../models/errors.ts'
import { readClipMerges } from '../../models/tokenizer/load.ts'
import { GenerateRequest } from '../../preload/contract/generate.ts'
import type { ModeName, SpeedName } from '../../preload/limits.ts'
import { ensureFastForm } from '../engine/fast-form.ts'
import { readManifest } from '../engine/model-folder.ts'
import { openNetworks, physicalCores, type OpenNetworks } from '../engine/networks.ts'
import { quantizeModel } from '../engine/quantize-model.ts'
import { fillDefaults } from '../engine/request.ts'
import { generate } from '../pipeline/generate.ts'
import type { RgbImage } from '../pipeline/image.ts'
import { createTokenizer } from '../pipeline/tokenizer.ts'
import type { GenerateJob, Networks } from '../pipeline/types.ts'
import { encodePng } from '../export/png.ts'
import { wayNames, ways, type Way } from './bench-ways.ts'
import { psnr, structuralDistance } from './picture-distance.ts'
import type { Terminal } from './terminal.ts'

export type QualityOptions = {
  folder: string
  prompts: number
  /** Some of `wayNames`; all when left out. */
  only?: readonly string[]
  /** Where pictures, latents and prompts stay; a temporary folder that is removed when left out. */
  keep?: string
  /** A command that is given that folder and prints `{ way: { right } }` as JSON: the share of prompt facts it can see. */
  judge?: string
  threads?: number
}

export type QualityRow = {
  way: string
  about: string
  unetBytes: number
  /** Median and lowest tenth over the prompts, in dB. */
  psnrDb?: number
  psnrLowDb?: number
  /** Median of 1 − MS-SSIM. */
  distance?: number
  /** Share of the facts in the prompts that the judge found in the pictures. */
  right?: number
}

type Prompt = { prompt: string; facts: Record<string, string> }
/** Prompts the starter was not trained on, with their facts, by `python -m starter.judge prompts`. */
const prompts = JSON.parse(readFileSync(new URL('bench-prompts.json', import.meta.url), 'utf8')) as Prompt[]

/** Makes the same pictures from a model in half precision and in each of its quantised forms, and compares them. */
export async function measureQuality(options: QualityOptions, terminal: Terminal): Promise<QualityRow[]> {
  const { folder, only } = options
  const unknown = only?.find((name) => !wayNames.includes(name))
  if (unknown !== undefined)
    throw new VignetteError('bad-request', `There is no way "${unknown}".`, {
      hint: `Choose from: ${wayNames.join(', ')}.`,
    })
  if (readManifest(folder).storage === 'int4')
    throw new VignetteError('bad-request', 'Quality is measured from a model in half precision.', {
      hint: 'Name the model that the 4-bit one was made from.',
    })
  const chosen = prompts.slice(0, options.prompts)
  const threads = options.threads ?? physicalCores()
  const work = options.keep ?? (await mkdtemp(join(tmpdir(), 'vignette-quality-')))
  await mkdir(work, { recursive: true })
  await writeFile(join(work, 'prompts.json'), JSON.stringify(chosen))
  try {
    terminal.progress.update('half precision', 0)
    const reference = await pictures({ id: 'fp16', folder, work, chosen, threads }, terminal)
    const rows: QualityRow[] = [{ way: 'fp16', about: 'half precision', unetBytes: bytesOfUnet(folder) }]
    for (const way of ways.filter(({ id }) => only?.includes(id) ?? true)) {
      const model = 'speed' in way ? folder : await quantizedIn(join(work, 'models'), folder, way, threads, terminal)
      const made = await pictures({ ...way, folder: model, work, chosen, threads }, terminal)
      const noise = made.map((image, i) => psnr(image, reference[i])).sort((a, b) => a - b)
      const distances = made.map((image, i) => structuralDistance(image, reference[i])).sort((a, b) => a - b)
      const at = (values: number[], share: number) => values[Math.floor(share * (values.length - 1))]
      rows.push({
        way: way.id,
        about: way.about,
        unetBytes: bytesOfUnet(model),
        psnrDb: at(noise, 0.5),
        psnrLowDb: at(noise, 0.1),
        distance: at(distances, 0.5),
      })
    }
    if (options.judge !== undefined) {
      const shares = JSON.parse(await ask(options.judge, work, terminal.signal)) as Record<string, { right: number }>
      for (const row of rows) row.right = shares[row.way]?.right
    }
    return rows
  } finally {
    if (options.keep === undefined) await rm(work, { recursive: true, force: true })
  }
}

/** The model quantised in one way, in a folder of `home`; made when it is not there yet. */
async function quantizedIn(
  home: string,
  folder: string,
  { about, mode, experiment }: Extract<Way, { mode: ModeName }>,
  threads: number,
  terminal: Terminal,
): Promise<string> {
  const target = join(home, JSON.stringify(experiment).replace(/[^\w.-]+/g, '_'))
  const { signal } = terminal
  if (!existsSync(target)) {
    await mkdir(home, { recursive: true })
    const onProgress = ({ fraction }: { fraction: number }) => terminal.progress.update(`${about}: storing`, fraction)
    await quantizeModel(folder, target, { experiment, threads, signal, onProgress })
  }
  if (mode === 'fast') await ensureFastForm(target, { threads, signal })
  return target
}

/** The table that the person reads. */
export function qualityTable(rows: readonly QualityRow[]): string {
  const cells = rows.map((row) => [
    row.about,
    `${(row.unetBytes / 1e6).toFixed(1)} MB`,
    row.psnrDb?.toFixed(1) ?? '',
    row.psnrLowDb?.toFixed(1) ?? '',
    row.distance?.toFixed(4) ?? '',
    row.right === undefined ? '' : `${(100 * row.right).toFixed(1)} %`,
  ])
  const head = ['network', 'size', 'PSNR dB', 'lowest 10 %', '1 − MS-SSIM', 'facts right']
  const widths = head.map((title, i) => Math.max(title.length, ...cells.map((row) => row[i].length)))
  return [head, ...cells]
    .map((row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join('  '))
    .join('\n')
}

const bytesOfUnet = (folder: string) => statSync(join(folder, 'unet.safetensors')).size

type PicturesOptions = {
  id: string
  folder: string
  mode?: ModeName
  speed?: SpeedName
  work: string
  chosen: Prompt[]
  threads: number
}

/** One picture per prompt at the model's defaults, seeds 1, 2, …; kept with its latents under `work/id`. */
async function pictures(
  { id, folder, mode, speed = 'exact', work, chosen, threads }: PicturesOptions,
  terminal: Terminal,
): Promise<RgbImage[]> {
  const networks = openNetworks(folder, { threads, ...(mode ? { mode } : {}) })
  const tokenizer = createTokenizer(await readClipMerges())
  const latents: Float32Array[] = []
  const images: RgbImage[] = []
  await mkdir(join(work, id), { recursive: true })
  try {
    const listening = tellLatents(networks, (data) => latents.push(data))
    for (const [i, { prompt }] of chosen.entries()) {
      terminal.signal.throwIfAborted()
      terminal.progress.update(`${id}: drawing`, i / chosen.length)
      const { manifest } = networks
      const job: GenerateJob = {
        ...fillDefaults(GenerateRequest.parse({ prompt, seed: i + 1 }), manifest),
        zeroTerminalSnr: manifest.schedule.zeroTerminalSnr,
        preview: 'off',
        speed,
        adapters: [],
      }
      for await (const event of generate(job, listening, tokenizer)) {
        if (event.type !== 'image') continue
        images.push(event.image)
        await writeFile(join(work, id, `${String(i + 1).padStart(3, '0')}.png`), encodePng(event.image))
      }
    }
  } finally {
    await networks.release()
  }
  await writeFile(join(work, id, 'latents.f32'), Buffer.concat(latents.map((data) => new Uint8Array(data.buffer))))
  return images
}

/** The latents as the drawing network made them, on their way to the decoder. */
function tellLatents(networks: OpenNetworks, tell: (latents: Float32Array) => void): Networks {
  const { scale, shift } = networks.manifest.latents
  return {
    manifest: networks.manifest,
    singleRows: networks.singleRows,
    has: (name) => networks.has(name),
    run(name, inputs, outputs) {
      const sample = inputs.latent_sample?.data
      if (name === 'vae_decoder' && sample instanceof Float32Array) tell(sample.map((value) => (value - shift) * scale))
      return networks.run(name, inputs, outputs)
    },
  }
}

function ask(command: string, folder: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const [program, ...args] = command.split(' ')
    const child = spawn(program, [...args, folder], { stdio: ['ignore', 'pipe', 'inherit'], signal })
    let output = ''
    child.stdout.on('data', (data: Buffer) => (output += data.toString()))
    const failed = (cause?: unknown) =>
      new VignetteError('bad-request', `The judge "${command}" could not be asked.`, {
        hint: 'It is given the folder with the pictures and prints JSON; models/train/README.md shows one.',
        cause,
      })
    child.on('error', (cause) => reject(failed(cause)))
    child.on('close', (code) => (code === 0 ? resolve(output) : reject(failed())))
  })
}
