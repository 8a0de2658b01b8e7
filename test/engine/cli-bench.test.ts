import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

const script = fileURLToPath(new URL('../../main/cli/bench.ts', import.meta.url))
const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))
let scratch: string
let model: string

beforeAll(async () => {
  scratch = await scratchFolder('bench')
  model = await makeTinyModel(join(scratch, 'tiny'))
})
afterAll(() => rm(scratch, { recursive: true }))

function bench(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, ['--import', loader, script, ...args], {
    cwd: scratch,
    env: { ...process.env, VIGNETTE_HOME: scratch },
  })
  const result = { stdout: '', stderr: '' }
  child.stdout.on('data', (data: Buffer) => (result.stdout += data.toString()))
  child.stderr.on('data', (data: Buffer) => (result.stderr += data.toString()))
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...result })))
}

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
