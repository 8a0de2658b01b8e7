import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { EngineClient, forkEngine } from '../../main/engine/client.ts'
import { connectDirect } from '../../main/engine/direct.ts'
import { chooseDevice } from '../../main/engine/device.ts'
import { readManifest } from '../../main/engine/model-folder.ts'
import { checkRequest, fillDefaults } from '../../main/engine/request.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

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

  test('is tested once; a damaged memory is no trouble', async () => {
    const file = join(process.env.VIGNETTE_HOME!, 'device.json')
    mkdirSync(process.env.VIGNETTE_HOME!, { recursive: true })
    writeFileSync(file, '{"half":')
    const first = await chooseDevice('auto', fakeEntry('process.send({ isUsable: true, gpuMs: 1, cpuMs: 9 })'))
    expect(JSON.stringify(JSON.parse(readFileSync(file, 'utf8')))).toContain('"gpuMs":1')
    // Were it tested again it would fail now.
    expect(await chooseDevice('auto', fakeEntry('process.abort()'))).toEqual(first)
  })

  test('that did not answer in time is tried again the next day, and at once when it is asked for', async () => {
    const file = join(process.env.VIGNETTE_HOME!, 'device.json')
    const good = 'process.send({ isUsable: true, gpuMs: 1, cpuMs: 9 })'
    await chooseDevice('auto', fakeEntry('setInterval(() => {}, 1000)'), 300)
    expect((await chooseDevice('auto', fakeEntry(good))).provider).toBe('cpu')
    const [[key, entry]] = Object.entries<{ at: number }>(JSON.parse(readFileSync(file, 'utf8')))
    writeFileSync(file, JSON.stringify({ [key]: { ...entry, at: entry.at - 25 * 3600 * 1000 } }))
    expect((await chooseDevice('auto', fakeEntry(good))).provider).not.toBe('cpu')
    vi.stubEnv('VIGNETTE_HOME', join(scratch, 'asked'))
    await chooseDevice('auto', fakeEntry('setInterval(() => {}, 1000)'), 300)
    expect((await chooseDevice('gpu', fakeEntry(good))).provider).not.toBe('cpu')
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

describe('a card that passes the test and fails with a real network', () => {
  const noDriver = () => {
    // Remembered as good, and then there is no card at all: as if it had been taken out.
    for (const name of ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES']) vi.stubEnv(name, '/nowhere.json')
    return chooseDevice('auto', fakeEntry('process.send({ isUsable: true, gpuMs: 1, cpuMs: 9 })'))
  }
  const draw = async (engine: EngineClient, model: string, steps: number, onEvent = () => {}) => {
    const request = fillDefaults(
      checkRequest({ prompt: 'a barn', width: 64, height: 64, steps, seed: 1 }),
      readManifest(model),
    )
    const types = []
    for await (const event of engine.run({ id: 'a', modelFolder: model, request })) {
      types.push(event.type === 'phase' ? event.phase : event.type)
      onEvent()
    }
    return types
  }

  test.runIf(process.platform === 'linux')('makes way for the processor in the same job', async () => {
    expect((await noDriver()).provider).toBe('webgpu')
    const model = await makeTinyModel(join(scratch, 'tiny'))
    const engine = connectDirect({ device: 'auto', threads: 1 })
    expect((await engine.device()).provider).toBe('webgpu')
    const types = await draw(engine, model, 2)
    expect(types).toContain('notice')
    expect(types.slice(-2)).toEqual(['image', 'finished'])
    await engine.stop()
  })

  test.runIf(process.platform === 'linux')('is not used again after the engine died with it', async () => {
    await noDriver()
    const model = await makeTinyModel(join(scratch, 'tiny-too'))
    const engine = new EngineClient(() => forkEngine(entry, { execArgv: ['--import', loader] }), {
      device: 'auto',
      threads: 1,
    })
    expect((await engine.device()).provider).toBe('webgpu')
    expect(await draw(engine, model, 100, () => engine.kill())).toContain('failed')
    expect(await engine.device()).toMatchObject({ provider: 'cpu', reason: 'It was chosen.' })
    await engine.stop()
  })
})
