import { spawn } from 'node:child_process'
import { appendFileSync, existsSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { cpus, tmpdir, totalmem } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { modeNames, type ModeName } from '../../preload/limits.ts'
import { gigabytes } from '../engine/memory.ts'
import { measurements, type Measured, type Measurement } from './bench-measure.ts'
import { findModel } from './find-model.ts'
import { numberOption, runCli, type CommandSpec, type Terminal } from './terminal.ts'

const spec = {
  command: 'npm run bench --',
  positionals: '[MODEL | sd15] …',
  summary:
    'Measures how fast and in how much memory models run here: the starter when nothing is named, a full-size Stable Diffusion 1.5 with random weights for "sd15", or any installed model or model folder.',
  options: {
    full: { help: 'the starter and sd15' },
    runs: { value: 'N', help: 'runs that are timed after one that is not; 3 when left out' },
    size: { value: 'PIXELS', help: "side of the square picture; the model's own when left out" },
    threads: { value: 'N', help: 'processor threads; one per core when left out' },
    provider: { value: 'NAME', help: 'cpu (when left out), webgpu, dml or coreml' },
    mode: { value: 'NAME', help: 'for 4-bit models on the processor: fast or low-memory; chosen when left out' },
    only: { value: 'LIST', help: `some of ${measurements.join(',')}` },
    out: { value: 'FILE', help: 'where a line of JSON per run is appended; bench-results.jsonl when left out' },
  },
  example: 'npm run bench -- sd15 --runs 3',
  notes:
    'Every row is measured in a process of its own, so that its peak memory is its own. CPU counts the seconds of all cores.',
} as const satisfies CommandSpec<string>

const table = {
  columns: ['network', 'load s', 'run s', 'CPU s', 'peak memory'],
  widths: [16, 8, 8, 8, 12],
}

await runCli<keyof typeof spec.options>(spec, async ({ positionals, options, isOn }, terminal) => {
  const names = positionals.length > 0 ? positionals : isOn('full') ? ['starter', 'sd15'] : ['starter']
  const runs = numberOption('runs', options.runs) ?? 3
  const only = options.only?.split(',') ?? [...measurements]
  const unknown = only.find((name) => !measurements.includes(name as Measurement))
  if (unknown !== undefined)
    throw new VignetteError('bad-request', `There is no measurement "${unknown}".`, {
      hint: `Choose from: ${measurements.join(', ')}.`,
    })

  const { mode } = options
  if (mode !== undefined && !modeNames.includes(mode as ModeName))
    throw new VignetteError('bad-request', `There is no mode "${mode}".`, {
      hint: `Choose from: ${modeNames.join(', ')}.`,
    })

  const machine = {
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    platform: `${process.platform} ${process.arch}`,
  }
  terminal.say(
    `${machine.processor}, ${machine.cores} logical cores, ${gigabytes(machine.memoryBytes)}, ${machine.platform}`,
  )
  const results = []
  for (const name of names) {
    const { folder, manifest } = name === 'sd15' ? await randomSd15(terminal) : await findModel(name, terminal)
    const side = numberOption('size', options.size) ?? Math.max(manifest.nativeSize.width, manifest.nativeSize.height)
    terminal.say(
      `\n${manifest.name}, ${side} × ${side}, weights ${gigabytes(manifest.weightBytes)} (${manifest.storage})`,
    )
    if (manifest.storage === 'int4') {
      const { fourBitReport } = await import('../engine/self-test.ts')
      const { verdict, reason } = await fourBitReport(fileURLToPath(new URL('../engine/index.ts', import.meta.url)))
      terminal.say(`4-bit models on this processor: ${verdict} (${reason})`)
    }
    terminal.say(row(table.columns))
    const rows: Record<string, Measured> = {}
    for (const measurement of measurements.filter((each) => only.includes(each) && applies(each, manifest))) {
      terminal.progress.update(`measuring ${measurement}`, 0)
      const settings = {
        measurement,
        folder,
        side,
        runs,
        threads: numberOption('threads', options.threads),
        provider: options.provider ?? 'cpu',
        mode,
      }
      const measured = await inChild(settings, terminal)
      rows[measurement] = measured
      terminal.say(
        row([
          measured.mode && measurement === 'unet' ? `unet ${measured.mode}` : measurement,
          ...[measured.loadS, measured.wallS, measured.cpuS].map((value) => value.toFixed(2)),
          gigabytes(measured.peakBytes),
        ]),
      )
      if (terminal.signal.aborted) return
    }
    results.push({
      at: new Date().toISOString(),
      machine,
      model: manifest.id,
      storage: manifest.storage,
      side,
      runs,
      provider: options.provider ?? 'cpu',
      weightBytes: manifest.weightBytes,
      rows,
    })
  }
  const out = resolve(options.out ?? 'bench-results.jsonl')
  appendFileSync(out, results.map((result) => `${JSON.stringify(result)}\n`).join(''))
  terminal.say(`\nAppended to ${out}`)
  terminal.result(results)
})

function applies(measurement: Measurement, manifest: ModelManifest): boolean {
  return measurement === 'picture' || manifest.networks.includes(measurement)
}

function row(cells: readonly string[]): string {
  return cells.map((cell, i) => (i === 0 ? cell.padEnd(table.widths[i]) : cell.padStart(table.widths[i]))).join(' ')
}

/** A model folder with SD 1.5's networks and random fp16 weights: as fast and as large as a real one. Made once. */
async function randomSd15(terminal: Terminal): Promise<{ folder: string; manifest: ModelManifest }> {
  const cache = join(tmpdir(), 'vignette-bench')
  const folder = join(cache, 'sd15-random')
  if (!existsSync(join(folder, 'model.json'))) {
    terminal.say(`Making a full-size SD 1.5 with random weights in ${cache} (once; 4 GB while it is made, then 2) …`)
    await mkdir(cache, { recursive: true })
    const checkpoint = join(cache, `sd15-random-${process.pid}.safetensors`)
    try {
      const script = fileURLToPath(new URL('../../scripts/random-checkpoint.ts', import.meta.url))
      await run([script, checkpoint, '--family', 'sd15'], terminal)
      const { convertCheckpoint } = await import('../../models/checkpoint/convert.ts')
      await convertCheckpoint(checkpoint, folder, { name: 'SD 1.5 (random weights)', signal: terminal.signal })
    } finally {
      await rm(checkpoint, { force: true })
    }
  }
  const { readManifest } = await import('../engine/model-folder.ts')
  return { folder, manifest: readManifest(folder) }
}

async function inChild(settings: object, terminal: Terminal): Promise<Measured> {
  const script = fileURLToPath(new URL('bench-measure.ts', import.meta.url))
  return JSON.parse(await run([script, JSON.stringify(settings)], terminal)) as Measured
}

/** Runs a script of ours with the same Node and loaders; resolves with what it printed. */
function run(args: string[], terminal: Terminal): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      signal: terminal.signal,
      killSignal: 'SIGKILL',
    })
    let output = ''
    child.stdout.on('data', (data: Buffer) => (output += data.toString()))
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output)
      else
        reject(
          new VignetteError('engine-crashed', `${basename(args[0])} stopped (${signal ?? `code ${code}`}).`, {
            hint: 'The memory may have run out.',
          }),
        )
    })
  })
}
