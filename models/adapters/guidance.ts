import { VignetteError } from '../errors.ts'

// The numbers of a guidance-distillation adapter as its graph takes them (models/guidance.ts); layout in types.ts.

type Numbers = { data: Float32Array; shape: number[] }

export type GuidanceNumbers = {
  /** By the names of the graph's inputs: `guidance.time`, `guidance.text`, `<site>.agd.q` with 1 / √h in it, … */
  inputs: Record<string, Numbers>
  /** The token of a guidance scale w: LayerNorm(linear_2(relu(linear_1(cos(2π(f·w + φ)))))), [h]. */
  tokenOf(guidanceScale: number): Float32Array
}

/** `tensors` are those of the file; `sites` the attentions of the network. Throws `adapter-mismatch` naming what is missing. */
export function guidanceNumbers(
  width: number,
  sites: readonly string[],
  tensors: ReadonlyMap<string, Numbers>,
): GuidanceNumbers {
  const h = width
  const get = (name: string): Numbers => {
    const found = tensors.get(name)
    if (found) return found
    throw new VignetteError('adapter-mismatch', `This guidance adapter has no "${name}".`, {
      hint: 'It was made for another model, or the file is not whole.',
    })
  }
  const inputs: Record<string, Numbers> = { 'guidance.time': get('time.weight'), 'guidance.text': get('text.weight') }
  for (const site of sites) {
    const q = get(`sites.${site}.to_q.weight`)
    inputs[`${site}.agd.q`] = { ...q, data: q.data.map((value) => value / Math.sqrt(h)) }
    inputs[`${site}.agd.k`] = get(`sites.${site}.to_k.weight`)
    inputs[`${site}.agd.v`] = get(`sites.${site}.to_v.weight`)
    inputs[`${site}.agd.out`] = get(`sites.${site}.to_out.weight`)
    inputs[`${site}.agd.bias`] = get(`sites.${site}.to_out.bias`)
  }
  const [frequencies, phases] = [get('guidance.frequencies').data, get('guidance.phases').data]
  const layer = (name: string, x: Float64Array): Float64Array => {
    const [weight, bias] = [get(`${name}.weight`).data, get(`${name}.bias`).data]
    return Float64Array.from(bias, (start, row) => {
      let sum = start
      for (let i = 0; i < x.length; i++) sum += weight[row * x.length + i] * x[i]
      return sum
    })
  }
  const norm = { weight: get('guidance.norm.weight').data, bias: get('guidance.norm.bias').data }
  return {
    inputs,
    tokenOf(guidanceScale) {
      const waves = Float64Array.from(frequencies, (f, i) => Math.cos(2 * Math.PI * (f * guidanceScale + phases[i])))
      const hidden = layer('guidance.linear_1', waves).map((value) => Math.max(0, value))
      const out = layer('guidance.linear_2', hidden)
      const mean = out.reduce((sum, value) => sum + value, 0) / h
      const variance = out.reduce((sum, value) => sum + (value - mean) ** 2, 0) / h
      const scale = 1 / Math.sqrt(variance + 1e-5)
      return Float32Array.from(out, (value, i) => (value - mean) * scale * norm.weight[i] + norm.bias[i])
    },
  }
}
