import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, statSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, extname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { VignetteError } from '../../models/errors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import type { ModeName } from '../../preload/limits.ts'
import { ensureFastForm } from '../engine/fast-form.ts'
import { readManifest } from '../engine/model-folder.ts'
import { physicalCores } from '../engine/networks.ts'
import { findModel } from './find-model.ts'
import type { Terminal } from './terminal.ts'

/** A model in one of the forms in which it can run here. */
export type Target = { folder: string; manifest: ModelManifest; mode?: ModeName }

export const formNames = ['plain', 'fast', 'low-memory'] as const
export type FormName = (typeof formNames)[number]

/** Models made for measuring only are kept here from one time to the next. */
const cache = join(tmpdir(), 'vignette-bench')

/** "sd15" and "sdxl": full-size models with random weights, as fast and as large as real ones. Others are installed. */
export async function benchModel(name: string, terminal: Terminal): Promise<string> {
  if (name !== 'sd15' && name !== 'sdxl') return (await findModel(name, terminal)).folder
  const folder = join(cache, `${name}-random`)
  if (existsSync(join(folder, 'model.json'))) return folder
  const label = name === 'sd15' ? 'SD 1.5' : 'SDXL'
  terminal.say(`Making a full-size ${label} with random weights in ${cache} (once) …`)
  await mkdir(cache, { recursive: true })
  const checkpoint = join(cache, `${name}-random-${process.pid}.safetensors`)
  try {
    const script = fileURLToPath(new URL('../../scripts/random-checkpoint.ts', import.meta.url))
    await runScript([script, checkpoint, '--family', name], terminal)
    await importInto(checkpoint, folder, `${label} (random weights)`, terminal)
  } finally {
    await rm(checkpoint, { force: true })
  }
  return folder
}

/** The model folder of a checkpoint that is measured without being installed. */
export async function benchCheckpoint(checkpoint: string, terminal: Terminal): Promise<string> {
  const path = resolve(checkpoint)
  const facts = statSync(path, { throwIfNoEntry: false })
  const key = createHash('sha256')
    .update(JSON.stringify([path, facts?.size, facts?.mtimeMs]))
    .digest('hex')
    .slice(0, 8)
  const stem = basename(path, extname(path)).replace(/[^\w.-]+/g, '-')
  const folder = join(cache, `${stem}-${key}`)
  if (existsSync(join(folder, 'model.json'))) return folder
  terminal.say(`Importing ${path} into ${cache} (once) …`)
  await mkdir(cache, { recursive: true })
  await importInto(path, folder, stem, terminal)
  return folder
}

async function importInto(checkpoint: string, folder: string, name: string, terminal: Terminal): Promise<void> {
  const { convertCheckpoint } = await import('../../models/checkpoint/convert.ts')
  await convertCheckpoint(checkpoint, folder, {
    name,
    signal: terminal.signal,
    onProgress: ({ phase, fraction }) => terminal.progress.update(`importing, ${phase}`, fraction),
  })
}

/** The forms of a model: as it is, and where asked for, its 4-bit form in both modes (made once, beside it). */
export async function targetsOf(folder: string, forms: readonly FormName[], terminal: Terminal): Promise<Target[]> {
  const manifest = readManifest(folder)
  if (manifest.storage === 'int4') {
    const modes = forms.filter((form) => form !== 'plain')
    return modes.length > 0 ? modes.map((mode) => ({ folder, manifest, mode })) : [{ folder, manifest }]
  }
  const targets: Target[] = forms.includes('plain') ? [{ folder, manifest }] : []
  const modes = forms.filter((form) => form !== 'plain')
  if (modes.length === 0) return targets
  const fourBit = join(cache, `${basename(folder)}-4bit`)
  const made = existsSync(join(fourBit, 'model.json')) ? readManifest(fourBit) : undefined
  if (made?.source.sha256 !== manifest.source.sha256) {
    const startedAt = performance.now()
    const { quantizeModel } = await import('../engine/quantize-model.ts')
    await mkdir(cache, { recursive: true })
    const { quality } = await quantizeModel(folder, fourBit, {
      replace: true,
      signal: terminal.signal,
      onProgress: ({ phase, fraction }) => terminal.progress.update(`storing in 4 bits, ${phase}`, fraction),
    })
    const seconds = Math.round((performance.now() - startedAt) / 1000)
    terminal.say(`Stored in 4 bits in ${seconds} s; layers at a median of ${quality.medianDb.toFixed(1)} dB.`)
  }
  // Here and not where it is measured: making it needs more memory than using it.
  if (modes.includes('fast')) await ensureFastForm(fourBit, { threads: physicalCores(), signal: terminal.signal })
  return [...targets, ...modes.map((mode) => ({ folder: fourBit, manifest: readManifest(fourBit), mode }))]
}

/** Runs a script of ours with the same Node and loaders; resolves with what it printed. */
export function runScript(args: string[], terminal: Terminal): Promise<string> {
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
