import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { recipeOf } from '../../main/export/metadata.ts'
import { startCommand } from './run-command.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// `npm run generate` as a person runs it: a process of its own, its files, its words and its exit code.

let home: string
let folder: string
let count = 0

beforeAll(async () => {
  home = await scratchFolder('cli')
  await mkdir(join(home, 'models'))
  await makeTinyModel(join(home, 'models', 'tiny'))
})
beforeEach(async () => {
  folder = join(home, `out-${count++}`)
  await mkdir(folder)
})
afterAll(() => rm(home, { recursive: true }))

const start = (...args: string[]) => startCommand('generate', args, { cwd: folder, home })
const generate = (...args: string[]) => start(...args).done
const drawing = ['--model', 'tiny', '--size', '64x64', '--steps', '2', '--device', 'cpu']
const sha256 = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex')

describe('npm run generate', () => {
  test('saves a picture, and the same command makes the same file', async () => {
    const first = await generate('a red barn', ...drawing, '--seed', '7', '--out', 'barn.png')
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toContain(join(folder, 'barn.png'))
    const hash = sha256(join(folder, 'barn.png'))
    expect(await sharp(join(folder, 'barn.png')).metadata()).toMatchObject({ format: 'png', width: 64, height: 64 })
    const again = await generate('a red barn', ...drawing, '--seed', '7', '--out', 'barn.png', '--json')
    expect(again.code).toBe(0)
    expect(sha256(join(folder, 'barn.png'))).toBe(hash)
    const told = JSON.parse(again.stdout)
    expect(told.images).toEqual([{ file: join(folder, 'barn.png'), seed: 7, width: 64, height: 64, sha256: hash }])
    expect(told).toMatchObject({ model: 'tiny', device: { provider: 'cpu' } })
    expect(readdirSync(folder)).toEqual(['barn.png'])
  })

  test('draws a seed when none is given, tells it, and numbers several pictures', async () => {
    const { code, stdout } = await generate('a', 'red', 'barn', ...drawing, '--count', '2')
    expect(code).toBe(0)
    const seed = Number(/seed (\d+) \(random\)/.exec(stdout)![1])
    const [one, two] = readdirSync(folder).sort((a, b) => a.length - b.length)
    expect([one, two]).toEqual([`vignette-${seed}.png`, `vignette-${seed}-2.png`])
    expect(recipeOf(readFileSync(join(folder, two)))!.request).toMatchObject({
      prompt: 'a red barn',
      seed: (seed + 1) % 2 ** 32,
    })
  })

  test('ends with 130 on Ctrl-C, keeps finished pictures and leaves nothing half-made', async () => {
    const { child, result, done } = start('a red barn', ...drawing, '--count', '64', '--seed', '1', '--out', 'many.png')
    while (!readdirSync(folder).includes('many-2.png') && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 20))
    child.kill('SIGINT')
    expect((await done).code).toBe(130)
    expect(result.stderr).toContain('Stopping')
    const files = readdirSync(folder)
    expect(files.length).toBeLessThan(64)
    for (const file of files) {
      expect(file).toMatch(/^many(-\d+)?\.png$/)
      expect(recipeOf(readFileSync(join(folder, file)))).toBeDefined()
    }
  })

  const bad: [string, string[], number, RegExp][] = [
    [
      'a width of 500',
      ['a', '--size', '500x64'],
      2,
      /Expected width to be a multiple of 8, got 500\.\nTry 496 or 504\./,
    ],
    ['10,000 characters', ['x'.repeat(10_000)], 2, /at most 4,000 characters, got 10,000/],
    ['no prompt', [], 2, /The prompt is empty/],
    ['a sampler that is not there', ['a', '--sampler', 'eulr'], 2, /no sampler "eulr"\.\nChoose one of: euler, /],
    ['an unknown option', ['a', '--sed', '3'], 2, /no option --sed\.\nDid you mean --seed\?/],
    ['steps that are no number', ['a', '--steps', 'many'], 2, /Expected --steps to be a number, got "many"/],
    [
      'a model that is not there',
      ['a', '--model', 'sd15-int4'],
      1,
      /The model "sd15-int4" is not installed\.\nInstalled: starter, tiny\./,
    ],
    [
      'a folder that is not there',
      ['a', '--model', 'tiny', '--out', 'no/such/barn.png'],
      1,
      /There is no folder .*no.such/,
    ],
    ['another format', ['a', '--model', 'tiny', '--out', 'barn.jpg'], 2, /saved as PNG/],
    [
      'a start picture that is not there',
      ['a', ...drawing, '--init', 'cat.png'],
      1,
      /no such file or folder \(.*cat\.png\)/,
    ],
  ]
  test('refuses in words and with an exit code, and leaves nothing behind', async () => {
    // A few at a time: starting Node is most of it.
    for (let i = 0; i < bad.length; i += 5) {
      const results = await Promise.all(bad.slice(i, i + 5).map(([, args]) => generate(...args)))
      results.forEach((result, j) => {
        const [what, , code, words] = bad[i + j]
        expect(result.stderr, what).toMatch(words)
        expect(result.stderr, what).not.toMatch(/ at .*\.ts:\d/)
        expect([what, result.code]).toEqual([what, code])
      })
    }
    expect(readdirSync(folder)).toEqual([])
  })

  test('tells programs in JSON what went wrong', async () => {
    const { code, stdout } = await generate('a', '--size', '500x64', '--json')
    expect(code).toBe(2)
    expect(JSON.parse(stdout)).toEqual({
      error: {
        code: 'bad-request',
        message: 'Expected width to be a multiple of 8, got 500.',
        hint: 'Try 496 or 504.',
      },
    })
  })

  test('explains itself', async () => {
    const { code, stdout } = await generate('--help')
    expect(code).toBe(0)
    expect(stdout).toMatch(/--guidance-scale X .*\n(.*\n)*.*Example: npm run generate/)
  })
})
