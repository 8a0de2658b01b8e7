import { readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startCommand } from './run-command.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

let scratch: string
let model: string

beforeAll(async () => {
  scratch = await scratchFolder('bench')
  model = await makeTinyModel(join(scratch, 'tiny'))
})
afterAll(() => rm(scratch, { recursive: true }))

const bench = (...args: string[]) => startCommand('bench', args, { cwd: scratch, home: scratch }).done

test('npm run bench measures networks and a whole picture and appends a line for programs', async () => {
  const { code, stdout } = await bench(model, '--only', 'unet,picture', '--runs', '1', '--size', '64')
  expect(code).toBe(0)
  expect(stdout).toMatch(/unet +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +\d+ MB +\d+ MB\npicture /)
  const [line] = readFileSync(join(scratch, 'bench-results.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text))
  expect(line).toMatchObject({
    model: 'tiny',
    side: 64,
    provider: 'cpu',
    machine: { cores: expect.any(Number), processor: expect.any(String) },
  })
  for (const measured of Object.values<Record<string, number>>(line.rows)) {
    expect(measured.wallS).toBeGreaterThan(0)
    expect(measured.cpuS).toBeGreaterThan(0)
    // Node with ONNX Runtime alone is beyond 50 MB.
    expect(measured.peakBytes).toBeGreaterThan(5e7)
  }
  expect(Object.keys(line.rows)).toEqual(['unet', 'picture'])
})

test('npm run bench refuses what it cannot measure', async () => {
  expect(await bench(model, '--only', 'speed')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('There is no measurement "speed".'),
  })
})
