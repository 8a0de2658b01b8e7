import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openNetworks } from '../../main/engine/networks.ts'
import type { ConvertOptions } from '../../models/checkpoint/convert.ts'
import { convertCheckpoint } from '../../models/checkpoint/convert.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readSafetensors, readTensor } from '../../models/checkpoint/safetensors.ts'
import { tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'
import type { Edited } from './convert-edit.ts'
import { editCheckpoint, filled } from './convert-edit.ts'

const run = promisify(execFile)
const isRoot = process.getuid?.() === 0
let folder: string
const at = (...path: string[]) => join(folder, ...path)
const family = (name: keyof typeof tinyLdmConfigs) => at(`${name}.safetensors`)
const unetPrefix = 'model.diffusion_model.'

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-'))
  // A small vocabulary keeps the files at a few megabytes.
  for (const name of ['sd15', 'sd2', 'sdxl'] as const)
    await writeRandomCheckpoint(family(name), { ...tinyLdmConfigs[name], vocabulary: 512 })
  await writeRandomCheckpoint(at('wide.safetensors'), { ...tinyLdmConfigs.sd15, vocabulary: 512 }, { dtype: 'F32' })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

let number = 0
const fresh = () => at(`target-${number++}`)
const edited = (edit: (tensors: Edited) => void, source = family('sd15'), metadata?: Record<string, string>) =>
  editCheckpoint(source, at(`edited-${number++}.safetensors`), edit, metadata)
async function valuesOf(model: string, part: string, name: string) {
  const tensor = (await readSafetensors(join(model, `${part}.safetensors`))).tensors.get(name)!
  return { dtype: tensor.dtype, values: toFloat32(await readTensor(tensor), tensor.dtype) }
}
async function hashOf(model: string) {
  const hash = createHash('sha256')
  for (const name of (await readdir(model)).sort())
    if (name !== 'model.json') hash.update(name).update(await readFile(join(model, name)))
  return hash.digest('hex')
}
/** Everything in the parent folder that mentions the target: the finished model, work folders, locks. */
async function tracesOf(target: string, parent = folder) {
  const base = target.slice(parent.length + 1)
  return (await readdir(parent)).filter((name) => name === base || name.startsWith(`.${base}.`))
}

describe('an imported model', () => {
  it.each(['sd15', 'sd2', 'sdxl'] as const)('%s runs, and its numbers are finite', async (name) => {
    const target = fresh()
    const manifest = await convertCheckpoint(family(name), target)
    expect(manifest.family).toBe(name)
    expect(manifest.weightBytes).toBe(
      (
        await Promise.all(
          ['text_encoder', 'text_encoder_2', 'unet', 'vae'].map((part) =>
            stat(join(target, `${part}.safetensors`)).then(
              (info) => info.size,
              () => 0,
            ),
          ),
        )
      ).reduce((a, b) => a + b),
    )
    const networks = openNetworks(target)
    try {
      const ids = { data: new BigInt64Array(77).fill(7n), shape: [1, 77] }
      const eos = { data: BigInt64Array.of(3n), shape: [1] }
      const fill = (shape: number[]) => ({ data: new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5), shape })
      const width = manifest.textEncoders.reduce((sum, tower) => sum + tower.width, 0)
      const { pooled } = await networks.run(
        name === 'sdxl' ? 'text_encoder_2' : 'text_encoder',
        { input_ids: ids, eos_index: eos },
        ['pooled'],
      )
      const { out_sample: out } = await networks.run('unet', {
        sample: fill([1, 4, 8, 8]),
        timestep: fill([1]),
        encoder_hidden_states: fill([1, 77, width]),
        ...(name === 'sdxl' ? { text_embeds: pooled, time_ids: fill([1, 6]) } : {}),
      })
      const { sample } = await networks.run('vae_decoder', { latent_sample: fill([1, 4, 8, 8]) })
      const { latent_mean: mean } = await networks.run('vae_encoder', { sample: fill([1, 3, 64, 64]) })
      expect([out.shape, sample.shape, mean.shape]).toEqual([
        [1, 4, 8, 8],
        [1, 3, 64, 64],
        [1, 4, 8, 8],
      ])
      for (const tensor of [pooled, out, sample, mean]) expect(tensor.data.every(Number.isFinite)).toBe(true)
    } finally {
      await networks.release()
    }
  })

  it('carries the SHA-256 of its file and a name', async () => {
    const manifest = await convertCheckpoint(family('sd15'), fresh(), { name: 'Ink & wash' })
    const sha256 = createHash('sha256')
      .update(await readFile(family('sd15')))
      .digest('hex')
    expect(manifest).toMatchObject({ name: 'Ink & wash', source: { file: 'sd15.safetensors', sha256 } })
  })

  it('keeps 32-bit weights, or brings them to 16 bits within half a step', async () => {
    const [wide, half] = [fresh(), fresh()]
    expect((await convertCheckpoint(at('wide.safetensors'), wide)).storage).toBe('fp32')
    expect((await convertCheckpoint(at('wide.safetensors'), half, { storage: 'fp16' })).storage).toBe('fp16')
    const exact = await valuesOf(wide, 'unet', 'conv_in.weight')
    const rounded = await valuesOf(half, 'unet', 'conv_in.weight')
    expect([exact.dtype, rounded.dtype]).toEqual(['F32', 'F16'])
    exact.values.forEach((value, i) =>
      expect(Math.abs(rounded.values[i] - value)).toBeLessThanOrEqual(Math.max(Math.abs(value) * 2 ** -11, 2 ** -25)),
    )
  })

  it('of SDXL keeps its VAE in 32 bits', async () => {
    const target = fresh()
    await convertCheckpoint(family('sdxl'), target)
    expect((await valuesOf(target, 'vae', 'decoder.conv_in.weight')).dtype).toBe('F32')
    expect((await valuesOf(target, 'unet', 'conv_in.weight')).dtype).toBe('F16')
  })

  it('keeps 32 bits for the one tensor whose values are too large for 16', async () => {
    const name = `${unetPrefix}middle_block.0.in_layers.2.weight`
    const source = await edited(
      (tensors) => tensors.set(name, filled(name, tensors.get(name)!.shape, 70000)),
      at('wide.safetensors'),
    )
    const target = fresh()
    await convertCheckpoint(source, target, { storage: 'fp16' })
    const large = await valuesOf(target, 'unet', 'mid_block.resnets.0.conv1.weight')
    expect([large.dtype, large.values[0]]).toEqual(['F32', 70000])
    expect((await valuesOf(target, 'unet', 'conv_in.weight')).dtype).toBe('F16')
  })

  it('from scaled fp8 gets its factors', async () => {
    const path = `${unetPrefix}input_blocks.1.1.transformer_blocks.0.attn1.to_q`
    const source = await edited((tensors) => {
      const { shape } = tensors.get(`${path}.weight`)!
      tensors.set(`${path}.weight`, {
        name: `${path}.weight`,
        dtype: 'F8_E4M3',
        shape,
        bytes: new Uint8Array(shape[0] * shape[1]).fill(0x38),
      })
      tensors.set(`${path}.scale_weight`, filled(`${path}.scale_weight`, [], 0.125))
      tensors.set(`${unetPrefix}scaled_fp8`, {
        name: `${unetPrefix}scaled_fp8`,
        dtype: 'F8_E4M3',
        shape: [0],
        bytes: new Uint8Array(0),
      })
    })
    const target = fresh()
    await convertCheckpoint(source, target)
    expect(
      (
        await valuesOf(target, 'unet', 'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight')
      ).values.every((value) => value === 0.125),
    ).toBe(true)
  })
})

