import { execFile } from 'node:child_process'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-'))
  await writeRandomCheckpoint(join(folder, 'Große Tusche v2.safetensors'), { ...tinyLdmConfigs.sd2, vocabulary: 256 })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

function convert(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const command = ['--import', 'tsx', join(import.meta.dirname, '../../main/cli/convert.ts'), ...args]
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      command,
      { env: { ...process.env, VIGNETTE_HOME: join(folder, 'home') } },
      (error, stdout, stderr) => resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr }),
    )
  })
}

it('imports a file among the installed models under a plain name, and says so to a person and to a program', async () => {
  const file = join(folder, 'Große Tusche v2.safetensors')
  const first = await convert(file, '--json')
  const { folder: place, manifest } = JSON.parse(first.stdout) as {
    folder: string
    manifest: { id: string; name: string; schedule: { predictionType: string } }
  }
  expect(first.code).toBe(0)
  expect(place).toBe(join(folder, 'home', 'models', manifest.id))
  expect(manifest).toMatchObject({ id: 'gro-e-tusche-v2', name: 'Große Tusche v2' })
  // Random weights answer the probe with something far from minus the input.
  expect(manifest.schedule.predictionType).toBe('epsilon')
  expect(await readdir(join(folder, 'home', 'models'))).toEqual(['gro-e-tusche-v2'])

  const again = await convert(file)
  expect([again.code, again.stdout, again.stderr]).toEqual([
    2,
    '',
    expect.stringMatching(/already a model[^\n]*\n.*--name/s),
  ])
  const replaced = await convert(file, '--replace', '--storage', 'fp32')
  expect(replaced.stdout).toMatch(
    /Importing .*\nGroße Tusche v2: Stable Diffusion 2\.x, 512 × 512, fp32, [\d.]+ MB, ready in .*\nTry it: /,
  )
})

it('refuses in words and with the right exit code', async () => {
  await writeFile(join(folder, 'page.safetensors'), '<html>Sign in</html>')
  const [page, nothing, storage, absent, starter, help] = await Promise.all([
    convert(join(folder, 'page.safetensors')),
    convert(),
    convert('x', '--storage', 'int3'),
    convert(join(folder, 'absent.safetensors')),
    convert(join(folder, 'page.safetensors'), '--name', 'starter'),
    convert('--help'),
  ])
  expect([page.code, page.stderr]).toEqual([1, expect.stringMatching(/^page\.safetensors is a web page.*\n.*again/)])
  expect([nothing.code, storage.code, absent.code, starter.code, help.code]).toEqual([2, 2, 1, 2, 0])
  expect(storage.stderr).toContain('Choose fp16, fp32 or int4.')
  expect(absent.stderr).toContain('There is no such file or folder')
  expect(starter.stderr).toContain('comes with Vignette')
  expect(help.stdout).toContain('Example: npm run convert')
})
