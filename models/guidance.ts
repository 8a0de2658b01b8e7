import type { Graph, Value } from './graph/graph.ts'
import { knownDim } from './graph/graph.ts'
import { add, cast, concat, gemm, matMul, reshape, reshapeTo, softmax, transpose } from './graph/ops.ts'
import { sizesOf } from './graph/sizes.ts'

// Guidance distillation (Jensen and Sadat 2025): beside each attention to the text a small one looks at a token of the
// guidance scale, one of the timestep and those of the prompt, and its output is added. One evaluation then stands in for
// the two of classifier-free guidance. All weights are inputs: another adapter of the same width needs no other session.

/** What every site looks at: [n, s, h] and as rows [n · s, h]. */
export type GuidanceTokens = { rows: Value; width: number }

/**
 * Inputs `guidance.token` [n, 1, h] (made of the scale outside), `guidance.time` [h, temb], `guidance.text` [h, d] and
 * `guidance.positions` [s, h]; temb [n, e] is the embedding of the timestep before its SiLU, context [n · t, d] the text.
 */
export function guidanceTokens(
  graph: Graph,
  temb: Value,
  context: Value,
  sample: Value,
  width: number,
): GuidanceTokens {
  const input = (name: string, shape: (number | string | null)[]) =>
    cast(graph.input(`guidance.${name}`, 'f32', shape), graph.computeType)
  const scale = input('token', ['n', 1, width])
  const time = gemm(temb, input('time', [width, knownDim('guidance', temb, 1)]), undefined, { transB: true })
  const text = gemm(context, input('text', [width, knownDim('guidance', context, 1)]), undefined, { transB: true })
  const perPicture = (rows: Value) => reshapeTo(rows, sizesOf(sample, [0], -1, width), [sample.shape[0], null, width])
  const tokens = add(concat([scale, perPicture(time), perPicture(text)], 1), input('positions', [null, width]))
  return { rows: reshape(tokens, [-1, width]), width }
}

/**
 * One site: rows x [n · t, c] as the attention at `path` reads them -> what is added to its output, [n · t, c]. Inputs
 * `<path>.agd.q` [h, c] (1 / √h is in it), `.k` and `.v` [h, h], `.out` [c, h], `.bias` [c].
 */
export function guidanceSite(path: string, x: Value, { rows, width }: GuidanceTokens, sample: Value): Value {
  const { graph } = x
  const c = knownDim(path, x, 1)
  const input = (name: string, ...shape: number[]) =>
    cast(graph.input(`${path}.agd.${name}`, 'f32', shape), graph.computeType)
  const project = (value: Value, name: string, from: number) =>
    gemm(value, input(name, width, from), undefined, { transB: true, name: `${path}.agd.${name}` })
  const split = (value: Value) => reshapeTo(value, sizesOf(sample, [0], -1, width), [sample.shape[0], null, width])
  const [q, k, v] = [project(x, 'q', c), project(rows, 'k', width), project(rows, 'v', width)].map(split)
  const mixed = reshape(matMul(softmax(matMul(q, transpose(k, [0, 2, 1]))), v), [-1, width])
  return gemm(mixed, input('out', c, width), input('bias', c), { transB: true, name: `${path}.agd.out` })
}
