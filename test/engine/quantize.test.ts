import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cp, mkdir, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runJob } from '../../main/engine/job.ts'
import { openNetworks } from '../../main/engine/networks.ts'
import { quantizeModel, type QuantizeModelOptions } from '../../main/engine/quantize-model.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import { readPng } from '../../main/export/png.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { readSafetensors, readTensor } from '../../models/checkpoint/safetensors.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import { sha256OfTensors } from '../../models/quantize/file.ts'
import { quantizeSteps } from '../../models/quantize/policy.ts'
import type { UnetConfig } from '../../models/unet.ts'
import { editCheckpoint, filled, type Edited } from './convert-edit.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

const run = promisify(execFile)
const isRoot = process.getuid?.() === 0
let folder: string
let number = 0
/** The SD 1.5 model in four bits, made in one go. */
let straightTarget: string | undefined
const at = (...path: string[]) => join(folder, ...path)
const fresh = () => at(`target-${number++}`)
/** Everything beside the models that mentions the target: work folders, locks, the model itself. */
const tracesOf = async (target: string) =>
  (await readdir(folder)).filter((name) => name.includes(target.slice(folder.length + 1)))

async function small(model: string): Promise<string> {
  const file = join(model, 'model.json')
  const manifest = JSON.parse(await readFile(file, 'utf8')) as ModelManifest
  await writeFile(file, JSON.stringify({ ...manifest, nativeSize: { width: 64, height: 64 } }))
  return model
}

beforeAll(async () => {
  folder = await scratchFolder('quantize')
  for (const family of ['sd15', 'sdxl'] as const) await small(await makeTinyModel(at(family), family))
}, 60_000)
afterAll(() => rm(folder, { recursive: true, force: true }))

/** A copy of the SD 1.5 model with its UNet's tensors changed. */
async function edited(edit: (tensors: Edited) => void): Promise<string> {
  const model = at(`edited-${number++}`)
  await cp(at('sd15'), model, { recursive: true })
  await editCheckpoint(at('sd15', 'unet.safetensors'), join(model, 'unet.safetensors'), edit)
  return model
}

/** What the UNet makes of one fixed input, found once for each model. */
function outputOf(model: string): Promise<Float32Array> {
  const known = outputs.get(model) ?? runUnet(model)
  outputs.set(model, known)
  return known
}
const outputs = new Map<string, Promise<Float32Array>>()

async function runUnet(model: string): Promise<Float32Array> {
  const networks = openNetworks(model, { mode: 'low-memory', threads: 1 })
  const { manifest } = networks
  const wave = (shape: number[], phase: number) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b)).map((_, i) => 1.4 * Math.sin(12.9898 * i + phase))
    return { data, shape }
  }
  const width = manifest.textEncoders.reduce((sum, tower) => sum + tower.width, 0)
  const parts = await readParts(model)
  const unet = parts.find(({ part }) => part === 'unet')!.config as UnetConfig
  const pooled = (unet.addition?.inputDim ?? 0) - 6 * (unet.addition?.timeEmbedDim ?? 0)
  try {
    const { out_sample: out } = await networks.run('unet', {
      sample: wave([1, 4, 8, 8], 0),
      timestep: { data: Float32Array.of(500), shape: [1] },
      encoder_hidden_states: wave([1, 77, width], 1),
      ...(unet.addition ? { text_embeds: wave([1, pooled], 2), time_ids: wave([1, 6], 3) } : {}),
    })
    return out.data
  } finally {
    await networks.release()
  }
}

function decibels(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length)
  const noise = actual.reduce((sum, value, i) => sum + (value - expected[i]) ** 2, 0)
  return 10 * Math.log10(expected.reduce((sum, value) => sum + value ** 2, 0) / noise)
}