describe('what a network predicts', () => {
  const type = async (source: string, options: ConvertOptions = {}) =>
    (await convertCheckpoint(source, fresh(), options)).schedule.predictionType
  const marker = (name: string) => (tensors: Edited) =>
    void tensors.set(name, { name, dtype: 'F32', shape: [0], bytes: new Uint8Array(0) })
  it('is told by markers and notes in the file', async () => {
    expect(await type(family('sd15'))).toBe('epsilon')
    expect(await type(await edited(marker('v_pred'), family('sdxl')))).toBe('v_prediction')
    expect(
      (await convertCheckpoint(await edited(marker('ztsnr'), family('sdxl')), fresh())).schedule.zeroTerminalSnr,
    ).toBe(true)
    expect(await type(await edited(() => undefined, family('sd15'), { 'modelspec.prediction_type': 'v' }))).toBe(
      'v_prediction',
    )
    expect(await type(await edited(() => undefined, family('sd2'), { 'modelspec.predict_key': 'epsilon' }))).toBe(
      'epsilon',
    )
  })
  it('is found out for SD 2 by running it once, with the size that goes with it', async () => {
    const probed: string[] = []
    const probe = (mean: number) => async (model: string) => {
      probed.push(...(await readdir(model)).filter((name) => name === 'unet.onnx'))
      return mean
    }
    const v = await convertCheckpoint(family('sd2'), fresh(), { probe: probe(-1.2) })
    const noise = await convertCheckpoint(family('sd2'), fresh(), { probe: probe(-0.3) })
    expect([
      v.schedule.predictionType,
      v.nativeSize.width,
      noise.schedule.predictionType,
      noise.nativeSize.width,
    ]).toEqual(['v_prediction', 768, 'epsilon', 512])
    expect(probed).toEqual(['unet.onnx', 'unet.onnx'])
  })
})

