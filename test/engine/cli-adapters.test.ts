import { readdirSync, readFileSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { a1111TextOf, adapterTagsOf, recipeOf } from '../../main/export/metadata.ts'
import { startCommand } from './run-command.ts'
import { shapeOf, writeFloats, writeLora } from './tiny-adapters.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// `npm run generate` with adapters, as a person runs it.

let home: string
let folder: string
let count = 0

beforeAll(async () => {
  home = await scratchFolder('cli-adapters')
  await mkdir(join(home, 'models'))
  const shape = await shapeOf(await makeTinyModel(join(home, 'models', 'tiny')))
  await writeLora(join(home, 'ink.safetensors'), shape, 1)
  await writeLora(join(home, 'wash.safetensors'), shape, 2)
  const more = { vignette_steps: '3', vignette_sampler: 'euler', vignette_guidance_scale: '1' }
  await writeLora(join(home, 'few.safetensors'), shape, 3, { notes: { role: 'speed', more } })
  await writeLora(join(home, 'lcm.safetensors'), shape, 4)
  const xl = 'lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k'
  await writeFloats(join(home, 'xl.safetensors'), {
    [`${xl}.lora_down.weight`]: { shape: [4, 2048], data: new Float32Array(4 * 2048) },
    [`${xl}.lora_up.weight`]: { shape: [640, 4], data: new Float32Array(2560) },
  })
  await writeFile(join(home, 'broken.safetensors'), 'this is no adapter')
  const pictures = [
    { prompt: 'a fox', adapters: ['ink.safetensors:0.5'] },
    { prompt: 'a barn', seed: 3, guidanceScale: 2, adapters: [{ file: 'wash.safetensors', ramp: 'ease-in' }] },
    { prompt: 'a cat', negativePrompt: 'rain' },
  ]
  await writeFile(join(home, 'pictures.json'), JSON.stringify(pictures))
})
beforeEach(async () => {
  folder = join(home, `out-${count++}`)
  await mkdir(folder)
})
afterAll(() => rm(home, { recursive: true }))

const generate = (...args: string[]) => startCommand('generate', args, { cwd: folder, home }).done
const drawing = ['--model', 'tiny', '--size', '64x64', '--device', 'cpu', '--seed', '7']
const png = (name: string) => readFileSync(join(folder, name))

describe('npm run generate with adapters', () => {
  test('draws with them and writes down which', async () => {
    const both = [
      '--adapter',
      '../ink.safetensors:0.6',
      '--adapter',
      '../wash.safetensors:1@0.5-1',
      '--adapter-text-weight',
      '0.3',
    ]
    const { code, stderr } = await generate('a fox', ...drawing, '--steps', '2', ...both, '--out', 'fox.png')
    expect([code, stderr]).toEqual([0, ''])
    expect(recipeOf(png('fox.png'))?.adapters).toMatchObject([
      { name: 'ink.safetensors', weight: 0.6, textWeight: 0.3, start: 0, end: 1 },
      { name: 'wash.safetensors', weight: 1, textWeight: 0.3, start: 0.5, end: 1 },
    ])
    expect(png('fox.png').includes(home)).toBe(false)
    const { prompt, adapters } = adapterTagsOf(a1111TextOf(png('fox.png'))!)
    expect([prompt, adapters.map(({ name, weight }) => [name, weight])]).toEqual([
      'a fox',
      [
        ['ink', 0.6],
        ['wash', 1],
      ],
    ])
  })

  test('lets an adapter for few steps decide what was left open, and says so', async () => {
    const { stdout } = await generate('a fox', ...drawing, '--adapter', '../few.safetensors', '--out', 'fox.png')
    expect(stdout).toMatch(/sets sampler euler, 3 steps, guidance 1\./)
    expect(recipeOf(png('fox.png'))?.request).toMatchObject({ steps: 3, sampler: 'euler', guidanceScale: 1 })
  })

  test('draws the pictures of a list side by side', async () => {
    const { code, stdout } = await generate(...drawing, '--steps', '2', '--batch', '../pictures.json', '--out', 'p.png')
    expect(code).toBe(0)
    expect(stdout).toContain('3 pictures of 64 × 64')
    expect(readdirSync(folder).sort()).toEqual(['p-2.png', 'p-3.png', 'p.png'])
    const recipes = ['p.png', 'p-2.png', 'p-3.png'].map((name) => recipeOf(png(name))!)
    expect(recipes.map(({ request }) => [request.prompt, request.seed, request.negativePrompt])).toEqual([
      ['a fox', 7, ''],
      ['a barn', 3, ''],
      ['a cat', 9, 'rain'],
    ])
    expect(recipes.map(({ adapters }) => adapters?.map(({ name, ramp }) => `${name} ${JSON.stringify(ramp)}`))).toEqual(
      [['ink.safetensors "flat"'], ['wash.safetensors "ease-in"'], undefined],
    )
    expect(recipes.every(({ engine }) => engine.batch === 3)).toBe(true)
  })

  const bad: [string, string[], number, RegExp][] = [
    ['a file that is not there', ['--adapter', 'none.safetensors:0.5'], 1, /There is no adapter .*none\.safetensors/],
    [
      'a weight that is none',
      ['--adapter', '../ink.safetensors:strong'],
      2,
      /Expected a weight after "ink\.safetensors:", got "strong"\.\nWrite FILE/,
    ],
    [
      'a weight that is too large',
      ['--adapter', '../ink.safetensors:9'],
      2,
      /weight of adapter 1 to be at most 4, got 9/,
    ],
    [
      'a window that is closed',
      ['--adapter', '../ink.safetensors:1@0.8-0.2'],
      2,
      /Adapter 1 starts at 0\.8 and ends at 0\.2/,
    ],
    [
      'another family',
      ['--adapter', '../xl.safetensors'],
      1,
      /made for Stable Diffusion XL; this model is .*\n.*other models/,
    ],
    ['a file that is no adapter', ['--adapter', '../broken.safetensors'], 1, /broken/],
    ['two ways to draw', ['--adapter', '../few.safetensors', '--adapter', '../lcm.safetensors'], 2, /in one way only/],
    ['a list that is none', ['--batch', '../ink.safetensors'], 2, /this is no JSON/],
    ['a list and a count', ['--batch', '../pictures.json', '--count', '2'], 2, /cannot be used together/],
  ]
  test('refuses in words and with an exit code', async () => {
    for (let i = 0; i < bad.length; i += 3) {
      const results = await Promise.all(bad.slice(i, i + 3).map(([, args]) => generate('a', ...drawing, ...args)))
      results.forEach((result, j) => {
        const [what, , code, words] = bad[i + j]
        expect(result.stderr, what).toMatch(words)
        expect(result.stderr, what).not.toMatch(/ at .*\.ts:\d/)
        expect([what, result.code]).toEqual([what, code])
      })
    }
    expect(readdirSync(folder)).toEqual([])
  })
})
