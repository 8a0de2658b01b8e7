import { readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import {
  exactProduct,
  extreme,
  fourBitReport,
  judge,
  kernels,
  ordinary,
  type Product,
} from '../../main/engine/self-test.ts'
import { scratchFolder } from './tiny-model.ts'

const entry = fileURLToPath(new URL('../../main/engine/index.ts', import.meta.url))
const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))
let scratch: string
let count = 0

beforeAll(async () => {
  scratch = await scratchFolder('self-test')
  process.execArgv.push('--import', loader)
})
beforeEach(() => {
  vi.stubEnv('VIGNETTE_HOME', join(scratch, `home-${count++}`))
  return () => vi.unstubAllEnvs()
})
afterAll(() => rm(scratch, { recursive: true }))

const good = { isRight: true, isExact: true }
const speeds = (floatMs: number) => ({ bytesMs: 2, floatMs })

describe('the verdict', () => {
  test('is fast where bytes are exact and faster than floats', () => {
    expect(judge({ packed: good, bytes: good, speeds: speeds(8) })).toEqual({
      verdict: 'fast',
      usable: ['fast', 'low-memory'],
      reason: 'byte arithmetic is exact and 4.0 times as fast as float32',
    })
  })

  test('is low-memory where bytes are slower; fast may still be asked for', () => {
    expect(judge({ packed: good, bytes: good, speeds: speeds(1.6) })).toEqual({
      verdict: 'low-memory',
      usable: ['fast', 'low-memory'],
      reason: 'byte arithmetic is exact, but only 0.8 times as fast as float32',
    })
  })

  test('refuses fast, however fast, where large products overflow, and says why', () => {
    expect(judge({ packed: good, bytes: { ...good, isExact: false }, speeds: speeds(80) })).toEqual({
      verdict: 'low-memory',
      usable: ['low-memory'],
      reason: 'large products of bytes overflow on this processor',
    })
  })

  test('leaves out what is wrong or crashed, down to nothing', () => {
    const wrong = { isRight: false, isExact: false }
    expect(judge({ packed: wrong, bytes: good, speeds: speeds(1) })).toMatchObject({
      verdict: 'fast',
      usable: ['fast'],
    })
    expect(judge({ packed: good }, 'the test program crashed')).toEqual({
      verdict: 'low-memory',
      usable: ['low-memory'],
      reason: 'products of bytes could not be tested: the test program crashed',
    })
    expect(judge({ packed: wrong, bytes: wrong, speeds: speeds(1) })).toMatchObject({ verdict: 'plain', usable: [] })
    expect(judge({}, 'no answer within 1 s')).toMatchObject({ verdict: 'plain', usable: [] })
  })
})

/** x · weights as vpmaddubsw does it: x about a zero point of 128 as bytes, two products added up in 16 bits that stop at their ends. */
function saturating({ m, k, n, x, weights }: Product): Float32Array {
  const clamp = (value: number) => Math.max(-32768, Math.min(32767, value))
  return Float32Array.from({ length: m * n }, (_, at) => {
    const [row, column] = [Math.floor(at / n), at % n]
    let [sum, weightSum] = [0, 0]
    for (let i = 0; i < k; i += 2) {
      const pair = [i, i + 1].map((j) => (x[row * k + j] + 128) * weights[j * n + column])
      sum += clamp(pair[0] + pair[1])
      weightSum += weights[i * n + column] + weights[(i + 1) * n + column]
    }
    return sum - 128 * weightSum
  })
}

const largestError = (product: Product) => {
  const exact = exactProduct(product)
  const largest = exact.reduce((most, value) => Math.max(most, Math.abs(value)))
  return saturating(product).reduce((most, value, i) => Math.max(most, Math.abs(value - exact[i])), 0) / largest
}

test('its extreme numbers overflow sums of 16 bits, its ordinary ones do not', () => {
  for (const product of ordinary(kernels.bytes)) expect(largestError(product)).toBe(0)
  for (const product of extreme(kernels.bytes)) expect(largestError(product)).toBeGreaterThan(0.1)
})

describe('in a process of its own', () => {
  const fakeEntry = (code: string) => {
    const file = join(scratch, `entry-${count}.mjs`)
    writeFileSync(file, code)
    return file
  }
  const say = (stage: string, found: unknown) => `process.send(${JSON.stringify({ stage, found })});`
  const cacheFile = () => join(process.env.VIGNETTE_HOME!, 'self-test.json')
  const cacheText = () => readFileSync(cacheFile(), 'utf8')

  test('finds this processor able, and remembers it', async () => {
    const report = await fourBitReport(entry)
    expect(report.usable).toContain('low-memory')
    expect(['fast', 'low-memory']).toContain(report.verdict)
    expect(report.reason).not.toBe('')
    // Were it tested again it would fail now.
    expect(await fourBitReport(fakeEntry('process.abort()'))).toEqual(report)
    expect(Object.values(JSON.parse(cacheText()))).toMatchObject([{ report }])
  })

  test('slow bytes may have been a busy moment: believed for a day', async () => {
    const stages = [say('start', true), say('packed', good), say('bytes', good), say('speeds', speeds(1))]
    expect(await fourBitReport(fakeEntry(stages.join('')))).toMatchObject({ verdict: 'low-memory' })
    expect(await fourBitReport(fakeEntry('process.abort()'))).toMatchObject({ verdict: 'low-memory' })
    const [[key, kept]] = Object.entries<{ until: number }>(JSON.parse(cacheText()))
    writeFileSync(cacheFile(), JSON.stringify({ [key]: { ...kept, until: Date.now() - 1 } }))
    const again = [...stages.slice(0, 3), say('speeds', speeds(8))]
    expect(await fourBitReport(fakeEntry(again.join('')))).toMatchObject({ verdict: 'fast' })
  })

  test('a crash costs what follows it, and is remembered', async () => {
    const crash = fakeEntry(
      `${say('start', true)}${say('packed', good)} process.on('beforeExit', () => process.abort())`,
    )
    const report = await fourBitReport(crash)
    expect(report).toMatchObject({ verdict: 'low-memory', usable: ['low-memory'] })
    expect(report.reason).toBe('products of bytes could not be tested: the test program crashed')
    expect(await fourBitReport(entry)).toEqual(report)
  })

  test('no answer in time and a program that never began say nothing: the mode without risk, and the next time again', async () => {
    const slow = fakeEntry(`${say('start', true)} setInterval(() => {}, 1e6)`)
    expect(await fourBitReport(slow, 500)).toMatchObject({
      verdict: 'low-memory',
      reason: expect.stringContaining('no answer within 0.5 s'),
    })
    expect(await fourBitReport(join(scratch, 'nothing.mjs'))).toMatchObject({ verdict: 'low-memory' })
    expect((await fourBitReport(entry)).reason).not.toContain('could not be tested')
  })
})
