import { Graph } from '../../models/graph/graph.ts'
import { toOnnx } from '../../models/graph/onnx.ts'
import type { MatMul } from '../../models/quantize/algebra.ts'
import { openSession, type Session } from './networks.ts'

/** Which of the factors are turned: a, b. */
const kinds = ['00', '01', '10', '11'] as const
type Kind = (typeof kinds)[number]

export type RuntimeMatMul = { matMul: MatMul; release(): Promise<void> }

/** Matrix products of any size by ONNX Runtime: one Gemm for each way of turning the factors, over all cores. */
export async function openMatMul(threads: number): Promise<RuntimeMatMul> {
  const open = new Map<Kind, Session>()
  for (const kind of kinds) open.set(kind, await openSession(gemmGraph(kind), { provider: 'cpu', threads }))
  return {
    async matMul(a, aShape, b, bShape, { transposeA = false, transposeB = false } = {}) {
      const session = open.get(`${transposeA ? 1 : 0}${transposeB ? 1 : 0}`)
      if (!session) throw new Error('the products are closed')
      const { c } = await session.run({ a: { data: a, shape: aShape }, b: { data: b, shape: bShape } })
      return c.data
    },
    async release() {
      for (const session of open.values()) await session.release()
      open.clear()
    },
  }
}

function gemmGraph(kind: Kind): Uint8Array {
  const graph = new Graph('product', { dialect: 'cpu' })
  const a = graph.input('a', 'f32', [null, null])
  const b = graph.input('b', 'f32', [null, null])
  const attributes = { transA: Number(kind[0]), transB: Number(kind[1]) }
  graph.output('c', graph.node('Gemm', [a, b], { type: 'f32', shape: [null, null] }, { attributes }))
  return toOnnx(graph)
}