describe.each(['sd15', 'sdxl'] as const)('a 4-bit %s', (family) => {
  let target: string
  let made: Awaited<ReturnType<typeof quantizeModel>>
  const phases: string[] = []
  const fractions: number[] = []
  beforeAll(async () => {
    target = fresh()
    if (family === 'sd15') straightTarget = target
    made = await quantizeModel(at(family), target, {
      onProgress: ({ phase, fraction }) => {
        if (phases.at(-1) !== phase) phases.push(phase)
        fractions.push(fraction)
      },
    })
  }, 120_000)

  it('is a whole model of its own that shares the weights that stayed', async () => {
    const source = JSON.parse(await readFile(at(family, 'model.json'), 'utf8')) as ModelManifest
    expect(made.manifest).toEqual({
      ...source,
      id: target.slice(folder.length + 1),
      name: 'Tiny (4 bit)',
      storage: 'int4',
      networks: made.manifest.networks,
      weightBytes: made.manifest.weightBytes,
    })
    expect(JSON.parse(await readFile(join(target, 'model.json'), 'utf8'))).toEqual(made.manifest)
    expect(made.manifest.networks).toEqual(expect.arrayContaining(source.networks))
    expect(made.manifest.weightBytes).toBeLessThan(source.weightBytes)
    for (const name of ['text_encoder', 'vae'].map((part) => `${part}.safetensors`))
      expect((await stat(join(target, name))).ino).toBe((await stat(at(family, name))).ino)
    expect(await tracesOf(target)).toEqual([target.slice(folder.length + 1)])
  })

  it('has every layer of the policy in its form, and says where it comes from', async () => {
    const { tensors, metadata } = await readSafetensors(join(target, 'unet.safetensors'))
    const unet = (await readParts(target)).find(({ part }) => part === 'unet')!
    for (const { path, n, k, bits, group, rank } of quantizeSteps(unet.config as UnetConfig).flatMap(
      ({ layers }) => layers,
    )) {
      const groups = Math.ceil(k / group)
      expect(tensors.get(`${path}.weight.q${bits}`)?.shape).toEqual([n, groups, (group * bits) / 8])
      expect(tensors.get(`${path}.weight.scales`)?.shape).toEqual([n, groups])
      expect(tensors.get(`${path}.weight.down`)?.shape).toEqual(rank > 0 ? [Math.min(rank, n, k), k] : undefined)
      expect(tensors.has(`${path}.weight`)).toBe(false)
    }
    const sourceSha256 = createHash('sha256')
      .update(await readFile(at(family, 'unet.safetensors')))
      .digest('hex')
    expect(Object.fromEntries(metadata)).toMatchObject({
      format: 'pt',
      vignette_int4: '1',
      source_sha256: sourceSha256,
      sha256: await sha256OfTensors(join(target, 'unet.safetensors'), tensors.values()),
    })
    expect(JSON.parse(metadata.get('policy')!)).toMatchObject({ isCalibrated: true, smooth: true, gptq: true })
  })

  it('puts out what the model in half precision puts out', async () => {
    const distance = decibels(await outputOf(target), await outputOf(at(family)))
    // Noise of some sixty layers adds up, and random weights are the hardest to store: 26 dB each leave about 8.
    expect(distance).toBeGreaterThan(6)
  }, 30_000)

  it('makes a picture', async () => {
    const networks = openNetworks(target, { mode: 'low-memory', threads: 1 })
    try {
      const request = fillDefaults(checkRequest({ prompt: 'a red barn', seed: 7, steps: 2 }), networks.manifest)
      const job = { id: 'one', modelFolder: target, request }
      const pictures = []
      for await (const event of runJob(job, networks)) if (event.type === 'image') pictures.push(readPng(event.png))
      expect(pictures).toMatchObject([{ width: 64, height: 64 }])
    } finally {
      await networks.release()
    }
  }, 30_000)

  it('tells how far it is and how well it went', () => {
    expect(phases).toEqual(['checking', 'calibrating', 'quantizing', 'verifying'])
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b))
    const { layers, medianDb, medianFastDb, worst } = made.quality
    expect(layers).toBeGreaterThan(60)
    expect(medianDb).toBeGreaterThan(20)
    expect(medianFastDb).toBeLessThanOrEqual(medianDb + 0.1)
    expect(worst.db).toBeLessThan(medianDb)
    expect(worst.path).toMatch(/^(down|mid|up)_block|embedding/)
  })
})

