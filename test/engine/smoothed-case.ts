import { dequantizeGroups } from '../../kernels/int4.ts'
import { toFloat32 } from '../../models/checkpoint/dtypes.ts'
import { readSafetensors, readTensor } from '../../models/checkpoint/safetensors.ts'
import { quantizeSteps } from '../../models/quantize/policy.ts'
import type { UnetConfig } from '../../models/unet.ts'
import type { Case } from '../golden/networks-cases.ts'
import { configOf, weightsOf } from '../golden/networks-cases.ts'
import type { Smoothed } from './quantized-case.ts'

/** The weights of a case with some smoothing put on every layer that may have one: whoever makes an input divides it. */
export function smoothedCase(item: Case): Required<Smoothed> {
  const weights = new Map([...weightsOf(item)].map(([name, values]) => [name, values.slice()]))
  const vectors = new Map<string, Float32Array>()
  quantizeSteps(configOf(item) as UnetConfig).forEach(({ layers, smoother }, step) => {
    if (!smoother) return
    const vector = Float32Array.from({ length: layers[0].k }, (_, i) => 1 + 0.6 * Math.sin(step + i * i))
    for (const { path } of layers) {
      const weight = weights.get(`${path}.weight`)!
      for (let i = 0; i < weight.length; i++) weight[i] *= vector[i % vector.length]
      vectors.set(`${path}.weight.input_scale`, vector)
    }
    const path = 'norm' in smoother ? smoother.norm : smoother.layer
    const [weight, bias] = [weights.get(`${path}.weight`)!, weights.get(`${path}.bias`)]
    const outputs = 'norm' in smoother ? weight.length : layersOutputs(item, path)
    const divided = Float32Array.from({ length: outputs }, (_, i) => (i < vector.length ? 1 / vector[i] : 1))
    const width = weight.length / outputs
    for (let i = 0; i < weight.length; i++) weight[i] *= divided[Math.floor(i / width)]
    if (bias) for (let i = 0; i < outputs; i++) bias[i] *= divided[i]
    if ('layer' in smoother) vectors.set(`${path}.weight.output_scale`, divided)
  })
  return { weights, vectors }
}

const layersOutputs = (item: Case, path: string) => new Map(item.tensors).get(`${path}.weight`)![0]

/** What the codes and branches of a 4-bit file stand for, without the smoothing: weights that a file of floats could have. */
export async function plainWeights(
  file: string,
  item: Case,
  { vectors }: Required<Smoothed>,
): Promise<Map<string, Float32Array>> {
  const { tensors } = await readSafetensors(file)
  const floats = async (name: string) => {
    const stored = tensors.get(name)
    return stored && toFloat32(await readTensor(stored), stored.dtype)
  }
  const weights = new Map(weightsOf(item))
  for (const { layers } of quantizeSteps(configOf(item) as UnetConfig)) {
    for (const { path, n, k, taps } of layers) {
      const codes = tensors.get(`${path}.weight.q4`)!
      const scales = new Uint16Array((await readTensor(tensors.get(`${path}.weight.scales`)!)).buffer)
      const group = codes.shape[2] * 2
      const matrix = dequantizeGroups({ codes: await readTensor(codes), scales }, { bits: 4, group, n, k })
      const [down, up] = [(await floats(`${path}.weight.down`))!, (await floats(`${path}.weight.up`))!]
      const rank = down.length / k
      const channels = k / taps
      const [columns, rows] = [vectors.get(`${path}.weight.input_scale`), vectors.get(`${path}.weight.output_scale`)]
      const weight = Float32Array.from(matrix, (_, i) => {
        const [row, rest] = [Math.floor(i / k), i % k]
        const at = (rest % taps) * channels + Math.floor(rest / taps) // the taps come first in the file
        let sum = matrix[row * k + at]
        for (let r = 0; r < rank; r++) sum += up[row * rank + r] * down[r * k + at]
        return sum / ((columns?.[at] ?? 1) * (rows?.[row] ?? 1))
      })
      weights.set(`${path}.weight`, weight)
    }
  }
  return weights
}
