import { randomFillSync } from 'node:crypto'
import { floatToHalf } from '../models/graph/half.ts'
import { requiredTensors } from '../models/build.ts'
import type { PlannedTensor } from '../models/checkpoint/safetensors.ts'
import { writeSafetensors } from '../models/checkpoint/safetensors.ts'
import type { LayerPlan } from '../models/quantize/policy.ts'
import { quantizeSteps } from '../models/quantize/policy.ts'
import type { UnetConfig } from '../models/unet.ts'

/**
 * Writes a UNet in the 4-bit file format with random codes that keep activations near unit size: for measurements, where
 * only shapes and sizes matter.
 */
export async function writeRandomQuantized(path: string, config: UnetConfig): Promise<void> {
  const layers = new Map(
    quantizeSteps(config).flatMap((step) => step.layers.map((layer) => [layer.path, layer] as const)),
  )
  const planned: PlannedTensor[] = []
  for (const [name, shape] of requiredTensors('unet', config)) {
    const layer = name.endsWith('.weight') ? layers.get(name.slice(0, -'.weight'.length)) : undefined
    if (layer) planned.push(...tensorsOf(layer))
    else planned.push({ name, dtype: 'F16', shape })
  }
  const normals = Float32Array.from(
    { length: 1 << 16 },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  )
  const codes = new Uint8Array(1 << 20)
  await writeSafetensors(
    path,
    planned,
    function* ({ name, dtype, shape }) {
      const size = shape.reduce((product, dim) => product * dim, 1)
      if (dtype === 'U8') {
        // New ones for every layer: ONNX Runtime keeps packed weights that are equal only once.
        for (let at = 0; at < size; at += codes.length) {
          yield randomFillSync(codes).subarray(0, Math.min(codes.length, size - at))
        }
        return
      }
      const valueOf = valuesOf(name, shape, layers)
      const halves = Uint16Array.from({ length: size }, (_, i) => floatToHalf(valueOf(normals[(i * 7919) & 0xffff])))
      yield new Uint8Array(halves.buffer)
    },
    { format: 'pt', vignette_int4: '1', sha256: 'random' },
  )
}

function tensorsOf({ path, n, k, bits, group, rank }: LayerPlan): PlannedTensor[] {
  const groups = Math.ceil(k / group)
  const at = (kind: string, dtype: 'U8' | 'F16', shape: number[]) => ({ name: `${path}.weight.${kind}`, dtype, shape })
  return [
    at(`q${bits}`, 'U8', [n, groups, (group * bits) / 8]),
    at('scales', 'F16', [n, groups]),
    ...(rank > 0 ? [at('down', 'F16', [rank, k]), at('up', 'F16', [n, rank])] : []),
  ]
}

/** From a standard normal number to one of the tensor's size. */
function valuesOf(
  name: string,
  shape: readonly number[],
  layers: ReadonlyMap<string, LayerPlan>,
): (z: number) => number {
  const path = name.replace(/\.weight\.[a-z0-9]+$/, '')
  const layer = layers.get(path)
  // Even codes of -8 … 7 or -128 … 127 have a deviation of 4.6 or 74 steps.
  if (name.endsWith('.scales') && layer) return () => 1 / Math.sqrt(layer.k) / (layer.bits === 4 ? 4.6 : 74)
  if (name.endsWith('.down') || name.endsWith('.up')) return (z) => (0.2 * z) / Math.sqrt(shape[1])
  if (shape.length === 1) return (z) => (name.endsWith('weight') ? 1 : 0) + 0.02 * z
  const inputs = shape.slice(1).reduce((product, dim) => product * dim, 1)
  return (z) => z / Math.sqrt(inputs)
}
