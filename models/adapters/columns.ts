import { toColumns, type Columns } from '../../kernels/columns.ts'

/** An adapter's `down` [r, k] as the bytes that a slot over bytes takes: columns [k, r], scales [r]; see kernels/slot.ts. */
export function adapterColumns(down: Float32Array, r: number): Columns {
  return toColumns(down, { n: r, k: down.length / r })
}
