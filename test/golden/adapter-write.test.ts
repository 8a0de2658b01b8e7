import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readChanges, scaled } from '../../models/adapters/deltas.ts'
import { readAdapter } from '../../models/adapters/read.ts'
import type { LayerDelta } from '../../models/adapters/write.ts'
import { expectClose } from '../expect-close.ts'
import { hashed } from '../unit/adapters-tools/numbers.ts'
import { layersOf, writeFiles, writtenFiles } from './adapter-write-files.ts'

// Files that Vignette writes, as diffusers' load_lora_weights and PEFT read them: see adapter-write.py.

type Golden = Record<string, { sha256: string; changes: Record<string, number[]> }>
const golden = JSON.parse(
  gunzipSync(readFileSync(new URL('adapter-write.json.gz', import.meta.url))).toString(),
) as Golden

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-write-'))
  await writeFiles(folder)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** uᵀ ΔW v with the three pairs of hashed vectors of the script. */
function numbersOf({ target, path, weight, rank, down, up }: LayerDelta): number[] {
  const [n, k] = [weight[0], down.length / rank]
  const left = hashed(`${target}.${path} left`, 3 * n)
  const right = hashed(`${target}.${path} right`, 3 * k)
  return [0, 1, 2].map((row) => {
    let sum = 0
    for (let r = 0; r < rank; r++) {
      let [a, b] = [0, 0]
      for (let i = 0; i < n; i++) a += left[row * n + i] * up[i * rank + r]
      for (let j = 0; j < k; j++) b += right[row * k + j] * down[r * k + j]
      sum += a * b
    }
    return sum
  })
}

describe.each(writtenFiles())('$name', (file) => {
  const { name, storage, shape } = file
  const path = () => join(folder, `${name}.safetensors`)

  it('has the bytes that diffusers was given', async () => {
    expect(createHash('sha256').update(await readFile(path())).digest('hex')).toBe(golden[name].sha256)
  })

  it('diffusers finds every layer in it, and the change that was meant', () => {
    const { changes } = golden[name]
    const layers = layersOf(file)
    expect(Object.keys(changes).sort()).toEqual(layers.map(({ target, path: own }) => `${target}.${own}`).sort())
    // Halves keep 11 binary digits; sums of a few hundred products of numbers up to 1 reach about 30.
    const tolerance = storage === 'F16' ? { abs: 2e-2, rel: 2e-3 } : { abs: 1e-5, rel: 1e-5 }
    for (const layer of layers) expectClose(numbersOf(layer), changes[`${layer.target}.${layer.path}`], tolerance)
  })

  it('is read back as what was written', async () => {
    const adapter = await readAdapter(path(), shape)
    expect(adapter.info).toMatchObject({ title: `Test ${name}`, triggers: ['inked'], preferredWeight: 0.7 })
    expect(adapter.ignored).toEqual([])
    const { layers } = await readChanges(adapter, shape)
    const written = new Map(layersOf(file).map((layer) => [`${layer.target} ${layer.path}`, layer]))
    expect(layers).toHaveLength(written.size)
    for (const layer of layers) {
      const { down, up } = scaled(layer)
      const own = written.get(`${layer.target} ${layer.path}`)!
      const tolerance = storage === 'F16' ? { abs: 1e-3 } : {}
      expectClose(down, own.down, tolerance)
      expectClose(up, own.up, { ...tolerance, rel: 3e-7 }) // once up, once down for the file's one alpha
    }
  })
})
