import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { openNetworks } from '../../main/engine/networks.ts'
import { convertCheckpoint } from '../../models/checkpoint/convert.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { floatToHalf } from '../../models/graph/half.ts'
import { readSafetensors, readTensor, writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import { installStarter } from '../../models/starter/install.ts'
import { tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'

const run = promisify(execFile)
const path = 'text_model.embeddings.token_embedding'
const rowIds = [3, 5, 320, 49407]
const [vocabulary, width] = [49408, 64]
let folder: string
let packed: string
let models: string

/** A packed model as it is shipped: diffusers folders, the token embedding as listed rows and one for all others. */
async function pack() {
  const config = { ...tinyLdmConfigs.sd15, vocabulary: 8 }
  await writeRandomCheckpoint(join(folder, 'source.safetensors'), config, { seed: 3 })
  await convertCheckpoint(join(folder, 'source.safetensors'), join(folder, 'plain'))
  const json = (file: string, value: unknown) => writeFile(join(packed, file), JSON.stringify(value))
  for (const part of ['unet', 'vae', 'text_encoder', 'scheduler']) await mkdir(join(packed, part), { recursive: true })
  await json('model_index.json', { _class_name: 'StableDiffusionPipeline' })
  await json('vignette.json', { defaults: { steps: 12, sampler: 'euler' } })
  await json('unet/config.json', {
    in_channels: 4,
    out_channels: 4,
    block_out_channels: [32, 64, 64],
    layers_per_block: 1,
    attention_head_dim: 4,
    cross_attention_dim: 64,
    sample_size: 32,
    down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
    up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
  })
  await json('vae/config.json', {
    latent_channels: 4,
    block_out_channels: [32, 32, 64, 64],
    layers_per_block: 1,
    scaling_factor: 0.9,
    shift_factor: 0.25,
  })
  await json('text_encoder/config.json', {
    hidden_size: width,
    intermediate_size: 128,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    vocab_size: vocabulary,
  })
  await json('scheduler/scheduler_config.json', {
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: 'scaled_linear',
    prediction_type: 'v_prediction',
  })
  for (const part of ['unet', 'vae', 'text_encoder']) {
    const { tensors } = await readSafetensors(join(folder, 'plain', `${part}.safetensors`))
    const planned = [...tensors]
      .filter(([name]) => name !== `${path}.weight`)
      .map(([name, { dtype, shape }]) => ({ name, dtype, shape }))
    const own = new Map<string, Uint8Array>()
    if (part === 'text_encoder') {
      const half = (size: number, value: number) =>
        new Uint8Array(new Uint16Array(size).fill(floatToHalf(value)).buffer)
      own.set(`${path}.rows`, Buffer.concat(rowIds.map((_, k) => half(width, k + 1))))
      own.set(`${path}.row_ids`, new Uint8Array(Int32Array.from(rowIds).buffer))
      own.set(`${path}.unknown`, half(width, -1))
      planned.push(
        { name: `${path}.rows`, dtype: 'F16', shape: [rowIds.length, width] },
        { name: `${path}.row_ids`, dtype: 'I32', shape: [rowIds.length] },
        { name: `${path}.unknown`, dtype: 'F16', shape: [width] },
      )
    }
    await writeSafetensors(
      join(packed, part, part === 'text_encoder' ? 'model.safetensors' : 'diffusion_pytorch_model.safetensors'),
      planned,
      async function* ({ name }) {
        yield own.get(name) ?? (await readTensor(tensors.get(name)!))
      },
    )
  }
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-'))
  packed = join(folder, 'packed')
  await pack()
})
beforeEach(async () => void (models = await mkdtemp(join(folder, 'models-'))))
afterAll(() => rm(folder, { recursive: true, force: true }))

it('unpacks the words it knows, gives all others one row, and runs', async () => {
  const installed = await installStarter(models, { packed })
  expect(installed).toBe(join(models, 'starter'))
  expect(await readdir(models)).toEqual(['starter'])
  const table = (await readSafetensors(join(installed, 'text_encoder.safetensors'))).tensors.get(`${path}.weight`)!
  expect(table.shape).toEqual([vocabulary, width])
  const values = toFloat32(await readTensor(table), table.dtype)
  const firstOf = (id: number) => values[id * width + width - 1]
  expect([...rowIds, 0, 4, 49406].map(firstOf)).toEqual([1, 2, 3, 4, -1, -1, -1])

  const networks = openNetworks(installed)
  try {
    expect(networks.manifest).toMatchObject({
      id: 'starter',
      name: 'Starter',
      family: 'sd15',
      nativeSize: { width: 256, height: 256 },
      schedule: { predictionType: 'v_prediction' },
      latents: { channels: 4, scale: 0.9, shift: 0.25, spatialFactor: 8 },
      source: { file: 'starter' },
      defaults: { steps: 12, sampler: 'euler', guidanceScale: 7 },
    })
    const { hidden_states: states } = await networks.run(
      'text_encoder',
      {
        input_ids: { data: BigInt64Array.from({ length: 77 }, (_, i) => (i === 0 ? 320n : 49407n)), shape: [1, 77] },
        eos_index: { data: BigInt64Array.of(1n), shape: [1] },
      },
      ['hidden_states'],
    )
    expect(states.shape).toEqual([3, 1, 77, width])
    expect(states.data.every(Number.isFinite)).toBe(true)
  } finally {
    await networks.release()
  }
})

it('is left alone while nothing changed, and made anew when files are missing or the packed model is another', async () => {
  const installed = await installStarter(models, { packed })
  const made = async () => (await stat(join(installed, 'unet.safetensors'))).mtimeMs
  const first = await made()
  await installStarter(models, { packed })
  expect(await made()).toBe(first)

  await rm(join(installed, 'vae.safetensors'))
  await rm(join(installed, 'unet.onnx'))
  await installStarter(models, { packed })
  const second = await made()
  expect(second).toBeGreaterThan(first)
  expect(await readdir(installed)).toEqual(expect.arrayContaining(['vae.safetensors', 'unet.onnx']))

  const scheduler = join(packed, 'scheduler', 'scheduler_config.json')
  const before = await readFile(scheduler, 'utf8')
  await writeFile(scheduler, before.replace('v_prediction', 'epsilon'))
  try {
    await installStarter(models, { packed })
    expect(await made()).toBeGreaterThan(second)
    expect(JSON.parse(await readFile(join(installed, 'model.json'), 'utf8'))).toMatchObject({
      schedule: { predictionType: 'epsilon' },
    })
  } finally {
    await writeFile(scheduler, before)
  }
})

it('gets missing graphs back without copying weights', async () => {
  const installed = await installStarter(models, { packed })
  const weights = await stat(join(installed, 'unet.safetensors'))
  await writeFile(join(installed, 'unet.onnx'), 'of an older version')
  await installStarter(models, { packed })
  expect((await stat(join(installed, 'unet.onnx'))).size).toBeGreaterThan(10_000)
  expect((await stat(join(installed, 'unet.safetensors'))).mtimeMs).toBe(weights.mtimeMs)
})

it('is made once by processes that start together', async () => {
  const script = `import { installStarter } from ${JSON.stringify(join(import.meta.dirname, '../../models/starter/install.ts'))}; console.log(await installStarter(${JSON.stringify(models)}, { packed: ${JSON.stringify(packed)} }))`
  const file = join(folder, 'both.mts')
  await writeFile(file, script)
  const both = await Promise.all([0, 1, 2].map(() => run(process.execPath, ['--import', 'tsx', file])))
  expect(both.map(({ stdout }) => stdout.trim())).toEqual([0, 1, 2].map(() => join(models, 'starter')))
  expect(await readdir(models)).toEqual(['starter'])
})
