import { copyFileSync, readdirSync, readFileSync, truncateSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { dequantizeGroups } from '../../kernels/int4.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import type { SafetensorsFile } from '../../models/checkpoint/safetensors.ts'
import { readSafetensors, readTensor } from '../../models/checkpoint/safetensors.ts'
import type { MatMul } from '../../models/quantize/algebra.ts'
import { plainMatMul } from '../../models/quantize/algebra.ts'
import { expandWeights, isExpandedFrom } from '../../models/quantize/expand.ts'
import type { UnetConfig } from '../../models/unet.ts'
import { configOf, readCases } from '../golden/networks-cases.ts'
import { writeQuantizedCase } from './quantized-case.ts'
import { scratchFolder } from './tiny-model.ts'

// The fast file against the quantised one it is made of, tensor by tensor.

const item = readCases().find(({ name }) => name === 'no-middle')!
const config = configOf(item) as UnetConfig

let folder: string
let source: string
let target: string
beforeAll(async () => {
  folder = await scratchFolder('expand')
  source = await writeQuantizedCase(folder, item, { bits: 4, rank: 4 })
  await mkdir(join(folder, 'fast'))
  target = join(folder, 'fast', 'unet.safetensors')
  await expandWeights(source, target, { config, matMul: plainMatMul })
})

const bytesOf = ({ tensors }: SafetensorsFile, name: string) => readTensor(tensors.get(name)!)
const floatsOf = async (file: SafetensorsFile, name: string) =>
  toFloat32(await bytesOf(file, name), file.tensors.get(name)!.dtype)

/** dequant(codes) + up · down of the layer at `path`, [n, k] with k a multiple of the group. */
async function weightsOf(
  file: SafetensorsFile,
  path: string,
): Promise<{ n: number; k: number; weights: Float32Array }> {
  const [n, groups, half] = file.tensors.get(`${path}.weight.q4`)!.shape
  const group = 2 * half
  const [, k] = file.tensors.get(`${path}.weight.down`)!.shape
  expect(k).toBe(groups * group)
  const scales = new Uint16Array((await bytesOf(file, `${path}.weight.scales`)).buffer)
  const weights = dequantizeGroups(
    { codes: await bytesOf(file, `${path}.weight.q4`), scales },
    { n, k, bits: 4, group },
  )
  const [down, up] = [await floatsOf(file, `${path}.weight.down`), await floatsOf(file, `${path}.weight.up`)]
  const rank = down.length / k
  for (let row = 0; row < n; row++)
    for (let r = 0; r < rank; r++)
      for (let i = 0; i < k; i++) weights[row * k + i] += up[row * rank + r] * down[r * k + i]
  return { n, k, weights }
}

/** Checks that the columns at `path` are the rows `from` … of `weights`, each number within half a step. */
async function expectColumns(path: string, { weights, k, from }: { weights: Float32Array; k: number; from: number }) {
  const made = await readSafetensors(target)
  const [inputs, n] = made.tensors.get(`${path}.weight.columns`)!.shape
  expect(inputs).toBe(k)
  const columns = new Int8Array((await bytesOf(made, `${path}.weight.columns`)).buffer)
  const scales = await floatsOf(made, `${path}.weight.column_scales`)
  expect(scales.length).toBe(n)
  for (let row = 0; row < n; row++) {
    for (let i = 0; i < k; i++) {
      const error = Math.abs(columns[i * n + row] * scales[row] - weights[(from + row) * k + i])
      if (!(error <= 0.501 * scales[row]))
        throw new Error(`${path} [${row}, ${i}]: off by ${error / scales[row]} steps`)
    }
  }
}

describe('expandWeights', () => {
  it('makes columns of codes and branch together, of linears and of convolutions', async () => {
    const file = await readSafetensors(source)
    for (const path of ['down_blocks.0.resnets.0.conv1', 'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q'])
      await expectColumns(path, { ...(await weightsOf(file, path)), from: 0 })
  })

  it('gives the halves of a GEGLU names and biases of their own', async () => {
    const [file, made] = [await readSafetensors(source), await readSafetensors(target)]
    const path = 'down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj'
    const { n, k, weights } = await weightsOf(file, path)
    await expectColumns(`${path}.value`, { weights, k, from: 0 })
    await expectColumns(`${path}.gate`, { weights, k, from: n / 2 })
    const halves = await Promise.all(['value', 'gate'].map((half) => bytesOf(made, `${path}.${half}.bias`)))
    expect(Buffer.concat(halves).equals(await bytesOf(file, `${path}.bias`))).toBe(true)
    expect(made.tensors.has(`${path}.bias`)).toBe(false)
  })

  it('copies everything else and leaves no codes', async () => {
    const [file, made] = [await readSafetensors(source), await readSafetensors(target)]
    for (const name of [
      'conv_in.weight',
      'conv_out.bias',
      'conv_norm_out.weight',
      'down_blocks.0.resnets.0.conv1.bias',
    ])
      expect(await bytesOf(made, name), name).toEqual(await bytesOf(file, name))
    expect([...made.tensors.keys()].filter((name) => /\.weight\.(q4|q8|scales|down|up)$/.test(name))).toEqual([])
  })

  it('leaves the file that was there when it is stopped or fails, and nothing beside it', async () => {
    const before = readFileSync(target)
    const stop = new AbortController()
    const onProgress = (share: number) => share > 0.3 && stop.abort()
    const stopped = expandWeights(source, target, { config, matMul: plainMatMul, onProgress, signal: stop.signal })
    await expect(stopped).rejects.toThrow('abort')
    const failing: MatMul = () => Promise.reject(new Error('no products today'))
    await expect(expandWeights(source, target, { config, matMul: failing })).rejects.toThrow('no products today')
    expect(readFileSync(target).equals(before)).toBe(true)
    expect(readdirSync(join(folder, 'fast'))).toEqual(['unet.safetensors'])
  })
})

describe('isExpandedFrom', () => {
  it('knows the whole file of these weights from one of others, from half a file and from none', async () => {
    expect(await isExpandedFrom(target, source)).toBe(true)
    const other = join(folder, 'other')
    await mkdir(other)
    const changed = await writeQuantizedCase(other, item, { bits: 8, rank: 0 })
    expect(await isExpandedFrom(target, changed)).toBe(false)
    const half = join(folder, 'half.safetensors')
    copyFileSync(target, half)
    truncateSync(half, 100_000)
    expect(await isExpandedFrom(half, source)).toBe(false)
    expect(await isExpandedFrom(join(folder, 'none.safetensors'), source)).toBe(false)
  })
})
