import { join } from 'node:path'
import { groupOf, quantizeGroups } from '../../kernels/int4.ts'
import { readSafetensors, writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { PlannedTensor } from '../../models/checkpoint/safetensors.ts'
import type { StoredTensor } from '../../models/graph/weights.ts'
import { plainMatMul } from '../../models/quantize/algebra.ts'
import type { LinearWeights, QuantizedLinear, QuantizeOptions } from '../../models/quantize/layer.ts'
import { quantizeGroup } from '../../models/quantize/layer.ts'
import type { LayerPlan } from '../../models/quantize/policy.ts'
import { quantizeSteps } from '../../models/quantize/policy.ts'
import type { UnetConfig } from '../../models/unet.ts'
import type { Case } from '../golden/networks-cases.ts'
import { configOf, weightsOf } from '../golden/networks-cases.ts'

export type Quality = { bits: 4 | 8; rank: number }
export type Smoothed = { weights?: ReadonlyMap<string, Float32Array>; vectors?: ReadonlyMap<string, Float32Array> }

/**
 * Writes the UNet of a case in the 4-bit file format, every layer in the same way, and no smoothing: weights that are
 * smoothed already may stand in for the case's own, with the vectors that say how.
 */
export async function writeQuantizedCase(
  folder: string,
  item: Case,
  quality: Quality,
  { weights = weightsOf(item), vectors = new Map() }: Smoothed = {},
): Promise<string> {
  const layers = new Map(
    quantizeSteps(configOf(item) as UnetConfig).flatMap((step) => step.layers.map((layer) => [layer.path, layer])),
  )
  const data = new Map<string, PlannedTensor & { bytes: Uint8Array }>()
  const put = (name: string, dtype: PlannedTensor['dtype'], shape: number[], array: ArrayBufferView) =>
    data.set(name, { name, dtype, shape, bytes: new Uint8Array(array.buffer, array.byteOffset, array.byteLength) })
  for (const [name, values] of vectors) put(name, 'F32', [values.length], values)
  for (const [name, values] of weights) {
    const layer = layers.get(name.replace(/\.weight$/, ''))
    if (!layer || !name.endsWith('.weight')) {
      put(name, 'F32', shapeOf(item, name), values)
      continue
    }
    const { path, n, k } = layer
    const { bits, rank } = quality
    const group = groupOf(k)
    const made = await quantize(matrixOf(layer, values), { bits, group, rank, taps: layer.taps, matMul: plainMatMul })
    put(`${path}.weight.q${bits}`, 'U8', [n, Math.ceil(k / group), (group * bits) / 8], made.codes)
    put(`${path}.weight.scales`, 'F16', [n, Math.ceil(k / group)], made.scales)
    if (made.down && made.up) {
      put(`${path}.weight.down`, 'F16', [made.down.length / k, k], made.down)
      put(`${path}.weight.up`, 'F16', [n, made.up.length / n], made.up)
    }
  }
  const path = join(folder, 'unet.safetensors')
  const seal = { format: 'pt', vignette_int4: '1', sha256: `${item.name} ${quality.bits} ${quality.rank}` }
  await writeSafetensors(path, [...data.values()], ({ name }) => [data.get(name)!.bytes], seal)
  return path
}

/** Writes the UNet of a case in float32, each tensor as `change` makes it. */
export async function writeFloatCase(
  folder: string,
  item: Case,
  change: (name: string, values: Float32Array) => Float32Array,
): Promise<void> {
  const weights = weightsOf(item)
  const planned = [...weights.keys()].map((name) => ({ name, dtype: 'F32' as const, shape: shapeOf(item, name) }))
  await writeSafetensors(join(folder, 'unet.safetensors'), planned, ({ name }) => [
    new Uint8Array(change(name, weights.get(name)!).buffer),
  ])
}

/** With a branch by the quantiser, from the weights alone; without one just the nearest codes. */
async function quantize(layer: LinearWeights, options: QuantizeOptions): Promise<Codes> {
  if (options.rank === 0) return quantizeGroups(layer.values, { ...options, n: layer.n, k: layer.k })
  return (await quantizeGroup([layer], undefined, options)).layers[0]
}
type Codes = Pick<QuantizedLinear, 'codes' | 'scales' | 'down' | 'up'>

/** The tensors of a weight file for graphs that lie beside it. */
export async function tableOf(path: string): Promise<Map<string, StoredTensor>> {
  const { tensors } = await readSafetensors(path)
  return new Map([...tensors].map(([name, tensor]) => [name, { ...tensor, file: 'unet.safetensors' }]))
}

function shapeOf(item: Case, name: string): number[] {
  const found = item.tensors.find(([other]) => other === name)
  if (!found) throw new Error(`${name}: no such tensor`)
  return found[1]
}

/** Weights [out, in, ky, kx] as the matrix [out, (ky, kx, in)]. */
function matrixOf({ path, n, k, taps }: LayerPlan, values: Float32Array): LinearWeights {
  const channels = k / taps
  const matrix = new Float32Array(values.length)
  for (let row = 0; row < n; row++)
    for (let channel = 0; channel < channels; channel++)
      for (let tap = 0; tap < taps; tap++)
        matrix[row * k + tap * channels + channel] = values[row * k + channel * taps + tap]
  return { path, n, k, values: matrix }
}
