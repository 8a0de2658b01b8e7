import { execFile } from 'node:child_process'
import { cp, open, readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compare, suggest } from '../../main/cli/adapter-choose.ts'
import { inspect } from '../../main/cli/adapter-inspect.ts'
import { convert, extract, merge, split } from '../../main/cli/adapter-make.ts'
import { adapterSpec } from '../../main/cli/adapter-spec.ts'
import { parseCommandLine, type Terminal } from '../../main/cli/terminal.ts'
import { contentHash } from '../../models/adapters/content-hash.ts'
import { readChanges, scaled } from '../../models/adapters/deltas.ts'
import { readAdapter } from '../../models/adapters/read.ts'
import { modelShape } from '../../models/adapters/shape.ts'
import type { ModelShape } from '../../models/adapters/types.ts'
import { writeAdapter, writeTensors, type LayerDelta } from '../../models/adapters/write.ts'
import { toFloat16, toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { readSafetensors, readTensor } from '../../models/checkpoint/safetensors.ts'
import { expectClose } from '../expect-close.ts'
import { hashed } from '../unit/adapters-tools/numbers.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

let folder: string
let model: string
let shape: ModelShape
const at = (...names: string[]) => join(folder, ...names)

beforeAll(async () => {
  folder = await scratchFolder('cli-adapter')
  model = await makeTinyModel(at('model'))
  shape = modelShape('sd15', await readParts(model))
  await writeAdapter(at('ink.safetensors'), layersOf('ink', 3), {
    shape,
    notes: { title: 'Ink wash style', triggers: ['inkwash'], weight: 0.5 },
  })
  await writeAdapter(at('fox.safetensors'), layersOf('fox', 2), {
    ...{ shape, layout: 'diffusers', storage: 'F32' },
    notes: { title: 'Fox', tags: ['animal'] },
  })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** Attention layers of the UNet with hashed factors. */
function layersOf(name: string, rank: number): LayerDelta[] {
  return [...shape.layers.unet!]
    .filter(([path]) => /attn[12]\.to_(q|v)$/.test(path))
    .map(([path, { weight }]) => {
      const k = weight[1]
      const up = hashed(`${name}${path}up`, weight[0] * rank).map((value) => value / 10)
      return { target: 'unet', path, weight, rank, down: hashed(name + path, rank * k), up }
    })
}

const commands = { inspect, convert, merge, split, extract, compare, suggest }
type Command = keyof typeof commands

/** Runs a command in this process; what it says and its result. */
async function run(command: Command, ...argv: string[]): Promise<{ lines: string[]; result: unknown }> {
  const lines: string[] = []
  let result: unknown
  const terminal: Terminal = {
    isJson: false,
    signal: new AbortController().signal,
    say: (line) => void lines.push(line),
    progress: { update: () => {}, clear: () => {} },
    result: (value) => void (result = value),
  }
  await commands[command](parseCommandLine(adapterSpec, argv), terminal)
  return { lines, result }
}

/** The result of a command on the adapters of the tiny model. */
const json = async <T>(command: Command, ...argv: string[]): Promise<T> =>
  (await run(command, ...argv, '--model', model)).result as T

/** The command as a person runs it. */
function type(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const command = ['--import', 'tsx', join(import.meta.dirname, '../../main/cli/adapter.ts'), ...args]
  const env = { ...process.env, VIGNETTE_HOME: at('home') }
  return new Promise((resolve) => {
    execFile(process.execPath, command, { env }, (error, stdout, stderr) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
  })
}

const layersIn = async (file: string) => (await readChanges(await readAdapter(file, shape), shape)).layers.map(scaled)

function dense({ weight, rank, down, up }: LayerDelta): Float64Array {
  const [n, k] = [weight[0], down.length / rank]
  const out = new Float64Array(n * k)
  for (let i = 0; i < n; i++)
    for (let p = 0; p < rank; p++) for (let j = 0; j < k; j++) out[i * k + j] += up[i * rank + p] * down[p * k + j]
  return out
}

/** ‖a − b‖ / ‖b‖ over all layers. */
function distance(a: readonly LayerDelta[], b: readonly LayerDelta[]): number {
  let [lost, all] = [0, 0]
  for (const layer of b) {
    const exact = dense(layer)
    const near = dense(a.find(({ path }) => path === layer.path)!)
    exact.forEach((value, i) => {
      lost += (value - near[i]) ** 2
      all += value ** 2
    })
  }
  return Math.sqrt(lost / all)
}

describe('merge and split', () => {
  it('side by side: each comes out as it was, bit for bit', async () => {
    const out = at('both.safetensors')
    const merged = await json<{ error: number }>(
      'merge',
      ...[`${at('ink.safetensors')}:0.8`, `${at('fox.safetensors')}:-0.7`, '--out', out, '--keep-inverse'],
    )
    expect(merged.error).toBe(0)
    const together = layersOf('ink', 3).map((layer) => {
      const [ink, fox] = [layer, layersOf('fox', 2).find(({ path }) => path === layer.path)!]
      const sum = dense(ink).map((value, i) => 0.8 * value - 0.7 * dense(fox)[i])
      return { path: layer.path, sum }
    })
    const layers = await layersIn(out)
    for (const { path, sum } of together.slice(0, 3)) {
      const own = dense(layers.find((layer) => layer.path === path)!)
      expectClose(own, sum, { abs: 2e-3 }) // ink is stored in halves
    }
    const parts = await json<{ file: string; name: string; isSame: boolean }[]>('split', out, '--out', at('parts'))
    expect(parts.map(({ name, isSame }) => [name, isSame])).toEqual([
      ['ink', true],
      ['fox', true],
    ])
    for (const name of ['ink', 'fox']) {
      const [own, original] = await Promise.all(
        [at('parts', `${name}.safetensors`), at(`${name}.safetensors`)].map(hashOf),
      )
      expect(own).toBe(original)
    }
  })

  it('of a lower rank: each comes out within the error that was stated', async () => {
    const out = at('small.safetensors')
    const merged = await json<{ error: number; members: { name: string; error: number }[] }>(
      'merge',
      ...[at('ink.safetensors'), at('fox.safetensors'), '--out', out, '--keep-inverse', '--rank', '4'],
    )
    expect(merged.error).toBeGreaterThan(0.05)
    await json('split', out, '--out', at('near'))
    for (const { name, error } of merged.members) {
      const [back, own] = [await layersIn(at('near', `${name}.safetensors`)), await layersIn(at(`${name}.safetensors`))]
      expect(distance(back, own)).toBeLessThan(error + 1e-3)
      expect(distance(back, own)).toBeGreaterThan(0.5 * error)
    }
    const { lines } = await run('inspect', out, '--model', model)
    expect(lines.join('\n')).toMatch(/Holds ink, at weight 1; comes out with an error of [\d.]+ %/)
  })

  it('without the inverse there is nothing to take out', async () => {
    await json('merge', at('ink.safetensors'), at('fox.safetensors'), '--out', at('flat'))
    await expect(json('split', at('flat.safetensors'))).rejects.toMatchObject({
      code: 'adapter-mismatch',
      message: expect.stringMatching(/does not hold what is needed/),
      hint: expect.stringMatching(/--keep-inverse/),
    })
  })
})

async function hashOf(file: string): Promise<string> {
  return contentHash((await readSafetensors(file)).tensors)
}

describe('convert', () => {
  it('to another layout and back changes no number', async () => {
    const [there, back] = [at('there.safetensors'), at('back.safetensors')]
    await json('convert', at('ink.safetensors'), '--to', 'diffusers', '--out', there)
    expect([...(await readSafetensors(there)).tensors.keys()][0]).toMatch(/^unet\..*\.lora_[AB]\.weight$/)
    await json('convert', there, '--to', 'kohya', '--out', back)
    expect(await hashOf(back)).toBe(await hashOf(at('ink.safetensors')))
    const info = (await readAdapter(back, shape)).info
    expect(info).toMatchObject({ title: 'Ink wash style', triggers: ['inkwash'], preferredWeight: 0.5 })
  })

  it('a DoRA becomes what it makes of the weights of the model, which must be given', async () => {
    const [layer] = layersOf('dora', 2)
    const [n, k] = layer.weight
    const name = `lora_unet_${layer.path.replaceAll('.', '_')}`
    const scale = hashed('scale', n).map((value) => 1 + value / 4)
    const tensor = (end: string, tensorShape: number[], values: Float32Array) => ({
      ...{ name: `${name}.${end}`, dtype: 'F32' as const, shape: tensorShape },
      bytes: new Uint8Array(values.buffer),
    })
    await writeTensors(
      at('dora.safetensors'),
      [
        tensor('lora_down.weight', [2, k], layer.down),
        tensor('lora_up.weight', [n, 2], layer.up),
        tensor('dora_scale', [n, 1], scale),
      ],
      {},
    )
    const { tensors } = await readSafetensors(join(model, 'unet.safetensors'))
    const stored = tensors.get(`${layer.path}.weight`)!
    const base = toFloat32(await readTensor(stored), stored.dtype)
    // V = W + up · down (no alpha: scale 1), then every row of the length that the file says.
    const change = dense(layer)
    const expected = Float64Array.from(base, (value, i) => {
      const from = Math.floor(i / k) * k
      const row = Array.from({ length: k }, (_, j) => base[from + j] + change[from + j])
      return ((value + change[i]) * scale[from / k]) / Math.hypot(...row) - value
    })
    const out = at('dora-lora.safetensors')
    await expect(run('convert', at('dora.safetensors'), '--rank', '32', '--out', out)).rejects.toThrow()
    await json('convert', at('dora.safetensors'), '--rank', String(Math.min(n, k)), '--fp32', '--out', out)
    const [made] = await layersIn(out)
    expectClose(dense(made), expected, { abs: 1e-5 })
    await expect(json('convert', at('dora.safetensors'))).rejects.toMatchObject({
      hint: expect.stringContaining('--rank'),
    })
  })

  it('to a lower rank states what is left out', async () => {
    const out = at('ink-r1.safetensors')
    const { error } = await json<{ error: number }>('convert', at('ink.safetensors'), '--rank', '1')
    expect(distance(await layersIn(out), await layersIn(at('ink.safetensors')))).toBeCloseTo(error, 3)
    expect(error).toBeGreaterThan(0.3)
  })
})

describe('extract', () => {
  it('the difference of two models, and puts it on again', async () => {
    const added = layersOf('tuned', 2)
    const tuned = at('tuned')
    await cp(model, tuned, { recursive: true })
    const { tensors } = await readSafetensors(join(tuned, 'unet.safetensors'))
    const file = await open(join(tuned, 'unet.safetensors'), 'r+')
    for (const layer of added) {
      const tensor = tensors.get(`${layer.path}.weight`)!
      const change = dense(layer)
      const values = toFloat32(await readTensor(tensor), tensor.dtype).map((value, i) => value + change[i])
      const bytes = tensor.dtype === 'F32' ? new Uint8Array(values.buffer) : new Uint8Array(toFloat16(values).buffer)
      await file.write(bytes, 0, bytes.length, tensor.offset)
    }
    await file.close()
    const out = at('tuned-lora.safetensors')
    const made = await json<{ layers: number; error: number; leftOut: unknown[] }>(
      'extract',
      ...['--base', model, '--tuned', tuned, '--rank', '2', '--out', out],
    )
    expect(made.layers).toBe(added.length)
    expect(made.leftOut).toEqual([])
    expect(distance(await layersIn(out), added)).toBeLessThan(0.02) // the models are stored in halves
  })

  it('a sparse adapter, which another model refuses', async () => {
    const out = at('ink-wm.safetensors')
    const made = await json<{ error: number; places: number }>(
      'extract',
      ...['--sparse', 'wm', '--from', at('ink.safetensors'), '--rank', '8'],
    )
    expect(made.error).toBeGreaterThan(0.3)
    const other = await makeTinyModel(at('other'), 'sd15')
    await flipOneBit(join(other, 'unet.safetensors'))
    const [own, foreign] = await Promise.all(
      [model, other].map(async (name) => (await run('inspect', out, '--model', name)).lines.join('\n')),
    )
    expect(own).toMatch(/SHiRA/)
    expect(own).toMatch(/Fits/)
    expect(foreign).toMatch(/was made for another model: .*check value/)
    const back = await json<{ error: number }>('convert', out, '--rank', '64', '--out', at('again.safetensors'))
    expect(back.error).toBeLessThan(1e-3)
  })
})

/** Another weight in the first layer that the sparse adapter changes. */
async function flipOneBit(path: string): Promise<void> {
  const { tensors } = await readSafetensors(path)
  const { offset } = tensors.get(`${layersOf('ink', 3)[0].path}.weight`)!
  const file = await open(path, 'r+')
  const byte = new Uint8Array(1)
  await file.read(byte, 0, 1, offset)
  await file.write(Uint8Array.of(byte[0] ^ 1), 0, 1, offset)
  await file.close()
}

describe('compare and suggest', () => {
  it('says how far two adapters change the same things', async () => {
    const [same, apart] = await Promise.all([
      json<{ overlap: number }>('compare', at('ink.safetensors'), at('ink.safetensors')),
      json<{ overlap: number; blocks: { block: string }[] }>('compare', at('ink.safetensors'), at('fox.safetensors')),
    ])
    expect(same.overlap).toBeCloseTo(1, 4)
    expect(apart.overlap).toBeLessThan(0.3)
    expect(apart.blocks.map(({ block }) => block)).toContain('mid_block')
  })

  it('suggests what the prompt names and puts nothing on', async () => {
    const before = await readdir(folder)
    const { suggestions } = await json<{ suggestions: { title: string; weight: number; reason: string }[] }>(
      'suggest',
      ...['a castle, ink wash style', '--from', at('parts')],
    )
    expect(suggestions.map(({ title, weight }) => [title, weight])).toEqual([['Ink wash style', 0.4]])
    const none = await run('suggest', 'a castle', '--from', at('parts'), '--model', model)
    expect(none.lines).toEqual(['The prompt asks for none of these adapters.'])
    expect(await readdir(folder)).toEqual(before)
  })
})

it('refuses in words and with the right exit code', async () => {
  const ink = at('ink.safetensors')
  const before = await readFile(ink)
  const runs = await Promise.all([
    type('paint'),
    type('convert', ink, '--to', 'kohya', '--out', ink, '--model', model),
    type('inspect', ink, '--model', model, '--json'),
    type('--help'),
  ])
  expect(runs.map(({ code }) => code)).toEqual([2, 2, 0, 0])
  expect(runs[0].stderr).toMatch(/no command "paint"/)
  expect(runs[1].stderr).toMatch(/would replace the file/)
  expect(JSON.parse(runs[2].stdout)).toMatchObject([{ title: 'Ink wash style', verdict: { fit: 'fits' } }])
  expect(runs[3].stdout).toContain('Example: npm run adapter')
  await expect(run('convert', ink, '--to', 'comfy')).rejects.toMatchObject({
    hint: 'Choose kohya, diffusers or vignette.',
  })
  await expect(run('merge', ink)).rejects.toMatchObject({ code: 'bad-request' })
  expect((await run('inspect', at('absent.safetensors'))).lines.join()).toMatch(/no such file/)
  expect(await readFile(ink)).toEqual(before)
})
