import { appendFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { gigabytes } from '../engine/memory.ts'
import type { AdapterCosts } from './bench-adapter.ts'
import { measurements, type Measured, type Measurement } from './bench-measure.ts'
import { benchCheckpoint, benchModel, formNames, runScript, targetsOf, type Target } from './bench-models.ts'
import { wayNames } from './bench-ways.ts'
import { numberOption, runCli, type CommandSpec, type ParsedArguments, type Terminal } from './terminal.ts'

const spec = {
  command: 'npm run bench --',
  positionals: '[MODEL | sd15 | sdxl] … | quality [MODEL]',
  summary:
    'Measures how fast and in how much memory models run here: the starter when nothing is named, a full-size Stable Diffusion with random weights for "sd15" or "sdxl", any installed model or model folder, or a checkpoint file. With "quality": how far pictures of the 4-bit forms of a model are from those of its half precision.',
  options: {
    full: { help: 'the starter and sd15' },
    checkpoint: { value: 'FILE', help: 'a checkpoint to import for the occasion, in all forms' },
    forms: {
      value: 'LIST',
      help: `some of ${formNames.join(',')}: as it is, and in 4 bits in either mode; all for sd15 and --checkpoint`,
    },
    runs: { value: 'N', help: 'runs that are timed after one that is not; 3 when left out' },
    size: { value: 'PIXELS', help: "side of the square picture; the model's own when left out" },
    threads: { value: 'N', help: 'processor threads; one per core when left out' },
    provider: { value: 'NAME', help: 'cpu (when left out), webgpu, dml or coreml' },
    only: { value: 'LIST', help: `some of ${measurements.join(',')}; with quality, of ${wayNames.join(',')}` },
    prompts: { value: 'N', help: 'quality: how many pictures of each kind; 64 when left out' },
    keep: { value: 'FOLDER', help: 'quality: where the pictures stay' },
    judge: { value: 'COMMAND', help: 'quality: is given that folder and tells the share of facts that are right' },
    out: { value: 'FILE', help: 'where a line of JSON per run is appended; bench-results.jsonl when left out' },
  },
  example: 'npm run bench -- sd15 --runs 3',
  notes:
    'Every row is measured in a process of its own, so that its peak memory is its own. CPU counts the seconds of all cores. "weights" is the memory that loading took.',
} as const satisfies CommandSpec<string>

type Options = ParsedArguments<keyof typeof spec.options>

const table = {
  columns: ['network', 'load s', 'run s', 'CPU s', 'weights', 'peak memory'],
  widths: [18, 8, 8, 8, 9, 12],
}

await runCli<keyof typeof spec.options>(spec, async (parsed, terminal) => {
  const machine = {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    platform: `${process.platform} ${process.arch}`,
  }
  const results = parsed.positionals[0] === 'quality' ? quality(parsed, terminal) : speed(parsed, terminal)
  terminal.say(
    `${machine.processor}, ${machine.cores} logical cores, ${gigabytes(machine.memoryBytes)}, ${machine.platform}`,
  )
  const lines = (await results).map((result) => ({ at: new Date().toISOString(), machine, ...result }))
  const out = resolve(parsed.options.out ?? 'bench-results.jsonl')
  appendFileSync(out, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  terminal.say(`\nAppended to ${out}`)
  terminal.result(lines)
})

async function quality({ positionals, options }: Options, terminal: Terminal): Promise<object[]> {
  const { measureQuality, qualityTable } = await import('./bench-quality.ts')
  const folder = await benchModel(positionals[1] ?? 'starter', terminal)
  const rows = await measureQuality(
    {
      folder,
      prompts: numberOption('prompts', options.prompts) ?? 64,
      only: options.only?.split(','),
      keep: options.keep,
      judge: options.judge,
      threads: numberOption('threads', options.threads),
    },
    terminal,
  )
  terminal.say(`\n${qualityTable(rows)}`)
  return [{ model: positionals[1] ?? 'starter', quality: rows }]
}

async function speed({ positionals, options, isOn }: Options, terminal: Terminal): Promise<object[]> {
  const only = listOption('measurement', options.only, measurements) ?? measurements
  const forms = listOption('form', options.forms, formNames)
  const { checkpoint } = options
  const names =
    positionals.length > 0 ? positionals : isOn('full') ? ['starter', 'sd15'] : checkpoint ? [] : ['starter']
  const targets: Target[] = []
  for (const name of names) {
    const all = forms ?? (name === 'sd15' || name === 'sdxl' ? formNames : ['plain'])
    targets.push(...(await targetsOf(await benchModel(name, terminal), all, terminal)))
  }
  if (checkpoint !== undefined)
    targets.push(...(await targetsOf(await benchCheckpoint(checkpoint, terminal), forms ?? formNames, terminal)))
  const results = []
  for (const [i, target] of targets.entries()) {
    // Of a second form only the drawing network and the picture differ.
    const isSecond = i > 0 && targets[i - 1].manifest.source.sha256 === target.manifest.source.sha256
    const wanted = only.filter((each) => applies(each, target.manifest, isSecond))
    results.push(await measureTarget(target, wanted, options, terminal))
    if (terminal.signal.aborted) break
  }
  return results
}

async function measureTarget(
  { folder, manifest, mode }: Target,
  wanted: readonly Measurement[],
  options: Options['options'],
  terminal: Terminal,
): Promise<object> {
  const side = numberOption('size', options.size) ?? Math.max(manifest.nativeSize.width, manifest.nativeSize.height)
  const runs = numberOption('runs', options.runs) ?? 3
  const provider = options.provider ?? 'cpu'
  const form = `${manifest.storage}${mode ? `, ${mode}` : ''}`
  terminal.say(`\n${manifest.name}, ${side} × ${side}, weights ${gigabytes(manifest.weightBytes)} (${form})`)
  if (manifest.storage === 'int4' && provider === 'cpu') {
    const { fourBitReport } = await import('../engine/self-test.ts')
    const { verdict, reason } = await fourBitReport(fileURLToPath(new URL('../engine/index.ts', import.meta.url)))
    terminal.say(`4-bit models on this processor: ${verdict} (${reason})`)
  }
  terminal.say(row(table.columns))
  const rows: Record<string, Measured> = {}
  for (const measurement of wanted) {
    terminal.progress.update(`measuring ${measurement}`, 0)
    const threads = numberOption('threads', options.threads)
    const measured = await inChild({ measurement, folder, side, runs, threads, provider, mode }, terminal)
    rows[measurement] = measured
    const seconds = [measured.loadS, measured.wallS, measured.cpuS].map((value) => value.toFixed(2))
    const memory = [measured.weightBytes, measured.peakBytes].map((bytes) =>
      bytes === undefined ? '' : gigabytes(bytes),
    )
    terminal.say(
      row([measured.mode && measurement === 'unet' ? `unet ${measured.mode}` : measurement, ...seconds, ...memory]),
    )
    if (measured.adapters) terminal.say(adapterLines(measured.adapters))
    if (measured.batch) {
      const { singlesS, batchS } = measured.batch
      terminal.say(
        `  four pictures with an adapter each: ${singlesS.toFixed(2)} s apart, ${(singlesS / batchS).toFixed(2)} times as fast in one batch`,
      )
    }
    if (terminal.signal.aborted) break
  }
  const { id: model, storage, weightBytes } = manifest
  return { model, storage, ...(mode ? { mode } : {}), side, runs, provider, weightBytes, rows }
}

function adapterLines(costs: AdapterCosts): string {
  const { plainS, oneS, fourS, coldSwapS, warmSwapS, openS, remergeS } = costs
  const more = (seconds: number) => `${(100 * (seconds / plainS - 1)).toFixed(1)} %`
  const ms = (seconds: number) => `${Math.round(1000 * seconds)} ms`
  const ratio = Math.round(remergeS / Math.max(coldSwapS, 0.001))
  return [
    `  adapters of rank 32: one takes ${more(oneS)} more than ${plainS.toFixed(3)} CPU s without, four take ${more(fourS)}`,
    `  to another one: ${ms(coldSwapS)} from the file, ${ms(warmSwapS)} when it was used before; slots are opened once, ${openS.toFixed(1)} s`,
    `  merging it into all weights instead: ${remergeS.toFixed(1)} s, ${ratio} times as long`,
  ].join('\n')
}

function listOption<T extends string>(what: string, list: string | undefined, known: readonly T[]): T[] | undefined {
  const names = list?.split(',')
  const unknown = names?.find((name) => !known.includes(name as T))
  if (unknown === undefined) return names as T[] | undefined
  throw new VignetteError('bad-request', `There is no ${what} "${unknown}".`, {
    hint: `Choose from: ${known.join(', ')}.`,
  })
}

function applies(measurement: Measurement, manifest: ModelManifest, isSecond: boolean): boolean {
  if (measurement === 'picture') return true
  if (measurement === 'adapter' || measurement === 'batch') return manifest.networks.includes('unet')
  return (!isSecond || measurement === 'unet') && manifest.networks.includes(measurement)
}

function row(cells: readonly string[]): string {
  return cells.map((cell, i) => (i === 0 ? cell.padEnd(table.widths[i]) : cell.padStart(table.widths[i]))).join(' ')
}

async function inChild(settings: object, terminal: Terminal): Promise<Measured> {
  const script = fileURLToPath(new URL('bench-measure.ts', import.meta.url))
  return JSON.parse(await runScript([script, JSON.stringify(settings)], terminal)) as Measured
}