describe('every way of doing it', () => {
  const distanceOf = async (options: QuantizeModelOptions, source = at('sd15')) => {
    const target = fresh()
    await quantizeModel(source, target, options)
    return decibels(await outputOf(target), await outputOf(source))
  }
  it('smoothing changes nothing but the rounding: norms and scales undo each other', async () => {
    const smoothed = await distanceOf({ experiment: { bits: 8 } })
    const plain = await distanceOf({ experiment: { bits: 8, smooth: false } })
    expect(plain).toBeGreaterThan(25)
    expect(smoothed).toBeGreaterThan(plain - 2)
  }, 60_000)
  it('by the weights alone is less true but not wrong', async () => {
    expect(await distanceOf({ calibration: false })).toBeGreaterThan(4)
  }, 30_000)
  it('without branches has none in its file', async () => {
    const target = fresh()
    await quantizeModel(at('sd15'), target, { calibration: false, experiment: { rank: 0 } })
    const { tensors } = await readSafetensors(join(target, 'unet.safetensors'))
    expect([...tensors.keys()].filter((name) => name.endsWith('.down'))).toEqual([])
  }, 30_000)
  it('takes weights of 32 bits', async () => {
    const model = await edited((tensors) => {
      for (const [name, tensor] of tensors) {
        const values = Float32Array.from(new Uint16Array(tensor.bytes.buffer, 0, tensor.bytes.length / 2), halfValue)
        tensors.set(name, { ...tensor, dtype: 'F32', bytes: new Uint8Array(values.buffer) })
      }
    })
    const [wide, half] = [fresh(), fresh()]
    await quantizeModel(model, wide, { calibration: false })
    await quantizeModel(at('sd15'), half, { calibration: false })
    const found = await Promise.all([wide, half].map((place) => readSafetensors(join(place, 'unet.safetensors'))))
    const rim = found.map(({ tensors }) => tensors.get('conv_in.weight')!.dtype)
    expect(rim).toEqual(['F32', 'F16'])
    const codes = [...found[0].tensors.keys()].filter((name) => /\.weight\.(q4|q8|scales|down|up)$/.test(name))
    expect(codes.length).toBeGreaterThan(400)
    for (const name of codes) {
      const [ofWide, ofHalf] = await Promise.all(found.map(({ tensors }) => readTensor(tensors.get(name)!)))
      expect(Buffer.from(ofWide).equals(ofHalf)).toBe(true)
    }
  }, 60_000)
})

/** Bits of a normal half. */
const halfValue = (bits: number) =>
  (bits & 0x8000 ? -1 : 1) *
  (bits & 0x7c00 ? (1 + (bits & 0x3ff) / 1024) * 2 ** (((bits >> 10) & 31) - 15) : (bits & 0x3ff) * 2 ** -24)

describe('cancelling and crashing', () => {
  it.each([0.1, 0.6])(
    'stops at %f and leaves nothing',
    async (fraction) => {
      const target = fresh()
      const abort = new AbortController()
      const quantizing = quantizeModel(at('sd15'), target, {
        signal: abort.signal,
        onProgress: (progress) => void (progress.fraction >= fraction && abort.abort()),
      })
      await expect(quantizing).rejects.toMatchObject({ name: 'AbortError' })
      expect(await tracesOf(target)).toEqual([])
    },
    60_000,
  )

  it('goes on at the layer where it was killed, to the same bytes', async () => {
    const [target, straight] = [fresh(), straightTarget ?? fresh()]
    if (!straightTarget) await quantizeModel(at('sd15'), straight)
    const child = (...more: string[]) =>
      run(process.execPath, [
        ...['--import', 'tsx', join(import.meta.dirname, 'quantize-child.ts'), at('sd15'), target],
        ...more,
      ])
    await expect(child('0.7')).rejects.toMatchObject({ signal: 'SIGKILL' })
    const work = at(`.${target.slice(folder.length + 1)}.partial`)
    const journal = async () => (await readFile(join(work, 'journal.ndjson'), 'utf8')).split('\n').length
    const before = await journal()
    expect(before).toBeGreaterThan(20)
    await expect(child('0.9')).rejects.toMatchObject({ signal: 'SIGKILL' })
    expect(await journal()).toBeGreaterThan(before)
    expect((await child()).stdout).toBe('done\n')
    for (const name of (await readdir(straight)).filter((file) => file !== 'model.json'))
      expect((await readFile(join(target, name))).equals(await readFile(join(straight, name)))).toBe(true)
    expect(await tracesOf(target)).toEqual([target.slice(folder.length + 1)])
  }, 120_000)
})

