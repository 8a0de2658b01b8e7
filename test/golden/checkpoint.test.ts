import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PartConfigs } from '../../models/build.ts'
import { requiredTensors } from '../../models/build.ts'
import { convertCheckpoint } from '../../models/checkpoint/convert.ts'
import { detectFamily } from '../../models/checkpoint/detect.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { inferClipConfig, inferUnetConfig, inferVaeConfig } from '../../models/checkpoint/infer.ts'
import { readSafetensors, readTensor, writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { ComponentName } from '../../models/checkpoint/single-file.ts'
import { splitSingleFile } from '../../models/checkpoint/single-file.ts'
import { clipConfigFrom } from '../../models/clip.ts'
import type { ConfigJson } from '../../models/config-json.ts'
import { families } from '../../models/family.ts'
import { unetConfigFrom } from '../../models/unet.ts'
import { vaeConfigFrom } from '../../models/vae.ts'
import { ldmConfigs, ldmTensors, tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'

type FamilyName = 'sd15' | 'sd2' | 'sdxl'
type Golden = {
  configs: Record<string, Record<ComponentName, ConfigJson>>
  /** Per part: [diffusers name, name in the file, which quarter: thirds count 0, 1, 2, shape]. */
  names: Record<FamilyName, Record<ComponentName, [string, string, number, number[]][]>>
  hashes: Record<FamilyName, Record<ComponentName, Record<string, string>>>
}
const golden = JSON.parse(
  gunzipSync(await readFile(join(import.meta.dirname, 'checkpoint.json.gz'))).toString(),
) as Golden
const familyNames = ['sd15', 'sd2', 'sdxl'] as const
const parts = ['text_encoder', 'text_encoder_2', 'unet', 'vae'] as const

/** A checkpoint of which only the header exists. */
function fakeFile(family: FamilyName, isTiny = false) {
  let offset = 0
  const tensors = new Map(
    ldmTensors((isTiny ? tinyLdmConfigs : ldmConfigs)[family]).map(({ name, shape }) => {
      const length = shape.reduce((product, size) => product * size, 2)
      const tensor = { file: 'x', offset, length, dtype: 'F16' as const, shape }
      offset += length
      return [name, tensor]
    }),
  )
  return { path: 'x.safetensors', bytes: offset, tensors, metadata: new Map<string, string>() }
}

function parse(part: ComponentName, json: ConfigJson) {
  if (part === 'unet') return unetConfigFrom(json)
  if (part === 'vae') return vaeConfigFrom(json)
  return clipConfigFrom('projection_dim' in json ? { architectures: ['CLIPTextModelWithProjection'], ...json } : json)
}

describe.each(familyNames)('names of %s', (family) => {
  it('are those of diffusers, tensor for tensor and third for third', async () => {
    const file = fakeFile(family)
    const split = await splitSingleFile(file, detectFamily(file.tensors, 'x'))
    for (const part of parts) {
      const expected = golden.names[family][part]
      if (!expected) continue
      const ours = split[part]!
      const listed = expected.map(([name, origin, third, shape]) => {
        const whole = file.tensors.get(origin)!
        return {
          name,
          origin,
          offset: whole.offset + (/in_proj_/.test(origin) ? (third * whole.length) / 3 : 0),
          size: shape.reduce((a, b) => a * b, 2),
        }
      })
      const found = expected.map(([name]) => {
        const { origin, offset, length } = ours.get(name)!
        return { name, origin, offset, size: length }
      })
      expect(found).toEqual(listed)
    }
  })

  it('and shapes are what the graph builder asks for', () => {
    for (const part of parts) {
      const expected = golden.names[family][part]
      if (!expected) continue
      const required = requiredTensors(part, parse(part, golden.configs[family][part]) as PartConfigs[typeof part])
      expect(
        [...required].sort(([a], [b]) => (a < b ? -1 : 1)),
        part,
      ).toEqual(expected.map(([name, , , shape]) => [name, shape]))
    }
  })

  it.each([false, true])('give the published configuration back (tiny: %s)', async (isTiny) => {
    const file = fakeFile(family, isTiny)
    const split = await splitSingleFile(file, detectFamily(file.tensors, 'x'))
    const inferred: Partial<Record<ComponentName, ConfigJson>> = {
      unet: inferUnetConfig(split.unet!, family),
      vae: inferVaeConfig(split.vae!, families[family].latentScale),
      text_encoder: inferClipConfig(split.text_encoder!, family === 'sd2' ? 'gelu' : 'quick_gelu'),
      ...(split.text_encoder_2 ? { text_encoder_2: inferClipConfig(split.text_encoder_2, 'gelu') } : {}),
    }
    for (const part of parts) {
      if (inferred[part])
        expect(parse(part, inferred[part])).toEqual(
          parse(part, golden.configs[isTiny ? `tiny-${family}` : family][part]),
        )
    }
  })
})

describe.each(familyNames)('values of %s', (family) => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vignette-'))
    await writeRandomCheckpoint(join(folder, 'tiny.safetensors'), tinyLdmConfigs[family], { seed: 5 })
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  async function hashesOf(model: string) {
    const out: Partial<Record<ComponentName, Record<string, string>>> = {}
    for (const part of Object.keys(golden.hashes[family]) as ComponentName[]) {
      const { tensors } = await readSafetensors(join(model, `${part}.safetensors`))
      const entries = await Promise.all(
        [...tensors].map(async ([name, tensor]) => {
          const values = toFloat32(await readTensor(tensor), tensor.dtype)
          return [name, createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex').slice(0, 16)] as const
        }),
      )
      out[part] = Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)))
    }
    return out
  }

  it('in a single file come out as diffusers converts them', async () => {
    await convertCheckpoint(join(folder, 'tiny.safetensors'), join(folder, 'single'), { storage: 'fp32' })
    expect(await hashesOf(join(folder, 'single'))).toEqual(golden.hashes[family])
  })

  it('in fp16 storage lose nothing of an fp16 file', async () => {
    const manifest = await convertCheckpoint(join(folder, 'tiny.safetensors'), join(folder, 'half'))
    expect(manifest).toMatchObject({ storage: 'fp16', family })
    expect(await hashesOf(join(folder, 'half'))).toEqual(golden.hashes[family])
  })

  it('in a diffusers folder come out the same, sharded or as fp16 variant', async () => {
    const source = join(folder, 'diffusers')
    for (const part of Object.keys(golden.hashes[family]) as ComponentName[]) {
      const config = golden.configs[`tiny-${family}`][part]
      const isText = part.startsWith('text')
      await mkdir(join(source, part), { recursive: true })
      await writeFile(
        join(source, part, 'config.json'),
        JSON.stringify(
          isText && 'projection_dim' in config ? { ...config, architectures: ['CLIPTextModelWithProjection'] } : config,
        ),
      )
      const weights = await readSafetensors(join(folder, 'half', `${part}.safetensors`))
      // transformers 5.6 and later leave "text_model." out of the plain class.
      const planned = [...weights.tensors].map(([name, { dtype, shape }]) => ({
        name: part === 'text_encoder' ? name.replace('text_model.', '') : name,
        origin: name,
        dtype,
        shape,
      }))
      const write = (file: string, some: typeof planned) =>
        writeSafetensors(join(source, part, file), some, async function* ({ name }) {
          yield await readTensor(weights.tensors.get(planned.find((tensor) => tensor.name === name)!.origin)!)
        })
      if (part !== 'unet')
        await write(isText ? 'model.fp16.safetensors' : 'diffusion_pytorch_model.safetensors', planned)
      else {
        const shards = [planned.filter((_, i) => i % 2 === 0), planned.filter((_, i) => i % 2 === 1)]
        const files = [
          'diffusion_pytorch_model-00001-of-00002.safetensors',
          'diffusion_pytorch_model-00002-of-00002.safetensors',
        ]
        await Promise.all(shards.map((shard, i) => write(files[i], shard)))
        const map = Object.fromEntries(shards.flatMap((shard, i) => shard.map(({ name }) => [name, files[i]])))
        await writeFile(
          join(source, part, 'diffusion_pytorch_model.safetensors.index.json'),
          JSON.stringify({ metadata: {}, weight_map: map }),
        )
      }
    }
    await mkdir(join(source, 'scheduler'))
    const scheduler = {
      _class_name: 'DDIMScheduler',
      beta_start: 0.00085,
      beta_end: 0.012,
      beta_schedule: 'scaled_linear',
      prediction_type: 'v_prediction',
      rescale_betas_zero_snr: true,
    }
    await writeFile(join(source, 'scheduler', 'scheduler_config.json'), JSON.stringify(scheduler))

    const manifest = await convertCheckpoint(source, join(folder, 'from-folder'))
    expect(await hashesOf(join(folder, 'from-folder'))).toEqual(golden.hashes[family])
    expect(manifest.schedule).toMatchObject({
      predictionType: 'v_prediction',
      zeroTerminalSnr: true,
      betaStart: 0.00085,
    })
    expect(manifest.nativeSize).toEqual({ width: 512, height: 512 }) // sample_size 64 × 8
  })
})
