import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { bytesPerElement } from '../checkpoint/dtypes.ts'
import { readSafetensors, readTensor, writeSafetensors } from '../checkpoint/safetensors.ts'
import type { SafetensorsFile } from '../checkpoint/safetensors.ts'

const path = 'text_model.embeddings.token_embedding'

/**
 * Writes the plain text encoder of a packed one. The packed file keeps only the embedding rows of words the model was
 * trained on: `rows` [k, d], their token ids `row_ids` [k] i32, and one row `unknown` [d] for all others. Other tensors
 * are copied. A file without a packed embedding is copied as it is.
 */
export async function unpackEmbedding(folder: string, target: string): Promise<void> {
  const file = await readSafetensors(join(folder, 'model.safetensors'))
  const { vocab_size: vocabulary } = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as { vocab_size: number }
  const rows = file.tensors.get(`${path}.rows`)
  const plain = [...file.tensors].filter(([name]) => !name.startsWith(`${path}.`) || name === `${path}.weight`)
  const planned = plain.map(([name, { dtype, shape }]) => ({ name, dtype, shape }))
  if (rows) planned.push({ name: `${path}.weight`, dtype: rows.dtype, shape: [vocabulary, rows.shape[1]] })
  await writeSafetensors(target, planned, async function* ({ name }) {
    yield rows && name === `${path}.weight` ? await expand(file, vocabulary) : await readTensor(tensorOf(file, name))
  })
}

/** [vocabulary, d] bytes: every row the unknown one, except those that are listed. */
async function expand(file: SafetensorsFile, vocabulary: number): Promise<Uint8Array> {
  const rows = tensorOf(file, `${path}.rows`)
  const ids = tensorOf(file, `${path}.row_ids`)
  const unknown = tensorOf(file, `${path}.unknown`)
  const rowBytes = rows.shape[1] * bytesPerElement[rows.dtype]
  if (ids.dtype !== 'I32' || ids.shape[0] !== rows.shape[0] || unknown.length !== rowBytes) throw new Error('the packed embedding is inconsistent')
  const [known, idBytes, other] = await Promise.all([readTensor(rows), readTensor(ids), readTensor(unknown)])
  const out = new Uint8Array(vocabulary * rowBytes)
  for (let i = 0; i < vocabulary; i++) out.set(other, i * rowBytes)
  const view = new DataView(idBytes.buffer, idBytes.byteOffset)
  for (let k = 0; k < rows.shape[0]; k++) {
    const id = view.getInt32(4 * k, true)
    if (id < 0 || id >= vocabulary) throw new Error(`the packed embedding names token ${id} of ${vocabulary}`)
    out.set(known.subarray(k * rowBytes, (k + 1) * rowBytes), id * rowBytes)
  }
  return out
}

function tensorOf(file: SafetensorsFile, name: string) {
  const tensor = file.tensors.get(name)
  if (!tensor) throw new Error(`the packed text encoder has no ${name}`)
  return tensor
}
