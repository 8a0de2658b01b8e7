import { readSafetensors, readTensor, writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { PlannedTensor } from '../../models/checkpoint/safetensors.ts'

export type Edited = Map<string, PlannedTensor & { bytes: Uint8Array }>

/** Copies a small checkpoint with its tensors changed at will. */
export async function editCheckpoint(
  source: string,
  target: string,
  edit: (tensors: Edited) => void,
  metadata: Record<string, string> = {},
): Promise<string> {
  const file = await readSafetensors(source)
  const tensors: Edited = new Map()
  for (const [name, tensor] of file.tensors)
    tensors.set(name, { name, dtype: tensor.dtype, shape: tensor.shape, bytes: await readTensor(tensor) })
  edit(tensors)
  const planned = [...tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape }))
  await writeSafetensors(target, planned, ({ name }) => [tensors.get(name)!.bytes], metadata)
  return target
}

/** A tensor of that many equal values in float32. */
export function filled(name: string, shape: number[], value: number): PlannedTensor & { bytes: Uint8Array } {
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(value)
  return { name, dtype: 'F32', shape, bytes: new Uint8Array(values.buffer) }
}
