import { execFile } from 'node:child_process'
import { copyFile, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { ModelManifest } from '../../models/manifest.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

let home: string
const at = (...path: string[]) => join(home, 'models', ...path)
beforeAll(async () => {
  home = await scratchFolder('quantize-cli')
  await makeTinyModel(join(home, 'tiny'))
  const file = join(home, 'tiny', 'model.json')
  const manifest = JSON.parse(await readFile(file, 'utf8')) as ModelManifest
  await writeFile(file, JSON.stringify({ ...manifest, id: 'tiny', nativeSize: { width: 64, height: 64 } }))
  await mkdir(at(), { recursive: true })
  await rename(join(home, 'tiny'), at('tiny'))
}, 60_000)
afterAll(() => rm(home, { recursive: true, force: true }))

type Outcome = { code: number; stdout: string; stderr: string }
function command(script: string, args: string[], interruptAfter?: RegExp): Promise<Outcome> {
  const path = join(import.meta.dirname, '../../main/cli', script)
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      ['--import', 'tsx', path, ...args],
      { env: { ...process.env, VIGNETTE_HOME: home } },
      (error, stdout, stderr) => resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
    child.stdout?.on('data', (text: string) => void (interruptAfter?.test(text) && child.kill('SIGINT')))
  })
}
const quantize = (...args: string[]) => command('quantize.ts', args)

it('puts the 4-bit model beside the other, under a name of its own, and says so to a person and to a program', async () => {
  const first = await quantize('tiny', '--json')
  const result = JSON.parse(first.stdout) as {
    folder: string
    manifest: ModelManifest
    quality: { medianDb: number; worst: { path: string } }
  }
  expect([first.code, result.folder]).toEqual([0, at('tiny-4bit')])
  expect(result.manifest).toMatchObject({ id: 'tiny-4bit', name: 'Tiny (4 bit)', storage: 'int4' })
  expect(result.quality.medianDb).toBeGreaterThan(20)

  const again = await quantize('tiny')
  expect([again.code, again.stderr]).toEqual([2, expect.stringMatching(/already a model[^\n]*\n.*--name/s)])
  const named = await quantize('tiny', '--name', 'Small & quick', '--rank', '4', '--no-calibration')
  expect(named.stdout).toMatch(
    /^Storing Tiny in four bits in .*\nSmall & quick: \d+ MB became \d+ MB, ready in .*\nWeights of layers, without calibration: .* dB .*\nTry it: npm run generate .* --model small-quick\n$/,
  )
  expect(await readdir(at())).toEqual(['small-quick', 'tiny', 'tiny-4bit'])
}, 90_000)

it('refuses in words and with the right exit code', async () => {
  const [nothing, absent, rank, many, help] = await Promise.all([
    quantize(),
    quantize('nowhere'),
    quantize('tiny', '--rank', '3.5'),
    quantize('tiny', 'tiny'),
    quantize('--help'),
  ])
  expect([nothing.code, absent.code, rank.code, many.code, help.code]).toEqual([2, 1, 2, 2, 0])
  expect(absent.stderr).toContain('is not installed')
  expect(rank.stderr).toContain('whole number from 0 to 256')
  expect(help.stdout).toContain('Example: npm run quantize')
}, 60_000)

it('Ctrl-C leaves nothing', async () => {
  const stopped = await command('quantize.ts', ['tiny', '--to', join(home, 'stopped')], /^Storing/)
  expect([stopped.code, stopped.stderr]).toEqual([130, expect.stringContaining('Stopping')])
  expect((await readdir(home)).filter((name) => name.includes('stopped'))).toEqual([])
}, 60_000)

it('a checkpoint is imported in four bits at once, and no other copy stays', async () => {
  const source = await diffusersFolder(join(home, 'Ink'))
  const made = await command('convert.ts', [source, '--storage', 'int4'])
  expect(made.code).toBe(0)
  expect(made.stdout).toMatch(/\nInk: Stable Diffusion 1\.x, 64 × 64, int4, .*\nOutputs of layers: .* dB .*\nTry it: /)
  const manifest = JSON.parse(await readFile(at('ink', 'model.json'), 'utf8')) as ModelManifest
  expect(manifest).toMatchObject({ id: 'ink', name: 'Ink', storage: 'int4', source: { file: 'Ink' } })
  expect((await readdir(at())).filter((name) => name.includes('ink'))).toEqual(['ink'])
}, 120_000)

/** The tiny model in the layout of diffusers, drawn for 64 × 64 pixels. */
async function diffusersFolder(folder: string): Promise<string> {
  const json = async (part: string, file: string, value: object) => {
    await mkdir(join(folder, part), { recursive: true })
    await writeFile(join(folder, part, file), JSON.stringify(value))
  }
  await json('', 'model_index.json', { _class_name: 'StableDiffusionPipeline' })
  await json('unet', 'config.json', {
    sample_size: 8,
    block_out_channels: [32, 64, 64],
    layers_per_block: 1,
    cross_attention_dim: 64,
    down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
  })
  await json('vae', 'config.json', { block_out_channels: [32, 32, 64, 64], layers_per_block: 1, latent_channels: 4 })
  await json('text_encoder', 'config.json', {
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 1,
    vocab_size: 49408,
  })
  await json('scheduler', 'scheduler_config.json', {
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: 'scaled_linear',
  })
  for (const [part, name] of Object.entries(weightNames))
    await copyFile(at('tiny', `${part}.safetensors`), join(folder, part, name))
  return folder
}

const weightNames = {
  unet: 'diffusion_pytorch_model.safetensors',
  vae: 'diffusion_pytorch_model.safetensors',
  text_encoder: 'model.safetensors',
}
