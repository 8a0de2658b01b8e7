import { groupOf } from '../../kernels/int4.ts'
import { requiredTensors } from '../build.ts'
import type { UnetConfig } from '../unet.ts'

/** How one layer of a UNet is kept. */
export type LayerPlan = {
  /** Its name without `.weight`. */
  path: string
  /** Outputs. */
  n: number
  /** Inputs; 9 · channels for a 3 × 3 convolution, in the order (ky, kx, channel). */
  k: number
  taps: 1 | 9
  bits: 4 | 8
  group: 32 | 64
  /** Of the low-rank branch; 0 for none. */
  rank: number
}

/** Who divides by a smoothing vector on behalf of the layers that read it: a norm, or the first rows of another layer. */
export type Smoother = { norm: string } | { layer: string; rows: number }

/** Layers that read the same input and are quantised together. */
export type QuantizeStep = {
  layers: LayerPlan[]
  /** How the fast mode quantises that input: straight from a norm or into an im2col with one scale, else one per row. */
  activations: 'tensor' | 'token'
  /** Absent: these layers are not smoothed. */
  smoother?: Smoother
}

/** Layers at the rim and whatever is not a matrix stay as they are. */
const untouched = /^conv_in$|^conv_out$|norm/
/**
 * Few weights, or few tokens, or much at stake: 8 bits without a branch. In the starter's pictures 4 bits for proj_in and
 * proj_out cost 1.4 dB and for the text's keys and values 0.5 dB; for time_emb_proj, which has as many weights as these,
 * nothing.
 */
const careful = /attn2\.to_[kv]$|proj_in$|proj_out$|conv_shortcut$|time_embedding\.|add_embedding\./

/**
 * The layers to quantise and how, in an order in which whoever reads a smoothed input comes before the layer that
 * makes it: the smoothing vector of `ff.net.2` has to be known when `ff.net.0.proj` is quantised. Everything that is
 * not listed stays F16.
 */
export function quantizeSteps(config: UnetConfig): QuantizeStep[] {
  const plans = new Map<string, LayerPlan>()
  for (const [name, shape] of requiredTensors('unet', config)) {
    const path = name.replace(/\.weight$/, '')
    if (path === name || shape.length < 2 || untouched.test(path)) continue
    plans.set(path, planOf(path, shape))
  }

  const steps: QuantizeStep[] = []
  const take = (paths: string[], activations: 'tensor' | 'token', smoother?: Smoother) => {
    const layers = paths.map((path) => {
      const plan = plans.get(path)
      if (!plan) throw new Error(`${path}: no such layer`)
      plans.delete(path)
      return plan
    })
    steps.push({ layers, activations, ...(smoother ? { smoother } : {}) })
  }
  for (const path of [...plans.keys()]) {
    if (!plans.has(path)) continue
    const block = /^(.*\.transformer_blocks\.\d+)\./.exec(path)?.[1]
    if (block) transformerSteps(block, plans, take)
    else if (path.endsWith('.proj_in')) take([path], 'tensor', { norm: path.replace(/proj_in$/, 'norm') })
    else take([path], plans.get(path)?.taps === 9 ? 'tensor' : 'token')
  }
  return steps
}

/** One BasicTransformerBlock, from its end to its start. */
function transformerSteps(
  block: string,
  plans: ReadonlyMap<string, LayerPlan>,
  take: (paths: string[], activations: 'tensor' | 'token', smoother?: Smoother) => void,
): void {
  const at = (name: string) => `${block}.${name}`
  const inputs = (path: string) => plans.get(path)?.k ?? 0
  take([at('ff.net.2')], 'token', { layer: at('ff.net.0.proj'), rows: inputs(at('ff.net.2')) }) // the value half
  take([at('ff.net.0.proj')], 'tensor', { norm: at('norm3') })
  for (const attention of ['attn2', 'attn1']) {
    const project = (name: string) => at(`${attention}.${name}`)
    // Attention mixes tokens, not channels: a channel of to_out's input is a channel of to_v's output.
    const out = project('to_out.0')
    take([out], 'token', { layer: project('to_v'), rows: inputs(out) })
    if (attention === 'attn1') take(['to_q', 'to_k', 'to_v'].map(project), 'tensor', { norm: at('norm1') })
    else {
      take([project('to_q')], 'tensor', { norm: at('norm2') })
      take(['to_k', 'to_v'].map(project), 'token') // they read the text, which no layer here makes
    }
  }
}

function planOf(path: string, shape: readonly number[]): LayerPlan {
  const [n, channels, height = 1, width = 1] = shape
  const taps = height * width === 9 ? 9 : 1
  const k = channels * taps
  const bits = careful.test(path) ? 8 : 4
  return { path, n, k, taps, bits, group: groupOf(k), rank: bits === 8 ? 0 : rankOf(path, n, k, taps) }
}

/**
 * 32 for wide linears, 16 for 320-wide ones and for convolutions, 8 for shifts by the time, less where the branch would
 * outweigh the codes.
 */
function rankOf(path: string, n: number, k: number, taps: number): number {
  const most = path.endsWith('time_emb_proj') ? 8 : taps === 9 || k < 640 ? 16 : 32
  const fitting = (2 * n * k) / (16 * (n + k)) // 2 bits per weight
  return Math.max(4, Math.min(most, 4 * Math.round(fitting / 4)))
}

/** Bytes of a layer in the file, without its bias. */
export function layerBytes({ n, k, bits, group, rank }: LayerPlan): number {
  const groups = Math.ceil(k / group)
  return n * groups * ((group * bits) / 8 + 2) + 2 * rank * (n + k)
}
