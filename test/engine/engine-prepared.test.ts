import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { openNetworks } from '../../main/engine/networks.ts'
import { makeTinyModel, scratchFolder } from './tiny-model.ts'

// The form of a network that ONNX Runtime prepared for this processor, kept beside the model.

let scratch: string
let original: string
let model: string
let count = 0

beforeAll(async () => {
  scratch = await scratchFolder('prepared')
  original = await makeTinyModel(join(scratch, 'tiny'))
})
beforeEach(() => {
  model = join(scratch, `copy-${count++}`)
  cpSync(original, model, { recursive: true, preserveTimestamps: true })
})
afterAll(() => rm(scratch, { recursive: true }))

const inputs = {
  sample: { data: Float32Array.from({ length: 4 * 8 * 8 }, (_, i) => Math.sin(i)), shape: [1, 4, 8, 8] },
  timestep: { data: Float32Array.of(500), shape: [1] },
  encoder_hidden_states: { data: Float32Array.from({ length: 77 * 64 }, (_, i) => Math.cos(i)), shape: [1, 77, 64] },
}

async function run(prepareFromBytes: number): Promise<Float32Array> {
  const networks = openNetworks(model, { threads: 1, prepareFromBytes })
  try {
    return (await networks.run('unet', inputs)).out_sample.data
  } finally {
    await networks.release()
  }
}
const home = () => join(model, 'prepared')
const prepared = () => (existsSync(home()) ? readdirSync(home()) : [])

test('small networks are not kept', async () => {
  await run(1e9)
  expect(prepared()).toEqual([])
})

test('the first run makes it, the second takes it, and the numbers are the same to the last bit', async () => {
  const plain = await run(Infinity)
  expect(await run(0)).toEqual(plain)
  expect(prepared()).toHaveLength(1)
  expect(prepared()[0]).toMatch(/^unet-[0-9a-f]{16}$/)
  const seal = join(home(), prepared()[0], 'complete.json')
  const before = readFileSync(seal, 'utf8')
  expect(await run(0)).toEqual(plain)
  expect(readFileSync(seal, 'utf8')).toBe(before)
  if (process.platform === 'linux') {
    const networks = openNetworks(model, { threads: 1, prepareFromBytes: 0 })
    await networks.run('unet', inputs)
    expect(readFileSync('/proc/self/maps', 'utf8')).toContain(join(home(), prepared()[0], 'weights.bin'))
    await networks.release()
  }
})

test('one that is cut off, zeroed or no graph is made again', async () => {
  const plain = await run(0)
  const file = () => join(home(), prepared()[0], 'weights.bin')
  const size = readFileSync(file()).length
  const harms = [
    () => truncateSync(file(), 1000),
    () => writeFileSync(file(), Buffer.alloc(size)),
    () => writeFileSync(join(home(), prepared()[0], 'graph.onnx'), 'nonsense'),
    () => rmSync(join(home(), prepared()[0], 'complete.json')),
  ]
  for (const harm of harms) {
    harm()
    expect(await run(0)).toEqual(plain)
    expect(readFileSync(file()).length).toBe(size)
    expect(prepared()).toHaveLength(1)
  }
})

test('another graph gets its own and the old one goes, and so does what a killed process left', async () => {
  await run(0)
  const [old] = prepared()
  const dead = join(home(), '.unet-999999999.part')
  mkdirSync(dead)
  const graph = join(model, 'unet.onnx')
  // A producer name more in the ModelProto (field 2): the same network in other bytes.
  writeFileSync(graph, Buffer.concat([readFileSync(graph), Buffer.from([0x12, 1, 0x78])]))
  await run(0)
  expect(prepared()).toHaveLength(1)
  expect(prepared()[0]).not.toBe(old)
})

test('a place that cannot be written to changes nothing', async () => {
  const plain = await run(Infinity)
  writeFileSync(home(), 'a file where the folder should be')
  expect(await run(0)).toEqual(plain)
})
