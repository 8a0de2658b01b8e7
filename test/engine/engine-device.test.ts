import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { chooseDevice } from '../../main/engine/device.ts'
import { scratchFolder } from './tiny-model.ts'

// Which device is taken when the graphics card is absent, broken, or only emulated.

const entry = fileURLToPath(new URL('../../main/engine/index.ts', import.meta.url))
const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))
/** The software Vulkan that Debian's Chromium carries. */
const swiftShader = '/usr/lib/chromium/vk_swiftshader_icd.json'
let scratch: string
let count = 0

beforeAll(async () => {
  scratch = await scratchFolder('device')
  // The child that runs the test inherits these, so that it understands TypeScript.
  process.execArgv.push('--import', loader)
})
beforeEach(() => {
  vi.stubEnv('VIGNETTE_HOME', join(scratch, `home-${count++}`))
  return () => vi.unstubAllEnvs()
})
afterAll(() => rm(scratch, { recursive: true }))

/** An entry file that behaves as `code` says instead of running the test. */
function fakeEntry(code: string): string {
  const file = join(scratch, `entry-${count}.mjs`)
  writeFileSync(file, code)
  return file
}

test('the processor is taken at once when it is asked for', async () => {
  expect(await chooseDevice('cpu', '/nothing')).toMatchObject({ provider: 'cpu', reason: 'It was chosen.' })
})

describe('a graphics card', () => {
  test('that passes is taken when it is faster, and left when it is slower', async () => {
    const answer = (gpuMs: number) => fakeEntry(`process.send({ isUsable: true, gpuMs: ${gpuMs}, cpuMs: 10 })`)
    const fast = await chooseDevice('auto', answer(2))
    expect(fast.provider).not.toBe('cpu')
    expect(fast.reason).toBe('A test took 2.0 ms against 10.0 ms on the processor.')
    vi.stubEnv('VIGNETTE_HOME', join(scratch, 'slow'))
    expect(await chooseDevice('auto', answer(20))).toMatchObject({
      provider: 'cpu',
      reason: expect.stringContaining('slower than the processor'),
    })
    expect((await chooseDevice('gpu', answer(20))).provider).not.toBe('cpu')
  })

  test('whose driver crashes, hangs or computes nonsense leaves the processor, and says why', async () => {
    const nonsense = { isUsable: false, reason: 'it computes wrong numbers' }
    const broken: [string, number, string][] = [
      ['process.abort()', 20_000, 'its driver ended the test program'],
      ['setInterval(() => {}, 1e6)', 500, 'no answer within 0.5 s'],
      // The third one answers and then never ends.
      [`process.send(${JSON.stringify(nonsense)}); setInterval(() => {}, 1e6)`, 20_000, nonsense.reason],
    ]
    for (const [code, limitMs, reason] of broken) {
      vi.stubEnv('VIGNETTE_HOME', join(scratch, `broken-${count++}`))
      expect(await chooseDevice('auto', fakeEntry(code), limitMs)).toMatchObject({
        provider: 'cpu',
        reason: expect.stringContaining(reason),
      })
      await expect(chooseDevice('gpu', fakeEntry(code), limitMs)).rejects.toMatchObject({
        code: 'bad-request',
        message: expect.stringContaining(reason),
      })
    }
  })

  test('is tested once; a time-out is not remembered, and a damaged memory is no trouble', async () => {
    const file = join(process.env.VIGNETTE_HOME!, 'device.json')
    await chooseDevice('auto', fakeEntry('setInterval(() => {}, 1000)'), 300)
    expect(existsSync(file)).toBe(false)
    mkdirSync(process.env.VIGNETTE_HOME!, { recursive: true })
    writeFileSync(file, '{"half":')
    const good = fakeEntry('process.send({ isUsable: true, gpuMs: 1, cpuMs: 9 })')
    const first = await chooseDevice('auto', good)
    expect(JSON.stringify(JSON.parse(readFileSync(file, 'utf8')))).toContain('"gpuMs":1')
    // Were it tested again it would fail now.
    expect(await chooseDevice('auto', fakeEntry('process.abort()'))).toEqual(first)
  })

  test.runIf(process.platform === 'linux')('that is only emulated in software is never taken by itself', async () => {
    const runtime = join(scratch, 'xdg')
    mkdirSync(runtime, { recursive: true })
    vi.stubEnv('VK_DRIVER_FILES', swiftShader)
    vi.stubEnv('VK_ICD_FILENAMES', swiftShader)
    vi.stubEnv('XDG_RUNTIME_DIR', runtime)
    const report = await chooseDevice('auto', entry)
    expect(report.provider).toBe('cpu')
    // Without the emulation there is simply no card.
    const wanted = existsSync(swiftShader) ? /wrong numbers|slower than the processor|no answer/ : /none was found/
    expect(report.reason).toMatch(wanted)
  })
})
