import { isFile, readSafetensors, readTensor, writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import type { WorkFolder } from '../../models/checkpoint/work-folder.ts'
import type { Calibration } from './calibration.ts'
import type { Inputs } from './quantize-pieces.ts'

/** The calibration of an interrupted run, or a new one, which is kept for the next: it must be the same to the bit. */
export async function keptCalibration(
  work: WorkFolder,
  path: string,
  record: () => Promise<Calibration>,
): Promise<Calibration> {
  const kept = work.finished('calibration') as { side: number; steps: number; rows: number } | undefined
  if (kept && (await isFile(path))) {
    const rows: Inputs[] = Array.from({ length: kept.rows }, () => ({}))
    for (const [name, tensor] of (await readSafetensors(path)).tensors) {
      const [row, input] = name.split('.')
      const bytes = await readTensor(tensor)
      rows[Number(row)][input] = { data: new Float32Array(bytes.buffer), shape: tensor.shape }
    }
    return { ...kept, rows }
  }
  const made = await record()
  const values = new Map<string, Inputs[string]>()
  for (const [i, row] of made.rows.entries())
    for (const [input, value] of Object.entries(row)) values.set(`${i}.${input}`, value)
  const planned = [...values].map(([name, { shape }]) => ({ name, dtype: 'F32' as const, shape: [...shape] }))
  await writeSafetensors(path, planned, ({ name }) => {
    const { buffer, byteOffset, byteLength } = values.get(name)!.data
    return [new Uint8Array(buffer, byteOffset, byteLength)]
  })
  await work.record({ step: 'calibration', value: { side: made.side, steps: made.steps, rows: made.rows.length } })
  return made
}
