import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Graph } from '../../models/graph/graph.ts'
import { toOnnx } from '../../models/graph/onnx.ts'
import type { MatMul } from '../../models/quantize/algebra.ts'
import { openSession, type Session } from './networks.ts'

/** Which of the factors are turned: a, b. */
const kinds = ['00', '01', '10', '11'] as const
type Kind = (typeof kinds)[number]

export type RuntimeMatMul = { matMul: MatMul; release(): Promise<void> }

/** Results beyond this are made in stripes: ONNX Runtime keeps a second copy of the largest it ever made. */
const stripeBytes = 16e6

/** Matrix products of any size by ONNX Runtime: one Gemm for each way of turning the factors, over all cores. */
export async function openMatMul(threads: number): Promise<RuntimeMatMul> {
  const open = new Map<Kind, Session>()
  for (const kind of kinds) open.set(kind, await openSession(gemmGraph(kind), { provider: 'cpu', threads }))
  const collect = garbageCollector()

  const product: MatMul = async (a, aShape, b, bShape, { transposeA = false, transposeB = false } = {}) => {
    const session = open.get(`${transposeA ? 1 : 0}${transposeB ? 1 : 0}`)
    if (!session) throw new Error('the products are closed')
    return (await session.run({ a: { data: a, shape: aShape }, b: { data: b, shape: bShape } })).c.data
  }
  return {
    async matMul(a, aShape, b, bShape, options = {}) {
      collect.after(a.byteLength + b.byteLength)
      const [rows, inner] = aShape
      const columns = bShape[options.transposeB ? 0 : 1]
      const step = Math.max(1, Math.floor(stripeBytes / (4 * columns)))
      if (options.transposeA || rows <= step) return product(a, aShape, b, bShape, options)
      const out = new Float32Array(rows * columns)
      for (let first = 0; first < rows; first += step) {
        const count = Math.min(step, rows - first)
        const stripe = a.subarray(first * inner, (first + count) * inner)
        out.set(await product(stripe, [count, inner], b, bShape, options), first * columns)
      }
      return out
    },
    async release() {
      for (const session of open.values()) await session.release()
      open.clear()
    },
  }
}

/** Large products are a sign of large arrays that were just let go. */
const collectAfterBytes = 400e6

/**
 * Node counts on spare memory and lets hundreds of megabytes of dead arrays lie. Here they are cleared away each time
 * so many bytes have been worked on; that takes some milliseconds, since nothing else lives in this process.
 */
function garbageCollector() {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  setFlagsFromString('--no-expose-gc')
  let bytes = 0
  return {
    after(more: number) {
      bytes += more
      if (bytes < collectAfterBytes) return
      bytes = 0
      collect()
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
