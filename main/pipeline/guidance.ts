import type { LoadedGuidance } from './adapter-types.ts'
import { stack, tensor, type FloatTensor } from './tensor.ts'

// Guidance distillation (Jensen and Sadat 2025; methods.md, section 2): a small attention beside each attention to the text
// stands in for the second evaluation of classifier-free guidance, at any scale it was trained for.

/** What a guidance adapter does with what was asked for. */
export type DistilledGuidance = {
  notices: string[]
  /** The network's inputs for a run over these pictures with t tokens of text each. */
  inputs(pictures: readonly number[], tokens: number): Record<string, FloatTensor>
}

export type GuidanceWishes = {
  /** Of each picture. */
  scales: readonly number[]
  rescale: number
  hasNegativePrompt: boolean
}

/** Guidance by `adapter`: one evaluation a step, with the scale, kept within what it was trained for, as a token. */
export function distilledGuidance(adapter: LoadedGuidance, wishes: GuidanceWishes): DistilledGuidance {
  const { name, width, guidanceRange } = adapter
  const [least, most] = guidanceRange
  const notices: string[] = []
  const scales = wishes.scales.map((scale) => Math.min(Math.max(scale, least), most))
  for (const [i, scale] of wishes.scales.entries()) {
    if (scale === scales[i]) continue
    const notice = `"${name}" was trained for guidance ${least} to ${most}: ${scale} became ${scales[i]}.`
    if (!notices.includes(notice)) notices.push(notice)
  }
  if (wishes.hasNegativePrompt) {
    notices.push(
      `The negative prompt has no effect with "${name}", which was trained without one; guidance without it has.`,
    )
  }
  if (wishes.rescale > 0) notices.push(`Guidance rescale has no effect with "${name}".`)
  const tokens = scales.map((scale) => tensor(adapter.tokenOf(scale), [1, width]))
  const positions = new Map<number, FloatTensor>()
  const batches = new Map<string, FloatTensor>()
  return {
    notices,
    inputs(pictures, textTokens) {
      const rows = pictures.join()
      const token = batches.get(rows) ?? stack(pictures.map((picture) => tokens[picture]))
      batches.set(rows, token)
      // One place for the scale and one for the timestep go before those of the text.
      const places = positions.get(textTokens) ?? sinusoids(textTokens + 2, width)
      positions.set(textTokens, places)
      return { ...adapter.inputs, 'guidance.token': token, 'guidance.positions': places }
    },
  }
}

/** Positions [count, width] as sines (first half) and cosines of frequencies from 1 down to nearly 1/10000. */
function sinusoids(count: number, width: number): FloatTensor {
  const half = width / 2
  const data = new Float32Array(count * width)
  for (let place = 0; place < count; place++) {
    for (let i = 0; i < half; i++) {
      const angle = place / 10000 ** (i / half)
      data[place * width + i] = Math.sin(angle)
      data[place * width + half + i] = Math.cos(angle)
    }
  }
  return tensor(data, [count, width])
}
