import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { aliasTable } from '../../models/adapters/names.ts'
import { inspectAdapter, readAdapter } from '../../models/adapters/read.ts'
import { modelShape, standardShape } from '../../models/adapters/shape.ts'
import type { AdapterFile, AdapterPart, ModelShape } from '../../models/adapters/types.ts'
import { bytesPerElement, toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readTensor, writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import { clipConfigFrom } from '../../models/clip.ts'
import type { ConfigJson } from '../../models/config-json.ts'
import type { Dtype } from '../../models/graph/weights.ts'
import { unetConfigFrom } from '../../models/unet.ts'

type Case = {
  name: string
  network: 'sd1' | 'sd2' | 'sdxl'
  tensors: Record<string, [Dtype, number[]]>
  metadata?: Record<string, string>
  config?: object
  /** 'unet:path' -> kind of change, 'dora' for a LoRA with magnitudes. */
  modules: Record<string, string>
  /** 'unet:path' -> what PEFT multiplies the product with. */
  scales?: Record<string, number>
}
type Golden = { networks: Record<Case['network'], Record<string, ConfigJson>>; cases: Case[] }

const read = async <T>(name: string) =>
  JSON.parse(gunzipSync(await readFile(join(import.meta.dirname, name))).toString()) as T
const golden = await read<Golden>('adapter-layouts.json.gz')

const families = { sd1: 'sd15', sd2: 'sd2', sdxl: 'sdxl' } as const
const shapes = Object.fromEntries(
  Object.entries(golden.networks).map(([name, configs]) => [
    name,
    modelShape(
      families[name as Case['network']],
      Object.entries(configs).map(([part, json]) =>
        part === 'unet'
          ? { part, config: unetConfigFrom(json) }
          : { part: part as 'text_encoder', config: clipConfigFrom(json) },
      ),
    ),
  ]),
) as Record<Case['network'], ModelShape>

let folder: string
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'layouts-'))))
afterAll(() => rm(folder, { recursive: true }))

/** The file with ones in it, in PEFT's case as a folder with its configuration. */
async function fileOf({ name, tensors, metadata, config }: Case): Promise<string> {
  const path = join(folder, name.replace(/\W/g, '-'))
  if (config) {
    await mkdir(path)
    await writeFile(join(path, 'adapter_config.json'), JSON.stringify(config))
  }
  const planned = Object.entries(tensors).map(([key, [dtype, shape]]) => ({ name: key, dtype, shape }))
  const ones: Partial<Record<Dtype, number[]>> = { F32: [0, 0, 0x80, 0x3f], F16: [0, 0x3c], BF16: [0x80, 0x3f] }
  await writeSafetensors(
    config ? join(path, 'adapter_model.safetensors') : `${path}.safetensors`,
    planned,
    ({ dtype, shape }) => {
      const count = shape.reduce((product, size) => product * size, 1)
      const one = ones[dtype] ?? [1, ...new Array<number>(bytesPerElement[dtype] - 1).fill(0)]
      return [Buffer.alloc(count * one.length, Uint8Array.from(one))]
    },
    metadata,
  )
  return config ? path : `${path}.safetensors`
}

const kindOf = ({ kind, tensors }: AdapterPart) => (tensors.magnitude ? 'dora' : kind)

function modulesOf({ parts }: AdapterFile): Record<string, string> {
  const modules: Record<string, string> = {}
  for (const part of parts) {
    const key = `${part.target}:${part.path}`
    expect(modules, key).not.toHaveProperty([key])
    modules[key] = kindOf(part)
  }
  return modules
}

const rankOf = ({ tensors }: AdapterPart) =>
  (tensors.down ?? tensors.hada_w1_b ?? tensors.lokr_w2_b ?? tensors.lokr_w1_b)?.shape[0]

/** What the product is multiplied with; alphas of these files are ones. */
async function scaleOf(part: AdapterPart): Promise<number> {
  const { scale } = part
  if (scale.from === 'metadata') return scale.value
  if (scale.from === 'none') return 1
  const value = toFloat32(await readTensor(scale.tensor), scale.tensor.dtype)[0]
  return scale.from === 'alpha' ? value / (rankOf(part) ?? 1) : value
}

describe('files as other programs write them', () => {
  const usable = golden.cases.filter(({ modules }) => !Object.values(modules).includes('unsupported'))

  it.each(usable.map((one) => [one.name, one] as const))('%s', async (_, one) => {
    const file = await readAdapter(await fileOf(one), shapes[one.network])
    expect(file.ignored).toEqual([])
    expect(modulesOf(file)).toEqual(one.modules)
    expect(file.info).toMatchObject({
      matched: Object.keys(one.tensors).length,
      total: Object.keys(one.tensors).length,
      verdict: { fit: 'fits' },
    })
    for (const part of file.parts) {
      const expected = one.scales?.[`${part.target}:${part.path}`]
      if (expected !== undefined) expect(await scaleOf(part), part.path).toBeCloseTo(expected, 6)
    }
  })

  it('names what it cannot use', async () => {
    const one = golden.cases.find(({ name }) => name === 'PEFT BOFT')!
    const file = await fileOf(one)
    const { verdict } = await inspectAdapter(file, shapes.sd1)
    expect(verdict.fit).toBe('unsupported')
    expect(verdict.message).toContain('BOFT')
    await expect(readAdapter(file, shapes.sd1)).rejects.toMatchObject({ message: verdict.message })
  })

  it('a file for one family does not fit another', async () => {
    for (const one of usable) {
      if (Object.keys(one.modules).every((module) => !module.startsWith('unet:'))) continue
      const other = one.network === 'sdxl' ? 'sd1' : 'sdxl'
      const path = join(folder, `${one.name.replace(/\W/g, '-')}${one.config ? '' : '.safetensors'}`)
      const { fit } = (await inspectAdapter(path, shapes[other])).verdict
      expect(fit, `${one.name} on ${other}`).not.toBe('fits')
    }
  })
})

describe('names of the published checkpoints', async () => {
  type Names = Record<'sd15' | 'sd2' | 'sdxl', Record<'unet', [string, string, number, number[]][]>>
  const { names } = await read<{ names: Names }>('checkpoint.json.gz')

  it.each(['sd15', 'sd2', 'sdxl'] as const)('%s: every LDM module, as diffusers converts it', (family) => {
    const table = aliasTable(standardShape(family))
    let count = 0
    for (const [diffusers, ldm] of names[family].unet) {
      const [path, original] = [diffusers, ldm].map((name) => /^(.*)\.weight$/.exec(name)?.[1])
      if (path === undefined || original === undefined) continue
      const module = original.replace('model.diffusion_model.', '')
      for (const alias of [`lora_unet_${module.replaceAll('.', '_')}`, `diffusion_model.${module}`]) {
        expect([table.get(alias)].flat().map((place) => place?.path)).toEqual([path])
      }
      count++
    }
    expect(count).toBe(family === 'sdxl' ? 1050 : 391)
  })
})
