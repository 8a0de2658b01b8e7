import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildNetworks, slotsOf, type Part } from '../../models/build.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { readSafetensors, readTensor } from '../../models/checkpoint/safetensors.ts'
import type { TensorTable } from '../../models/graph/weights.ts'
import type { ModeName } from '../../preload/limits.ts'
import { fastFolder, openSession, type Session } from '../engine/networks.ts'
import type { FloatTensor, IdTensor } from '../pipeline/tensor.ts'

// What an adapter costs: one of rank 16 on every layer that takes one, its factors fed with each evaluation.

const rank = 16

type Inputs = Record<string, FloatTensor | IdTensor>

export type AdapterBench = {
  session: Session
  /** Joins the numbered adapter (random numbers) with the branches that belong to the model: all that a swap takes. */
  adapter(number: number): Inputs
}

/** Opens the drawing network of a model folder with its slots. */
export async function openWithSlots(
  folder: string,
  mode: ModeName | undefined,
  threads: number,
): Promise<AdapterBench> {
  const unet = (await readParts(folder)).find((part): part is Part<'unet'> => part.part === 'unet')
  if (!unet) throw new Error(`${folder}: no unet`)
  const home = mode === 'fast' ? join(folder, fastFolder) : folder
  const tensors = mode === 'fast' ? await tableOf(home, [...unet.tensors.values()][0].file) : unet.tensors
  const part = { ...unet, tensors }
  const [{ onnx }] = buildNetworks([part], { dialect: 'cpu', slots: true })
  const path = join(home, `slots-${process.pid}.onnx`)
  let session: Session
  try {
    await writeFile(path, onnx)
    session = await openSession(path, { provider: 'cpu', threads })
  } finally {
    await rm(path, { force: true })
  }

  const slots = slotsOf(part)
  const own = new Map<string, Float32Array>()
  for (const { path: name } of slots) {
    for (const factor of ['down', 'up']) {
      const stored = tensors.get(`${name}.weight.${factor}`)
      if (!stored) continue
      const bytes = await readTensor({ ...stored, file: join(home, stored.file) })
      own.set(`${name}.${factor}`, toFloat32(bytes, stored.dtype))
    }
  }
  const files = [1, 2].map((seed) => slots.map((slot) => factorsOf(slot, seed)))
  return {
    session,
    adapter(number) {
      const inputs: Inputs = {}
      for (const [i, { path: name, inputs: k, outputs: n }] of slots.entries()) {
        const { down, up } = files[number % files.length][i]
        const first = own.get(`${name}.down`) ?? new Float32Array(0)
        const total = first.length / k + rank
        const joined = new Float32Array(total * k)
        joined.set(first)
        joined.set(down, first.length)
        inputs[`${name}.down`] = { data: joined, shape: [total, k] }
        inputs[`${name}.up`] = { data: besideEachOther(own.get(`${name}.up`), up, n), shape: [n, total] }
      }
      return inputs
    },
  }
}

async function tableOf(home: string, file: string): Promise<TensorTable> {
  const { tensors } = await readSafetensors(join(home, file))
  return new Map([...tensors].map(([name, tensor]) => [name, { ...tensor, file }]))
}

function factorsOf({ inputs, outputs }: { inputs: number; outputs: number }, seed: number) {
  const numbers = (length: number) => Float32Array.from({ length }, (_, i) => 0.01 * Math.sin(seed * 7 + i * 12.9898))
  return { down: numbers(rank * inputs), up: numbers(outputs * rank) }
}

/** Columns of two matrices of n rows side by side. */
function besideEachOther(a: Float32Array | undefined, b: Float32Array, n: number): Float32Array {
  if (!a) return b
  const [left, right] = [a.length / n, b.length / n]
  const joined = new Float32Array(a.length + b.length)
  for (let row = 0; row < n; row++) {
    joined.set(a.subarray(row * left, (row + 1) * left), row * (left + right))
    joined.set(b.subarray(row * right, (row + 1) * right), row * (left + right) + left)
  }
  return joined
}