describe('a source that is not right is refused and leaves nothing', () => {
  const refuse = async (source: string, expected: object, options: ConvertOptions = {}) => {
    const target = fresh()
    await expect(convertCheckpoint(source, target, options)).rejects.toMatchObject(expected)
    expect(await tracesOf(target)).toEqual([])
  }
  const poison = (name: string, value: number) =>
    edited((tensors) => {
      const tensor = filled(name, tensors.get(name)!.shape, 1)
      new Float32Array(tensor.bytes.buffer)[1] = value
      tensors.set(name, tensor)
    })

  it.each([NaN, Infinity])('%f among the weights, naming the tensor', async (value) => {
    const name = `${unetPrefix}middle_block.0.in_layers.2.weight`
    await refuse(await poison(name, value), { code: 'file-unreadable', message: expect.stringContaining(name) })
  })
  it('but not among numbers that nobody reads', async () => {
    await convertCheckpoint(await poison('alphas_cumprod', NaN), fresh())
  })
  it('missing tensors, with their number and the first', async () => {
    const source = await edited((tensors) => {
      for (const part of ['weight', 'bias']) tensors.delete(`${unetPrefix}middle_block.2.out_layers.3.${part}`)
    })
    await refuse(source, {
      code: 'checkpoint-incomplete',
      message: expect.stringMatching(
        /: 2 of 324 tensors of its unet are missing, first `mid_block\.resnets\.1\.conv2\./,
      ),
    })
  })
  it('wrong shapes', async () => {
    const name = 'first_stage_model.decoder.conv_out.weight'
    await refuse(await edited((tensors) => tensors.set(name, filled(name, [3, 32, 3, 1], 0))), {
      code: 'checkpoint-incomplete',
      message: expect.stringContaining('expected [3, 32, 3, 3], found [3, 32, 3, 1]'),
    })
  })
  it.each([
    ['first_stage_model.', /has no VAE/, /baked VAE/],
    ['cond_stage_model.', /has no text encoder|no layout/, /./],
  ])('without %s', async (prefix, message, hint) => {
    const source = await edited((tensors) =>
      [...tensors.keys()].filter((name) => name.startsWith(prefix)).forEach((name) => tensors.delete(name)),
    )
    await refuse(source, { message: expect.stringMatching(message), hint: expect.stringMatching(hint) })
  })
  it('integer codes where weights should be', async () => {
    const name = `${unetPrefix}time_embed.0.weight`
    await refuse(
      await edited((tensors) =>
        tensors.set(name, {
          name,
          dtype: 'I8',
          shape: tensors.get(name)!.shape,
          bytes: new Uint8Array(tensors.get(name)!.bytes.length / 2),
        }),
      ),
      { code: 'checkpoint-unsupported', message: expect.stringContaining('I8') },
    )
  })
  it('a pickle, a folder of pickles, a path that is not there', async () => {
    await writeFile(at('old.ckpt'), Buffer.from('80027d71', 'hex'))
    await refuse(at('old.ckpt'), { code: 'checkpoint-unsafe' })
    for (const part of ['unet', 'vae', 'text_encoder']) {
      await mkdir(at('pickled', part), { recursive: true })
      await writeFile(at('pickled', part, 'config.json'), '{"cross_attention_dim":768}')
      await writeFile(at('pickled', part, 'diffusion_pytorch_model.bin'), 'x')
    }
    await refuse(at('pickled'), { code: 'checkpoint-unsafe' })
    await refuse(at('nowhere.safetensors'), { code: 'ENOENT' })
    await refuse(at('pickled', 'vae'), { code: 'checkpoint-unknown', message: expect.stringContaining('one part') })
    await mkdir(at('empty'))
    await refuse(at('empty'), { code: 'checkpoint-unknown' })
  })
  it('a place that is taken, unless it may be replaced', async () => {
    const target = fresh()
    await convertCheckpoint(family('sd15'), target, { name: 'first' })
    await expect(convertCheckpoint(family('sd15'), target, { name: 'second' })).rejects.toMatchObject({
      code: 'bad-request',
    })
    expect((await convertCheckpoint(family('sd15'), target, { name: 'second', replace: true })).name).toBe('second')
    expect(await tracesOf(target)).toEqual([target.slice(folder.length + 1)])
  })
})

describe('cancelling and crashing', () => {
  it.each([0.1, 0.5, 0.9])('stops at %f and leaves nothing', async (fraction) => {
    const target = fresh()
    const abort = new AbortController()
    const converting = convertCheckpoint(family('sd15'), target, {
      signal: abort.signal,
      onProgress: (progress) => void (progress.fraction >= fraction && abort.abort()),
    })
    await expect(converting).rejects.toMatchObject({ name: 'AbortError' })
    expect(await tracesOf(target)).toEqual([])
  })

  it('goes on where it was killed, without writing finished parts again', async () => {
    const [target, straight] = [fresh(), fresh()]
    await convertCheckpoint(family('sd15'), straight)
    const child = (...more: string[]) =>
      run(process.execPath, [
        '--import',
        'tsx',
        join(import.meta.dirname, 'convert-child.ts'),
        family('sd15'),
        target,
        ...more,
      ])
    await expect(child('0.8')).rejects.toMatchObject({ signal: 'SIGKILL' })
    const work = at(`.${target.slice(folder.length + 1)}.partial`)
    expect(await readFile(join(work, 'journal.ndjson'), 'utf8')).toContain('"text_encoder.safetensors"')
    await expect(stat(target)).rejects.toThrow()
    const before = await stat(join(work, 'text_encoder.safetensors'))
    expect((await child()).stdout).toBe('done\n')
    const after = await stat(join(target, 'text_encoder.safetensors'))
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs])
    expect(await hashOf(target)).toBe(await hashOf(straight))
    expect(await tracesOf(target)).toEqual([target.slice(folder.length + 1)])
  })

  it('starts anew when the source is another one', async () => {
    const target = fresh()
    await expect(
      run(process.execPath, [
        '--import',
        'tsx',
        join(import.meta.dirname, 'convert-child.ts'),
        family('sd15'),
        target,
        '0.8',
      ]),
    ).rejects.toMatchObject({ signal: 'SIGKILL' })
    await convertCheckpoint(family('sd2'), target)
    const straight = fresh()
    await convertCheckpoint(family('sd2'), straight)
    expect(await hashOf(target)).toBe(await hashOf(straight))
  })

  it('two at once make it once', async () => {
    const target = fresh()
    const results = await Promise.allSettled([
      convertCheckpoint(family('sd15'), target),
      convertCheckpoint(family('sd15'), target),
    ])
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(results.find((result) => result.status === 'rejected')).toMatchObject({ reason: { code: 'bad-request' } })
  })
})

describe('places that cannot take a model', () => {
  const mounted: string[] = []
  afterAll(() => mounted.forEach((place) => execFileSync('umount', [place])))
  async function disk(options: string): Promise<string> {
    const place = at(`disk-${number++}`)
    await mkdir(place)
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', place])
    mounted.push(place)
    return place
  }

  it('a folder without write permission', async () => {
    // Permissions do not bind root: a disk mounted read-only does.
    const place = isRoot ? await disk('ro') : at('locked')
    if (!isRoot) await mkdir(place).then(() => chmod(place, 0o555))
    await expect(convertCheckpoint(family('sd15'), join(place, 'model'))).rejects.toMatchObject({
      code: 'folder-unwritable',
      hint: expect.stringContaining('place'),
    })
  })

  it.runIf(isRoot)('a disk that is too small, told before anything is written', async () => {
    const place = await disk('size=4m')
    await expect(convertCheckpoint(family('sd15'), join(place, 'model'))).rejects.toMatchObject({
      code: 'disk-full',
      message: expect.stringMatching(/needs \d+ MB; \d MB are free/),
    })
    expect(await readdir(place)).toEqual([])
  })

  it.runIf(isRoot)('a disk that fills up on the way', async () => {
    const place = await disk('size=48m')
    const converting = convertCheckpoint(family('sd15'), join(place, 'model'), {
      onProgress: ({ phase }) => {
        if (phase === 'checking') execFileSync('fallocate', ['-l', '46m', join(place, 'filler')])
      },
    })
    await expect(converting).rejects.toMatchObject({ code: 'disk-full', message: expect.stringContaining('ran full') })
    expect(await readdir(place)).toEqual(['filler'])
  })
})