describe('what cannot be done is refused and leaves nothing', () => {
  const refuse = async (source: string, expected: object, target = fresh(), options: QuantizeModelOptions = {}) => {
    await expect(quantizeModel(source, target, { calibration: false, ...options })).rejects.toMatchObject(expected)
    return tracesOf(target)
  }
  it('a model that is not there, or not whole', async () => {
    expect(await refuse(at('nowhere'), { code: 'model-missing' })).toEqual([])
    const model = at(`edited-${number++}`)
    await cp(at('sd15'), model, { recursive: true })
    await rm(join(model, 'unet.safetensors'))
    expect(await refuse(model, { code: 'model-missing', message: expect.stringContaining('not whole') })).toEqual([])
  })
  it('a model in four bits, or its own place', async () => {
    const target = fresh()
    await quantizeModel(at('sd15'), target, { calibration: false })
    expect(
      await refuse(target, { code: 'bad-request', message: expect.stringContaining('four bits already') }),
    ).toEqual([])
    const own = { code: 'bad-request', message: expect.stringContaining('take the place') }
    await refuse(at('sd15'), own, at('sd15'), { replace: true })
    // A place that is taken, unless it may be replaced.
    await refuse(at('sd15'), { code: 'bad-request', message: expect.stringContaining('already a model') }, target)
    const again = await quantizeModel(at('sd15'), target, { calibration: false, replace: true, name: 'second' })
    expect(again.manifest.name).toBe('second')
  }, 60_000)
  it.each([NaN, Infinity])('%f among the weights, naming the tensor', async (value) => {
    const name = 'mid_block.resnets.0.conv1.weight'
    const model = await edited((tensors) => {
      const tensor = filled(name, tensors.get(name)!.shape, 1)
      new Float32Array(tensor.bytes.buffer)[1] = value
      tensors.set(name, tensor)
    })
    const expected = { code: 'file-unreadable', message: expect.stringContaining(name) }
    expect(await refuse(model, expected)).toEqual([])
  })
  it('a network that lacks layers the policy wants', async () => {
    const model = await edited((tensors) => void tensors.delete('mid_block.resnets.0.conv1.weight'))
    expect(await refuse(model, { code: 'checkpoint-unsupported', hint: 'It runs as it is.' })).toEqual([])
  })
  it('twice at once', async () => {
    const target = fresh()
    const options = { calibration: false }
    const results = await Promise.allSettled([1, 2].map(() => quantizeModel(at('sd15'), target, options)))
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(results.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'bad-request' } })
  }, 30_000)

  const mounted: string[] = []
  afterAll(() => mounted.forEach((place) => execFileSync('umount', [place])))
  async function disk(options: string): Promise<string> {
    const place = at(`disk-${number++}`)
    await mkdir(place)
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', place])
    mounted.push(place)
    return place
  }
  it.runIf(isRoot)('a disk that is too small, read-only, or fills up on the way', async () => {
    const tight = await disk('size=4m')
    await refuse(
      at('sd15'),
      { code: 'disk-full', message: expect.stringMatching(/needs \d+ MB; \d MB are free/) },
      join(tight, 'model'),
    )
    expect(await readdir(tight)).toEqual([])
    await refuse(at('sd15'), { code: 'folder-unwritable' }, join(await disk('ro'), 'model'))

    const filling = await disk('size=90m')
    await refuse(
      at('sd15'),
      { code: 'disk-full', message: expect.stringContaining('ran full') },
      join(filling, 'model'),
      {
        onProgress: ({ phase }) => {
          if (phase === 'checking') execFileSync('fallocate', ['-l', '89m', join(filling, 'filler')])
        },
      },
    )
    expect(await readdir(filling)).toEqual(['filler'])
  })
  it.runIf(isRoot)(
    'but another disk is no obstacle',
    async () => {
      const target = join(await disk('size=200m'), 'model')
      await quantizeModel(at('sd15'), target)
      expect(decibels(await outputOf(target), await outputOf(at('sd15')))).toBeGreaterThan(6)
    },
    60_000,
  )
})
